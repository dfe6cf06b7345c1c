"""Scores of one set of predictions, with bootstrap intervals.

Every score in METRICS depends on the confusion matrix alone (rows true, columns predicted), so a bootstrap resample is
one multinomial draw of its cells. Knows neither where the logits come from nor what the classes are called.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from textlift.errors import DataError

VALUES_PER_CHUNK = 4_000_000
"""Numbers held at once while resampling: 32 MB an array, whatever N and C are."""


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities, shape (N, C), float64; no overflow for large logits."""
    shifted: np.ndarray = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities, shape (N, C), float64; each row sums to 1."""
    probabilities: np.ndarray = np.exp(log_softmax(logits))
    return probabilities


def count_confusion(labels: np.ndarray, predictions: np.ndarray, n_classes: int) -> np.ndarray:
    """Confusion matrix, shape (C, C), int64: rows are the true classes, columns the predicted ones."""
    cells = labels.astype(np.int64) * n_classes + predictions
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def precision(confusions: np.ndarray) -> np.ndarray:
    """Share of each predicted class that is right, shape (R, C); 0 for a class that is never predicted."""
    return _ratio(_hits(confusions), confusions.sum(axis=1))


def recall(confusions: np.ndarray) -> np.ndarray:
    """Share of each true class that is found, shape (R, C); 0 for a class without examples."""
    return _ratio(_hits(confusions), confusions.sum(axis=2))


def f1(confusions: np.ndarray) -> np.ndarray:
    """Harmonic mean of precision and recall of each class, shape (R, C); 0 for a class that does not occur."""
    return _ratio(2 * _hits(confusions), confusions.sum(axis=1) + confusions.sum(axis=2))


def accuracy(confusions: np.ndarray) -> np.ndarray:
    """Share of examples that are right, shape (R,)."""
    return _ratio(_hits(confusions).sum(axis=1), confusions.sum(axis=(1, 2)))


# From a stack of confusion matrices (R, C, C) to one score each (R,).
METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": accuracy,
    "precision_weighted": lambda confusions: _weighted(precision, confusions),
    "recall_weighted": lambda confusions: _weighted(recall, confusions),
    "f1_weighted": lambda confusions: _weighted(f1, confusions),
    "precision_macro": lambda confusions: _macro(precision, confusions),
    "recall_macro": lambda confusions: _macro(recall, confusions),
    "f1_macro": lambda confusions: _macro(f1, confusions),
}


def evaluate(
    labels: np.ndarray,
    logits: np.ndarray,
    *,
    chosen: np.ndarray | None = None,
    n_resamples: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Every score of one set of predictions with its interval, ready for JSON.

    Args:
        labels: True label ids from 0 to C - 1, shape (N,).
        logits: Scores of each class, shape (N, C).
        chosen: Predicted label ids, shape (N,); those of the highest logit where None.
        n_resamples: Bootstrap resamples behind each interval.
        confidence: Coverage of the intervals, between 0 and 1.
        seed: Start of the random draws; the same seed gives the same intervals.

    Returns:
        "n"; each name of METRICS and "log_loss" (natural logarithm), each with "<name>_low" and "<name>_high";
        "per_class" with one record per class; "confusion" as nested lists, rows true and columns predicted.
        Scores follow scikit-learn with zero_division=0; a macro score averages over the classes that occur in labels
        or predictions, in a resample over those of the resample.

    Raises:
        DataError: There is no example, the shapes do not fit, a label is out of range, or a logit is not finite.

    Source:
        Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 13 (percentile interval).
    """
    _check(labels, logits)
    predictions = logits.argmax(axis=1) if chosen is None else chosen
    confusion = count_confusion(labels, predictions, logits.shape[1])
    losses = -log_softmax(logits)[np.arange(len(labels)), labels]  # (N,)
    point = {name: float(score(confusion[None])[0]) for name, score in METRICS.items()}
    resampled = _resample_scores(confusion, n_resamples, seed)
    point["log_loss"] = float(losses.mean())
    resampled["log_loss"] = _resample_mean(losses, n_resamples, seed)

    result: dict[str, Any] = {"n": len(labels)}
    for name, value in point.items():
        low, high = percentile_bounds(resampled[name], confidence)
        result |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return result | {"per_class": _per_class(confusion), "confusion": confusion.tolist()}


def percentile_bounds(resampled: np.ndarray, confidence: float) -> tuple[float, float]:
    """Lower and upper percentile bound of the resampled values, shape (R,)."""
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def resample_counts(counts: np.ndarray, n_resamples: int, *, seed: int, width: int) -> Iterator[np.ndarray]:
    """Bootstrap resamples of counted cells, in chunks of shape (up to R, K).

    Args:
        counts: Examples in each cell, int, shape (K,).
        n_resamples: Resamples over all chunks.
        seed: Start of the random draws.
        width: Numbers that the caller holds per resample; it bounds the length of a chunk.
    """
    rng = np.random.default_rng(seed)
    n_examples = int(counts.sum())
    for size in _chunk_sizes(n_resamples, max(width, len(counts))):
        yield rng.multinomial(n_examples, counts / n_examples, size=size)


def quick_scores(labels: np.ndarray, logits: np.ndarray) -> tuple[float, float]:
    """Accuracy and mean log loss (natural logarithm) of logits (N, C) against label ids (N,)."""
    losses = -log_softmax(logits)[np.arange(len(labels)), labels]
    return float((logits.argmax(axis=1) == labels).mean()), float(losses.mean())


def _check(labels: np.ndarray, logits: np.ndarray) -> None:
    """Refuse what no score can be made of."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not logits.size:
        raise DataError(
            f"labels must have shape (N,) and logits (N, C) with at least one example; got {labels.shape} and "
            f"{logits.shape}."
        )
    if not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise DataError(
            f"labels must lie between 0 and {logits.shape[1] - 1}, one per column of logits; "
            f"got {labels.min()} to {labels.max()}."
        )
    n_bad = int((~np.isfinite(logits)).any(axis=1).sum())
    if n_bad:
        raise DataError(
            f"Logits must be finite numbers; {n_bad:,} of {len(logits):,} rows hold NaN or infinity. "
            "Train with a lower learning rate, or in float32."
        )


def _resample_scores(confusion: np.ndarray, n_resamples: int, seed: int) -> dict[str, np.ndarray]:
    """Each score of METRICS on bootstrap resamples, shape (R,)."""
    occupied = np.flatnonzero(confusion)
    chunks: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for drawn in resample_counts(confusion.ravel()[occupied], n_resamples, seed=seed, width=confusion.size):
        stack = np.zeros((len(drawn), confusion.size), dtype=np.int64)
        stack[:, occupied] = drawn
        for name, score in METRICS.items():
            chunks[name].append(score(stack.reshape(-1, *confusion.shape)))
    return {name: np.concatenate(parts) for name, parts in chunks.items()}


def _resample_mean(values: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Mean of the values on bootstrap resamples, shape (R,)."""
    rng = np.random.default_rng(seed)
    sizes = _chunk_sizes(n_resamples, len(values))
    draws = (rng.integers(len(values), size=(size, len(values)), dtype=np.int32) for size in sizes)
    return np.concatenate([values[rows].mean(axis=1) for rows in draws])


def _chunk_sizes(n_resamples: int, width: int) -> Iterator[int]:
    """Lengths of chunks that add up to n_resamples, each within VALUES_PER_CHUNK."""
    longest = max(1, VALUES_PER_CHUNK // width)
    for start in range(0, n_resamples, longest):
        yield min(longest, n_resamples - start)


def _per_class(confusion: np.ndarray) -> list[dict[str, Any]]:
    """One record per class, in the order of the label ids."""
    by_name = {"precision": precision, "recall": recall, "f1": f1}
    values = {name: score(confusion[None])[0].tolist() for name, score in by_name.items()}
    return [
        {"label_id": label_id, **{name: column[label_id] for name, column in values.items()}, "support": support}
        for label_id, support in enumerate(confusion.sum(axis=1).tolist())
    ]


def _weighted(score: Callable[[np.ndarray], np.ndarray], confusions: np.ndarray) -> np.ndarray:
    """Mean of a per-class score over the classes, each weighted by its true examples, shape (R,)."""
    support = confusions.sum(axis=2)
    return _ratio((score(confusions) * support).sum(axis=1), support.sum(axis=1))


def _macro(score: Callable[[np.ndarray], np.ndarray], confusions: np.ndarray) -> np.ndarray:
    """Mean of a per-class score over the classes that occur in labels or predictions, shape (R,)."""
    occurs = (confusions.sum(axis=1) + confusions.sum(axis=2)) > 0
    return _ratio((score(confusions) * occurs).sum(axis=1), occurs.sum(axis=1))


def _hits(confusions: np.ndarray) -> np.ndarray:
    """Right answers of each class, shape (R, C)."""
    return np.diagonal(confusions, axis1=1, axis2=2)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, 0 where the denominator is 0."""
    quotient: np.ndarray = np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator > 0)
    return quotient
