"""Frozen linear layers that read the same rows, as one product in bf16 with their LoRA beside it.

    [y1 y2 ..] = [x u] [W | sB]' + b      x (N, D_in), u = x A' (N, R) for the A of all of them, stacked
    [dx du]    = dy [W | sB]              then dx += du A
    dA = du' x,  dB = s dy' u

sB stands in the rows of its layer and the columns of its A; all else in those columns is 0.

Source:
    Hu et al. (2021), LoRA: Low-Rank Adaptation of Large Language Models, section 4.1; the derivatives are ours.
"""

from collections.abc import Sequence

import torch

from textlift.models.products import Gradients, Part, multiply

BF16 = torch.bfloat16
ALL = slice(None)


class Joint:
    """See the head of this file.

    Args:
        parts: In fp32; copies in bf16 are made.
        factors: Each output is multiplied with its own.
    """

    def __init__(self, parts: Sequence[Part], factors: Sequence[float]) -> None:
        self.parts = tuple(parts)
        self.width = parts[0].weight.shape[1]
        self.scales = [factor * part.scale for part, factor in zip(parts, factors, strict=True)]
        self.rows, self.columns, outputs, rank = [], [], 0, 0
        for part in parts:
            own = 0 if part.low is None else part.low.shape[0]
            self.rows.append(slice(outputs, outputs + part.weight.shape[0]))
            self.columns.append(slice(rank, rank + own))
            outputs, rank = outputs + part.weight.shape[0], rank + own
        self.outputs, self.rank = outputs, rank
        self.low = torch.zeros(0)
        self.high = self.copied(factors)

    def copied(self, factors: Sequence[float]) -> torch.Tensor:
        """Copy the weights as the products take them; gives the place of sB among them, (D_out, R), in zeros."""
        self.weight = torch.zeros(self.outputs, self.width + self.rank, dtype=BF16)
        self.bias = torch.zeros(self.outputs, dtype=BF16)
        for part, factor, rows in zip(self.parts, factors, self.rows, strict=True):
            torch.mul(part.weight.detach(), factor, out=self.weight[rows, : self.width])
            if part.bias is not None:
                torch.mul(part.bias.detach(), factor, out=self.bias[rows])
        return self.weight[:, self.width :]

    def refresh(self) -> None:
        """Take A and B as they are now."""
        lows = []
        for part, scale, rows, columns in zip(self.parts, self.scales, self.rows, self.columns, strict=True):
            if part.low is not None and part.high is not None:
                lows.append(part.low.detach())
                torch.mul(part.high.detach(), scale, out=self.high[rows, columns])
        if lows:
            self.low = (lows[0] if len(lows) == 1 else torch.cat(lows)).to(BF16)  # (R, D_in)

    def beside(self, count: int) -> torch.Tensor:
        """Room for count rows and their products with A."""
        return torch.empty(count, self.width + self.rank, dtype=BF16)

    def with_inner(self, rows: torch.Tensor) -> torch.Tensor:
        """[x u] of rows whose x is there, (N, D_in + R)."""
        if self.rank:
            rows[:, self.width :] = rows[:, : self.width] @ self.low.t()
        return rows

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """[x u] (N, D_in + R) of x (N, D_in)."""
        if not self.rank:
            return x.to(BF16)
        rows = self.beside(len(x))
        rows[:, : self.width] = x
        return self.with_inner(rows)

    def product(self, rows: torch.Tensor, outputs: slice = ALL) -> torch.Tensor:
        """(N, D_out) in bf16 of [x u]; of all outputs or of some."""
        return multiply(rows, self.weight[outputs], self.bias[outputs])

    def product_into(self, total: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """An fp32 total (N, D_out) with the product of [x u] added in place."""
        return total.add_(self.product(rows))

    def back(self, grad: torch.Tensor, outputs: slice = ALL) -> tuple[torch.Tensor, torch.Tensor]:
        """The dx (N, D_in) and du (N, R), in bf16, of the gradient (N, D_out) of all outputs or of some."""
        d_x, d_inner = self._frozen_back(grad, outputs)
        return (d_x.addmm_(d_inner, self.low) if self.rank else d_x), d_inner

    def back_into(self, total: torch.Tensor, grad: torch.Tensor, outputs: slice = ALL) -> torch.Tensor:
        """As `back`; dx is added to an fp32 total (N, D_in) in place, du (N, R) is given."""
        d_x, d_inner = self._frozen_back(grad, outputs)
        total.add_(d_x)
        self._low_into(total, d_inner)
        return d_inner

    def inner_back(self, grad: torch.Tensor, outputs: slice = ALL) -> torch.Tensor:
        """The du (N, R) alone."""
        return grad.to(BF16) @ self.high[outputs] if self.rank else grad.new_empty(len(grad), 0, dtype=BF16)

    def gradients(
        self,
        grads: Sequence[tuple[torch.Tensor, torch.Tensor, slice]],
        *,
        x: torch.Tensor,
        d_inner: torch.Tensor,
        wanted: Sequence[tuple[bool, bool]],
    ) -> list[Gradients]:
        """The gradients of A and B of each part, in fp32, where they are wanted.

        Args:
            grads: [x u] (M, D_in + R), the gradient (M, D_out) in bf16 that belongs to it, and of which outputs.
            x: [x u] (N, D_in + R).
            d_inner: du (N, R).
            wanted: Of A and of B, for each part.
        """
        d_low = d_inner.t() @ x[:, : self.width] if any(low for low, _ in wanted) else None  # (R, D_in)
        d_high = None
        if any(high for _, high in wanted):
            shares = [rows[:, self.width :].t() @ grad for rows, grad, _ in grads]
            d_high = shares[0] if len(shares) == 1 else torch.cat(shares, 1)  # (R, D_out)
        found: list[Gradients] = []
        for rows, own, scale, (low, high) in zip(self.rows, self.columns, self.scales, wanted, strict=True):
            found.append(
                (
                    d_low[own].float() if low and d_low is not None else None,
                    d_high[own, rows].t().float() * scale if high and d_high is not None else None,
                )
            )
        return found

    def _frozen_back(self, grad: torch.Tensor, outputs: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The dx without its share of A, and du."""
        both = multiply(grad.to(BF16), self.weight[outputs].t())
        return both[:, : self.width], both[:, self.width :]

    def _low_into(self, total: torch.Tensor, d_inner: torch.Tensor) -> None:
        if self.rank:
            total.addmm_(d_inner.float(), self.low.float())
