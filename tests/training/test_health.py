"""A loss that leaps is told; those of healthy trainings are not."""

import math

import numpy as np
import pytest

from textlift.training.health import Spikes


def told(losses: list[float], n_classes: int = 4) -> list[str]:
    spikes = Spikes(n_classes)
    return [said for said in (spikes.told(step, loss) for step, loss in enumerate(losses, start=1)) if said]


def test_a_leap_is_told_once_with_its_step_and_size() -> None:
    assert told([0.5] * 20 + [40.0, 30.0, 20.0] + [0.5] * 5) == [
        "warning: step 21: the loss leapt to 40; the mean of 8 steps is 11 times the usual"
    ]


def test_a_single_bad_batch_that_is_made_good_is_no_spike() -> None:
    assert told([0.2] * 20 + [4.5, 3.0] + [0.2] * 20, n_classes=3) == []


def test_nothing_is_told_before_the_usual_is_known() -> None:
    assert told([0.5] * 10 + [40.0]) == []


def test_a_hard_batch_of_a_well_fitted_model_is_no_spike() -> None:
    assert told([0.01] * 40 + [1.2] + [0.01] * 40) == []


@pytest.mark.parametrize("seed", range(50))
def test_a_healthy_training_is_left_alone(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n_classes = int(generator.integers(2, 30))
    floor, noise = generator.uniform(0.005, 0.5), generator.uniform(0.1, 0.6)
    falling = floor + math.log(n_classes) * np.exp(-np.arange(400) / generator.uniform(20, 200))
    losses = falling * generator.lognormal(sigma=noise, size=400)
    assert told(losses.tolist(), n_classes) == []
