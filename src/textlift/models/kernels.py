"""Linear layers on a faster matrix product: the same arithmetic as torch and peft, equal to them to rounding.

What the products are stands in `products`. Modules keep their parameters, names and parent class; only their forward is
another one. Does not know families.

Where asked for, products with frozen weights take bf16 copies of them: inputs are rounded to 8 bits of mantissa, sums
stay fp32. Whatever trains stays fp32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from textlift.models.products import Low, Part, multiply
from textlift.runtime import ONEDNN, Runtime

_SMALL = 64  # below this many rows or columns a weight gradient gains nothing from oneDNN


def use_linear_kernel(module: nn.Module, runtime: Runtime) -> None:
    """Give every plain linear layer and every plain LoRA layer inside a module the forward of the runtime's kernel.

    Layers of other kinds (quantized, DoRA, embeddings) keep their own; a layer that is called in a way that the kernel
    does not serve (another dtype, autocast, adapters off or several) runs its parent's forward.
    """
    if runtime.linear_kernel != ONEDNN:
        return
    swaps = _swaps()
    for layer in module.modules():
        faster = swaps.get(type(layer))
        if faster is not None:
            layer.__class__ = faster


class FusedTanhGELU(nn.Module):
    """GELU by its approximation with tanh, in one pass; transformers takes eight, and keeps as many tensors.

    Source:
        Hendrycks and Gimpel (2016), Gaussian Error Linear Units, section 2.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - the name in transformers
        """The same shape."""
        return functional.gelu(input, approximate="tanh")


def fuse_activations(module: nn.Module) -> None:
    """Put one fused function in the place of every activation inside a module that transformers composes of several."""
    from transformers.activations import FastGELUActivation, NewGELUActivation

    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) in (FastGELUActivation, NewGELUActivation):
                setattr(parent, name, FusedTanhGELU())


class _Linear(torch.autograd.Function):
    """y = x W' + b of x (N, D_in) with the derivatives that are asked for."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *parameters: Any) -> torch.Tensor:
        weight, bias = parameters
        ctx.save_for_backward(weight, x if weight.requires_grad else None)  # a frozen weight needs no input later
        return multiply(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, x = ctx.saved_tensors
        grad = grad.contiguous()
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        return (
            multiply(grad, weight.t()) if wants_x else None,
            _weight_gradient(grad, x) if wants_weight else None,
            grad.sum(0) if wants_bias else None,
        )


class _LoraLinear(torch.autograd.Function):
    """The sum of a frozen linear layer and its LoRA product, of x (N, D_in)."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, *weights: Any) -> torch.Tensor:
        weight, bias, low, high, scale = weights
        y = multiply(rows, weight, bias)
        ctx.low = Low((Part(weight, bias, low, high, scale),))
        ctx.save_for_backward(rows, weight, ctx.low.add([y], rows), low, high)  # the last two: that nobody changes them
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight, inner, _, _ = ctx.saved_tensors
        wants_x, _, wants_bias, *wanted, _ = ctx.needs_input_grad
        grad = grad.contiguous()
        d_x = multiply(grad, weight.t()) if wants_x else None
        ((d_low, d_high),) = ctx.low.gradients([grad], x=rows, inner=inner, d_x=d_x, wanted=[(wanted[0], wanted[1])])
        return d_x, None, grad.sum(0) if wants_bias else None, d_low, d_high, None


def _weight_gradient(grad: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(D_out, D_in) of grad (N, D_out) and x (N, D_in)."""
    if min(*grad.shape, x.shape[1]) < _SMALL:
        return grad.t() @ x
    return multiply(grad.t().contiguous(), x.contiguous().t())


def part_of(layer: Any) -> Part | None:
    """What a linear layer takes to multiply fp32 rows on a CPU; None where it is not served, or trains."""
    adapter: tuple[Any, ...] | None = ()
    base, kind = layer, type(layer)
    if kind is _MADE.get(_lora()):
        adapter, base = plain_adapter(layer), layer.get_base_layer()
    if adapter is None or not isinstance(base, FastLinear) or _trains(base.weight) or _trains(base.bias):
        return None
    if not all(_is_fp32(weight) for weight in (base.weight, *adapter[:2])):
        return None
    return Part(base.weight, base.bias, *adapter, rounds=base.rounds)  # type: ignore[misc]


def _trains(weight: torch.Tensor | None) -> bool:
    return weight is not None and weight.requires_grad


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    x = x.contiguous()
    if torch.is_grad_enabled():
        # In rows, and shaped outside: autograd lets nobody add in place to a view that a function of its own made.
        result: torch.Tensor = _Linear.apply(x.view(-1, x.shape[-1]), weight, bias)  # type: ignore[no-untyped-call]
        return result.view(*x.shape[:-1], -1)
    return multiply(x, weight, bias)


def _served(x: torch.Tensor, weight: torch.Tensor) -> bool:
    return _is_fp32(x) and _is_fp32(weight) and x.numel() > 0 and not torch.is_autocast_enabled("cpu")


def _is_fp32(tensor: torch.Tensor) -> bool:
    return tensor.dtype == torch.float32 and tensor.device.type == "cpu"


def has_bf16_products(runtime: Runtime) -> bool:
    """Whether products in bf16 are faster than those of fp32 on this processor, and ours are in use."""
    has: Any = torch.cpu.get_capabilities() if runtime.linear_kernel == ONEDNN else {}
    return bool(has.get("avx512_bf16") or has.get("amx_bf16"))


@contextmanager
def frozen_rounded(module: nn.Module, *, rows: int) -> Iterator[None]:
    """While open, products with the frozen weights of a module take copies of them in bf16, large ones in eight bits.

    Eight bits are for encoder layers alone (see `eight_bits`). A copy is made where a layer first multiplies with it.
    The weights must not change in between.

    Args:
        module: With frozen weights.
        rows: Tokens that a pass is likely to have, at least 1.
    """
    kinds = tuple(kind for kind in _swaps().values() if hasattr(kind, "parameters_of_product"))
    layers: list[Any] = [layer for layer in module.modules() if isinstance(layer, kinds)]
    frozen = [layer for layer in layers if not layer.weight.requires_grad]
    for layer in frozen:
        layer.rounds = rows
    try:
        yield
    finally:
        for layer in frozen:
            vars(layer).pop("in_bf16", None)
            del layer.rounds


def _weight_of_pass(layer: Any) -> torch.Tensor:
    weight: torch.Tensor = layer.weight
    if not layer.rounds:
        return weight
    if layer.in_bf16 is None:
        with torch.inference_mode(False):  # a measurement may be the first to ask; passes that train take it, too
            layer.in_bf16 = weight.detach().to(torch.bfloat16)
    copy: torch.Tensor = layer.in_bf16
    return copy


class FastLinear(nn.Linear):
    """torch's linear layer on oneDNN's product."""

    rounds = 0  # see `frozen_rounded`
    in_bf16: torch.Tensor | None = None

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - its parent's name
        """(..., D_in) to (..., D_out)."""
        if not _served(input, self.weight):
            return functional.linear(input, self.weight, self.bias)
        return _product(input, *self.parameters_of_product())

    def parameters_of_product(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight (D_out, D_in) and bias of this pass."""
        return _weight_of_pass(self), self.bias


def _swaps() -> dict[type[nn.Module], type[nn.Module]]:
    """Layer classes of torch, transformers and peft, exactly these and no subclass, with what takes their place."""
    from peft.tuners.lora.layer import Linear as LoraLinear  # heavy: only once a model is built
    from transformers.pytorch_utils import Conv1D

    if not _MADE:
        _MADE.update({nn.Linear: FastLinear, Conv1D: _fast_conv1d(Conv1D), LoraLinear: _fast_lora(LoraLinear)})
        for made in _MADE.values():
            made.__qualname__ = made.__name__  # where pickle looks for it: see __getattr__
    return _MADE


_MADE: dict[type[nn.Module], type[nn.Module]] = {}


def __getattr__(name: str) -> type[nn.Module]:
    """The classes that are made on first use, by name: a pickled model is read where none was made yet."""
    if name.startswith("Fast"):
        for made in _swaps().values():
            if made.__name__ == name:
                return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _fast_conv1d(parent: Any) -> type[nn.Module]:
    class FastConv1D(parent):  # type: ignore[misc]
        """GPT-2's linear layer, whose weight lies transposed, on oneDNN's product."""

        rounds = 0  # see `frozen_rounded`
        in_bf16: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(..., D_in) to (..., D_out)."""
            if not _served(x, self.weight):
                plain: torch.Tensor = parent.forward(self, x)
                return plain
            return _product(x, *self.parameters_of_product())

        def parameters_of_product(self) -> tuple[torch.Tensor, torch.Tensor | None]:
            """Weight (D_out, D_in) and bias of this pass."""
            return _weight_of_pass(self).t(), self.bias

    return FastConv1D


def _fast_lora(parent: Any) -> type[nn.Module]:
    class FastLoraLinear(parent):  # type: ignore[misc]
        """peft's LoRA layer with its three products in one function."""

        def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            """(..., D_in) to (..., D_out)."""
            parts = None if args or kwargs else _lora_parts(self)
            if parts is None or not _served(x, parts[2]):
                plain: torch.Tensor = parent.forward(self, x, *args, **kwargs)
                return plain
            rows = x.reshape(-1, x.shape[-1])
            result: torch.Tensor = _LoraLinear.apply(rows, *parts)  # type: ignore[no-untyped-call]
            return result.view(*x.shape[:-1], -1)

    return FastLoraLinear


def _lora_parts(layer: Any) -> tuple[Any, ...] | None:
    """Weight (D_out, D_in), bias, A, B and scale of a LoRA layer; None where the fused forward does not serve it."""
    adapter = plain_adapter(layer)
    base: Any = layer.get_base_layer()
    plain = isinstance(base, (FastLinear, _MADE.get(_conv1d(), FastLinear)))
    if adapter is None or not plain:
        return None
    if not (_is_fp32(base.weight) and _is_fp32(adapter[0])) or base.weight.requires_grad:
        return None
    return *base.parameters_of_product(), *adapter


def plain_adapter(layer: Any) -> tuple[torch.Tensor, torch.Tensor, float] | None:
    """A (r, D_in), B (D_out, r) and scale of peft's LoRA layer; None where its output is not just y + s (x A') B'.

    That is with adapters off, merged or several, a kind such as DoRA, dropout at work, or a bias beside B.
    """
    names = layer.active_adapters
    if layer.disable_adapters or layer.merged or len(names) != 1 or names[0] not in layer.lora_A:
        return None
    name = names[0]
    low, high, dropout = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name]
    drops = dropout.training and getattr(dropout, "p", 0.0) > 0
    if name in layer.lora_variant or drops or high.bias is not None:
        return None
    return low.weight, high.weight, layer.scaling[name]


def _lora() -> type[nn.Module]:
    from peft.tuners.lora.layer import Linear as LoraLinear

    kind: type[nn.Module] = LoraLinear
    return kind


def _conv1d() -> type[nn.Module]:
    from transformers.pytorch_utils import Conv1D

    kind: type[nn.Module] = Conv1D
    return kind
