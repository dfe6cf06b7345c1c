"""Methods that train vectors which stretch what the frozen base computes.

    ia3         keys, values and the inputs of the second feed-forward layer times a vector each
    layernorm   the weights (and biases) of every norm of the base, trained in copies that the adapter holds

Where one layer makes query, key and value together (GPT-2's c_attn, ModernBERT's Wqkv, GPT-NeoX's query_key_value), ia3
stretches its whole output: peft has one vector for each layer. The share of the query adds nothing but a second factor
of each key, since q and k meet in a product (with rotated positions it is slightly more than that).

Source:
    Liu et al. (2022), Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning,
    section 3.3.
    Zhao et al. (2024), Tuning LayerNorm in Attention, section 2.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from textlift.errors import RecipeError
from textlift.methods.base import Method, MethodOptions, Parts
from textlift.methods.low_rank import chosen_layers, shared_settings

_Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]

# Last parts of the names that transformers gives to these layers.
_KEYS_AND_VALUES = (
    ("key", "value"),  # BERT, RoBERTa, ELECTRA, ALBERT
    ("k_lin", "v_lin"),  # DistilBERT
    ("key_proj", "value_proj"),  # DeBERTa
    ("k_proj", "v_proj"),  # Llama, Mistral, Qwen, Gemma, OPT
    ("attn.k", "attn.v"),  # MPNet
    ("Wqkv",),  # ModernBERT
    ("c_attn",),  # GPT-2
    ("query_key_value",),  # GPT-NeoX, BLOOM, Falcon
    ("qkv_proj",),  # Phi-3
)
_SECOND_FEED_FORWARD = (
    ("lin2",),  # DistilBERT
    ("mlp.Wo",),  # ModernBERT
    ("mlp.c_proj",),  # GPT-2
    ("down_proj",),  # Llama, Mistral, Qwen, Gemma, Phi-3
    ("ffn_output",),  # ALBERT
    ("fc2",),  # OPT
    ("dense_4h_to_h",),  # GPT-NeoX, BLOOM, Falcon
    ("output.dense",),  # BERT and those that took its names; attention.output.dense is another layer
)
_NOT_FEED_FORWARD = ".attention.output.dense"


class Ia3Options(MethodOptions):
    """Options of (IA)^3."""

    target_modules: Literal["auto"] | _Names = Field(
        "auto", description="Layers whose output is stretched: those of key and value, or names such as k_proj."
    )
    feedforward_modules: Literal["auto"] | _Names = Field(
        "auto", description="Layers whose input is stretched: the second of each feed-forward part, or names."
    )


class LayerNormOptions(MethodOptions):
    """Tuning the norms has no options."""


def wrap_ia3(parts: Parts, options: Ia3Options) -> Any:
    """The model with (IA)^3 on keys, values and feed-forward parts, as a PeftModel.

    Raises:
        RecipeError: A name fits no linear layer, a layer is named twice, or it is not known which make keys and values.
    """
    from peft import IA3Config, get_peft_model  # heavy: only once a model is built

    outputs = _outputs(parts, options.target_modules)
    inputs = _inputs(parts, options.feedforward_modules)
    if both := sorted(set(outputs) & set(inputs)):
        raise RecipeError(
            "method.target_modules and method.feedforward_modules must name different layers; both name "
            f"{', '.join(both[:3])}."
        )
    config = IA3Config(
        **shared_settings(parts, [*outputs, *inputs]),
        feedforward_modules=inputs,
        fan_in_fan_out=parts.fan_in_fan_out,
    )
    return get_peft_model(parts.model, config)


def _outputs(parts: Parts, names: str | tuple[str, ...]) -> list[str]:
    if not isinstance(names, str):
        return chosen_layers(parts, names)
    return _known(parts, _KEYS_AND_VALUES, option="target_modules", role="key and value")


def _inputs(parts: Parts, names: str | tuple[str, ...]) -> list[str]:
    if not isinstance(names, str):
        return chosen_layers(parts, names, option="feedforward_modules")
    found = _known(parts, _SECOND_FEED_FORWARD, option="feedforward_modules", role="the second feed-forward layer")
    return [layer for layer in found if not f".{layer}".endswith(_NOT_FEED_FORWARD)]


def _known(parts: Parts, table: tuple[tuple[str, ...], ...], *, option: str, role: str) -> list[str]:
    """The layers that the first fitting row of a table of names stands for."""
    layers = [f".{layer}" for layer in parts.linear_layers]
    for names in table:
        if all(any(layer.endswith(f".{name}") for layer in layers) for name in names):
            return chosen_layers(parts, names)
    known = sorted({layer.rsplit(".", 1)[-1] for layer in layers})
    raise RecipeError(
        f"method.{option} must name the layers of {role}, which are not known for this architecture; found 'auto'."
        f"\nIt has {', '.join(known)}."
    )


def wrap_layernorm(parts: Parts, _options: LayerNormOptions) -> Any:
    """The model with a trained copy of each norm of the base, as a PeftModel."""
    from peft import LNTuningConfig, get_peft_model

    return get_peft_model(parts.model, LNTuningConfig(**shared_settings(parts, norms(parts))))


def norms(parts: Parts) -> list[str]:
    """Full names of the norms outside the head: LayerNorm, RMSNorm, and the classes that models call so.

    Raises:
        RecipeError: The base model has none with weights.
    """
    heads = tuple(f"{name}." for name in parts.head_modules)
    found = [
        name
        for name, module in parts.model.named_modules()
        if type(module).__name__.endswith("Norm")
        and any(True for _ in module.parameters(recurse=False))
        and not name.startswith(heads)
    ]
    if not found:
        raise RecipeError(
            "method layernorm needs a base model with norms that have weights; this one has none."
            "\nTake another method, such as lora."
        )
    return found


METHODS = (
    Method(
        "ia3",
        "Trained vectors that stretch keys, values and feed-forward inputs.",
        Ia3Options,
        wrap_ia3,
        learning_rate=1e-2,
        paper="https://arxiv.org/abs/2205.05638",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(5e-4, 1e-1),
        weights=("ia3_l",),
        quantized_base=True,
    ),
    Method(
        "layernorm",
        "Weights and biases of every norm of the base.",
        LayerNormOptions,
        wrap_layernorm,
        learning_rate=5e-3,
        paper="https://arxiv.org/abs/2312.11420",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(2e-4, 5e-2),
        weights=("ln_tuning_layers",),
        quantized_base=True,
    ),
)
