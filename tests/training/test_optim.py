"""Weight decay groups and the learning rate of each step."""

from typing import get_args

import pytest
import torch
from torch import nn

from textlift.recipe import SchedulerType
from textlift.training.optim import make_optimizer, make_schedule


def optimizer_of(model: nn.Module) -> torch.optim.AdamW:
    return make_optimizer(model.named_parameters(), learning_rate=0.1, weight_decay=0.01)


def test_biases_and_norms_are_exempt_from_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    decayed, exempt = optimizer_of(model).param_groups
    assert (decayed["weight_decay"], exempt["weight_decay"]) == (0.01, 0.0)
    assert [id(p) for p in decayed["params"]] == [id(model[0].weight)]
    assert {id(p) for p in exempt["params"]} == {id(model[0].bias), id(model[1].weight), id(model[1].bias)}


def test_frozen_weights_are_not_optimized() -> None:
    model = nn.Linear(3, 2, bias=False)
    frozen = nn.Linear(3, 2).requires_grad_(False)
    groups = optimizer_of(nn.Sequential(model, frozen)).param_groups
    assert [id(p) for group in groups for p in group["params"]] == [id(model.weight)]


def rates(total_steps: int, warmup_ratio: float, kind: SchedulerType = "linear") -> list[float]:
    optimizer = optimizer_of(nn.Linear(2, 2))
    schedule = make_schedule(optimizer, total_steps=total_steps, warmup_ratio=warmup_ratio, kind=kind)
    found = []
    for _ in range(total_steps):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == ([0.1, 0.1] if kind == "constant_with_warmup" else [0.0, 0.0])
    return found


def test_the_rate_rises_to_its_peak_and_falls_to_zero_after_the_last_step() -> None:
    assert rates(10, 0.2) == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, *(0.1 * k / 8 for k in range(7, 0, -1))])


@pytest.mark.parametrize(
    ("kind", "shares"),
    [
        ("linear", (1, 0.75, 0.5, 0.25)),
        ("cosine", (1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2)),
        ("constant_with_warmup", (1, 1, 1, 1)),
    ],
)
def test_the_rate_falls_as_its_name_says(kind: SchedulerType, shares: tuple[float, ...]) -> None:
    assert rates(4, 0.0, kind) == pytest.approx([0.1 * share for share in shares])


@pytest.mark.parametrize("kind", get_args(SchedulerType))
def test_the_rate_rises_before_every_fall(kind: SchedulerType) -> None:
    assert rates(10, 0.2, kind)[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert rates(4, 0.0) == pytest.approx([0.1, 0.075, 0.05, 0.025])


def test_a_single_step_has_the_peak_rate() -> None:
    assert rates(1, 0.06) == [0.1]


def test_the_peak_is_reached_whatever_the_ratio() -> None:
    for total in (2, 7, 33, 100):
        for ratio in (0.06, 0.5, 0.9):
            found = rates(total, ratio)
            assert max(found) <= 0.1
            assert min(found) > 0
            if round(total * ratio) < total:
                assert max(found) == pytest.approx(0.1)
