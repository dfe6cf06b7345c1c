"""A base model whose linear layers keep their weights in 8 or 4 bits and unpack them for each product.

    4 bits    w = a c[q]        c the 16 values of NF4; a the largest size in a block of 64, itself kept in 8 bits
    8 bits    w = a q / 127     q a whole number; a the largest size in a row
    y = x W' + b                x (..., D_in), W (D_out, D_in) unpacked in the arithmetic of the forward pass

bitsandbytes packs and unpacks, and peft knows its layers; the product is ours. On a processor with AVX512-BF16 the
4-bit layer of bitsandbytes packs its weights anew at the first measurement, for bf16, and no gradient passes it from
then on; and where D_in is no multiple of 64, it takes the wrong a for some weights (0.50, AVX512). Its 8-bit layer
rounds the inputs too and leaves out columns that it chooses over the whole batch, so that padding moves the logits.
Both turn the bias into the arithmetic of the product, though it may be one that trains.

Embeddings, norms, head and whatever a method adds stay fp32. Does not know recipes or methods.

Source:
    Dettmers et al. (2023), QLoRA: Efficient Finetuning of Quantized LLMs, section 3 (NF4, double quantization).
    Dettmers et al. (2022), LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale, section 3.1.
"""

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from textlift.errors import MissingExtraError, ModelError, RecipeError
from textlift.models.families import Family, linear_layer_names, located
from textlift.recipe import Quantization
from textlift.runtime import ONEDNN, onednn_product

DEVICES = ("cpu", "cuda")
_KINDS: dict[str, Quantization] = {"Params4bit": "4bit", "Int8Params": "8bit"}
_ONEDNN: Any = onednn_product()


def require_quantizable(quantization: str, *, device: str) -> None:
    """Refuse a quantized base model that this machine cannot hold; "none" is always allowed.

    Raises:
        RecipeError: Not on this device.
        MissingExtraError: A package is not installed.
    """
    if quantization == "none":
        return
    if device.split(":", maxsplit=1)[0] not in DEVICES:
        raise RecipeError(
            f"a base model in {quantization} must be on {' or '.join(DEVICES)}; runtime.device is {device}, where it "
            "was never tested.\nPass --device cpu, or --set model.quantization=none."
        )
    from transformers.utils.import_utils import is_accelerate_available, is_bitsandbytes_available

    there = {"bitsandbytes": is_bitsandbytes_available(), "accelerate": is_accelerate_available()}
    missing = [name for name, found in there.items() if not found]
    if missing:
        raise MissingExtraError(
            f"a base model in {quantization} needs bitsandbytes and accelerate; {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed, or too old."
            "\nRun: pip install 'textlift[quantized]', or tune the base in full precision with --methods lora."
        )


def bitsandbytes_settings(quantization: str, *, spared: Sequence[str]) -> dict[str, Any]:
    """What transformers' BitsAndBytesConfig is told, as plain values.

    Args:
        quantization: "8bit" or "4bit".
        spared: Full names of the modules that are left as they are. Any list takes the place of the one that
            transformers finds, so it must hold every module of the head.
    """
    if quantization == "8bit":
        return {"load_in_8bit": True, "llm_int8_skip_modules": list(spared)}
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": "float32",
        "llm_int8_skip_modules": list(spared),
    }


def settings_of_quantized(model: Any) -> dict[str, Any] | None:
    """The same of a model that is loaded, wrapped or not.

    Returns:
        None where it is in full precision, or where bitsandbytes does not unpack it rightly on every processor.
    """
    quantization = quantization_of(model)
    layers = (layer for layer in model.modules() if type(layer) in _layer_kinds().values())
    if quantization == "none" or any(_splits_blocks(layer) for layer in layers):
        return None
    return bitsandbytes_settings(quantization, spared=model.config.quantization_config.llm_int8_skip_modules)


def loading_options(quantization: str, *, spared: Sequence[str]) -> dict[str, Any]:
    """What `from_pretrained` is told to load a base model quantized, on the CPU."""
    from transformers import BitsAndBytesConfig

    config: Any = BitsAndBytesConfig
    return {
        "quantization_config": config(**bitsandbytes_settings(quantization, spared=spared)),
        "device_map": {"": "cpu"},  # unasked, it would go to the first GPU
    }


def settle_quantized(model: nn.Module, family: Family, *, linear_kernel: str) -> None:
    """Give every quantized layer our product, once it is sure that the right layers are quantized.

    Args:
        model: Just loaded.
        family: Its own.
        linear_kernel: Of the runtime.

    Raises:
        ModelError: A layer of the head is quantized, or one below it is not.
    """
    layers = {name: module for name, module in model.named_modules() if type(module) in _layer_kinds()}
    heads = tuple(f"{name}." for name in located(model, family.head_modules))
    inside = [name for name in layers if f"{name}.".startswith(heads)]
    left = [name for name in linear_layer_names(model, family) if name not in layers]
    if inside or left:
        found = f"{inside[0]} is" if inside else f"{left[0]} is not"
        raise ModelError(
            f"{family.model_type}: every linear layer below the head must be quantized and none of the head; {found}."
            "\nTune it in full precision: --set model.quantization=none."
        )
    for layer in layers.values():
        own: Any = layer
        own.__class__ = _layer_kinds()[type(layer)]
        own.with_onednn = linear_kernel == ONEDNN
        if quantization_of(layer) == "8bit":
            layer.register_buffer("row_sizes", own.weight.SCB, persistent=False)  # so that it moves with the layer


def quantization_of(model: nn.Module) -> Quantization:
    """How the linear layers of a model, or a layer, are kept."""
    kinds = (type(parameter).__name__ for parameter in model.parameters())
    return next((_KINDS[kind] for kind in kinds if kind in _KINDS), "none")


def weight_count(parameter: nn.Parameter) -> int:
    """Weights that a parameter stands for; two of them share a byte in 4 bits."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())


@dataclass(frozen=True)
class BaseBytes:
    """Bytes that the weights of a base model take, by kind, and what all of them would take in fp32."""

    quantized: int
    embeddings: int
    other: int
    in_fp32: int

    @property
    def share(self) -> float:
        """Of what they would take in fp32."""
        return (self.quantized + self.embeddings + self.other) / self.in_fp32


def base_bytes(model: nn.Module) -> BaseBytes:
    """Bytes of all weights of a model that no method has wrapped; block sizes and codes count as quantized weights."""
    held = {"quantized": 0, "embeddings": 0, "other": 0}
    in_fp32 = 0
    seen: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen:  # tied
                continue
            seen.add(id(parameter))
            kind = "embeddings" if isinstance(module, nn.Embedding) else "other"
            if type(parameter).__name__ in _KINDS:
                kind = "quantized"
                held[kind] += sum(tensor.nbytes for tensor in _statistics(parameter))
            held[kind] += parameter.nbytes
            in_fp32 += 4 * weight_count(parameter)
    return BaseBytes(**held, in_fp32=in_fp32)


def _statistics(parameter: Any) -> list[torch.Tensor]:
    """What is kept beside the packed weights."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return [parameter.SCB]
    nested = state.state2
    return [state.absmax, state.code, *([nested.absmax, nested.code, state.offset] if nested is not None else [])]


class _UnpackedProduct(torch.autograd.Function):
    """y = x W' + b of x (N, D_in), where W is unpacked for the product and, in the backward pass, once more."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *rest: Any) -> torch.Tensor:
        bias, ctx.layer = rest
        layer = ctx.layer
        return _multiply(x, layer.unpacked(x.dtype), bias, with_onednn=layer.with_onednn)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        wants_x, wants_bias, _ = ctx.needs_input_grad
        d_x = d_bias = None
        if wants_x:
            weight = ctx.layer.unpacked(grad.dtype)
            d_x = _multiply(grad, weight.t(), None, with_onednn=ctx.layer.with_onednn)
        if wants_bias:
            d_bias = grad.sum(0)
        return d_x, d_bias, None


def _multiply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, with_onednn: bool) -> torch.Tensor:
    """The product x W' + b of x (N, D_in) and W (D_out, D_in); W may lie transposed."""
    if with_onednn and x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0:
        product: torch.Tensor = _ONEDNN(x.contiguous(), weight, bias, "none", [], "")
        return product
    return functional.linear(x, weight, bias)


def _layer_kinds() -> dict[type[nn.Module], type[nn.Module]]:
    """Layer classes of bitsandbytes with what takes their place."""
    import bitsandbytes

    theirs: Any = bitsandbytes.nn
    if not _MADE:
        _MADE[theirs.Linear4bit] = _unpacking(theirs.Linear4bit, _unpack_4bit)
        _MADE[theirs.Linear8bitLt] = _unpacking(theirs.Linear8bitLt, _unpack_8bit)
    return _MADE


_MADE: dict[type[nn.Module], type[nn.Module]] = {}


def _unpacking(parent: Any, unpack: Callable[[Any, torch.dtype], torch.Tensor]) -> type[nn.Module]:
    class Unpacking(parent):  # type: ignore[misc]
        """A layer of bitsandbytes with our product."""

        with_onednn = False

        def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
            """The weight (D_out, D_in)."""
            return unpack(self, dtype)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """(..., D_in) to (..., D_out), in the arithmetic of autocast, else in that of x."""
            kind = x.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
            bias = None if self.bias is None else self.bias.to(dtype)
            # In rows, and shaped outside: autograd lets nobody add in place to a view that a function of its own made.
            rows = x.to(dtype).reshape(-1, x.shape[-1])
            product: torch.Tensor = _UnpackedProduct.apply(rows, bias, self)  # type: ignore[no-untyped-call]
            return product.view(*x.shape[:-1], product.shape[-1])

    Unpacking.__name__ = parent.__name__  # peft asks for it by name
    return Unpacking


def _unpack_4bit(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    from bitsandbytes.functional import dequantize_4bit

    state = layer.weight.quant_state
    shape = state.shape
    if _splits_blocks(layer):
        state = copy(state)
        state.shape = torch.Size((1, shape.numel()))  # one long row, whose blocks are whole
    weight: torch.Tensor = dequantize_4bit(layer.weight.data, state)
    return weight.view(shape).to(dtype)


def _splits_blocks(layer: Any) -> bool:
    """Whether a row of a 4-bit layer ends inside a block, so that a block holds weights of two rows."""
    state = getattr(layer.weight, "quant_state", None)
    return state is not None and state.shape[-1] % state.blocksize != 0


def _unpack_8bit(layer: Any, dtype: torch.dtype) -> torch.Tensor:
    weight: torch.Tensor = layer.weight.data.to(torch.float32)
    return weight.mul_(layer.row_sizes[:, None] / 127).to(dtype)
