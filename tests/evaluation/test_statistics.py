import json

import numpy as np
import pytest

from textlift.errors import DataError, UsageError
from textlift.evaluation.metrics import METRICS, count_confusion
from textlift.evaluation.statistics import compare, mcnemar_exact, paired_difference


def predictions_of(labels: np.ndarray, *, accuracy: float, n_classes: int, seed: int) -> np.ndarray:
    """Predictions that are right on about that share of examples, and random elsewhere."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < accuracy, labels, rng.integers(n_classes, size=len(labels)))


LABELS = np.random.default_rng(0).integers(4, size=300)
GOOD = predictions_of(LABELS, accuracy=0.8, n_classes=4, seed=1)
POOR = predictions_of(LABELS, accuracy=0.5, n_classes=4, seed=2)


@pytest.mark.parametrize("metric", METRICS)
def test_the_estimate_is_the_difference_of_the_two_scores(metric: str) -> None:
    good, poor = (METRICS[metric](count_confusion(LABELS, answers, 4)[None])[0] for answers in (GOOD, POOR))
    assert paired_difference(LABELS, GOOD, POOR, metric=metric).estimate == pytest.approx(good - poor)


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_of_a_clear_difference_excludes_zero(metric: str) -> None:
    interval = paired_difference(LABELS, GOOD, POOR, metric=metric)
    assert 0 < interval.low < interval.estimate < interval.high


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_agrees_with_resampled_examples(metric: str) -> None:
    rng = np.random.default_rng(5)
    differences = []
    for _ in range(1_000):
        rows = rng.integers(len(LABELS), size=len(LABELS))
        good, poor = (count_confusion(LABELS[rows], answers[rows], 4) for answers in (GOOD, POOR))
        differences.append(METRICS[metric](good[None])[0] - METRICS[metric](poor[None])[0])
    interval = paired_difference(LABELS, GOOD, POOR, metric=metric)
    assert (interval.low, interval.high) == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=0.015)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_equal_predictions_differ_by_exactly_zero(metric: str) -> None:
    interval = paired_difference(LABELS, GOOD, GOOD, metric=metric)
    assert (interval.estimate, interval.low, interval.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_95_percent_intervals_cover_the_true_difference_about_as_often(metric: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=100_000)
    a = predictions_of(labels, accuracy=0.7, n_classes=3, seed=1)
    b = predictions_of(labels, accuracy=0.6, n_classes=3, seed=2)
    truth = paired_difference(labels, a, b, metric=metric, n_resamples=2).estimate
    covered = 0
    for _ in range(200):
        rows = rng.integers(len(labels), size=200)
        interval = paired_difference(labels[rows], a[rows], b[rows], metric=metric, n_resamples=200)
        covered += interval.low <= truth <= interval.high
    assert 0.90 <= covered / 200 <= 0.99


def test_a_metric_that_is_misspelt_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match=r"metric must be one of accuracy, .*Did you mean 'f1_macro'\?"):
        paired_difference(LABELS, GOOD, POOR, metric="f1-macro")


@pytest.mark.parametrize(("n", "m"), [(0, 0), (2, 3)])
def test_predictions_for_other_examples_are_refused(n: int, m: int) -> None:
    with pytest.raises(DataError, match="must hold the same examples, at least one; got"):
        paired_difference(np.zeros(n, dtype=int), np.zeros(n, dtype=int), np.zeros(m, dtype=int))


def test_mcnemar_equals_the_value_computed_by_hand() -> None:
    # Only a is right on 1 example, only b on 7: 2 * (C(8, 0) + C(8, 1)) / 2**8 = 18 / 256.
    a_correct = np.array([True] + 7 * [False] + 5 * [True] + 2 * [False])
    b_correct = np.array([False] + 7 * [True] + 5 * [True] + 2 * [False])
    assert mcnemar_exact(a_correct, b_correct) == pytest.approx(18 / 256)


def test_mcnemar_does_not_depend_on_the_order_of_the_two() -> None:
    assert mcnemar_exact(GOOD == LABELS, POOR == LABELS) == mcnemar_exact(POOR == LABELS, GOOD == LABELS)


def test_mcnemar_is_one_where_no_example_sets_the_two_apart() -> None:
    assert mcnemar_exact(GOOD == LABELS, GOOD == LABELS) == 1.0


def test_mcnemar_refuses_different_numbers_of_examples() -> None:
    with pytest.raises(DataError, match="must hold the same examples; got 2, 3"):
        mcnemar_exact(np.ones(2, dtype=bool), np.ones(3, dtype=bool))


def test_compare_gives_one_plain_row_per_metric() -> None:
    rows = compare("good", "poor", LABELS, a_predictions=GOOD, b_predictions=POOR, metrics=("accuracy", "f1_macro"))
    assert [(row["a"], row["b"], row["metric"], row["n"]) for row in rows] == [
        ("good", "poor", "accuracy", 300),
        ("good", "poor", "f1_macro", 300),
    ]
    assert json.loads(json.dumps(rows)) == rows


def test_compare_tests_accuracy_alone() -> None:
    accuracy, f1_macro = compare("good", "poor", LABELS, a_predictions=GOOD, b_predictions=POOR)
    assert accuracy["p_value"] == mcnemar_exact(GOOD == LABELS, POOR == LABELS) < 0.001
    assert f1_macro["p_value"] is None


def test_compare_counts_the_difference_from_a() -> None:
    (row,) = compare("poor", "good", LABELS, a_predictions=POOR, b_predictions=GOOD, metrics=["accuracy"])
    assert row["low"] < row["difference"] < row["high"] < 0
