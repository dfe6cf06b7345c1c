"""What a classifier gets wrong: its most confident mistakes, what tuning changed, and which known rows are near.

Knows label ids, probabilities and features; not texts, files or how the predictions were made.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]

_CHUNK_VALUES = 4_000_000  # similarities held at once: 16 MB


@dataclass(frozen=True)
class Change:
    """Rows of which only one of two classifiers is right, the surest answers of the second first."""

    became_right: Ids
    became_wrong: Ids
    before: Ids  # label ids that the first predicted for all rows, (N,)


def confident_mistakes(labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating]) -> Ids:
    """Places of all wrong rows, the most confident first.

    Args:
        labels: True label ids, shape (N,).
        probabilities: Of each class, shape (N, C).
    """
    return _surest(np.flatnonzero(probabilities.argmax(axis=1) != labels), probabilities)


def changed(
    labels: npt.NDArray[np.integer], before: npt.NDArray[np.floating], after: npt.NDArray[np.floating]
) -> Change:
    """What became right and what became wrong from one classifier to another.

    Args:
        labels: True label ids, shape (N,).
        before: Probabilities or logits of each class, shape (N, C).
        after: Probabilities of the second, shape (N, C).
    """
    predicted = before.argmax(axis=1)
    was_right, is_right = predicted == labels, after.argmax(axis=1) == labels
    return Change(
        _surest(np.flatnonzero(~was_right & is_right), after),
        _surest(np.flatnonzero(was_right & ~is_right), after),
        predicted,
    )


def unit_rows(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Rows of length 1, fp32, shape (N, D); one without direction stays 0."""
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = np.divide(
        features, lengths, out=np.zeros(features.shape, dtype=np.float64), where=lengths > 0
    ).astype(np.float32)
    return unit


def nearest_rows(
    queries: npt.NDArray[np.floating], pool: npt.NDArray[np.floating], *, k: int
) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Places in the pool of the k rows of highest cosine similarity, and the similarities, shape (Q, k) each.

    All of them are compared, in chunks of bounded memory. Of equal ones the earlier comes first.

    Args:
        queries: Unit rows, shape (Q, D).
        pool: Unit rows, shape (P, D), in any precision.
        k: How many; fewer where the pool is smaller.
    """
    k = min(k, len(pool))
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    places = np.zeros((len(queries), k), dtype=np.int64)
    step = max(k, _CHUNK_VALUES // max(1, len(queries), pool.shape[1]))
    asked = queries.astype(np.float32)
    for start in range(0, len(pool), step):
        similar = asked @ pool[start : start + step].astype(np.float32).T  # (Q, chunk)
        both = np.concatenate([best, similar], axis=1)
        known = np.concatenate([places, np.broadcast_to(np.arange(start, start + similar.shape[1]), similar.shape)], 1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :k]
        best, places = np.take_along_axis(both, order, 1), np.take_along_axis(known, order, 1)
    return places, best


def _surest(places: npt.NDArray[np.integer], probabilities: npt.NDArray[np.floating]) -> Ids:
    ordered: Ids = places[np.argsort(-probabilities[places].max(axis=1), kind="stable")].astype(np.int64)
    return ordered
