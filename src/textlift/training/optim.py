"""AdamW over the weights that train, and the learning rate of each step."""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from textlift.recipe import SchedulerType

# Share of the peak, by the share of the steps after the rise that are left.
_FALLS: Mapping[SchedulerType, Callable[[float], float]] = {
    "linear": lambda left: left,
    "cosine": lambda left: (1 - math.cos(math.pi * left)) / 2,
    "constant_with_warmup": lambda _: 1.0,
}


def make_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    weight_decay: float,
    ratios: Mapping[str, float] | None = None,
) -> torch.optim.AdamW:
    """AdamW with decoupled decay on matrices; biases and norms (one dimension) are exempt.

    Args:
        named_parameters: Those that do not require gradients are left out.
        learning_rate: Peak.
        weight_decay: Of matrices.
        ratios: What a parameter's name contains, to its learning rate over that of the others.

    Source:
        Loshchilov and Hutter (2019), Decoupled Weight Decay Regularization, algorithm 2.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            ratio = next((value for mark, value in (ratios or {}).items() if mark in name), 1.0)
            decay = weight_decay if parameter.dim() >= 2 else 0.0
            groups.setdefault((ratio, decay), []).append(parameter)
    settled = [
        {"params": members, "lr": learning_rate * ratio, "weight_decay": decay}
        for (ratio, decay), members in groups.items()
    ]
    return torch.optim.AdamW(settled, lr=learning_rate, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer,
    *,
    total_steps: int,
    warmup_ratio: float,
    kind: SchedulerType = "linear",
    time_used: Callable[[], float] | None = None,
) -> LambdaLR:
    """Linear warm-up over a share of all steps; from there the rate falls to zero after the last, or stays.

    Args:
        optimizer: Of the weights that train.
        total_steps: Planned.
        warmup_ratio: Share of the steps in which the rate rises.
        kind: How it falls.
        time_used: Share of a limit of time that is used up; where it is ahead of the steps, the rate follows it.
    """
    warmup = round(total_steps * warmup_ratio)
    fall = _FALLS[kind]

    def share(done: int) -> float:
        if time_used is not None:
            done = max(done, min(total_steps, round(time_used() * total_steps)))
        if done < warmup:
            return (done + 1) / (warmup + 1)
        return fall(max(0.0, (total_steps - done) / max(1, total_steps - warmup)))

    return LambdaLR(optimizer, share)
