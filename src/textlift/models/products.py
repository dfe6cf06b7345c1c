"""Products of rows with frozen weights and with the LoRA beside them: arithmetic on tensors, no layers.

torch multiplies fp32 matrices with MKL, which leaves the widest vector instructions of processors that are not Intel's
unused; oneDNN, in the same torch, uses them. Its product takes a transposed weight as it lies, so nothing is copied.
LoRA's two thin products go into the output of the frozen one instead of through tensors of their own; those of layers
that read the same rows are joined.

    y  = x W' + b + (s B (A x')')'        x (N, D_in), W (D_out, D_in), A (r, D_in), B (D_out, r), s = alpha / r
    dx = dy W + du A                      du = s dy B
    dA = du' x,  dB = s dy' (x A')

Source:
    Hu et al. (2021), LoRA: Low-Rank Adaptation of Large Language Models, section 4.1; the derivatives are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch

from textlift.runtime import onednn_product

_ONEDNN: Any = onednn_product()
Gradients = tuple[torch.Tensor | None, torch.Tensor | None]
"""Of A and B of a linear layer, where they are wanted."""


def multiply_gelu(x: torch.Tensor, part: "Part", *, approximate: str) -> torch.Tensor:
    """GELU of the product of x (..., D_in) with a part without LoRA, in fp32; the product is not passed over again."""
    product: torch.Tensor = _ONEDNN(x, part.weight, part.bias, "gelu", [], approximate)
    return product


def multiply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The product x W' + b of x (..., D_in) and W (D_out, D_in), in fp32; either may lie transposed, W be in bf16."""
    if weight.dtype == x.dtype:
        product: torch.Tensor = _ONEDNN(x, weight, bias, "none", [], "")
        return product
    product = _ONEDNN(x.to(weight.dtype), weight, None, "none", [], "")
    return product.to(x.dtype) if bias is None else product + bias  # of bf16 and fp32, in one pass


@dataclass(frozen=True)
class Part:
    """A frozen linear layer as one pass takes it, with the LoRA beside it.

    Args:
        weight: (D_out, D_in).
        bias: (D_out,), fp32.
        low: A (r, D_in); None without LoRA.
        high: B (D_out, r).
        scale: alpha / r.
        rounds: Where passes are to multiply with a copy of the weight in fewer bits, the rows that they are likely to
            have; else 0.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    low: torch.Tensor | None = None
    high: torch.Tensor | None = None
    scale: float = 1.0
    rounds: int = 0


@dataclass(frozen=True)
class Low:
    """The LoRA of linear layers that read the same rows, as one pass takes it: their A stacked, their s B side by side.

    Args:
        parts: Those that have a LoRA; at least one.
    """

    parts: tuple[Part, ...]

    @cached_property
    def down(self) -> torch.Tensor:
        """A of all, (R, D_in)."""
        lows = [part.low.detach() for part in self.parts if part.low is not None]
        return lows[0] if len(lows) == 1 else torch.cat(lows)

    @cached_property
    def ups(self) -> list[torch.Tensor]:
        """The s B' of each, (r, D_out): in rows, with which MKL is twice as fast."""
        return [(part.high.detach() * part.scale).t().contiguous() for part in self.parts if part.high is not None]

    @cached_property
    def columns(self) -> list[slice]:
        """Where each is in R."""
        ends = accumulate(len(up) for up in self.ups)
        return [slice(end - len(up), end) for up, end in zip(self.ups, ends, strict=True)]

    def add(self, outputs: Sequence[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        """Add s (x A') B' of each part to its output (N, D_out) in place, of x (N, D_in); gives x A' (N, R).

        On so few columns oneDNN gains nothing over torch's own product, which wants no kernel for each number of rows.
        """
        inner = x @ self.down.t()
        for y, up, columns in zip(outputs, self.ups, self.columns, strict=True):
            y.addmm_(inner[:, columns], up)
        return inner

    def gradients(
        self,
        grads: Sequence[torch.Tensor],
        *,
        x: torch.Tensor | None,
        inner: torch.Tensor,
        d_x: torch.Tensor | None,
        wanted: Sequence[tuple[bool, bool]],
    ) -> list[Gradients]:
        """The gradients of A and B of each part where they are wanted; that of x is added to d_x in place.

        Args:
            grads: Of each output, (N, D_out).
            x: (N, D_in); needed where A's gradient is wanted.
            inner: As `add` gave it.
            d_x: (N, D_in) of the frozen products; None where it is not wanted.
            wanted: Of A and of B, for each part.
        """
        d_inner = torch.empty_like(inner)
        for grad, up, columns in zip(grads, self.ups, self.columns, strict=True):
            torch.mm(grad, up.t(), out=d_inner[:, columns])
        if d_x is not None:
            d_x.addmm_(d_inner, self.down)
        d_down = d_inner.t() @ x if x is not None and any(low for low, _ in wanted) else None  # (R, D_in)
        return [
            (
                d_down[columns] if low and d_down is not None else None,
                (inner[:, columns].t() @ grad).t() * part.scale if high else None,
            )
            for part, grad, columns, (low, high) in zip(self.parts, grads, self.columns, wanted, strict=True)
        ]
