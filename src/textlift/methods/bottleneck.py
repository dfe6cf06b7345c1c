"""Bottleneck adapters: a narrow layer of its own after the feed-forward part of every layer of a frozen base.

    h = W x + b                                     the last linear layer of the feed-forward part, frozen, (..., D)
    h <- h + up(activation(down(h)))                down (D to m), up (m to D), both with a bias; up starts at zero

One adapter stands in each layer, inside the residual connection, as Pfeiffer et al. place it; it sits before the norm
that follows, so that no norm has to train. A module of our own in the form of peft's layers: the package `adapters`
that others use needs transformers 4. Plain peft does not load what is saved; textlift does.

Source:
    Houlsby et al. (2019), Parameter-Efficient Transfer Learning for NLP, section 2.1 (the layer, the residual).
    Pfeiffer et al. (2021), AdapterFusion: Non-Destructive Task Composition for Transfer Learning (one adapter in each
    layer, after the feed-forward part; reduction factor 16).
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from textlift.errors import RecipeError
from textlift.methods.base import Method, MethodOptions, Parts

PEFT_TYPE = "BOTTLENECK"
FORMAT_VERSION = 1
MARK = "bottleneck_"
_LAYER = "BottleneckLinear"
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


class BottleneckOptions(MethodOptions):
    """Options of bottleneck adapters."""

    reduction_factor: int = Field(16, ge=1, le=1024, description="Hidden size over the width of the bottleneck.")
    bottleneck_size: int | None = Field(None, ge=1, le=8192, description="The width itself, in place of the factor.")
    activation: Literal["gelu", "relu", "silu"] = Field("gelu", description="Non-linearity between the two layers.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the bottleneck.")


def wrap_bottleneck(parts: Parts, options: BottleneckOptions) -> Any:
    """The model with an adapter in each layer and its head set to train.

    Raises:
        RecipeError: A layer has no feed-forward part that ends in a linear layer.
    """
    config = {
        "task_type": "SEQ_CLS" if parts.has_head else "FEATURE_EXTRACTION",
        "target_modules": feed_forward_outputs(parts),
        "modules_to_save": list(parts.head_modules),
        "bottleneck_size": options.bottleneck_size or max(1, _width(parts.model) // options.reduction_factor),
        "activation": options.activation,
        "dropout": options.dropout,
    }
    _put_adapters(parts.model, config)
    for name in parts.head_modules:
        parts.model.get_submodule(name).requires_grad_(True)
    return parts.model


def feed_forward_outputs(parts: Parts) -> list[str]:
    """Full name of the linear layer that ends the feed-forward part, one for each repeated layer.

    It gives hidden states, is not part of the attention, and is the last such layer in the order of the modules.

    Raises:
        RecipeError: A layer has none.
    """
    known, width = set(parts.linear_layers), _width(parts.model)
    found = []
    for index, layer in parts.model.get_submodule(parts.layer_list).named_children():
        place = f"{parts.layer_list}.{index}"
        ends = [
            f"{place}.{name}"
            for name, module in layer.named_modules()
            if f"{place}.{name}" in known and "att" not in name.lower() and _outputs(module) == width
        ]
        if not ends:
            raise RecipeError(
                f"method adapter needs a linear layer at the end of each feed-forward part; {place} has none."
                "\nUse lora, which adapts whatever linear layers there are."
            )
        found.append(ends[-1])
    return found


def save_bottleneck(model: Any, folder: Path, named: Mapping[str, Any]) -> None:
    """Write adapter and head as adapter_model.safetensors and adapter_config.json.

    Args:
        model: Wrapped.
        folder: Is there.
        named: What the configuration says of the base model.
    """
    from safetensors.torch import save_file

    config = {"peft_type": PEFT_TYPE, "format_version": FORMAT_VERSION, **named, **model.bottleneck_config}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in _own_weights(model).items()}
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_bottleneck(model: Any, folder: Path) -> Any:
    """The model with the adapter and the head of a folder.

    Raises:
        ValueError: The folder holds another kind of adapter, or weights of another form.
    """
    from safetensors.torch import load_file

    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    found = (config.pop("peft_type", None), config.pop("format_version", None))
    if found != (PEFT_TYPE, FORMAT_VERSION):
        raise ValueError(f"{_CONFIG} must be of {PEFT_TYPE}, format_version {FORMAT_VERSION}; found {found}")
    _put_adapters(model, config)
    stored, own = load_file(folder / _WEIGHTS), _own_weights(model)
    if stored.keys() != own.keys():
        other = sorted(stored.keys() ^ own.keys())
        raise ValueError(f"{_WEIGHTS} must hold adapter and head and nothing else; {other[0]} differs")
    model.load_state_dict(stored, strict=False)
    return model


def _put_adapters(model: Any, config: Mapping[str, Any]) -> None:
    """Wrap each target module in place; the configuration stays with the model, for `save_bottleneck`."""
    kind = _layer_class()
    for name in config["target_modules"]:
        owner, _, last = name.rpartition(".")
        base = model.get_submodule(name)
        layer = kind(
            base,
            width=_outputs(base),
            size=config["bottleneck_size"],
            activation=config["activation"],
            dropout=config["dropout"],
        )
        setattr(model.get_submodule(owner), last, layer)
    model.bottleneck_config = dict(config)


def _own_weights(model: Any) -> dict[str, Any]:
    heads = tuple(f"{name}." for name in model.bottleneck_config["modules_to_save"])
    return {name: tensor for name, tensor in model.state_dict().items() if MARK in name or name.startswith(heads)}


def _width(model: Any) -> int:
    return int(model.config.hidden_size)


def _outputs(linear: Any) -> int:
    width: int = linear.nf if hasattr(linear, "nf") else linear.out_features  # transformers' Conv1D says nf
    return width


@cache
def _layer_class() -> Any:
    """The layer, made on first use: torch is heavy."""
    import torch
    from torch import nn

    class BottleneckLinear(nn.Module):
        """A frozen linear layer with an adapter on what it gives."""

        def __init__(self, base_layer: nn.Module, *, width: int, size: int, activation: str, dropout: float) -> None:
            super().__init__()
            self.base_layer = base_layer
            self.bottleneck_dropout = nn.Dropout(dropout)
            self.bottleneck_down = nn.Linear(width, size)
            self.bottleneck_up = nn.Linear(size, width)
            self.activation = activation
            for zeroed in (self.bottleneck_down.bias, self.bottleneck_up.weight, self.bottleneck_up.bias):
                nn.init.zeros_(zeroed)
            weight: torch.Tensor = next(base_layer.parameters())
            self.bottleneck_down.to(weight.device)
            self.bottleneck_up.to(weight.device)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(..., D_in) to (..., D)."""
            hidden: torch.Tensor = self.base_layer(x)
            narrow = self.bottleneck_down(self.bottleneck_dropout(hidden.to(self.bottleneck_down.weight.dtype)))
            added: torch.Tensor = self.bottleneck_up(getattr(nn.functional, self.activation)(narrow))
            return hidden + added.to(hidden.dtype)

    BottleneckLinear.__qualname__ = _LAYER  # where pickle looks for it: see __getattr__
    return BottleneckLinear


def __getattr__(name: str) -> Any:
    """The layer by its name: a pickled model is read where it was not made yet."""
    if name == _LAYER:
        return _layer_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


METHODS = (
    Method(
        "adapter",
        "A narrow layer after the feed-forward part of every layer of the frozen base.",
        BottleneckOptions,
        wrap_bottleneck,
        learning_rate=5e-3,  # measured: in a short training 1e-3 stays 11 points of accuracy behind 1e-2
        paper="https://arxiv.org/abs/1902.00751",
        mergeable=False,
        saves_adapter=True,
        learning_rates=(1e-4, 3e-2),
        weights=(MARK,),
        late_weights=("bottleneck_down.",),
        quantized_base=True,
        save=save_bottleneck,
        load=load_bottleneck,
    ),
)
