"""How many examples a step takes: what is asked, else 32; fuller with fast, while 500 steps remain."""

import math

import pytest

from textlift.recipe import TrainingSection
from textlift.training.steps import batch_size_of, rate_factor


@pytest.mark.parametrize("fast", [False, True])
def test_a_batch_that_is_asked_for_is_taken_at_the_usual_rate(fast: bool) -> None:
    asked = TrainingSection(batch_size=8, fast=fast)
    assert batch_size_of(asked, 100_000) == 8
    assert rate_factor(asked, 100_000, steps=25_000, few_steps=2) == 1


def test_without_fast_a_batch_is_32_whatever_the_rows() -> None:
    assert {batch_size_of(TrainingSection(), rows) for rows in (1, 1_000, 1_000_000)} == {32}
    assert rate_factor(TrainingSection(), 1_000_000, steps=62_500, few_steps=2) == 1


@pytest.mark.parametrize(
    ("rows", "epochs", "batch"),
    [
        (10, 2, 32),
        (15_936, 2, 32),
        (15_937, 2, 64),
        (31_872, 2, 64),
        (31_873, 2, 128),
        (1_000_000, 2, 128),
        (40_000, 1, 64),
    ],
)
def test_with_fast_a_batch_is_fuller_while_500_steps_remain(rows: int, epochs: int, batch: int) -> None:
    settings = TrainingSection(fast=True, epochs=epochs)
    assert batch_size_of(settings, rows) == batch
    assert batch == 32 or math.ceil(rows / batch) * epochs >= 500


def test_the_rate_goes_with_the_square_root_of_the_batch() -> None:
    assert rate_factor(TrainingSection(fast=True), 1_000_000, steps=15_625, few_steps=2) == pytest.approx(2)
    many = TrainingSection(fast=True, epochs=20)
    assert rate_factor(many, 8_000, steps=1_250, few_steps=2) == pytest.approx(2)
    assert rate_factor(many, 1_600, steps=1_000, few_steps=2) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(("steps", "factor"), [(1, 2), (500, 2), (800, 1.25), (1_000, 1), (5_000, 1)])
def test_a_training_of_few_steps_takes_longer_ones(steps: int, factor: float) -> None:
    assert rate_factor(TrainingSection(), 32 * steps, steps=steps, few_steps=2) == pytest.approx(factor)


def test_a_method_that_bears_no_higher_rate_keeps_its_own_where_steps_are_few() -> None:
    assert rate_factor(TrainingSection(), 320, steps=10, few_steps=1) == 1


def test_the_rate_is_never_more_than_doubled() -> None:
    settings = TrainingSection(fast=True)
    assert batch_size_of(settings, 32_000) == 128
    assert rate_factor(settings, 32_000, steps=500, few_steps=2) == 2
