"""What must be known of an architecture: head modules, linear layers, layer list, pooling. One table.

Does not load anything.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING

from textlift.errors import ModelError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Family:
    """One architecture in the names of its sequence-classification class in transformers.

    Args:
        model_type: The `model_type` of its configuration.
        head_modules: Modules that a classifier adds to the base, or that it reads the pooled text with; they are
            always trained and saved whole.
        final_linear: The last linear layer, whose input is the pooled text.
        layer_list: The repeated layers.
        linear_layers: Names of the linear layers inside one repeated layer.
        pooling: What the final layer sees, in words.
        fan_in_fan_out: Whether the linear layers keep their weight transposed (transformers' Conv1D).
        is_decoder: Whether a token sees only those before it.
        has_biases: Whether the layers of the published models have biases.
        takes_past: Whether its forward takes keys and values of tokens that came before (past_key_values).
        tail: Module of a layer from which on the last layer is needed at the pooled position alone; empty for none.
        tail_is_added: Whether its output is added to the hidden states of all positions, so that its shape must stay.
        packs: Whether its layers hand unknown arguments down to an attention function of transformers' table, so that
            batches can be without padding inside them; see `packing`.
        is_tested: Whether it is of the table; else its facts were read off the modules of one model.
    """

    model_type: str
    head_modules: tuple[str, ...]
    final_linear: str
    layer_list: str
    linear_layers: tuple[str, ...]
    pooling: str
    fan_in_fan_out: bool = False
    is_decoder: bool = False
    has_biases: bool = True
    takes_past: bool = False
    tail: str = ""
    tail_is_added: bool = False
    packs: bool = False
    is_tested: bool = True


_BERT_LAYERS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_LLAMA_LAYERS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def _llama_like(model_type: str, *, has_biases: bool) -> Family:
    return Family(
        model_type,
        ("score",),
        "score",
        "model.layers",
        _LLAMA_LAYERS,
        "last token",
        is_decoder=True,
        has_biases=has_biases,
        takes_past=True,
        tail="mlp",
        tail_is_added=True,
        packs=True,
    )


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "bert",
            ("bert.pooler", "classifier"),
            "classifier",
            "bert.encoder.layer",
            _BERT_LAYERS,
            "first token, through the pooler",
            takes_past=True,
            tail="attention.output",
            packs=True,
        ),
        Family(
            "distilbert",
            ("pre_classifier", "classifier"),
            "classifier",
            "distilbert.transformer.layer",
            ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2"),
            "first token",
            tail="sa_layer_norm",
            packs=True,
        ),
        Family(
            "roberta",
            ("classifier",),
            "classifier.out_proj",
            "roberta.encoder.layer",
            _BERT_LAYERS,
            "first token",
            takes_past=True,
            tail="attention.output",
            packs=True,
        ),
        Family(
            "deberta-v2",
            ("pooler", "classifier"),
            "classifier",
            "deberta.encoder.layer",
            (
                "attention.self.query_proj",
                "attention.self.key_proj",
                "attention.self.value_proj",
                "attention.output.dense",
                "intermediate.dense",
                "output.dense",
            ),
            "first token, through the pooler",
            tail="attention.output",
        ),
        Family(
            "modernbert",
            ("head", "classifier"),
            "classifier",
            "model.layers",
            ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"),
            "as its configuration says: first token or mean",
            has_biases=False,
        ),
        Family(
            "gpt2",
            ("score",),
            "score",
            "transformer.h",
            ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
            "last token",
            fan_in_fan_out=True,
            is_decoder=True,
            takes_past=True,
            tail="mlp",
            tail_is_added=True,
            packs=True,
        ),
        _llama_like("llama", has_biases=False),
        _llama_like("qwen2", has_biases=True),
        _llama_like("qwen3", has_biases=False),
    )
}


def family_of(model: "nn.Module", model_type: str, base_prefix: str) -> Family:
    """The family of a loaded classifier: from the table, or discovered from its modules.

    Args:
        model: A sequence-classification model, or a bare base model (base_prefix then names nothing in it).
        model_type: As its configuration says.
        base_prefix: Attribute that holds the base model.

    Raises:
        ModelError: No list of repeated layers or no linear layer is found.
    """
    return FAMILIES.get(model_type) or discover_family(model, model_type, base_prefix)


def discover_family(model: "nn.Module", model_type: str, base_prefix: str) -> Family:
    """What the modules themselves tell: everything outside the base is head, the longest list holds the layers.

    Raises:
        ModelError: The modules do not have this form.
    """
    from torch import nn

    base = getattr(model, base_prefix, model)
    prefix = f"{base_prefix}." if base is not model else ""
    lists = [(name, module) for name, module in base.named_modules() if isinstance(module, nn.ModuleList)]
    outside = [
        name for name, child in model.named_children() if base is not model and child is not base and _holds(child)
    ]
    finals = [
        f"{head}.{name}".rstrip(".")
        for head in outside
        for name, module in model.get_submodule(head).named_modules()
        if isinstance(module, nn.Linear)
    ]
    # A pooler inside the base is absent from most checkpoints, so it is drawn at random and must be trained too.
    poolers = [f"{prefix}pooler"] if _holds(getattr(base, "pooler", None)) else []
    layer_list, layers = max(lists, key=lambda item: sum(p.numel() for p in item[1].parameters()), default=("", None))
    linear = sorted({name for layer in layers or () for name, module in layer.named_modules() if is_linear(module)})
    if not linear or (outside and not finals):
        raise ModelError(
            f"architecture {model_type!r} must have a list of layers with linear layers and a linear head; found "
            f"layers in {layer_list or 'no list'}, head modules {', '.join(outside) or 'none'}."
            f"\nFamilies that are tested: {', '.join(FAMILIES)}."
        )
    transposed = any(_is_transposed(module) for module in base.modules())
    return Family(
        model_type,
        (*poolers, *outside),
        finals[-1] if finals else "",
        prefix + layer_list,
        tuple(linear),
        "the architecture's own",
        fan_in_fan_out=transposed,
        is_decoder=any(getattr(module, "is_causal", False) for module in base.modules()),
        has_biases=any(name.endswith(".bias") for layer in layers or () for name, _ in layer.named_parameters()),
        takes_past="past_key_values" in signature(base.forward).parameters,
        is_tested=False,
    )


def _holds(module: "nn.Module | None") -> bool:
    return module is not None and any(True for _ in module.parameters())


def is_linear(module: "nn.Module") -> bool:
    """Whether a module is a linear layer: torch's, or transformers' Conv1D."""
    from torch import nn

    return isinstance(module, nn.Linear) or _is_transposed(module)


def _is_transposed(module: "nn.Module") -> bool:
    """Whether a module is a linear layer with its weight transposed: transformers' Conv1D, or made from it."""
    return any(kind.__name__ == "Conv1D" for kind in type(module).__mro__)


def linear_layer_names(model: "nn.Module", family: Family) -> list[str]:
    """Full names of all linear layers inside the repeated layers, in order.

    Raises:
        ModelError: The model lacks a layer that the family names.
    """
    layer_list = locate(model, family.layer_list)
    layers = model.get_submodule(layer_list)
    names = []
    for index, layer in enumerate(layers.children()):
        inside = dict(layer.named_modules())
        found = [name for name in family.linear_layers if name in inside and is_linear(inside[name])]
        names += [f"{layer_list}.{index}.{name}" for name in found]
    if not names:
        raise ModelError(f"{family.model_type}: none of {', '.join(family.linear_layers)} is in {layer_list}.")
    return names


def located(model: "nn.Module", names: Iterable[str]) -> list[str]:
    """As `locate`, without the modules that this model does not have, such as the pooler of a BERT."""
    found = []
    for name in names:
        try:
            found.append(locate(model, name))
        except ModelError:
            continue
    return found


def locate(model: "nn.Module", name: str) -> str:
    """The name of a module of the family in this model: a bare base model lacks the leading attribute.

    Raises:
        ModelError: It is in neither place.
    """
    modules = dict(model.named_modules())
    for candidate in (name, name.partition(".")[2]):
        if candidate and candidate in modules:
            return candidate
    raise ModelError(f"{type(model).__name__} must have a module {name!r}; it has none.")
