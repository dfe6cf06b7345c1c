"""Which layers of transformers can run as one function (see `layer_function`), and where their parts are. One table.

Modules keep their parameters, names and parent class; a layer that is built or called in a way that the function does
not serve (weights of the base that train, other adapters, hooks inside, dropout at work, other masks) runs its parent's
forward.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from textlift.models.attention import HAS_KERNEL, Form, Mask
from textlift.models.families import FAMILIES
from textlift.models.grouping import Groups, Masks
from textlift.models.kernels import FusedTanhGELU, part_of
from textlift.models.layer_function import Plan, run_layer
from textlift.models.products import Part
from textlift.models.rounded_layer import RoundedLayer, run_rounded
from textlift.runtime import ONEDNN, Runtime

PACKING = "packing"  # the option of a layer whose rows lie in groups
# A layer does nothing with these, or takes no arithmetic from them.
_UNREAD = {"position_ids", "use_cache", "output_hidden_states", "return_dict", PACKING}


@dataclass(frozen=True)
class Layout:
    """Where the parts of a layer are, as paths of module names.

    Args:
        linear: Query, key, value, output of attention, up, down.
        norms: After attention, after the MLP.
        activation: Between up and down.
        dropouts: Of attention weights, hidden states.
        attention: Holds head size and scale.
        around: Modules that hold the others.
        tail: The part that is needed at the pooled position alone, which may have the hooks of `last_layer`.
    """

    linear: tuple[tuple[str, ...], ...]
    norms: tuple[tuple[str, ...], ...]
    activation: tuple[str, ...]
    dropouts: tuple[tuple[str, ...], ...]
    attention: tuple[str, ...]
    around: tuple[tuple[str, ...], ...]
    tail: tuple[str, ...]


def _path(name: str) -> tuple[str, ...]:
    return tuple(name.split("."))


def _paths(*names: str) -> tuple[tuple[str, ...], ...]:
    return tuple(_path(name) for name in names)


_BERT = Layout(
    linear=_paths(*FAMILIES["bert"].linear_layers),
    norms=_paths("attention.output.LayerNorm", "output.LayerNorm"),
    activation=_path("intermediate.intermediate_act_fn"),
    dropouts=_paths("attention.self.dropout", "attention.output.dropout", "output.dropout"),
    attention=_path("attention.self"),
    around=_paths("attention", "attention.self", "attention.output", "intermediate", "output"),
    tail=_path(FAMILIES["bert"].tail),
)
_DISTILBERT = Layout(
    linear=_paths(*FAMILIES["distilbert"].linear_layers),
    norms=_paths("sa_layer_norm", "output_layer_norm"),
    activation=_path("ffn.activation"),
    dropouts=_paths("attention.dropout", "ffn.dropout"),
    attention=_path("attention"),
    around=_paths("attention", "ffn"),
    tail=_path(FAMILIES["distilbert"].tail),
)
LAYOUTS: dict[str, Layout] = {
    "transformers.models.bert.modeling_bert.BertLayer": _BERT,
    "transformers.models.roberta.modeling_roberta.RobertaLayer": _BERT,
    "transformers.models.xlm_roberta.modeling_xlm_roberta.XLMRobertaLayer": _BERT,
    "transformers.models.camembert.modeling_camembert.CamembertLayer": _BERT,
    "transformers.models.electra.modeling_electra.ElectraLayer": _BERT,
    "transformers.models.distilbert.modeling_distilbert.TransformerBlock": _DISTILBERT,
}
"""Layer classes of transformers, exactly these and no subclass."""


class WholeLayers:
    """What the layers of one model share: the masks of a pass and, while `settled`, what they are made of."""

    def __init__(self) -> None:
        self.settled: dict[int, _Made | None] | None = None
        self._masks: dict[tuple[Form, int], tuple[torch.Tensor | None, Mask]] = {}

    @staticmethod
    def are(layers: Iterable[Any]) -> bool:
        """Whether all of these layers are of the classes of this file."""
        return all(type(layer) in _CLASSES.values() for layer in layers)

    @staticmethod
    def take_groups(layers: Iterable[Any]) -> bool:
        """Whether each of these layers would run as one function in fp32 now, which alone knows rows in groups."""
        made = [None if "forward" in vars(layer) else _looked_at(layer) for layer in layers]  # not where compiled
        return all(one is not None and one.copies is None for one in made)

    def forget(self) -> None:
        """Look at every layer again: its mode has changed."""
        if self.settled is not None:
            self.settled = {}

    def mask_of(self, seen: torch.Tensor | None, form: Form, queries: int) -> Mask:
        """See `Mask`; that of the last call with this form, if it was for the same tensor."""
        kept, mask = self._masks.get((form, queries), (None, None))
        if mask is None or kept is not seen:
            if len(self._masks) > 1:  # all queries, and the first alone
                self._masks.clear()
            mask = Mask(seen, form, queries)
            self._masks[form, queries] = seen, mask
        return mask


def use_whole_layers(module: nn.Module, runtime: Runtime) -> WholeLayers | None:
    """Give every encoder layer inside a module that is known here the forward of this file.

    Returns:
        What they share; None where linear layers are torch's (see `kernels`) or this torch lacks the attention of
        `attention`, and nothing is changed.
    """
    if runtime.linear_kernel != ONEDNN or not HAS_KERNEL:
        return None
    layers: list[Any] = list(module.modules())
    shared = next((layer.shared for layer in layers if type(layer) in _CLASSES.values()), None) or WholeLayers()
    for layer in layers:
        name = f"{type(layer).__module__}.{type(layer).__qualname__}"
        if name in LAYOUTS:
            layer.__class__ = _whole(name)
            layer.shared = shared
    return shared


@contextmanager
def settled(shared: WholeLayers | None) -> Iterator[None]:
    """While open, layers are looked at once and not at every pass: adapters come, go and change kind only outside.

    Weights may change in place; a change of mode is told by `WholeLayers.forget`.
    """
    if shared is None:
        yield
        return
    before, shared.settled = shared.settled, {}
    try:
        yield
    finally:
        shared.settled = before


@dataclass(frozen=True)
class _Made:
    """What a layer is made of, whatever passes through."""

    linear: tuple[Part, ...]
    norms: tuple[tuple[torch.Tensor, torch.Tensor, float], ...]  # weight (D,), bias (D,), epsilon
    heads: int
    scale: float
    approximate: str  # of GELU
    copies: RoundedLayer | None  # in fewer bits, where passes take them


_CLASSES: dict[str, type[nn.Module]] = {}


def _whole(name: str) -> type[nn.Module]:
    if name not in _CLASSES:
        path, _, kind = name.rpartition(".")
        _CLASSES[name] = _class_of(getattr(import_module(path), kind), LAYOUTS[name])
    return _CLASSES[name]


def __getattr__(name: str) -> type[nn.Module]:
    """The classes that are made on first use, by name: a pickled model is read where none was made yet."""
    for full in LAYOUTS:
        if name == f"Whole{full.rpartition('.')[2]}":
            return _whole(full)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _class_of(parent: Any, layout: Layout) -> type[nn.Module]:
    class WholeLayer(parent):  # type: ignore[misc]
        """A layer of transformers as one function."""

        layout: Layout
        shared: WholeLayers
        pooled_alone: Any = None  # of the last layer: tells whether the first token alone is needed

        def forward(self, hidden_states: torch.Tensor, attention_mask: Any = None, *args: Any, **kwargs: Any) -> Any:
            """(B, L, D) to (B, L, D), or to (B, 1, D) where only the first token is needed."""
            made = None
            if _is_plain(hidden_states, attention_mask) and _asks_nothing_more(args, kwargs):
                made = _looked_at(self)
            groups: Groups | None = kwargs.get(PACKING)
            if made is None and groups is None:
                return parent.forward(self, hidden_states, attention_mask, *args, **kwargs)
            if made is None or (groups is not None and made.copies is not None):
                raise RuntimeError("rows in groups must go through layers that take them (WholeLayers.take_groups).")
            first_alone = self.pooled_alone is not None and self.pooled_alone.places is not None
            form: Form | Groups
            mask: Mask | Masks
            if groups is None:
                form = Form(hidden_states.shape[0], hidden_states.shape[1], made.heads)
                mask = self.shared.mask_of(attention_mask, form, 1 if first_alone else form.tokens)
            else:
                form, mask = groups, groups.masks(first_alone=first_alone)
            plan = Plan(made.linear, made.norms, form, mask, made.scale, made.approximate, first_alone)
            if made.copies is not None:
                return run_rounded(hidden_states, plan, made.copies)
            return run_layer(hidden_states, plan)

    WholeLayer.layout = layout
    WholeLayer.__name__ = WholeLayer.__qualname__ = f"Whole{parent.__name__}"
    return WholeLayer


def _is_plain(hidden: torch.Tensor, seen: Any) -> bool:
    """Whether a pass is fp32 on a CPU, with a mask of booleans (B, 1, L or 1, L) or none."""
    plain = hidden.dim() == 3 and hidden.dtype == torch.float32 and hidden.device.type == "cpu" and hidden.numel() > 0
    masked = seen is None or (seen.dtype == torch.bool and seen.dim() == 4)
    return plain and masked and not torch.is_autocast_enabled("cpu")


def _asks_nothing_more(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return all(one is None for one in args) and all(
        value is None or value is False or key in _UNREAD for key, value in kwargs.items()
    )


def _looked_at(layer: Any) -> _Made | None:
    """What a layer is made of; None where it must run its parent's forward."""
    known: dict[int, _Made | None] | None = layer.shared.settled
    if known is None:
        return _look(layer, layer.layout)
    if id(layer) not in known:
        known[id(layer)] = _look(layer, layer.layout)
    return known[id(layer)]


def _at(layer: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        layer = layer._modules[name]
    return layer


def _is_hooked(module: Any) -> bool:
    hooks = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
    return any(hooks) or "forward" in vars(module)


def _look(layer: Any, layout: Layout) -> _Made | None:
    attention, tail, activation = (_at(layer, path) for path in (layout.attention, layout.tail, layout.activation))
    norms = [_at(layer, path) for path in layout.norms]
    dropouts = [_at(layer, path) for path in layout.dropouts]
    around = [_at(layer, path) for path in layout.around if path != layout.tail]
    linear = [_at(layer, path) for path in layout.linear]
    inside = [module for module in (*around, *dropouts, activation, *norms, *linear) if module is not tail]
    own_hook = layer.pooled_alone is not None and layer.pooled_alone.is_alone(tail)
    drops = any(dropout.training and dropout.p > 0 for dropout in dropouts) or (attention.training and dropouts[0].p)
    approximate = _approximation(activation)
    if (
        drops
        or approximate is None
        or any(_is_hooked(module) for module in inside)
        or (_is_hooked(tail) and not own_hook)
        or not all(_is_frozen_norm(norm) for norm in norms)
        or attention.config._attn_implementation != "sdpa"
        or getattr(attention, "is_decoder", False)
        or getattr(layer, "chunk_size_feed_forward", 0)
    ):
        return None
    found = [part_of(module) for module in linear]
    parts = tuple(part for part in found if part is not None)
    if len(parts) < len(found):
        return None
    heads = parts[0].weight.shape[0] // attention.attention_head_size
    values = tuple((norm.weight, norm.bias, norm.eps) for norm in norms)
    copies = None
    if all(part.rounds for part in parts):
        with torch.inference_mode(False):  # a measurement may be the first to ask; passes that train take them, too
            copies = RoundedLayer(parts, attention.scaling)
    return _Made(parts, values, heads, attention.scaling, approximate, copies)


def _is_frozen_norm(norm: Any) -> bool:
    plain = type(norm) is nn.LayerNorm and norm.bias is not None
    return plain and not (norm.weight.requires_grad or norm.bias.requires_grad)


def _approximation(activation: Any) -> str | None:
    """How GELU is computed, in torch's word; None for any other activation."""
    if isinstance(activation, FusedTanhGELU):
        return "tanh"
    if isinstance(activation, nn.GELU):
        return str(activation.approximate)
    return "none" if getattr(activation, "act", None) is functional.gelu else None
