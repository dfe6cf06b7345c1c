"""A whole encoder layer with the products of its frozen weights in fewer bits: as `layer_function`, in fewer products.

Linear layers that read the same rows (query, key and value) are one product with their LoRA, in bf16 (see `joint`) or
in eight bits (see `eight_bits`). The residual stream, norms and the softmax stay fp32, and so does whatever trains.

Source:
    Devlin et al. (2019), BERT, section 3; Hu et al. (2021), LoRA, section 4.1; the derivatives are ours.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from textlift.models.eight_bits import joint_of
from textlift.models.joint import ALL, BF16, Joint
from textlift.models.layer_function import GELU_BACK, NORM, Plan, WayBack, save
from textlift.models.products import Part
from textlift.models.rounded_attention import attend_rounded, attend_rounded_back, join_heads, split_heads

_OF_GELU = 8  # of 255: where GELU, which is at least -0.17, has its 0
_VALUE, _OUT, _UP, _DOWN = 2, 3, 4, 5  # as in `Plan.linear`


class RoundedLayer:
    """The copies in fewer bits that the passes of one layer take.

    Args:
        linear: Query, key, value, output of attention, up, down.
        scale: Of the scores.
    """

    def __init__(self, linear: Sequence[Part], scale: float) -> None:
        query, key, value, out, up, down = linear
        self.attention = joint_of((query, key, value), (scale, 1.0, 1.0))
        self.out, self.up = (joint_of((part,), (1.0,)) for part in (out, up))
        self.down = joint_of((down,), (1.0,), zero=_OF_GELU, apart=0)
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
    (form, mask), (norm_1, norm_2), width = plan.padded, plan.norms, hidden.shape[2]
    rows = hidden.reshape(-1, width)
    x = copies.attention.rounded(rows)
    if plan.first_alone:
        asked, residual = _first(x, form).contiguous(), _first(rows, form)
        query = split_heads(copies.attention.product(asked, slice(width)), form, 1)[0]
        key, value = split_heads(copies.attention.product(x, slice(width, None)), form, 2)
    else:
        residual = rows
        query, key, value = split_heads(copies.attention.product(x), form, 3)
    attended, weights = attend_rounded(query, key, value, form=form, mask=mask)
    context = copies.out.beside(len(residual))
    join_heads(attended[None], form, context[:, :width])
    context = copies.out.with_inner(context)
    sum_1 = copies.out.product(context).float().add_(residual)
    h, mean_1, rstd_1 = NORM(sum_1, sum_1.shape[-1:], *norm_1)
    h_rounded = copies.up.rounded(h)
    m = copies.up.product(h_rounded)
    a = copies.down.rounded(functional.gelu(m, approximate=plan.approximate))
    sum_2 = copies.down.product_into(h, a)  # in its place: h is kept rounded
    z, mean_2, rstd_2 = NORM(sum_2, sum_2.shape[-1:], *norm_2)
    kept = {"x": x, "query": query, "key": key, "value": value, "context": context, "h": h_rounded, "m": m, "a": a}
    kept |= {"sum_1": sum_1, "mean_1": mean_1, "rstd_1": rstd_1, "sum_2": sum_2, "mean_2": mean_2, "rstd_2": rstd_2}
    kept |= {f"weights_{index}": one for index, one in enumerate(weights)}
    return z.view(form.texts, -1, width), kept


def _first(rows: torch.Tensor, form: Any) -> torch.Tensor:
    """A view of the rows of the first tokens, (B, D), of (B L, D)."""
    return rows.view(form.texts, -1, rows.shape[-1])[:, 0]


class _WayBack(WayBack):
    """With the products of the copies of the layer."""

    def __init__(self, plan: Plan, copies: RoundedLayer, ctx: Any) -> None:
        super().__init__(plan, ctx)
        self.copies = copies

    def go(self, grad: torch.Tensor) -> torch.Tensor | None:
        """The gradient of the hidden states where it is wanted, in rows; those of the adapters are found on the way."""
        total = self.norm_back(2, grad.reshape(-1, grad.shape[-1]))
        d_a = self._back(_DOWN, total)
        if d_a is None:
            return None
        d_a = d_a.contiguous()  # torch takes twice as long over rows with something beside them
        d_m = GELU_BACK(d_a, self.kept["m"], approximate=self.plan.approximate, grad_input=d_a)  # in its place
        if not self._back_into(total, _UP, d_m):
            return None
        total = self.norm_back(1, total)
        d_context = self._back(_OUT, total)
        if d_context is None:
            return None
        return self._attention_into(total, self._attention_back(d_context))

    def _back(self, index: int, grad: torch.Tensor) -> torch.Tensor | None:
        """The gradient of the input (N, D_in) in bf16 where it is wanted, of that of the output (N, D_out)."""
        joint, grad = self._joint(index), self._rounded(index, grad)
        d_x, d_inner = joint.back(grad) if self.needs(index) else (None, None)
        self._find(index, grad, d_inner)
        return d_x

    def _back_into(self, total: torch.Tensor, index: int, grad: torch.Tensor) -> bool:
        """As `_back`, added to a total (N, D_in) in fp32; whether it is wanted."""
        joint, grad = self._joint(index), self._rounded(index, grad)
        d_inner = joint.back_into(total, grad) if self.needs(index) else None
        self._find(index, grad, d_inner)
        return self.needs(index)

    def _joint(self, index: int) -> Joint:
        return self.copies.joints[index - _VALUE]

    def _rounded(self, index: int, grad: torch.Tensor) -> torch.Tensor:
        """In bf16 where more than one product takes it."""
        return grad.to(BF16) if any(self.wanted[index]) else grad

    def _find(self, index: int, grad: torch.Tensor, d_inner: torch.Tensor | None) -> None:
        """The gradients of the adapter of a linear layer where they are wanted; du (N, R) where it is known."""
        wanted = self.wanted[index : index + 1]
        if any(wanted[0]):
            joint, rows = self._joint(index), self.kept[{_OUT: "context", _UP: "h", _DOWN: "a"}[index]]
            inner = joint.inner_back(grad) if d_inner is None else d_inner
            self.found[index] = joint.gradients([(rows, grad, ALL)], x=rows, d_inner=inner, wanted=wanted)[0]

    def _attention_back(self, grad: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor, slice]]:
        """The gradients of query, key and value in rows, each with the rows that were multiplied, and which outputs."""
        plan, kept, (form, mask) = self.plan, self.kept, self.plan.padded
        states = kept["query"], kept["key"], kept["value"]
        weights = tuple(kept[name] for name in ("weights_0", "weights_1") if name in kept)
        both, tokens, size = states[1].shape
        width = form.heads * size
        d_heads = split_heads(grad, form, 1)[0]
        joined = torch.empty(3, both, tokens, size, dtype=BF16)
        d_query = torch.empty_like(states[0]) if plan.first_alone else joined[0]
        into = (d_query, joined[1], joined[2])
        attend_rounded_back(d_heads, states, weights, form=form, mask=mask, into=into)
        if not plan.first_alone:
            return [(kept["x"], join_heads(joined, form, grad.new_empty(form.texts * tokens, 3 * width)), ALL)]
        others = join_heads(joined[1:], form, grad.new_empty(form.texts * tokens, 2 * width))
        asked = join_heads(d_query[None], form, grad.new_empty(form.texts, width))
        return [(_first(kept["x"], form), asked, slice(width)), (kept["x"], others, slice(width, None))]

    def _attention_into(
        self, total: torch.Tensor, grads: list[tuple[torch.Tensor, torch.Tensor, slice]]
    ) -> torch.Tensor | None:
        """The gradient of the hidden states (B L, D) where it is wanted: that of query, key and value, and a total.

        Args:
            total: What is there already, for the rows that asked, fp32; it is overwritten.
            grads: As `_attention_back` gives them.
        """
        joint, wanted, form = self.copies.attention, self.wanted[:3], self.plan.padded[0]
        rows = total
        if not self.wants_hidden:
            inner = [joint.inner_back(grad, outputs) for _, grad, outputs in grads]
        else:
            if self.plan.first_alone:
                rows = total.new_zeros(len(grads[-1][1]), total.shape[1])
            totals = (total, rows)[-len(grads) :]
            inner = [joint.back_into(one, grad, outputs) for one, (_, grad, outputs) in zip(totals, grads, strict=True)]
            if self.plan.first_alone:
                _first(rows, form).add_(total)
        if any(map(any, wanted)):
            if self.plan.first_alone:
                _first(inner[-1], form).add_(inner[0])
            self.found |= enumerate(joint.gradients(grads, x=self.kept["x"], d_inner=inner[-1], wanted=wanted))
        return rows if self.wants_hidden else None
