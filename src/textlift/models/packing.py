"""Batches without padding: inside the repeated layers the tokens of all texts lie in one row, one text after another.

    outside the layers    (B, L, D)    a text to a row, padded on the right to the longest
    inside                (1, T, D)    T tokens of B texts; attention sees the offsets where each text begins

The first layer's input is packed and the last layer's output unpacked by hooks, so embeddings, pooling, head and
whatever a method puts around them work on padded batches as ever. Attention is torch's kernel for texts of unequal
length (FlashAttention, torch.nn.attention.varlen), reached through transformers' table of attention functions.

It is taken only where a trial on the device itself agrees with the padded way: see `use_packing`. Where it is not,
the classifier's `packing` says why. Does not know training or recipes.

Source:
    Krell et al. (2021), Efficient Sequence Packing without Cross-contamination, section 3.2.4 (attention per text).
"""

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from textlift.runtime import Runtime

ATTENTION = "textlift_packed"
_MULTIPLE = 64  # T is rounded up to this, so that matrix products have few and even shapes
_WIDEST_HEAD = 256  # of FlashAttention
_TRIED_LENGTHS, _TRIED_WEIGHTS = (3, 14, 9), 8
_AS_EXACT, _ROUNDING = 2.0, 0.01  # packed may be so many times as far from fp32 as padded is, and a hundredth
_MISSING = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, ImportError)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packing:
    """Where the tokens of a padded batch (B, L) lie in its packed row (1, T).

    Args:
        shape: B and L.
        places: Of each packed token in the padded batch, row by row, (T,); the last ones, beyond the tokens of the
            texts, repeat the first token and are a text of their own, which nobody reads.
        columns: Of each packed token in its row, (T,).
        offsets: Where each text begins and the last one ends, int32.
        longest: Tokens of the longest text, rounded up to a power of two and to 64: few values, so that few graphs are
            compiled.
        tokens: Of the texts.
        is_causal: Whether a token sees only those before it.
    """

    shape: tuple[int, int]
    places: torch.Tensor
    columns: torch.Tensor
    offsets: torch.Tensor
    longest: int
    tokens: int
    is_causal: bool
    _tables: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def pack(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, L, D) to (1, T, D)."""
        return hidden.flatten(0, 1).index_select(0, self.places)[None]

    def unpack(self, hidden: torch.Tensor) -> torch.Tensor:
        """(1, T, D) to (B, L, D), zero where padding was."""
        rows, columns = self.shape
        empty = hidden.new_zeros(rows * columns, hidden.shape[-1])
        return empty.index_copy(0, self.places[: self.tokens], hidden[0, : self.tokens]).view(rows, columns, -1)

    def pack_table(self, table: torch.Tensor) -> torch.Tensor:
        """Sines or cosines of positions, (1 or B, L, E), to (1, T, E); each layer is given the same."""
        if id(table) not in self._tables:  # the table is kept beside, so that no other takes its id
            packed = table[0].index_select(0, self.columns)[None] if len(table) == 1 else self.pack(table)
            self._tables[id(table)] = table, packed
        return self._tables[id(table)][1]


def packing_of(attention_mask: torch.Tensor, *, device: torch.device | str, is_causal: bool) -> Packing:
    """How a batch is packed, on the device.

    Args:
        attention_mask: (B, L), padded on the right; on the CPU, else the device is waited for.
        device: Of the hidden states.
        is_causal: Whether a token sees only those before it.
    """
    mask = attention_mask.cpu().bool()
    lengths = mask.sum(1)
    tokens = int(lengths.sum())
    filling = -tokens % _MULTIPLE
    places = mask.flatten().nonzero()[:, 0]
    places = torch.nn.functional.pad(places, (0, filling), value=int(places[0]))
    ends = [*lengths.cumsum(0).tolist(), *([tokens + filling] if filling else [])]
    longest = max(int(lengths.max()), _MULTIPLE)
    facts = torch.tensor([0, *ends], dtype=torch.int32), places, places % mask.shape[1]
    offsets, places, columns = (fact.to(device, non_blocking=True) for fact in facts)
    shape = (mask.shape[0], mask.shape[1])
    return Packing(shape, places, columns, offsets, 1 << (longest - 1).bit_length(), tokens, is_causal)


def no_mask(device: torch.device | str) -> torch.Tensor:
    """What a packed batch has for a mask: transformers takes one with four dimensions as it lies, and looks at none."""
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


def use_packing(classifier: Any, runtime: Runtime) -> None:
    """Let a classifier compute without padding where that is known to be right and agrees with padding here.

    Its `packs` then is true; else its `not_packed` says why. To be called again once a method has wrapped it. On a CPU
    its `groups` is true where its layers are those that may put texts of like length together (see `grouping`).

    The trial takes three short texts of random tokens through both ways, logits and the gradients of a few weights:
    the packed ones must be as near to those of fp32 as the padded ones are.
    """
    classifier.packs = False
    whole, layers = classifier.whole_layers, classifier.layers()
    classifier.groups = whole is not None and whole.are(layers) and not _is_fed(classifier.model)
    if classifier.groups:
        _let_in(layers)
    classifier.not_packed = _why_not(classifier, runtime)
    if classifier.not_packed:
        _remove(classifier)
        return
    try:
        _install(classifier)
        classifier.not_packed = _disagreement(classifier, runtime)
    except _MISSING as error:
        told = str(error).strip() or type(error).__name__
        classifier.not_packed = f"the trial failed: {told.splitlines()[0][:160]}"
    classifier.packs = not classifier.not_packed
    if not classifier.packs:
        _remove(classifier)
        logger.warning("Batches stay padded: %s.", classifier.not_packed)


def _why_not(classifier: Any, runtime: Runtime) -> str:
    """Why a classifier cannot be packed on this device; empty where it may be."""
    if not runtime.device.startswith("cuda"):
        return f"only a GPU has the kernel, not {runtime.device}"
    if runtime.precision != "bf16":
        return f"the kernel computes in bf16, not {runtime.precision}"
    if _varlen() is None:
        return f"torch {torch.__version__} has no attention for texts of unequal length; 2.10 has it"
    if not classifier.family.packs:
        return f"not known to be right for {classifier.family.model_type}"
    config = classifier.model.config
    kinds = getattr(config, "layer_types", None) or ()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    reasons = {
        "some of its layers see a window of the text": "sliding_attention" in kinds,
        f"its attention heads are wider than {_WIDEST_HEAD}": width > _WIDEST_HEAD,
        "the method feeds virtual tokens": _is_fed(classifier.model),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _is_fed(model: Any) -> bool:
    """Whether peft puts virtual tokens, or keys and values, before the text."""
    return any(getattr(config, "is_prompt_learning", False) for config in getattr(model, "peft_config", {}).values())


def _disagreement(classifier: Any, runtime: Runtime) -> str:
    """How packed batches differ from padded ones by more than rounding does; empty where they do not."""
    exact = _tried(classifier, replace(runtime, precision="fp32"), packs=False)
    padded, packed = (_tried(classifier, runtime, packs=way) for way in (False, True))
    for name, reference in exact.items():
        size = max(float(reference.norm()), 1e-12)
        rounded, found = (float((way[name] - reference).norm()) / size for way in (padded, packed))
        if not found <= _AS_EXACT * rounded + _ROUNDING:
            return f"its {name} would be {found:.1%} off, where padding and rounding make {rounded:.1%}"
    return ""


def _tried(classifier: Any, runtime: Runtime, *, packs: bool) -> dict[str, torch.Tensor]:
    """Logits and gradients of the trial, one way."""
    config = classifier.model.config
    generator = torch.Generator().manual_seed(0)
    rows, columns = len(_TRIED_LENGTHS), max(_TRIED_LENGTHS)
    pad = int(config.pad_token_id or 0)
    input_ids = torch.randint(int(config.vocab_size) - 1, (rows, columns), generator=generator)
    input_ids[input_ids >= pad] += 1  # any token but padding
    attention_mask = (torch.arange(columns) < torch.tensor(_TRIED_LENGTHS)[:, None]).long()
    classifier.eval()
    classifier.packs = packs
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad][:_TRIED_WEIGHTS]
    with torch.enable_grad(), runtime.autocast():
        logits = classifier(torch.where(attention_mask > 0, input_ids, pad), attention_mask)
    found = {"logits": logits.detach()}
    if trained:
        each = torch.autograd.grad(logits.square().sum(), trained, allow_unused=True, materialize_grads=True)
        found["gradients"] = torch.cat([gradient.flatten().float() for gradient in each])
    return found


def _install(classifier: Any) -> None:
    """Have the repeated layers take packed batches, beside padded ones; again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    attention: Any = AttentionInterface
    masks: Any = AttentionMaskInterface
    attention.register(ATTENTION, attend)
    masks.register(ATTENTION, sdpa_mask)  # for padded batches
    base = _base_of(classifier)
    if base.config._attn_implementation != ATTENTION:
        classifier.usual_attention = base.config._attn_implementation
        base.set_attn_implementation(ATTENTION)
    _let_in(classifier.layers())


def _let_in(layers: Sequence[Any]) -> None:
    """Pack the input of repeated layers and unpack their output where a pass asks for it; again changes nothing."""
    if getattr(layers[0], "takes_packed", False):
        return
    for layer in layers:
        layer.takes_packed = True
        layer.register_forward_pre_hook(_pack_tables, with_kwargs=True)
    layers[0].register_forward_pre_hook(_pack_input, with_kwargs=True)
    layers[-1].register_forward_hook(_unpack_output, with_kwargs=True)


def _remove(classifier: Any) -> None:
    """Back to padded batches alone, where it was installed; the hooks do nothing then."""
    if classifier.usual_attention:
        _base_of(classifier).set_attn_implementation(classifier.usual_attention)
        classifier.usual_attention = ""


def _base_of(classifier: Any) -> Any:
    model = classifier.model
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _pack_input(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
    packing: Packing | None = options.get("packing")
    if packing is None:
        return inputs, options
    if not inputs or tuple(inputs[0].shape[:2]) != packing.shape:
        raise ValueError(f"the first layer must be given hidden states {packing.shape}, as they were to be packed.")
    return (packing.pack(inputs[0]), *inputs[1:]), options


def _pack_tables(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, Any]:
    packing: Packing | None = options.get("packing")
    tables = options.get("position_embeddings")
    if packing is not None and tables is not None:
        options = {**options, "position_embeddings": tuple(packing.pack_table(table) for table in tables)}
    return inputs, options


def _unpack_output(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any) -> Any:  # noqa: ARG001 - their form
    packing: Packing | None = options.get("packing")
    if packing is None:
        return output
    return (packing.unpack(output[0]), *output[1:]) if isinstance(output, tuple) else packing.unpack(output)


def attend(  # noqa: PLR0917 - the form of transformers' table
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packing: Packing | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention (1, T, H, E) of packed queries (1, H, T, E), keys and values; padded batches go to torch's usual one.

    Raises:
        ValueError: Dropout of attention weights is asked for; the kernel has none.
    """
    if packing is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        usual: Any = sdpa_attention_forward
        padded: tuple[torch.Tensor, None] = usual(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
        return padded
    if dropout:
        raise ValueError(f"dropout of attention weights must be 0 in packed batches; found {dropout:g}.")
    width = query.shape[-1]
    if scaling is not None and scaling != width**-0.5:
        query = query * (scaling * width**0.5)  # the kernel's own is 1 / sqrt(E)
    rows = [states[0].transpose(0, 1).to(value.dtype) for states in (query, key, value)]
    shared = rows[0].shape[1] // rows[1].shape[1]
    if shared > 1:
        rows[1:] = (states.repeat_interleave(shared, dim=1) for states in rows[1:])
    return attend_each(rows, packing)[None], None


def attend_each(states: Sequence[torch.Tensor], packing: Packing) -> torch.Tensor:
    """Attention (T, H, E) of each text to itself, of queries, keys and values (T, H, E) in bf16."""
    kernel, causal = _varlen() or (None, {})
    assert kernel is not None  # else nothing is packed
    bounds = (packing.offsets, packing.offsets, packing.longest, packing.longest)
    attended: torch.Tensor = kernel(*states, *bounds, **(causal if packing.is_causal else {}))
    return attended


@lru_cache
def _varlen() -> tuple[Any, dict[str, Any]] | None:
    """The kernel of torch and how it is told that a token sees only those before it, or None where torch is too old."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    takes_window = "window_size" in inspect.signature(varlen_attn).parameters  # torch 2.10 takes is_causal
    return varlen_attn, {"window_size": (-1, 0)} if takes_window else {"is_causal": True}
