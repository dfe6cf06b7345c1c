"""How many examples a step takes: what is asked, else 32; fuller where texts are short and 500 steps remain.

And how many tokens one pass of it.
"""

import math

import numpy as np
import pytest

from textlift.recipe import TrainingSection
from textlift.training.steps import batch_size_of, planned_steps, rate_factor, tokens_per_batch_of

SHORT = 8  # tokens


def lengths(rows: int, tokens: int = SHORT) -> np.ndarray:
    """That many texts, all of one length."""
    return np.full(rows, tokens)


def test_a_batch_that_is_asked_for_is_taken() -> None:
    assert batch_size_of(TrainingSection(batch_size=8), lengths(100_000), fullest=128) == 8


def test_a_method_that_bears_no_fuller_batches_keeps_32() -> None:
    assert batch_size_of(TrainingSection(), lengths(1_000_000)) == 32


@pytest.mark.parametrize("asked", [{"learning_rate": 1e-3}, {"max_steps": 10_000}])
def test_a_recipe_that_gives_the_rate_or_counts_the_steps_keeps_32(asked: dict[str, float]) -> None:
    assert batch_size_of(TrainingSection.model_validate(asked), lengths(1_000_000), fullest=128) == 32


@pytest.mark.parametrize(
    ("rows", "epochs", "batch"),
    [
        (10, 2, 32),
        (15_999, 2, 32),
        (16_000, 2, 64),
        (31_999, 2, 64),
        (32_000, 2, 128),
        (1_000_000, 2, 128),
        (40_000, 1, 64),
    ],
)
@pytest.mark.parametrize("fast", [False, True])
def test_a_batch_is_fuller_while_500_steps_remain(rows: int, epochs: int, batch: int, fast: bool) -> None:
    settings = TrainingSection(epochs=epochs, fast=fast)
    assert batch_size_of(settings, lengths(rows), fullest=128) == batch
    settled = settings.model_copy(update={"batch_size": batch})
    assert batch == 32 or planned_steps(settled, lengths(rows), seed=0) >= 500


@pytest.mark.parametrize(("tokens", "batch"), [(8, 128), (16, 128), (17, 64), (32, 64), (33, 32), (256, 32)])
def test_a_batch_is_fuller_only_while_it_holds_few_tokens(tokens: int, batch: int) -> None:
    assert batch_size_of(TrainingSection(), lengths(1_000_000, tokens), fullest=128) == batch


def test_a_limit_of_tokens_counts_as_the_steps_that_it_leaves() -> None:
    few = TrainingSection(max_tokens=500 * 64 * SHORT)
    assert batch_size_of(few, lengths(1_000_000), fullest=128) == 64


def test_the_rate_goes_with_the_square_root_of_the_batch() -> None:
    assert rate_factor(4, steps=15_625, few_steps=1.5) == pytest.approx(2)
    assert rate_factor(2, steps=1_000, few_steps=1.5) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(("steps", "factor"), [(1, 2), (500, 2), (800, 1.25), (1_000, 1), (5_000, 1)])
def test_a_training_of_few_steps_takes_longer_ones(steps: int, factor: float) -> None:
    assert rate_factor(1, steps=steps, few_steps=2) == pytest.approx(factor)


def test_a_method_that_bears_no_higher_rate_keeps_its_own_where_steps_are_few() -> None:
    assert rate_factor(1, steps=10, few_steps=1) == 1


def test_the_rate_is_multiplied_once_where_steps_are_both_few_and_fuller() -> None:
    assert rate_factor(4, steps=500, few_steps=1.5) == 2


@pytest.mark.parametrize(("device", "usual"), [("cpu", 4_096), ("cuda:1", 8_192), ("mps", 8_192)])
def test_a_pass_takes_fewer_tokens_on_a_cpu_unless_the_recipe_says(device: str, usual: int) -> None:
    assert tokens_per_batch_of(TrainingSection(), device=device) == usual
    assert tokens_per_batch_of(TrainingSection(tokens_per_batch=600), device=device) == 600
