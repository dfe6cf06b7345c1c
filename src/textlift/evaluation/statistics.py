"""Paired comparisons of two classifiers on the same examples.

Knows label ids and predictions; not how they were made, nor which classifier ought to win.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textlift.errors import DataError, UsageError, nearest
from textlift.evaluation.metrics import METRICS, percentile_bounds, resample_counts


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds of its confidence interval."""

    estimate: float
    low: float
    high: float


def paired_difference(
    labels: np.ndarray,
    a_predictions: np.ndarray,
    b_predictions: np.ndarray,
    *,
    metric: str = "accuracy",
    n_resamples: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Paired bootstrap interval of metric(a) - metric(b) on the same examples.

    Args:
        labels: True label ids, shape (N,).
        a_predictions: Label ids predicted by a, shape (N,), in the same example order.
        b_predictions: The same for b.
        metric: A name of METRICS.
        n_resamples: Bootstrap resamples behind the interval.
        confidence: Coverage of the interval, between 0 and 1.
        seed: Start of the random draws.

    Returns:
        Estimate and bounds from -1 to 1 (0.02 = two percentage points).

    Raises:
        DataError: The arrays are empty or differ in length.
        UsageError: The metric is unknown.

    Source:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 13 (percentile interval).
    """
    _check(labels, a_predictions, b_predictions)
    if metric not in METRICS:
        raise UsageError(f"metric must be one of {', '.join(METRICS)}; got {metric!r}.{nearest(metric, METRICS)}")
    if metric == "accuracy":
        estimate, resampled = _accuracy_differences(
            a_predictions == labels, b_predictions == labels, n_resamples=n_resamples, seed=seed
        )
    else:
        estimate, resampled = _score_differences(
            np.stack([labels, a_predictions, b_predictions]), metric=metric, n_resamples=n_resamples, seed=seed
        )
    low, high = percentile_bounds(resampled, confidence)
    return Interval(estimate, low, high)


def accuracy_interval(
    right: np.ndarray, *, n_resamples: int = 2_000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Bootstrap interval of the share of examples that are right.

    Args:
        right: Whether each example is right, bool, shape (N,).
        n_resamples: Bootstrap resamples behind the interval.
        confidence: Coverage of the interval, between 0 and 1.
        seed: Start of the random draws.

    Raises:
        DataError: There is no example.

    Source:
        As `paired_difference`.
    """
    if not len(right):
        raise DataError("right must hold at least one example; got none.")
    never = np.zeros_like(right)
    estimate, resampled = _accuracy_differences(right, never, n_resamples=n_resamples, seed=seed)
    return Interval(estimate, *percentile_bounds(resampled, confidence))


def mcnemar_exact(a_correct: np.ndarray, b_correct: np.ndarray) -> float:
    """Two-sided p-value that a and b are right equally often, from the examples where only one of them is right.

    Args:
        a_correct: Whether a is right, bool, shape (N,).
        b_correct: The same for b, in the same example order.

    Returns:
        Between 0 and 1; 1 where the two are right on the same examples.

    Raises:
        DataError: The arrays differ in length.

    Source:
        McNemar (1947), Psychometrika 12, 153-157, with the exact binomial distribution.
    """
    from scipy.stats import binomtest

    if len(a_correct) != len(b_correct):
        raise DataError(f"a_correct and b_correct must hold the same examples; got {len(a_correct)}, {len(b_correct)}.")
    only_a = int((a_correct & ~b_correct).sum())
    only_b = int((b_correct & ~a_correct).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def compare(
    name_a: str,
    name_b: str,
    labels: np.ndarray,
    *,
    a_predictions: np.ndarray,
    b_predictions: np.ndarray,
    metrics: Sequence[str] = ("accuracy", "f1_macro"),
    n_resamples: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows of "comparisons" in results.json, one per metric.

    Returns:
        Records with "a", "b", "metric", "difference" (a minus b), its "low" and "high", "p_value" (McNemar's exact
        test for accuracy, None for other metrics) and "n" (examples compared).

    Raises:
        DataError: The arrays are empty or differ in length.
        UsageError: A metric is unknown.
    """
    rows = []
    for metric in metrics:
        interval = paired_difference(
            labels,
            a_predictions,
            b_predictions,
            metric=metric,
            n_resamples=n_resamples,
            confidence=confidence,
            seed=seed,
        )
        tested = metric == "accuracy"
        rows.append(
            {
                "a": name_a,
                "b": name_b,
                "metric": metric,
                "difference": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "p_value": mcnemar_exact(a_predictions == labels, b_predictions == labels) if tested else None,
                "n": len(labels),
            }
        )
    return rows


def _check(labels: np.ndarray, a_predictions: np.ndarray, b_predictions: np.ndarray) -> None:
    """Refuse predictions that are not for the same examples."""
    if not 0 < len(labels) == len(a_predictions) == len(b_predictions):
        raise DataError(
            "labels, a_predictions and b_predictions must hold the same examples, at least one; "
            f"got {len(labels)}, {len(a_predictions)} and {len(b_predictions)}."
        )


def _accuracy_differences(
    a_correct: np.ndarray, b_correct: np.ndarray, *, n_resamples: int, seed: int
) -> tuple[float, np.ndarray]:
    """Accuracy of a minus that of b on all examples, and on resamples, shape (R,)."""
    difference = a_correct.astype(np.int64) - b_correct  # (N,), each -1, 0 or 1
    # Only three values occur, so a resample is one multinomial draw: (R, 3) instead of (R, N).
    counts = np.bincount(difference + 1, minlength=3)
    chunks = resample_counts(counts, n_resamples, seed=seed, width=3)
    resampled = np.concatenate([(drawn[:, 2] - drawn[:, 0]) / len(difference) for drawn in chunks])
    return float(difference.mean()), resampled


def _score_differences(examples: np.ndarray, *, metric: str, n_resamples: int, seed: int) -> tuple[float, np.ndarray]:
    """Score of a minus that of b on all examples, and on resamples, shape (R,).

    Args:
        examples: Label ids of truth, a and b, shape (3, N).
        metric: A name of METRICS.
        n_resamples: Resamples.
        seed: Start of the random draws.
    """
    score = METRICS[metric]
    ids, codes = np.unique(examples, return_inverse=True)  # ids that do not occur change no score
    n_classes = len(ids)
    (truth, a, b), counts = np.unique(codes.reshape(examples.shape), axis=1, return_counts=True)  # each (K,)
    a_cells, b_cells = truth * n_classes + a, truth * n_classes + b

    resampled = []
    for drawn in resample_counts(counts, n_resamples, seed=seed, width=n_classes**2):
        a_scores, b_scores = (score(_sum_cells(drawn, cells, n_classes)) for cells in (a_cells, b_cells))
        resampled.append(a_scores - b_scores)
    a_score, b_score = (score(_sum_cells(counts[None], cells, n_classes))[0] for cells in (a_cells, b_cells))
    return float(a_score - b_score), np.concatenate(resampled)


def _sum_cells(counts: np.ndarray, cells: np.ndarray, n_classes: int) -> np.ndarray:
    """Confusion matrices, shape (R, C, C), from counts (R, K) whose column k belongs to cell cells[k]."""
    size = n_classes**2
    flat = np.arange(len(counts))[:, None] * size + cells  # (R, K)
    summed = np.bincount(flat.ravel(), weights=counts.ravel(), minlength=len(counts) * size)
    return summed.reshape(-1, n_classes, n_classes)
