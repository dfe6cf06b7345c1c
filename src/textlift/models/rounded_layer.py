"""A whole encoder layer with the products of its frozen weights in bf16: as `layer_function`, in fewer, wider products.

Linear layers that read the same rows (query, key and value) are one product, and LoRA is a few more columns of it:

    [y1 y2 ..] = [x u] [W | sB]' + b      x (N, D_in), u = x A' (N, R) for the A of all of them, stacked
    [dx du]    = dy [W | sB]              then dx += du A
    dA = du' x,  dB = s dy' u

sB stands in the rows of its layer and the columns of its A; all else in those columns is 0. The residual stream, norms
and the softmax stay fp32, and so does whatever trains.

Source:
    Devlin et al. (2019), BERT, section 3; Hu et al. (2021), LoRA, section 4.1; the derivatives are ours.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from textlift.models.layer_function import GELU_BACK, NORM, Plan, WayBack, save
from textlift.models.products import Gradients, Part, multiply
from textlift.models.rounded_attention import attend_rounded, attend_rounded_back, join_heads, split_heads

_BF16 = torch.bfloat16
_VALUE, _OUT, _UP, _DOWN = 2, 3, 4, 5  # as in `Plan.linear`


class Joint:
    """Frozen linear layers that read the same rows, as one product; see the head of this file.

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
            self.columns.append(slice(self.width + rank, self.width + rank + own))
            outputs, rank = outputs + part.weight.shape[0], rank + own
        self.rank = rank
        self.weight = torch.zeros(outputs, self.width + rank, dtype=_BF16)
        self.bias = torch.zeros(outputs, dtype=_BF16)
        for part, factor, rows in zip(parts, factors, self.rows, strict=True):
            torch.mul(part.weight.detach(), factor, out=self.weight[rows, : self.width])
            if part.bias is not None:
                torch.mul(part.bias.detach(), factor, out=self.bias[rows])
        self.low = torch.zeros(0)

    def refresh(self) -> None:
        """Take A and B as they are now."""
        lows = []
        for part, scale, rows, columns in zip(self.parts, self.scales, self.rows, self.columns, strict=True):
            if part.low is not None and part.high is not None:
                lows.append(part.low.detach())
                torch.mul(part.high.detach(), scale, out=self.weight[rows, columns])
        if lows:
            self.low = (lows[0] if len(lows) == 1 else torch.cat(lows)).to(_BF16)  # (R, D_in)

    def beside(self, count: int) -> torch.Tensor:
        """Room for count rows and their products with A."""
        return torch.empty(count, self.width + self.rank, dtype=_BF16)

    def with_inner(self, rows: torch.Tensor) -> torch.Tensor:
        """[x u] of rows whose x is there, (N, D_in + R)."""
        if self.rank:
            rows[:, self.width :] = rows[:, : self.width] @ self.low.t()
        return rows

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """[x u] (N, D_in + R) of x (N, D_in)."""
        if not self.rank:
            return x.to(_BF16)
        rows = self.beside(len(x))
        rows[:, : self.width] = x
        return self.with_inner(rows)

    def product(self, rows: torch.Tensor, outputs: slice = slice(None)) -> torch.Tensor:
        """(N, D_out) of [x u]; of all outputs or of some."""
        return multiply(rows, self.weight[outputs], self.bias[outputs])

    def product_back(self, grad: torch.Tensor, outputs: slice = slice(None)) -> torch.Tensor:
        """[dx du] (N, D_in + R) of the gradient (N, D_out) of all outputs or of some; dx without its share of A."""
        return multiply(grad, self.weight[outputs].t())

    def inner_back(self, grad: torch.Tensor, outputs: slice = slice(None)) -> torch.Tensor:
        """The du (N, R) alone."""
        return grad @ self.weight[outputs, self.width :]

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
            grads: [x u] (M, D_in + R), the gradient (M, D_out) that belongs to it, and of which outputs that is.
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
        for rows, columns, scale, (low, high) in zip(self.rows, self.columns, self.scales, wanted, strict=True):
            own = slice(columns.start - self.width, columns.stop - self.width)
            found.append(
                (
                    d_low[own].float() if low and d_low is not None else None,
                    d_high[own, rows].t().float() * scale if high and d_high is not None else None,
                )
            )
        return found


class RoundedLayer:
    """The copies in bf16 that the passes of one layer take.

    Args:
        linear: Query, key, value, output of attention, up, down.
        scale: Of the scores.
    """

    def __init__(self, linear: Sequence[Part], scale: float) -> None:
        query, key, value, out, up, down = linear
        self.attention = Joint((query, key, value), (scale, 1.0, 1.0))
        self.out, self.up, self.down = (Joint((part,), (1.0,)) for part in (out, up, down))
        self.joints = (self.attention, self.out, self.up, self.down)  # the first is of three


def run_rounded(hidden: torch.Tensor, plan: Plan, copies: RoundedLayer) -> torch.Tensor:
    """(B, L, D) to (B, L, D), or to (B, 1, D) where the first token alone is needed."""
    for joint in copies.joints:
        joint.refresh()
    if not torch.is_grad_enabled():
        return _forward(hidden, plan, copies)[0]
    output: torch.Tensor = _RoundedLayer.apply(hidden, (plan, copies), *plan.adapters)  # type: ignore[no-untyped-call]
    return output


class _RoundedLayer(torch.autograd.Function):
    """See the head of this file."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, both: tuple[Plan, RoundedLayer], *_: torch.Tensor) -> torch.Tensor:
        plan, copies = both
        output, kept = _forward(hidden, plan, copies)
        ctx.both, ctx.shape = both, hidden.shape
        save(ctx, kept)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        plan, copies = ctx.both
        way = _WayBack(plan, copies, ctx)
        d_hidden = way.go(grad)
        return None if d_hidden is None else d_hidden.view(ctx.shape), None, *way.adapter_gradients


def _forward(hidden: torch.Tensor, plan: Plan, copies: RoundedLayer) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The output of the layer, and what the way back needs."""
    form, (norm_1, norm_2), width = plan.form, plan.norms, hidden.shape[2]
    rows = hidden.reshape(-1, width)
    x = copies.attention.rounded(rows)
    if plan.first_alone:
        asked, residual = _first(x, form).contiguous(), _first(rows, form)
        query = split_heads(copies.attention.product(asked, slice(width)), form, 1)[0]
        key, value = split_heads(copies.attention.product(x, slice(width, None)), form, 2)
    else:
        residual = rows
        query, key, value = split_heads(copies.attention.product(x), form, 3)
    attended, weights = attend_rounded(query, key, value, form=form, mask=plan.mask)
    context = copies.out.beside(len(residual))
    join_heads(attended[None], form, context[:, :width])
    context = copies.out.with_inner(context)
    sum_1 = copies.out.product(context).float().add_(residual)
    h, mean_1, rstd_1 = NORM(sum_1, sum_1.shape[-1:], *norm_1)
    h_rounded = copies.up.rounded(h)
    m = copies.up.product(h_rounded)
    a = copies.down.rounded(functional.gelu(m, approximate=plan.approximate))
    sum_2 = h.add_(copies.down.product(a))  # in its place: h is kept rounded
    z, mean_2, rstd_2 = NORM(sum_2, sum_2.shape[-1:], *norm_2)
    kept = {"x": x, "query": query, "key": key, "value": value, "context": context, "h": h_rounded, "m": m, "a": a}
    kept |= {"sum_1": sum_1, "mean_1": mean_1, "rstd_1": rstd_1, "sum_2": sum_2, "mean_2": mean_2, "rstd_2": rstd_2}
    kept |= {f"weights_{index}": one for index, one in enumerate(weights)}
    return z.view(form.texts, -1, width), kept


def _first(rows: torch.Tensor, form: Any) -> torch.Tensor:
    """A view of the rows of the first tokens, (B, D), of (B L, D)."""
    return rows.view(form.texts, -1, rows.shape[-1])[:, 0]


class _WayBack(WayBack):
    """With products in bf16, of the copies of the layer."""

    def __init__(self, plan: Plan, copies: RoundedLayer, ctx: Any) -> None:
        super().__init__(plan, ctx)
        self.copies = copies

    def go(self, grad: torch.Tensor) -> torch.Tensor | None:
        """The gradient of the hidden states where it is wanted, in rows; those of the adapters are found on the way."""
        plan, kept, copies = self.plan, self.kept, self.copies
        d_sum_2 = self.norm_back(2, grad.reshape(-1, grad.shape[-1]))
        d_a = self._linear_back(_DOWN, d_sum_2.to(_BF16), wants_x=self.needs(_DOWN))
        if d_a is None:
            return None
        d_a = _with_low(copies.down, d_a).contiguous()  # torch takes twice as long over rows with something beside them
        d_m = GELU_BACK(d_a, kept["m"], approximate=plan.approximate, grad_input=d_a)  # in its place
        d_h = self._linear_back(_UP, d_m, wants_x=self.needs(_UP))
        if d_h is None:
            return None
        d_sum_1 = self.norm_back(1, _add_with_low(d_sum_2, copies.up, d_h))
        d_context = self._linear_back(_OUT, d_sum_1.to(_BF16), wants_x=self.needs(_OUT))
        if d_context is None:
            return None
        grads = self._attention_back(_with_low(copies.out, d_context))
        d_x = self._joint_back(grads, wants_x=self.wants_hidden)
        if d_x is None:
            return None
        if not plan.first_alone:
            return _add_with_low(d_sum_1, copies.attention, d_x)
        d_rows = d_x[:, : grad.shape[-1]].float().contiguous()
        if copies.attention.rank:
            d_rows.addmm_(d_x[:, copies.attention.width :].float(), copies.attention.low.float())
        _first(d_rows, plan.form).add_(d_sum_1)
        return d_rows

    def _linear_back(self, index: int, grad: torch.Tensor, *, wants_x: bool) -> torch.Tensor | None:
        """[dx du] where dx is wanted, of the gradient of the output (N, D_out); dx without its share of A."""
        joint = self.copies.joints[index - _VALUE]
        rows = self.kept[{_OUT: "context", _UP: "h", _DOWN: "a"}[index]]
        wanted = self.wanted[index : index + 1]
        d_x = joint.product_back(grad) if wants_x else None
        if any(wanted[0]):
            d_inner = joint.inner_back(grad) if d_x is None else d_x[:, joint.width :]
            self.found[index] = joint.gradients([(rows, grad, slice(None))], x=rows, d_inner=d_inner, wanted=wanted)[0]
        return d_x

    def _attention_back(self, grad: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor, slice]]:
        """The gradients of query, key and value in rows, each with the rows that were multiplied, and which outputs."""
        plan, kept, form = self.plan, self.kept, self.plan.form
        states = kept["query"], kept["key"], kept["value"]
        weights = tuple(kept[name] for name in ("weights_0", "weights_1") if name in kept)
        both, tokens, size = states[1].shape
        width = form.heads * size
        d_heads = split_heads(grad, form, 1)[0]
        joined = torch.empty(3, both, tokens, size, dtype=_BF16)
        d_query = torch.empty_like(states[0]) if plan.first_alone else joined[0]
        into = (d_query, joined[1], joined[2])
        attend_rounded_back(d_heads, states, weights, form=form, mask=plan.mask, into=into)
        if not plan.first_alone:
            return [(kept["x"], join_heads(joined, form, grad.new_empty(form.texts * tokens, 3 * width)), slice(None))]
        others = join_heads(joined[1:], form, grad.new_empty(form.texts * tokens, 2 * width))
        asked = join_heads(d_query[None], form, grad.new_empty(form.texts, width))
        return [(_first(kept["x"], form), asked, slice(width)), (kept["x"], others, slice(width, None))]

    def _joint_back(
        self, grads: list[tuple[torch.Tensor, torch.Tensor, slice]], *, wants_x: bool
    ) -> torch.Tensor | None:
        """[dx du] of query, key and value together, where dx is wanted."""
        joint, wanted = self.copies.attention, self.wanted[:3]
        if not wants_x and not any(map(any, wanted)):
            return None
        way = joint.product_back if wants_x else joint.inner_back
        d_all = way(*grads[-1][1:])
        if len(grads) > 1:
            _first(d_all, self.plan.form).add_(way(*grads[0][1:]))
        if any(map(any, wanted)):
            d_inner = d_all[:, joint.width :] if wants_x else d_all
            self.found |= enumerate(joint.gradients(grads, x=self.kept["x"], d_inner=d_inner, wanted=wanted))
        return d_all if wants_x else None


def _with_low(joint: Joint, both: torch.Tensor) -> torch.Tensor:
    """The whole dx of [dx du], in its place."""
    d_x = both[:, : joint.width]
    return d_x.addmm_(both[:, joint.width :], joint.low) if joint.rank else d_x


def _add_with_low(total: torch.Tensor, joint: Joint, both: torch.Tensor) -> torch.Tensor:
    """The whole dx of [dx du] added to an fp32 total (N, D), in its place."""
    total.add_(both[:, : joint.width])
    return total.addmm_(both[:, joint.width :].float(), joint.low.float()) if joint.rank else total
