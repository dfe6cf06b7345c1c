"""A whole encoder layer as one function: the arithmetic of torch and peft, without what they do around it.

    a = attend(x Wq', x Wk', x Wv')        x (N, D), N tokens of a batch; each product with its bias and its LoRA
    h = norm(a Wo' + x)
    z = norm(gelu(h Wu') Wd' + h)          BERT, RoBERTa, DistilBERT and what is built like them

What a step of a small model does beside its products is mostly calls of torch from Python and tensors in between; one
function with a backward of its own makes few of them. Rows of the last layer that nothing reads are not computed:
there the first token alone asks (see `last_layer`).

All of it is fp32; `rounded_layer` has the products with frozen weights in fewer bits.

Source:
    Devlin et al. (2019), BERT, section 3; Hu et al. (2021), LoRA, section 4.1; the derivatives are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional

from textlift.models.attention import Form, Mask
from textlift.models.grouping import Groups, Masks, attend_each, attend_each_back
from textlift.models.products import Gradients, Low, Part, multiply, multiply_gelu

NORM: Any = torch.native_layer_norm
_NORM_BACK: Any = torch.ops.aten.native_layer_norm_backward
_GELU_IN_PLACE: Any = torch.ops.aten.gelu_
GELU_BACK: Any = torch.ops.aten.gelu_backward.grad_input
_QUERY, _KEY, _VALUE, _OUT, _UP, _DOWN = range(6)
_REST = ((_OUT,), (_UP,), (_DOWN,))


@dataclass(frozen=True)
class Plan:
    """What one pass of a layer is made of.

    Args:
        linear: Query, key, value, output of attention, up, down.
        norms: After attention, after the MLP: weight (D,), bias (D,), epsilon.
        form: Of the batch.
        mask: For as many queries as there are; of groups, one for each.
        scale: Of the scores.
        approximate: Of GELU, in torch's word.
        first_alone: Whether the first token alone is needed of the output.
    """

    linear: tuple[Part, ...]
    norms: tuple[tuple[torch.Tensor, torch.Tensor, float], ...]
    form: Form | Groups
    mask: Mask | Masks
    scale: float
    approximate: str
    first_alone: bool

    @property
    def padded(self) -> tuple[Form, Mask]:
        """Form and mask where the batch is padded, which some ways to compute a layer must have."""
        assert isinstance(self.form, Form)
        assert isinstance(self.mask, Mask)
        return self.form, self.mask

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Which linear layers read the same rows, in order."""
        return ((_QUERY,), (_KEY, _VALUE), *_REST) if self.first_alone else ((_QUERY, _KEY, _VALUE), *_REST)

    @cached_property
    def lows(self) -> dict[tuple[int, ...], Low]:
        """The LoRA of each group that has one, as it is when first asked for."""
        adapted = {group: tuple(part for part in self.of(group) if part.low is not None) for group in self.groups}
        return {group: Low(parts) for group, parts in adapted.items() if parts}

    def of(self, group: tuple[int, ...]) -> list[Part]:
        """The linear layers of a group."""
        return [self.linear[index] for index in group]

    @property
    def adapters(self) -> list[torch.Tensor]:
        """A and B of each linear layer that has them, in order."""
        both = [(part.low, part.high) for part in self.linear]
        return [weight for pair in both for weight in pair if weight is not None]


def run_layer(hidden: torch.Tensor, plan: Plan) -> torch.Tensor:
    """(B, L, D) to (B, L, D), or to (B, 1, D) where the first token alone is needed."""
    adapters = plan.adapters
    if torch.is_grad_enabled() and (hidden.requires_grad or any(weight.requires_grad for weight in adapters)):
        output: torch.Tensor = _Layer.apply(hidden, plan, *adapters)  # type: ignore[no-untyped-call]
        return output
    return _forward(hidden, plan, kept=None)


class _Layer(torch.autograd.Function):
    """See the head of this file."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, plan: Plan, *_: torch.Tensor) -> torch.Tensor:
        kept: dict[str, torch.Tensor] = {}
        output = _forward(hidden, plan, kept=kept)
        ctx.plan = plan
        save(ctx, kept)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        way = _WayBack(ctx.plan, ctx)
        return way.go(grad), None, *way.adapter_gradients


def save(ctx: Any, kept: dict[str, torch.Tensor]) -> None:
    """Have autograd keep named tensors of a pass for its `WayBack`."""
    ctx.names = tuple(kept)
    ctx.save_for_backward(*kept.values())


def _forward(hidden: torch.Tensor, plan: Plan, *, kept: dict[str, torch.Tensor] | None) -> torch.Tensor:
    """The output of the layer; what the way back needs goes into `kept`, where there is one, and is freed where not."""
    form, (norm_1, norm_2) = plan.form, plan.norms
    groups = iter(plan.groups)

    def through(x: torch.Tensor) -> list[torch.Tensor]:
        """The next linear layers, all of x."""
        group = next(groups)
        outputs = [multiply(x, part.weight, part.bias) for part in plan.of(group)]
        low = plan.lows.get(group)
        if low is not None:
            adapted = [y for y, part in zip(outputs, plan.of(group), strict=True) if part.low is not None]
            keep(**{f"x_{group[0]}": x, f"inner_{group[0]}": low.add(adapted, x)})
        return outputs

    def keep(**tensors: torch.Tensor) -> None:
        if kept is not None:
            kept.update(tensors)

    rows = form.rows(hidden)
    asked = form.first(rows).contiguous() if plan.first_alone else rows
    first = through(asked)
    query, key, value = first + through(rows) if plan.first_alone else first
    context, attended = attend_each(query, key, value, form=form, mask=plan.mask, scale=plan.scale)
    keep(query=query, key=key, value=value, **{f"attended_{index}": one for index, one in enumerate(attended)})
    del first, query, key, value, attended, rows
    total = through(context)[0].add_(asked)
    del context, asked
    h, mean, rstd = NORM(total, total.shape[-1:], *norm_1)
    keep(sum_1=total, mean_1=mean, rstd_1=rstd)
    if kept is None and plan.linear[_UP].low is None:  # nothing goes back through it: no m is needed
        next(groups)
        a = multiply_gelu(h, plan.linear[_UP], approximate=plan.approximate)
    else:
        (m,) = through(h)
        gelu: Any = functional.gelu if kept is not None else _GELU_IN_PLACE
        a = gelu(m, approximate=plan.approximate)
        keep(m=m)
        del m
    total = through(a)[0].add_(h)
    del a, h
    z, mean, rstd = NORM(total, total.shape[-1:], *norm_2)
    keep(sum_2=total, mean_2=mean, rstd_2=rstd)
    return form.batch(z)


class WayBack:
    """The gradients of one pass: what both ways to compute a layer share.

    Args:
        plan: Of the pass.
        ctx: Of an autograd function of (hidden states, anything, the plan's adapters), with what `save` kept.
    """

    def __init__(self, plan: Plan, ctx: Any) -> None:
        self.plan = plan
        self.kept: dict[str, torch.Tensor] = dict(zip(ctx.names, ctx.saved_tensors, strict=True))
        self.wants_hidden, _, *flags = ctx.needs_input_grad
        wanted = iter(flags)
        adapted = [part.low is not None for part in plan.linear]
        self.wanted = [(next(wanted), next(wanted)) if has else (False, False) for has in adapted]
        self.found: dict[int, Gradients] = {}

    @property
    def adapter_gradients(self) -> list[torch.Tensor | None]:
        """Of A and B of each linear layer that has them, in order."""
        parts = enumerate(self.plan.linear)
        return [one for index, part in parts if part.low is not None for one in self.found.get(index, (None, None))]

    def needs(self, count: int) -> bool:
        """Whether any gradient is wanted of the first linear layers or of what comes before them."""
        return bool(self.wants_hidden) or any(map(any, self.wanted[:count]))

    def norm_back(self, number: int, grad: torch.Tensor) -> torch.Tensor:
        """(N, D) to (N, D): through the norm after attention (1) or after the MLP (2)."""
        kept, (weight, bias, _) = self.kept, self.plan.norms[number - 1]
        seen, mean, rstd = (kept[f"{name}_{number}"] for name in ("sum", "mean", "rstd"))
        found: torch.Tensor = _NORM_BACK(grad, seen, grad.shape[-1:], mean, rstd, weight, bias, [True, False, False])[0]
        return found


class _WayBack(WayBack):
    """In fp32."""

    def go(self, grad: torch.Tensor) -> torch.Tensor | None:
        """The gradient of the hidden states where it is wanted; those of the adapters are found on the way."""
        plan, kept, form = self.plan, self.kept, self.plan.form
        d_sum_2 = self.norm_back(2, form.rows(grad))
        d_a = self._back((_DOWN,), [d_sum_2], wants_x=self.needs(_DOWN))
        if d_a is None:
            return None
        d_m = GELU_BACK(d_a, kept["m"], approximate=plan.approximate, grad_input=d_a)  # in its place
        d_h = self._back((_UP,), [d_m], wants_x=self.needs(_UP))
        if d_h is None:
            return None
        d_sum_1 = self.norm_back(1, d_sum_2.add_(d_h))
        d_context = self._back((_OUT,), [d_sum_1], wants_x=self.needs(_OUT))
        if d_context is None:
            return None
        attended = tuple(one for name, one in kept.items() if name.startswith("attended_"))
        inputs = kept["query"], kept["key"], kept["value"]
        grads = attend_each_back(d_context, inputs, attended, form=form, mask=plan.mask, scale=plan.scale)
        if not plan.first_alone:
            d_rows = self._back((_QUERY, _KEY, _VALUE), grads, wants_x=self.wants_hidden)
            return None if d_rows is None else form.batch(d_sum_1.add_(d_rows))
        d_asked = self._back((_QUERY,), grads[:1], wants_x=self.wants_hidden)
        d_rows = self._back((_KEY, _VALUE), grads[1:], wants_x=self.wants_hidden)
        if d_asked is None or d_rows is None:
            return None
        form.add_to_first(d_rows, d_sum_1.add_(d_asked))
        return form.batch(d_rows)

    def _back(self, group: tuple[int, ...], grads: Sequence[torch.Tensor], *, wants_x: bool) -> torch.Tensor | None:
        """The gradient of the rows (N, D_in) that a group reads where it is wanted, of its outputs' (N, D_out)."""
        d_x = None
        if wants_x:
            first, *others = (
                multiply(grad, part.weight.t()) for grad, part in zip(grads, self.plan.of(group), strict=True)
            )
            d_x = first
            for other in others:
                d_x.add_(other)
        low = self.plan.lows.get(group)
        if low is not None:
            adapted = [index for index in group if self.plan.linear[index].low is not None]
            found = low.gradients(
                [grads[index - group[0]] for index in adapted],
                x=self.kept[f"x_{group[0]}"],
                inner=self.kept[f"inner_{group[0]}"],
                d_x=d_x,
                wanted=[self.wanted[index] for index in adapted],
            )
            self.found |= zip(adapted, found, strict=True)
        return d_x
