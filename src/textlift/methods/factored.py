"""Methods that add a matrix to frozen linear layers which is built from small parts in another way than LoRA's.

    adalora   W + s P E Q              P (D_out, rank), Q (rank, D_in) near orthonormal, E diagonal; the smallest of E
                                       are set to zero while training, so that each layer gets a rank of its own
    vera      W + diag(b) B diag(d) A  A (rank, D_in), B (D_out, rank) random, frozen and shared by all layers;
                                       only the vectors b and d train
    loha      W + s (B1 A1) * (B2 A2)  an elementwise product of two thin products: a rank of up to rank^2
    lokr      W + s C (x) (B A)        a Kronecker product of a small matrix and a thin product

Source:
    Zhang et al. (2023), AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning, section 3.
    Kopiczko et al. (2024), VeRA: Vector-based Random Matrix Adaptation, section 3.
    Hyeon-Woo et al. (2022), FedPara, section 2.2; named LoHa by Yeh et al. (2024), LyCORIS, section 3.
    Edalati et al. (2022), KronA; named LoKr by Yeh et al. (2024), LyCORIS, section 3.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from textlift.methods.base import Method, MethodOptions, Parts
from textlift.methods.low_rank import Alpha, Dropout, Rank, Targets, chosen_layers, shared_settings

if TYPE_CHECKING:
    import torch

_ADAPTER = "default"
_IMPORTANCE, _PATTERN = ("ipt", "exp_avg_ipt", "exp_avg_unc"), "pattern"


class AdaLoraOptions(MethodOptions):
    """Options of AdaLoRA.

    Source:
        Zhang et al. (2023), section 3.3: the schedule, and an initial rank 1.5 times the final one.
    """

    rank: int = Field(8, ge=1, le=1024, description="Mean rank of a layer at the end.")
    initial_rank: int = Field(12, ge=2, le=2048, description="Rank of every layer at the start; greater than rank.")
    alpha: float = Field(16.0, gt=0, description="Scale: the product counts alpha / initial_rank.")
    dropout: Dropout = 0.0
    target_modules: Targets = "all-linear"
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of the steps before ranks begin to fall.")
    final_share: float = Field(0.3, ge=0, lt=1, description="Share of the steps after ranks are settled.")
    interval: int = Field(10, ge=1, le=10_000, description="Steps between two settings of ranks.")
    orthogonal_weight: float = Field(0.1, ge=0, le=10, description="Weight of the loss that keeps P, Q orthonormal.")

    @model_validator(mode="after")
    def _leave_room(self) -> "AdaLoraOptions":
        if self.initial_rank <= self.rank:
            raise ValueError(
                f"method.initial_rank must be greater than method.rank; found {self.initial_rank} and {self.rank}"
            )
        if self.warmup_share + self.final_share >= 1:
            raise ValueError(
                "method.warmup_share and method.final_share must be less than 1 together; found "
                f"{self.warmup_share:g} and {self.final_share:g}"
            )
        return self


class VeraOptions(MethodOptions):
    """Options of VeRA.

    Source:
        Kopiczko et al. (2024), section 3.3 (start values) and table 6 (0.1 for d).
    """

    rank: int = Field(256, ge=1, le=8192, description="Width of the two shared random matrices.")
    dropout: Dropout = 0.0
    target_modules: Targets = "all-linear"
    start_scale: float = Field(0.1, gt=0, le=10, description="Start value of the vector between the two matrices.")
    projection_seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the two matrices.")


class LohaOptions(MethodOptions):
    """Options of LoHa."""

    rank: Rank = 8
    alpha: Alpha = 16.0
    target_modules: Targets = "all-linear"


class LokrOptions(MethodOptions):
    """Options of LoKr."""

    rank: Rank = 8
    alpha: Alpha = 16.0
    target_modules: Targets = "all-linear"
    factor: int | None = Field(
        None, ge=2, le=1024, description="Side of the small matrix, where it divides; else near the square root."
    )


def wrap_adalora(parts: Parts, options: AdaLoraOptions) -> Any:
    """The model with AdaLoRA on its linear layers, as a PeftModel."""
    from peft import AdaLoraConfig, get_peft_model  # heavy: only once a model is built
    from peft.tuners._buffer_dict import BufferDict

    config = AdaLoraConfig(
        **shared_settings(parts, chosen_layers(parts, options.target_modules)),
        target_r=options.rank,
        init_r=options.initial_rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type] # annotated int, used as a factor
        lora_dropout=options.dropout,
        fan_in_fan_out=parts.fan_in_fan_out,
        total_step=parts.total_steps,
        tinit=int(options.warmup_share * parts.total_steps),
        tfinal=max(0, min(int(options.final_share * parts.total_steps), parts.total_steps - 2)),  # one step must tell
        deltaT=options.interval,
        orth_reg_weight=options.orthogonal_weight,
    )
    wrapped: Any = get_peft_model(parts.model, config)
    for layer in wrapped.modules():
        if hasattr(layer, "ranknum"):  # a constant that peft keeps as a parameter
            layer.ranknum = BufferDict({_ADAPTER: layer.ranknum[_ADAPTER].data})
    return wrapped


def allocate_ranks(model: Any, step: int) -> None:
    """Set the least important singular values to zero, as the schedule says for this step.

    In a training of one step nothing is known of their importance, so all stay.
    """
    if model.peft_config[_ADAPTER].total_step < 2:
        return
    model.base_model.update_and_allocate(step)


def importance(model: Any) -> dict[str, "torch.Tensor"]:
    """What the schedule has learned so far: smoothed importance of each weight, and which ranks were set to zero."""
    import torch

    allocator = model.base_model.rankallocator
    kept = {f"{what}.{name}": t for what in _IMPORTANCE for name, t in getattr(allocator, what).items()}
    pattern = model.peft_config[_ADAPTER].rank_pattern or {}
    return kept | {f"{_PATTERN}.{name}": torch.tensor(ranks) for name, ranks in pattern.items()}


def restore_importance(model: Any, tensors: Mapping[str, "torch.Tensor"]) -> None:
    """Put back what `importance` gave."""
    found: dict[str, dict[str, Any]] = {what: {} for what in (*_IMPORTANCE, _PATTERN)}
    device = next(model.parameters()).device
    for key, tensor in tensors.items():
        what, _, name = key.partition(".")
        found[what][name] = tensor.tolist() if what == _PATTERN else tensor.to(device)
    for what in _IMPORTANCE:
        setattr(model.base_model.rankallocator, what, found[what])
    model.peft_config[_ADAPTER].rank_pattern = found[_PATTERN] or None


def orthogonality(model: Any) -> Any:
    """How far P and Q of all layers are from orthonormal: the mean of ||P' P - I|| and ||Q Q' - I||, weighted.

    Source:
        Zhang et al. (2023), section 3.1; the norm unsquared and the mean over all matrices are peft's.
    """
    import torch

    distances = []
    for name, matrix in model.named_parameters():
        if f".lora_A.{_ADAPTER}" in name or f".lora_B.{_ADAPTER}" in name:
            product = matrix @ matrix.T if ".lora_A." in name else matrix.T @ matrix  # (rank, rank)
            distances.append(torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device)))
    return model.peft_config[_ADAPTER].orth_reg_weight * torch.stack(distances).mean()


def settle_ranks(model: Any, _options: Any) -> Any:
    """The module, to be saved without those ranks whose singular value is zero.

    The best weights may be of an earlier step than the last setting of ranks, so the weights themselves tell them.
    """
    model.peft_config[_ADAPTER].rank_pattern = {
        name: values.ne(0).flatten().tolist()
        for name, values in model.base_model.model.named_parameters()
        if f".lora_E.{_ADAPTER}" in name
    }
    return model


def wrap_vera(parts: Parts, options: VeraOptions) -> Any:
    """The model with VeRA on its linear layers, as a PeftModel; the two matrices are saved with the adapter."""
    from peft import VeraConfig, get_peft_model

    config = VeraConfig(
        **shared_settings(parts, chosen_layers(parts, options.target_modules)),
        r=options.rank,
        vera_dropout=options.dropout,
        d_initial=options.start_scale,
        projection_prng_key=options.projection_seed,
        save_projection=True,  # else loading rests on torch's random numbers staying what they are
        fan_in_fan_out=parts.fan_in_fan_out,
    )
    return get_peft_model(parts.model, config)


def wrap_loha(parts: Parts, options: LohaOptions) -> Any:
    """The model with LoHa on its linear layers, as a PeftModel."""
    from peft import LoHaConfig, get_peft_model

    config = LoHaConfig(
        **shared_settings(parts, chosen_layers(parts, options.target_modules)),
        r=options.rank,
        alpha=options.alpha,  # type: ignore[arg-type] # annotated int, used as a factor
    )
    return get_peft_model(parts.model, config)


def wrap_lokr(parts: Parts, options: LokrOptions) -> Any:
    """The model with LoKr on its linear layers, as a PeftModel."""
    from peft import LoKrConfig, get_peft_model

    config = LoKrConfig(
        **shared_settings(parts, chosen_layers(parts, options.target_modules)),
        r=options.rank,
        alpha=options.alpha,  # type: ignore[arg-type] # annotated int, used as a factor
        decompose_factor=options.factor or -1,
    )
    return get_peft_model(parts.model, config)


METHODS = (
    Method(
        "adalora",
        "LoRA whose ranks move to the layers that gain most while training.",
        AdaLoraOptions,
        wrap_adalora,
        learning_rate=2e-3,
        paper="https://arxiv.org/abs/2303.10512",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(2e-4, 1e-2),
        weights=("lora_",),
        late_weights=("lora_A.", "lora_B."),
        quantized_base=True,
        after_step=allocate_ranks,
        penalty=orthogonality,
        before_save=settle_ranks,
        state=importance,
        restore_state=restore_importance,
    ),
    Method(
        "vera",
        "Two trained vectors for each layer around random matrices that all layers share.",
        VeraOptions,
        wrap_vera,
        learning_rate=1e-2,
        paper="https://arxiv.org/abs/2310.11454",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(1e-3, 1e-1),
        weights=("vera_lambda_",),
        late_weights=("vera_lambda_d",),
        quantized_base=True,
    ),
    Method(
        "loha",
        "An elementwise product of two thin products beside every linear layer.",
        LohaOptions,
        wrap_loha,
        learning_rate=1e-3,
        paper="https://arxiv.org/abs/2108.06098",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(1e-4, 1e-2),
        weights=("hada_",),
        late_weights=("hada_w1_a", "hada_w1_b", "hada_w2_a"),
        needs=("plain-linear",),
    ),
    Method(
        "lokr",
        "A Kronecker product of a small matrix and a thin product beside every linear layer.",
        LokrOptions,
        wrap_lokr,
        learning_rate=2e-3,
        paper="https://arxiv.org/abs/2212.10650",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(2e-4, 2e-2),
        weights=("lokr_",),
        late_weights=("lokr_w2",),
        needs=("plain-linear",),
    ),
)
