"""One variant trained from several seeds: its mean score, its spread, and how often single answers change.

Knows label ids and predictions of each seed, (S, N); not how they came to be.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from textlift.errors import DataError
from textlift.evaluation.metrics import METRICS, count_confusion
from textlift.evaluation.statistics import Interval


def over_seeds(
    labels: np.ndarray, predictions: np.ndarray, *, n_classes: int, metrics: Sequence[str] = ("accuracy", "f1_macro")
) -> dict[str, Any]:
    """Scores of each seed with mean and spread, and the consistency of single predictions.

    Args:
        labels: True label ids, (N,).
        predictions: Label ids that each seed predicts, (S, N), S at least 2.
        n_classes: C.
        metrics: Names of METRICS.

    Returns:
        For each metric "values" (one for each seed), "mean", "sd" (of single seeds, with S - 1), "low" and "high"
        (least and largest); "agreement", the share of rows on which all seeds agree; "pairwise_agreement", the mean
        share of rows on which two seeds do.

    Raises:
        DataError: There is less than two seeds, or no example.
    """
    if predictions.ndim != 2 or len(predictions) < 2 or predictions.shape[1:] != labels.shape or not labels.size:
        raise DataError(
            f"predictions must be of two seeds or more and labels of as many rows; got {predictions.shape} and "
            f"{labels.shape}."
        )
    confusions = np.stack([count_confusion(labels, one, n_classes) for one in predictions])
    found: dict[str, Any] = {}
    for metric in metrics:
        values = METRICS[metric](confusions)
        found[metric] = {
            "values": values.tolist(),
            "mean": float(values.mean()),
            "sd": float(values.std(ddof=1)),
            "low": float(values.min()),
            "high": float(values.max()),
        }
    pairs = [float((one == other).mean()) for one, other in combinations(predictions, 2)]
    found["agreement"] = float((predictions == predictions[0]).all(axis=0).mean())
    found["pairwise_agreement"] = float(np.mean(pairs))
    return found


def difference_over_seeds(a_right: np.ndarray, b_right: np.ndarray, *, confidence: float = 0.95) -> Interval:
    """Mean accuracy of a over its seeds minus that of b, with an interval that counts rows and seeds as drawn.

    The variance is that of the rows' mean differences over N, plus for each side that of its seeds' accuracies over S;
    a side with one seed (a baseline that draws nothing) adds none. The quantile is Student's, its degrees of freedom by
    Welch and Satterthwaite.

    Args:
        a_right: Whether each seed of a is right on each example, bool, (S_a, N).
        b_right: The same for b, in the same example order, (S_b, N).
        confidence: Coverage of the interval, between 0 and 1.

    Raises:
        DataError: The examples are not as many, or less than two.

    Source:
        Welch (1947), The Generalization of Student's Problem when Several Different Population Variances are Involved,
        Biometrika 34.
    """
    from scipy.stats import t as student

    n = a_right.shape[1]
    if n != b_right.shape[1] or n < 2:
        raise DataError(f"a_right and b_right must hold the same examples, two or more; got {n}, {b_right.shape[1]}.")
    rows = a_right.mean(axis=0) - b_right.mean(axis=0)  # (N,)
    parts = [(float(rows.var(ddof=1)) / n, n - 1)]
    parts += [
        (float(right.mean(axis=1).var(ddof=1)) / len(right), len(right) - 1)
        for right in (a_right, b_right)
        if len(right) > 1
    ]
    variance = sum(part for part, _ in parts)
    estimate = float(rows.mean())
    if variance == 0:
        return Interval(estimate, estimate, estimate)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    reach = float(student.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    return Interval(estimate, estimate - reach, estimate + reach)
