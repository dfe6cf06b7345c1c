"""Fusion: saved LoRA adapters of other data sets, combined by weights that the new data teach.

    h = W x + sum over k of w_k s_k B_k A_k x        W, A_k (r_k, D_in), B_k (D_out, r_k) and s_k frozen, w_k trained

Every linear layer has weights of its own, one for each adapter that adapts it; they start at zero, at the base model.
The head is new: those of the adapters know other labels and are left out. Once training has ended the sum is one plain
LoRA adapter of rank r_1 + r_2 + ...: A is stacked, B is stacked with the weights in it. So it loads with plain peft,
merges, and can be fused again.

Of peft's own `add_weighted_adapter`, "cat" is this sum with one given weight for each adapter and "svd" its best
approximation at a lower rank. "linear", "ties", "dare_linear", "dare_ties" and "magnitude_prune" sum A and B apart,
which adds products B_i A_j of different adapters; the others drop parts of the sum by a density that must be chosen.
None learns a weight, and all refuse adapters that hold a head, as those of a classifier do.

Source:
    Huang et al. (2023), LoraHub: Efficient Cross-Task Generalization via Dynamic LoRA Composition, section 3 (free
    weights, zero at the start); theirs weigh A and B apart and are searched without gradients.
    Pfeiffer et al. (2021), AdapterFusion: Non-Destructive Task Composition for Transfer Learning (adapters frozen, the
    combination learned on the new data); theirs attends to the adapters anew at each token and does not fold.
"""

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator

from textlift.digests import file_sha256
from textlift.errors import ModelError
from textlift.methods.base import Method, MethodOptions, Parts
from textlift.runs import find_variant
from textlift.runtime import quiet_libraries

if TYPE_CHECKING:
    import torch

    Factors = tuple[torch.Tensor, torch.Tensor]  # A (r, D_in) and s B (D_out, r)

_SETTINGS, _CONFIG, _WEIGHTS = "textlift.json", "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LAYER = "FusedLinear"
_OTHER_TERMS = ("lora_bias", "target_parameters", "trainable_token_indices", "alora_invocation_tokens")


class FusionOptions(MethodOptions):
    """Options of fusion; the adapters must be there as soon as the recipe is read."""

    adapters: Annotated[tuple[str, ...], Field(strict=False, min_length=2, max_length=64)] = Field(
        description="Saved LoRA adapters on this base model: RUN, RUN/variant or a folder, from the working directory."
    )

    @field_validator("adapters")
    @classmethod
    def _are_adapters(cls, adapters: tuple[str, ...]) -> tuple[str, ...]:
        folders = [adapter_folder(path) for path in adapters]
        twice = [path for path, folder in zip(adapters, folders, strict=True) if folders.count(folder) > 1]
        if twice:
            raise ValueError(f"method.adapters must be different ones; {' and '.join(twice)} are the same")
        return adapters


def adapter_folder(path: str) -> Path:
    """The folder of a saved adapter that is plain LoRA.

    Raises:
        InputNotFoundError: There is no such run, variant or folder.
        ModelError: Its files cannot be read.
        ValueError: It is something else.
    """
    folder = find_variant(path)[2].resolve()
    method, kind = (str(_read(folder / _SETTINGS).get(key)) for key in ("method", "kind"))
    if kind != "adapter":
        raise ValueError(f"method.adapters must name LoRA adapters; {path} is a whole model (method {method})")
    config = _read(folder / _CONFIG)
    changed = [key for key, value in config.items() if value and _changes_the_product(key)]
    if config.get("peft_type") != "LORA" or changed or config.get("bias", "none") != "none":
        told = ", ".join(changed) or (
            "trained biases" if config.get("peft_type") == "LORA" else config.get("peft_type")
        )
        raise ValueError(f"method.adapters must name LoRA adapters that add A and B alone; {path} is {method} ({told})")
    return folder


def _changes_the_product(key: str) -> bool:
    """Whether a setting of peft's LoRA makes it another sum than that of W x and s B A x."""
    return key in _OTHER_TERMS or key.endswith("_config") or (key.startswith("use_") and key != "use_rslora")


def wrap_fusion(parts: Parts, options: FusionOptions) -> Any:
    """The model with the weighted sum of the adapters in each layer that one of them adapts.

    Raises:
        ModelError: An adapter is damaged, or adapts what the base model has not; see `require_same_base`.
    """
    found: dict[str, list[Factors]] = {}
    for path in options.adapters:
        for name, factors in _factors(adapter_folder(path), path=path).items():
            if name not in parts.linear_layers:
                raise ModelError(f"{path}: must adapt linear layers of the base model; {name} is none of them.")
            found.setdefault(name, []).append(factors)
    for name in (name for name in parts.linear_layers if name in found):
        parts.model.set_submodule(name, _layer_class()(parts.model.get_submodule(name), found[name]))
    for name in parts.head_modules:
        parts.model.get_submodule(name).requires_grad_(True)
    parts.model.fusion_config = {
        "task_type": "SEQ_CLS" if parts.has_head else "FEATURE_EXTRACTION",
        "modules_to_save": list(parts.head_modules) or None,
        "fan_in_fan_out": parts.fan_in_fan_out,
    }
    return parts.model


def fold(model: Any, _options: FusionOptions) -> Any:
    """The model with the weighted sum as one LoRA adapter, as a PeftModel."""
    import torch
    from peft import LoraConfig, get_peft_model

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, _layer_class())}
    ranks = {name: layer.fused_low.out_features for name, layer in layers.items()}
    most = max(ranks.values())
    fewer = {name: rank for name, rank in ranks.items() if rank < most}
    for name, layer in layers.items():
        model.set_submodule(name, layer.base_layer)
    config = LoraConfig(
        r=most,
        lora_alpha=most,  # scale 1: that of each adapter is in B
        rank_pattern=fewer,
        alpha_pattern=dict(fewer),
        target_modules=list(layers),
        **model.fusion_config,
    )
    with quiet_libraries():
        wrapped = get_peft_model(model, config)
    with torch.no_grad():
        for name, layer in layers.items():
            lora = model.get_submodule(name)
            lora.lora_A["default"].weight.copy_(layer.fused_low.weight)
            lora.lora_B["default"].weight.copy_(layer.fused_high.weight * layer.spread_weights())
    return wrapped


def sources(options: FusionOptions) -> tuple[Path, ...]:
    """Folders of the adapters."""
    return tuple(adapter_folder(path) for path in options.adapters)


def require_same_base(options: FusionOptions, base_sha256: Mapping[str, str], pooling: str) -> None:
    """Refuse adapters that were trained on another base model than that of this run.

    Args:
        options: Of the method.
        base_sha256: Of each weight file of the base model, by its name.
        pooling: Of this run.

    Raises:
        ModelError: One was.
    """
    for path in options.adapters:
        settings = _read(adapter_folder(path) / _SETTINGS)
        if settings.get("base_sha256") != base_sha256:
            raise ModelError(
                f"{path}: an adapter to fuse must have been trained on the base model of this run; it was on "
                f"{settings.get('base_name')}, whose weights differ."
                "\nTrain it on this one, or pass --model with its own."
            )
        if settings.get("pooling") != pooling:
            raise ModelError(
                f"{path}: an adapter to fuse must have been trained with pooling {pooling}, as in this run; found "
                f"{settings.get('pooling')}.\nPass --set model.pooling={settings.get('pooling')}, or train it again."
            )


def _factors(folder: Path, *, path: str) -> dict[str, "Factors"]:
    """A and s B of each layer that an adapter adapts, by the layer's full name."""
    from peft.utils.other import get_pattern_key
    from safetensors.torch import load_file

    file, config = folder / _WEIGHTS, _read(folder / _CONFIG)
    if not file.is_file() or file_sha256(file) != _read(folder / _SETTINGS).get("files", {}).get(_WEIGHTS):
        raise ModelError(
            f"{file}: must be the file that textlift wrote; it was changed or damaged.\nTrain {path} again."
        )
    stored = load_file(file)
    alphas: dict[str, float] = config.get("alpha_pattern") or {}
    found = {}
    for key in (key for key in stored if key.endswith(".lora_A.weight")):
        name = key.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        low, high = stored[key].float(), stored[key.replace(".lora_A.", ".lora_B.")].float()
        alpha: float = alphas.get(get_pattern_key(list(alphas), name), config["lora_alpha"])
        scale = alpha / (math.sqrt(len(low)) if config.get("use_rslora") else len(low))
        found[name] = (low, high * scale)
    return found


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: must be a file that textlift wrote; it cannot be read.") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: must hold an object that textlift wrote; it does not.")
    return values


@cache
def _layer_class() -> Any:
    """The layer, made on first use: torch is heavy."""
    import torch
    from torch import nn

    class FusedLinear(nn.Module):
        """A frozen linear layer with the weighted sum of frozen LoRA products."""

        def __init__(self, base_layer: nn.Module, factors: "list[Factors]") -> None:
            super().__init__()
            device = next(base_layer.parameters()).device
            self.base_layer = base_layer
            self.fused_low = _frozen(torch.cat([low for low, _ in factors]).to(device))
            self.fused_high = _frozen(torch.cat([high for _, high in factors], dim=1).to(device))
            self.fusion_weights = nn.Parameter(torch.zeros(len(factors), device=device))
            self.ranks = [len(low) for low, _ in factors]

        def spread_weights(self) -> torch.Tensor:
            """The weight of each row of A, (r_1 + r_2 + ...)."""
            return torch.cat([w.expand(rank) for w, rank in zip(self.fusion_weights, self.ranks, strict=True)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(..., D_in) to (..., D_out)."""
            hidden: torch.Tensor = self.base_layer(x)
            narrow = self.fused_low(x.to(self.fused_low.weight.dtype)) * self.spread_weights()
            added: torch.Tensor = self.fused_high(narrow)
            return hidden + added.to(hidden.dtype)

    def _frozen(weight: torch.Tensor) -> nn.Linear:
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device)
        linear.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        return linear

    FusedLinear.__qualname__ = _LAYER  # where pickle looks for it: see __getattr__
    return FusedLinear


def __getattr__(name: str) -> Any:
    """The layer by its name: a pickled model is read where it was not made yet."""
    if name == _LAYER:
        return _layer_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _rate_ratios(_options: FusionOptions) -> dict[str, float]:
    """A weight has to go from 0 to about 1 in a few hundred steps, the head only to move from where it starts."""
    return {"fusion_weights": 3.0}


METHODS = (
    Method(
        "fusion",
        "Weights that combine saved LoRA adapters of other data sets.",
        FusionOptions,
        wrap_fusion,
        learning_rate=1e-2,
        paper="https://arxiv.org/abs/2307.13269",
        mergeable=True,
        saves_adapter=True,
        learning_rates=(1e-3, 1e-1),
        weights=("fusion_weights",),
        quantized_base=True,
        rate_ratios=_rate_ratios,
        before_save=fold,
        sources=sources,
        require_base=require_same_base,
    ),
)
