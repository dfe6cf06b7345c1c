"""Scores over several seeds, and a difference that counts the seeds as drawn."""

import numpy as np
import pytest

from textlift.errors import DataError
from textlift.evaluation.seeds import difference_over_seeds, over_seeds
from textlift.evaluation.statistics import paired_difference

LABELS = np.array([0, 0, 1, 1])
ANSWERS = np.array([[0, 0, 1, 1], [0, 0, 1, 0], [0, 1, 1, 0]])


def test_mean_and_spread_are_those_of_the_seeds() -> None:
    found = over_seeds(LABELS, ANSWERS, n_classes=2)["accuracy"]
    assert found["values"] == [1.0, 0.75, 0.5]
    assert (found["mean"], found["sd"], found["low"], found["high"]) == (0.75, 0.25, 0.5, 1.0)


def test_agreement_is_the_share_of_rows_on_which_all_seeds_agree() -> None:
    assert over_seeds(LABELS, ANSWERS, n_classes=2)["agreement"] == 0.5


def test_pairwise_agreement_is_the_mean_over_pairs_of_seeds() -> None:
    assert over_seeds(LABELS, ANSWERS, n_classes=2)["pairwise_agreement"] == pytest.approx((0.75 + 0.5 + 0.75) / 3)


def test_one_seed_has_no_spread() -> None:
    with pytest.raises(DataError, match="two seeds or more"):
        over_seeds(LABELS, ANSWERS[:1], n_classes=2)


def test_the_difference_is_that_of_the_means() -> None:
    found = difference_over_seeds(np.array([[1, 1, 1, 0], [1, 0, 1, 0]]), np.array([[0, 0, 1, 0]]))
    assert found.estimate == pytest.approx(0.625 - 0.25)


def test_seeds_that_do_not_matter_give_the_paired_interval() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(2_000) < 0.9, rng.random(2_000) < 0.85
    found = difference_over_seeds(np.stack([a, a, a]), np.stack([b]))
    plain = paired_difference(np.ones(2_000), a.astype(int), b.astype(int))
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=2e-3)


def test_methods_that_only_seeds_tell_apart_are_seldom_called_different() -> None:
    rng = np.random.default_rng(4)
    alone = together = 0
    for _ in range(400):
        luck = rng.normal(0, 0.02, size=(2, 5, 1))  # of each training, in accuracy
        right = rng.random((2, 5, 1_000)) < 0.85 + luck
        found = difference_over_seeds(right[0], right[1])
        together += not found.low <= 0 <= found.high
        first = paired_difference(np.ones(1_000), right[0, 0].astype(int), right[1, 0].astype(int), n_resamples=500)
        alone += not first.low <= 0 <= first.high
    assert together / 400 <= 0.05
    assert alone / 400 > 0.1


def test_other_examples_are_refused() -> None:
    with pytest.raises(DataError, match="same examples"):
        difference_over_seeds(np.ones((2, 3)), np.ones((1, 4)))
