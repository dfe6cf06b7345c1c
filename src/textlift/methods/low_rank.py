"""Methods that add a product of two thin matrices to frozen linear layers.

    h = W x + s B A x        W (D_out, D_in) frozen, A (rank, D_in), B (D_out, rank), B starts at zero

with s = alpha / rank. The others change one thing each: the scale s, the rate of B, the start values (started.py), or
they train the length of each row of the sum too.

Source:
    Hu et al. (2021), LoRA: Low-Rank Adaptation of Large Language Models, section 4.1.
    Kalajdzievski (2023), A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA: s = alpha / sqrt(rank).
    Hayou et al. (2024), LoRA+: Efficient Low Rank Adaptation of Large Models, section 4: B learns faster than A.
    Liu et al. (2024), DoRA: Weight-Decomposed Low-Rank Adaptation, section 4: m (W + s B A) / ||W + s B A||, m trained.
"""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from textlift.errors import RecipeError
from textlift.methods.base import Method, MethodOptions, Parts

Rank = Annotated[int, Field(ge=1, le=1024, description="Width of the two thin matrices.")]
Alpha = Annotated[float, Field(gt=0, description="Scale: the product counts alpha / rank.")]
Dropout = Annotated[float, Field(ge=0, lt=1, description="Dropout before the first thin matrix.")]
Targets = Annotated[
    Literal["all-linear"] | Annotated[tuple[str, ...], Field(strict=False, min_length=1)],
    Field(description="Linear layers to adapt: all of the base, or names such as q_proj."),
]
TrainedBiases = Annotated[
    Literal["none", "lora_only"], Field(description="lora_only also trains biases of adapted layers.")
]


class LoraOptions(MethodOptions):
    """Options of LoRA and of what differs from it in one thing without a number of its own."""

    rank: Rank = 8
    alpha: Alpha = 16.0
    dropout: Dropout = 0.0
    target_modules: Targets = "all-linear"
    bias: TrainedBiases = "none"


class RsLoraOptions(MethodOptions):
    """Options of LoRA with a scale that holds for every rank."""

    rank: Rank = 8
    alpha: float = Field(16.0, gt=0, description="Scale: the product counts alpha / sqrt(rank).")
    dropout: Dropout = 0.0
    target_modules: Targets = "all-linear"
    bias: TrainedBiases = "none"


class LoraPlusOptions(MethodOptions):
    """Options of LoRA with two learning rates."""

    rank: Rank = 8
    alpha: Alpha = 16.0
    dropout: Dropout = 0.0
    target_modules: Targets = "all-linear"
    bias: TrainedBiases = "none"
    rate_ratio: float = Field(16.0, ge=1, le=1000, description="Learning rate of B over that of A.")


def wrap_lora(parts: Parts, options: Any, **settings: Any) -> Any:
    """The model with LoRA on its linear layers, as a PeftModel; settings are those of peft beside the options."""
    from peft import LoraConfig, get_peft_model  # heavy: only once a model is built

    config = LoraConfig(
        **shared_settings(parts, chosen_layers(parts, options.target_modules)),
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        bias=options.bias,
        fan_in_fan_out=parts.fan_in_fan_out,
        **settings,
    )
    return get_peft_model(parts.model, config)


def shared_settings(parts: Parts, layers: list[str]) -> dict[str, Any]:
    """What every configuration of peft is told: the task, the layers by their full names, the head to train whole."""
    from peft import TaskType

    return {
        "task_type": TaskType.SEQ_CLS if parts.has_head else TaskType.FEATURE_EXTRACTION,
        "target_modules": layers,
        "modules_to_save": list(parts.head_modules) or None,
    }


def chosen_layers(parts: Parts, target_modules: str | tuple[str, ...], *, option: str = "target_modules") -> list[str]:
    """Full names of the linear layers that names such as `query` or `attn.c_proj` stand for.

    Raises:
        RecipeError: A name fits no linear layer of the base model.
    """
    if target_modules == "all-linear":
        return list(parts.linear_layers)
    chosen = [layer for layer in parts.linear_layers if any(_is_called(layer, target) for target in target_modules)]
    unknown = [
        target for target in target_modules if not any(_is_called(layer, target) for layer in parts.linear_layers)
    ]
    if unknown:
        known = sorted({layer.rsplit(".", 1)[-1] for layer in parts.linear_layers})
        told = ", ".join(map(repr, unknown))
        raise RecipeError(
            f"method.{option} must name linear layers of the base model; {told} fit none.\nIt has {', '.join(known)}."
        )
    return chosen


def _is_called(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def _rate_ratios(options: LoraPlusOptions) -> dict[str, float]:
    return {"lora_B.": options.rate_ratio}


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
        few_steps_factor=1.5,  # measured, as is the next: docs/performance.md
        fullest_batch=128,
        weights=("lora_",),
        late_weights=("lora_A.",),
        quantized_base=True,
    ),
    Method(
        "rslora",
        "LoRA scaled by alpha / sqrt(rank), so that high ranks learn as fast as low ones.",
        RsLoraOptions,
        partial(wrap_lora, use_rslora=True),
        learning_rate=5e-4,
        paper="https://arxiv.org/abs/2312.03732",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(5e-5, 5e-3),
        weights=("lora_",),
        late_weights=("lora_A.",),
        quantized_base=True,
    ),
    Method(
        "lora+",
        "LoRA whose second matrix learns faster than the first.",
        LoraPlusOptions,
        wrap_lora,
        learning_rate=2e-4,
        paper="https://arxiv.org/abs/2402.12354",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(1e-5, 1e-3),
        weights=("lora_",),
        late_weights=("lora_A.",),
        quantized_base=True,
        rate_ratios=_rate_ratios,
    ),
    Method(
        "dora",
        "LoRA for the direction of each row of a weight, and its length trained beside it.",
        LoraOptions,
        partial(wrap_lora, use_dora=True),
        learning_rate=1e-3,
        paper="https://arxiv.org/abs/2402.09353",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(1e-4, 5e-3),
        few_steps_factor=1.5,
        fullest_batch=128,
        weights=("lora_",),
        late_weights=("lora_A.",),
        quantized_base=True,
    ),
)
