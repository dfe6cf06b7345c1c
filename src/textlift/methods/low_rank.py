"""Methods that add a product of two thin matrices to frozen linear layers.

    h = W x + (alpha / rank) B A x        W (out, in) frozen, A (rank, in), B (out, rank), B starts at zero

Source:
    Hu et al. (2021), LoRA: Low-Rank Adaptation of Large Language Models, section 4.1.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from textlift.errors import RecipeError
from textlift.methods.base import Method, MethodOptions, Parts


class LoraOptions(MethodOptions):
    """Options of LoRA."""

    rank: int = Field(8, ge=1, le=1024, description="Width of the two thin matrices.")
    alpha: float = Field(16.0, gt=0, description="Scale: the product counts alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the first thin matrix.")
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        "all-linear", description="Linear layers to adapt: all of the base, or names such as q_proj."
    )
    bias: Literal["none", "lora_only"] = Field("none", description="lora_only also trains biases of adapted layers.")


def wrap_lora(parts: Parts, options: LoraOptions) -> Any:
    """The model with LoRA on its linear layers, as a PeftModel."""
    from peft import LoraConfig, TaskType, get_peft_model  # heavy: only once a model is built

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS if parts.has_head else TaskType.FEATURE_EXTRACTION,
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type] # annotated int, used as a factor
        lora_dropout=options.dropout,
        bias=options.bias,
        target_modules=chosen_layers(parts, options.target_modules),
        modules_to_save=list(parts.head_modules) or None,
        fan_in_fan_out=parts.fan_in_fan_out,
    )
    return get_peft_model(parts.model, config)


def chosen_layers(parts: Parts, target_modules: str | tuple[str, ...]) -> list[str]:
    """Full names of the linear layers that names such as `query` or `attn.c_proj` stand for.

    Raises:
        RecipeError: A name fits no linear layer of the base model.
    """
    if target_modules == "all-linear":
        return list(parts.linear_layers)
    chosen = [
        layer
        for layer in parts.linear_layers
        if any(layer == target or layer.endswith(f".{target}") for target in target_modules)
    ]
    unknown = [
        target
        for target in target_modules
        if not any(layer == target or layer.endswith(f".{target}") for layer in parts.linear_layers)
    ]
    if unknown:
        known = sorted({layer.rsplit(".", 1)[-1] for layer in parts.linear_layers})
        told = ", ".join(map(repr, unknown))
        raise RecipeError(
            f"method.target_modules must name linear layers of the base model; {told} fit none."
            f"\nIt has {', '.join(known)}."
        )
    return chosen


METHODS = (
    Method(
        "lora",
        "Two thin matrices beside every linear layer of the frozen base.",
        LoraOptions,
        wrap_lora,
        learning_rate=1e-3,
        paper="https://arxiv.org/abs/2106.09685",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(1e-4, 5e-3),
        weights=("lora_",),
        late_weights=("lora_A.",),
        quantized_base=True,
    ),
)
