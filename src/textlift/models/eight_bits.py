"""Products of rows with frozen weights in eight bits, where the processor has instructions for them.

Weights have a scale for each output, rows each their own range. A few columns in which the rows are far larger than
elsewhere would take these bits from all others; they are multiplied in bf16, beside LoRA, whose products stay in bf16:

    x  = s q + m                          q in 0 .. 255; s, m of each row, without the columns o
    W  = t V                              V in -127 .. 127; t = max |W| / 127 of each output
    y  = s (q - z) V' t' + [x_o u c 1] [W_o sB w b]'     c = m + z s,  w = t V 1
    dx = s (q - z) V t' + [du c] [A' w]'                 of rows dy, with scales and sums of the columns of W

z is any number, near the q that stands for 0: then c is small and little is lost where y is rounded to bf16. What a
training loses by all of it is in docs/performance.md.

Source:
    Dettmers et al. (2022), LLM.int8(), section 3: rows and columns with scales of their own, large columns apart (here
    the largest of a sample of rows, not all above a threshold). Wortsman et al. (2023), Stable and low-precision
    training for large-scale vision-language models, section 2.2.1: the same on the way back.
"""

import timeit
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from textlift.models.joint import ALL, BF16, Joint
from textlift.models.products import Part

_PRODUCT: Any = getattr(torch.ops.onednn, "qlinear_pointwise", None)  # not in every build of torch
_PACKED: Any = getattr(torch.ops.onednn, "qlinear_prepack", None)
_BYTES: Any = getattr(torch.ops.quantized, "embedding_bag_byte_prepack", None)  # one pass; torch's own steps take four
_BESIDE = 8  # bytes that it puts at the end of a row: s and m
_LEAST = 500_000_000  # rows times weights; where there are fewer, rounding the rows takes what the product gains
APART = 4  # columns
_SAMPLE = 64  # rows, at least, that tell which columns are large
MIDDLE = 128  # of the numbers of a byte
_GRADIENTS = 2.0**20  # what they are multiplied with before they are rounded
_LONGEST = 0.005  # seconds of the trial; a kernel took 0.05 ms, plain loops 88


@cache
def has_eight_bit_products() -> bool:
    """Whether this processor multiplies bytes faster than bf16, and this torch knows how and gives what it should.

    Where oneDNN has no kernel for a product it takes plain loops, a hundred times as long: tried on a small one.
    """
    has = torch.cpu.get_capabilities()
    if None in (_PRODUCT, _PACKED, _BYTES) or not (has.get("avx512_vnni") or has.get("amx_int8")):
        return False
    x, weight = torch.arange(64.0 * 256).sin().view(64, 256), torch.arange(128.0 * 256).cos().view(128, 256)
    try:
        eight_bits = EightBitWeight(weight)
        seconds = min(timeit.repeat(lambda: eight_bits.times(EightBitRows(x), BF16), number=1, repeat=5))
    except RuntimeError:
        return False
    few = EightBitRows(x)
    found = eight_bits.times(few, torch.float32) * few.scales + few.centres * eight_bits.sums
    exact = x @ weight.t()
    return seconds < _LONGEST and float((found - exact).norm()) < 0.02 * float(exact.norm())


def joint_of(parts: Sequence[Part], factors: Sequence[float], *, zero: int = MIDDLE, apart: int = APART) -> Joint:
    """The layers as one product: in eight bits where that wins, else in bf16.

    Args:
        parts: In fp32, with the rows that they are likely to be multiplied with; copies are made.
        factors: Each output is multiplied with its own.
        zero: Which of 0 to 255 is likely to stand for 0 in the rows.
        apart: Large columns of the rows that stay in bf16.
    """
    if parts[0].rounds * sum(part.weight.numel() for part in parts) < _LEAST or not has_eight_bit_products():
        return Joint(parts, factors)
    return EightBitJoint(parts, factors, zero=zero, apart=apart)


class EightBitWeight:
    """A frozen weight (D_out, D_in) in eight bits, packed for the product with `EightBitRows` (N, D_in).

    Attributes:
        sums: Of each output, (D_out,): its product with a row of ones.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self.scales = weight.abs().amax(1).clamp_min_(1e-30).div_(127)  # (D_out,)
        rounded = (weight / self.scales[:, None]).round_()
        self.sums = rounded.sum(1) * self.scales
        self.zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.packed = _PACKED(torch.nn.functional.pad(rounded, (0, _BESIDE)).to(torch.int8), None)

    def times(self, rows: "EightBitRows", dtype: torch.dtype) -> torch.Tensor:
        """The (q - z) V' t' of the rows, (N, D_out)."""
        q, zero = rows.bytes, rows.zero
        y: torch.Tensor = _PRODUCT(
            q, 1.0, zero, self.packed, self.scales, self.zeros, None, 1.0, 0, dtype, "none", [], ""
        )
        return y


class EightBitRows:
    """Rows (N, D) of fp32 in eight bits.

    Attributes:
        bytes: q, and s and m in eight bytes, (N, D + 8).
        scales: s, (N, 1).
        centres: c, (N, 1).
    """

    def __init__(self, x: torch.Tensor, zero: int = MIDDLE, factor: float = 1.0) -> None:
        self.bytes, self.zero = _BYTES(x), zero
        ends = self.bytes[:, x.shape[1] :].contiguous().view(torch.float32) * factor  # (N, 2)
        self.scales = ends[:, :1]
        self.centres = ends[:, 1:] + zero * self.scales

    @classmethod
    def of_gradient(cls, grad: torch.Tensor) -> "EightBitRows":
        """Of rows that may be so small that a range of 1e-8, which rounding takes for none, would count."""
        large = grad * _GRADIENTS if grad.dtype == torch.float32 else grad.float().mul_(_GRADIENTS)
        return cls(large, factor=1 / _GRADIENTS)


class EightBitJoint(Joint):
    """A `Joint` whose frozen products are in eight bits; see the head of this file and `joint_of`."""

    def __init__(
        self, parts: Sequence[Part], factors: Sequence[float], *, zero: int = MIDDLE, apart: int = APART
    ) -> None:
        self.zero, self.apart = zero, apart
        super().__init__(parts, factors)

    def copied(self, factors: Sequence[float]) -> torch.Tensor:
        """Weights are packed where a product first asks for them: each direction, and each choice of outputs."""
        self.factors = tuple(factors)
        self.packed: dict[tuple[int | None, int | None, bool], EightBitWeight] = {}
        self.thin = torch.zeros(self.outputs, self.apart + self.rank + 2, dtype=BF16)  # [W_o sB w b]
        for part, factor, rows in zip(self.parts, factors, self.rows, strict=True):
            if part.bias is not None:
                torch.mul(part.bias.detach(), factor, out=self.thin[rows, -1])
        return self.thin[:, self.apart : -2]

    def product(self, rows: torch.Tensor, outputs: slice = ALL) -> torch.Tensor:
        """(N, D_out) in bf16 of [x u]; of all outputs or of some."""
        weight, few, left = self._ready(rows, outputs)
        return weight.times(few, BF16).mul_(few.scales.to(BF16)).addmm_(left, self.thin[outputs].t())

    def product_into(self, total: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """An fp32 total (N, D_out) with the product of [x u] added in place."""
        weight, few, left = self._ready(rows, ALL)
        return total.addcmul_(weight.times(few, torch.float32), few.scales).addmm_(left.float(), self.thin.t().float())

    def back(self, grad: torch.Tensor, outputs: slice = ALL) -> tuple[torch.Tensor, torch.Tensor]:
        """The dx (N, D_in) and du (N, R), in bf16, of the gradient (N, D_out) of all outputs or of some."""
        weight, few = self._weight(outputs, way_back=True), EightBitRows.of_gradient(grad)
        d_inner = self.inner_back(grad, outputs)
        left, right = self._beside(d_inner, few, weight)
        return weight.times(few, BF16).mul_(few.scales.to(BF16)).addmm_(left.to(BF16), right.to(BF16)), d_inner

    def back_into(self, total: torch.Tensor, grad: torch.Tensor, outputs: slice = ALL) -> torch.Tensor:
        """As `back`; dx is added to an fp32 total (N, D_in) in place, du (N, R) is given."""
        weight, few = self._weight(outputs, way_back=True), EightBitRows.of_gradient(grad)
        d_inner = self.inner_back(grad, outputs)
        total.addcmul_(weight.times(few, torch.float32), few.scales).addmm_(*self._beside(d_inner, few, weight))
        return d_inner

    def _ready(self, rows: torch.Tensor, outputs: slice) -> tuple[EightBitWeight, EightBitRows, torch.Tensor]:
        """The weight, x in eight bits, and [x_o u c 1] (N, o + R + 2) for the thin product beside them."""
        weight, x = self._weight(outputs, way_back=False), rows[:, : self.width].to(torch.float32, copy=True)
        large = []
        if self.apart:
            columns = x[:: max(1, len(x) // _SAMPLE)].abs().amax(0).topk(self.apart, sorted=False).indices
            for part, factor, own in zip(self.parts, self.factors, self.rows, strict=True):
                torch.mul(part.weight.detach().index_select(1, columns), factor, out=self.thin[own, : self.apart])
            large = [rows.index_select(1, columns)]
            x.index_fill_(1, columns, 0.0)
        few = EightBitRows(x, self.zero)
        ones = rows.new_ones(len(rows), 1)
        return weight, few, torch.cat((*large, rows[:, self.width :], few.centres.to(BF16), ones), 1)

    def _beside(
        self, d_inner: torch.Tensor, few: EightBitRows, weight: EightBitWeight
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[du c] (N, R + 1) and [A' w]' (R + 1, D_in), whose product stands beside that in eight bits."""
        if not self.rank:
            return few.centres, weight.sums[None]
        return torch.cat((d_inner.float(), few.centres), 1), torch.cat((self.low.float(), weight.sums[None]))

    def _weight(self, outputs: slice, *, way_back: bool) -> EightBitWeight:
        """W (D_out, D_in) of some outputs, or W' for the way back."""
        key = outputs.start, outputs.stop, way_back
        if key not in self.packed:
            pairs = zip(self.parts, self.factors, strict=True)
            weight = torch.cat([part.weight.detach() * factor for part, factor in pairs])[outputs]
            with torch.inference_mode(False):  # a measurement may be the first to ask; passes that train take it, too
                self.packed[key] = EightBitWeight(weight.t() if way_back else weight)
            if not way_back:
                self.thin[outputs, -2] = self.packed[key].sums
        return self.packed[key]
