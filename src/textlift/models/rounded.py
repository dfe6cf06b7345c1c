"""Linear layers under autocast to bf16, with less to do in every pass: the same products as torch and peft make.

Autocast rounds a frozen weight to bf16 anew in every pass. While `rounded_once` is open, a copy is kept instead: the
same bits, at two bytes a weight, which autocast would hold during the pass anyway. LoRA's three products are one
function, without the passes over the activations in which peft turns them to fp32 and autocast turns them back:

    y  = x W' + b + (s B (A x')')'        x (N, D_in), W (D_out, D_in), A (r, D_in), B (D_out, r), s = alpha / r
    dx = dy W + du A                      du = s dy B
    dA = du' x,  dB = s dy' (x A')

All products take bf16 and sum in fp32; A, B and their gradients stay fp32 outside them. Only passes that record
gradients are changed, so every measurement is that of torch and peft. What `kernels` does is for fp32 on a CPU.

Source:
    Hu et al. (2021), LoRA: Low-Rank Adaptation of Large Language Models, section 4.1; the derivatives are ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from textlift.models.kernels import plain_adapter


@contextmanager
def rounded_once(module: nn.Module) -> Iterator[None]:
    """While open, the linear layers of a module keep bf16 copies of frozen weights, and LoRA layers are one function.

    The frozen weights must not change in between. Layers of other kinds (quantized, DoRA, embeddings) keep their own
    forward, and so does every layer outside autocast to bf16 or where no gradients are recorded.
    """
    kinds = _kinds()
    layers: list[tuple[Any, Any]] = [(layer, type(layer)) for layer in module.modules() if type(layer) in kinds]
    for layer, kind in layers:
        layer.__class__ = kinds[kind]
        if kind in _plain_kinds() and not layer.weight.requires_grad:
            both = (layer.weight, layer.bias)
            layer.rounded = tuple(None if one is None else one.detach().to(torch.bfloat16) for one in both)
    try:
        yield
    finally:
        for layer, kind in layers:
            layer.__class__ = kind
            vars(layer).pop("rounded", None)


def _rounds(x: torch.Tensor) -> bool:
    """Whether a pass records gradients and is under autocast to bf16."""
    kind = x.device.type
    if not (torch.is_grad_enabled() and torch.is_autocast_enabled(kind)):
        return False
    return torch.get_autocast_dtype(kind) == torch.bfloat16


class _LoraSum(torch.autograd.Function):
    """The sum of a frozen linear layer and its LoRA product, of x (N, D_in) in bf16."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, *weights: Any) -> torch.Tensor:
        weight, bias, low, high, scale = weights
        low, scaled = low.to(rows.dtype), (high * scale).to(rows.dtype)
        inner = rows @ low.t()  # (N, r)
        y = functional.linear(rows, weight, bias).addmm_(inner, scaled.t())
        ctx.save_for_backward(rows, weight, low, scaled, inner)
        ctx.scale = scale
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight, low, scaled, inner = ctx.saved_tensors
        wants_x, _, _, wants_low, wants_high, _ = ctx.needs_input_grad
        d_inner = grad @ scaled  # (N, r)
        return (
            (grad @ weight).addmm_(d_inner, low) if wants_x else None,
            None,
            None,
            (d_inner.t() @ rows).float() if wants_low else None,
            (grad.t() @ inner).float() * ctx.scale if wants_high else None,
            None,
        )


def _rounded_linear(parent: Any) -> type[nn.Module]:
    class RoundedLinear(parent):  # type: ignore[misc]
        """torch's linear layer, or transformers' Conv1D, with copies of its frozen weight and bias in bf16."""

        rounded: tuple[torch.Tensor, torch.Tensor | None] | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(..., D_in) to (..., D_out)."""
            if self.rounded is None or not _rounds(x):
                plain: torch.Tensor = parent.forward(self, x)
                return plain
            weight, bias = _as_linear(self)
            if self.bias is not None and self.bias.requires_grad:
                bias = self.bias
            return functional.linear(x, weight, bias)  # autocast rounds x, and a bias that trains

    return RoundedLinear


def _as_linear(layer: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Copies of weight (D_out, D_in) and bias; Conv1D keeps its weight transposed."""
    weight, bias = layer.rounded
    return (weight if isinstance(layer, nn.Linear) else weight.t()), bias


def _rounded_lora(parent: Any) -> type[nn.Module]:
    class RoundedLora(parent):  # type: ignore[misc]
        """peft's LoRA layer with its three products in one function."""

        def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            """(..., D_in) to (..., D_out)."""
            parts = None if args or kwargs or not _rounds(x) else _lora_parts(self)
            if parts is None:
                plain: torch.Tensor = parent.forward(self, x, *args, **kwargs)
                return plain
            rows = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
            result: torch.Tensor = _LoraSum.apply(rows, *parts)  # type: ignore[no-untyped-call]
            return result.view(*x.shape[:-1], -1)

    return RoundedLora


def _lora_parts(layer: Any) -> tuple[Any, ...] | None:
    """Weight, bias, A, B and scale of a LoRA layer; None where it must run peft's forward."""
    adapter, base = plain_adapter(layer), layer.get_base_layer()
    if adapter is None or getattr(base, "rounded", None) is None:
        return None
    if base.bias is not None and base.bias.requires_grad:
        return None
    return *_as_linear(base), *adapter


@lru_cache
def _plain_kinds() -> tuple[type[nn.Module], ...]:
    from transformers.pytorch_utils import Conv1D

    return nn.Linear, Conv1D


@lru_cache
def _kinds() -> dict[type[nn.Module], type[nn.Module]]:
    """Layer classes of torch, transformers and peft, exactly these and no subclass, with what takes their place."""
    from peft.tuners.lora.layer import Linear as LoraLinear  # heavy: only once a model is built

    return {**{kind: _rounded_linear(kind) for kind in _plain_kinds()}, LoraLinear: _rounded_lora(LoraLinear)}
