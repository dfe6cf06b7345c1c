"""LoRA that starts from the base weights themselves: a part of W moves into A and B, and the rest stays frozen.

    W x = (W - s B0 A0) x + s B0 A0 x        s = alpha / rank; A (rank, D_in), B (D_out, rank), W (D_out, D_in)

What is saved is plain LoRA on the original base: once training has ended, the rest becomes W again, and the adapter
holds the difference s (B A - B0 A0) = s [B, -B0] [A; A0] at twice the rank and twice alpha.

The start comes from the base weights alone (a fast decomposition also draws from the seed), so it is the same when a
training is continued.

Source:
    Meng et al. (2024), PiSSA: Principal Singular Values and Singular Vectors Adaptation, section 3.
    Buyukakyuz (2024), OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models, section III.
    The difference as LoRA is that of peft's `subtract_mutated_init`, which leaves out the head.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from textlift.errors import RecipeError
from textlift.methods.base import Method, MethodOptions, Parts
from textlift.methods.low_rank import Alpha, Dropout, LoraOptions, Rank, Targets, TrainedBiases, wrap_lora

if TYPE_CHECKING:
    import torch

    Factors = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

_ADAPTER = "default"


class PissaOptions(MethodOptions):
    """Options of PiSSA."""

    rank: Rank = 8
    alpha: Alpha = 16.0
    dropout: Dropout = 0.0
    target_modules: Targets = "all-linear"
    bias: TrainedBiases = "none"
    iterations: int = Field(
        0, ge=0, le=64, description="Iterations of a fast approximate decomposition for large bases; 0 is exact."
    )


def wrap_pissa(parts: Parts, options: PissaOptions) -> Any:
    """The model with LoRA that starts at the largest singular values of each weight, as a PeftModel."""

    def factors(weight: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        if options.iterations:
            left, values, right = torch.svd_lowrank(weight, q=options.rank, niter=options.iterations)
            right = right.T
        else:
            left, values, right = torch.linalg.svd(weight, full_matrices=False)
        roots = (values[: options.rank] * options.rank / options.alpha).sqrt()  # so that s B0 A0 are those values
        return left[:, : options.rank] * roots, roots[:, None] * right[: options.rank]

    return _started(parts, options, factors=factors)


def wrap_olora(parts: Parts, options: LoraOptions) -> Any:
    """The model with LoRA that starts at the first columns of each weight's QR decomposition, as a PeftModel."""

    def factors(weight: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        orthonormal, upper = torch.linalg.qr(weight)
        return orthonormal[:, : options.rank], upper[: options.rank]

    return _started(parts, options, factors=factors)


def _started(parts: Parts, options: PissaOptions | LoraOptions, *, factors: "Factors") -> Any:
    """LoRA whose A and B are the factors of each weight (D_out, D_in), their product taken out of that weight.

    Raises:
        RecipeError: The rank is larger than a side of a weight.
    """
    import torch

    wrapped = wrap_lora(parts, options)
    with torch.no_grad():
        for name, layer in _lora_layers(wrapped):
            weight = _weight(layer)
            if options.rank > min(weight.shape):
                raise RecipeError(
                    f"method.rank must be at most {min(weight.shape)}, the smaller side of {name}, because the start "
                    f"values come from that weight; found {options.rank}."
                )
            high, low = factors(weight)
            layer.lora_A[_ADAPTER].weight.copy_(low)
            layer.lora_B[_ADAPTER].weight.copy_(high)
            layer.start_factors = (low.clone(), high.clone())
            weight.sub_(high @ low, alpha=layer.scaling[_ADAPTER])
    return wrapped


def plain_lora(model: Any, _options: Any) -> Any:
    """The module as plain LoRA on the original base weights, at twice the rank."""
    import torch

    started = [layer for _, layer in _lora_layers(model) if hasattr(layer, "start_factors")]
    with torch.no_grad():
        for layer in started:
            low, high = (start.to(layer.lora_A[_ADAPTER].weight.device) for start in layer.start_factors)
            _weight(layer).add_(high @ low, alpha=layer.scaling[_ADAPTER])
            first, second = layer.lora_A[_ADAPTER], layer.lora_B[_ADAPTER]
            first.weight = torch.nn.Parameter(torch.cat([first.weight, low]), requires_grad=False)
            second.weight = torch.nn.Parameter(torch.cat([second.weight, -high], dim=1), requires_grad=False)
            first.out_features = second.in_features = len(first.weight)
            layer.r[_ADAPTER] *= 2
            layer.lora_alpha[_ADAPTER] *= 2  # the scale alpha / rank stays
            del layer.start_factors
    if started:
        config = model.peft_config[_ADAPTER]
        config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
    return model


def _lora_layers(model: Any) -> list[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLayer)]


def _weight(layer: Any) -> Any:
    """The frozen weight of a LoRA layer as (D_out, D_in), a view of it."""
    weight = layer.get_base_layer().weight
    return weight.T if layer.fan_in_fan_out else weight


METHODS = (
    Method(
        "pissa",
        "LoRA that starts from the largest singular values of each weight.",
        PissaOptions,
        wrap_pissa,
        learning_rate=5e-4,
        paper="https://arxiv.org/abs/2404.02948",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(2e-5, 3e-3),
        weights=("lora_",),
        before_save=plain_lora,
    ),
    Method(
        "olora",
        "LoRA that starts from orthonormal columns of each weight.",
        LoraOptions,
        wrap_olora,
        learning_rate=5e-4,
        paper="https://arxiv.org/abs/2406.01775",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(2e-5, 3e-3),
        weights=("lora_",),
        before_save=plain_lora,
    ),
)
