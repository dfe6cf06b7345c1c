"""Classifiers to be beaten, and the linear head that tuning starts from.

Each baseline returns scores of shape (N, C) that `evaluate` reads like a model's logits. Knows texts, label ids and
features; not the base model that features come from.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from textlift.errors import DataError
from textlift.evaluation.metrics import log_softmax

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

logger = logging.getLogger(__name__)

LOWEST = float(np.log(np.finfo(np.float64).eps))
"""Log probability of a class that training never saw, about -36: finite, as scikit-learn's log_loss clips it."""

MIN_DF_ROWS = 2_000
"""Training rows from which TF-IDF drops terms that stand in a single row."""

HEAD_ITERATIONS = 500

# Inverse L2 penalties that the probe tries on standardised features, the strongest first.
PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Steps of the solver after which fitting a head stops, converged or not."""


@dataclass(frozen=True)
class LinearHead:
    """Weights of a linear classifier on raw features: logits = features @ weight.T + bias."""

    weight: np.ndarray  # (C, D), float32
    bias: np.ndarray | None  # (C,), float32
    converged: bool


@dataclass(frozen=True)
class _Fit:
    """Logistic regression over the classes that occur (K of C); the logits of an example sum to 0 over them."""

    classes: np.ndarray  # (K,)
    weight: np.ndarray  # (K, D)
    bias: np.ndarray  # (K,)
    converged: bool


def majority(train_labels: np.ndarray, n_classes: int, n_rows: int) -> np.ndarray:
    """Log share of each class in train, the same for every row, shape (N, C) with N = n_rows.

    Raises:
        DataError: There is no training row.
    """
    counts = np.bincount(train_labels, minlength=n_classes)
    if not counts.sum():
        raise DataError("The majority baseline needs at least one training row; got none.")
    scores = np.full(n_classes, LOWEST)
    scores[counts > 0] = np.log(counts[counts > 0] / counts.sum())
    return np.tile(scores, (n_rows, 1))


def tfidf(
    train_texts: Sequence[str],
    train_labels: np.ndarray,
    other_texts: dict[str, list[str]],
    *,
    n_classes: int,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Log probabilities from TF-IDF and logistic regression for each list of texts, shape (N, C).

    Terms are words and pairs of words with sublinear term frequency. A term must stand in at least two training rows,
    or in one where there are fewer than 2,000 rows or no term stands in two. Texts without any word get the shares of
    the classes in train, as `majority` does.

    Args:
        train_texts: Texts to learn from.
        train_labels: Their label ids, shape (N,).
        other_texts: Texts to score, by the name of their split.
        n_classes: C; a class that is absent from train gets the score LOWEST.
        seed: Random state of the logistic regression.

    Raises:
        DataError: Train holds fewer than two classes.
    """
    _require_two_classes(train_labels, "tfidf")
    vectorizer, features = _fit_vectorizer(train_texts)
    if vectorizer is None:
        logger.warning("tfidf: no training text holds a word; its scores are those of majority.")
        return {name: majority(train_labels, n_classes, len(texts)) for name, texts in other_texts.items()}
    fit = _fit_logistic(features, train_labels, c=10.0, fit_intercept=True, seed=seed, max_iter=1_000)
    if not fit.converged:
        logger.warning("tfidf: the logistic regression did not converge; its scores may be too low.")

    scores = {}
    for name, texts in other_texts.items():
        scores[name] = np.full((len(texts), n_classes), LOWEST)
        if texts:
            scores[name][:, fit.classes] = log_softmax(vectorizer.transform(texts) @ fit.weight.T + fit.bias)
    return scores


def fit_linear_head(
    features: np.ndarray, labels: np.ndarray, n_classes: int, *, bias: bool, seed: int = 0, c: float = 1.0
) -> LinearHead:
    """Logistic regression on standardised features, folded back so that it reads raw features.

    With bias, features are centred and divided by their standard deviation over the rows. Without, they are divided
    alone, and what they share in the direction of their mean is scaled to size 1: many decoders' features have a mean
    far larger than their spread, on which the fit would stall. An absent class gets a zero row and the bias LOWEST;
    without bias its row points against the mean feature, or is zero (which never wins) where a training row does too.

    Args:
        features: Pooled features of the training rows, finite, shape (N, D).
        labels: Their label ids, shape (N,).
        n_classes: C, classes that are absent from labels included.
        bias: Whether the head has a bias.
        seed: Random state of the logistic regression.
        c: Inverse of the L2 penalty, above 0.

    Raises:
        DataError: A feature is not finite, the lengths differ, or fewer than two classes occur.
    """
    _check_features(features, labels)
    mean = features.mean(axis=0, dtype=np.float64)  # (D,)
    deviation = features.std(axis=0, dtype=np.float64)
    # A constant column is left as it is: divided by its rounding noise it would get a weight without bound.
    least = np.maximum(1e-6 * np.abs(mean), 1e-3 * np.median(deviation))
    scale = np.where(deviation > least, deviation, 1.0)
    standardised = features / scale - (mean / scale if bias else 0.0)  # float64, (N, D)
    shrink = np.zeros_like(mean) if bias else _shrink_mean(standardised)
    fit = _fit_logistic(standardised, labels, c=c, fit_intercept=bias, seed=seed, max_iter=HEAD_ITERATIONS)

    folded = (fit.weight - np.outer(fit.weight @ shrink, shrink)) / scale
    weight = np.tile(np.zeros_like(mean) if bias else _row_of_absent_class(features, mean), (n_classes, 1))
    weight[fit.classes] = folded
    offsets = np.full(n_classes, LOWEST)
    offsets[fit.classes] = fit.bias - folded @ mean
    if not fit.converged:
        logger.warning("The logistic regression on %d features did not converge.", features.shape[1])
    return LinearHead(weight.astype(np.float32), offsets.astype(np.float32) if bias else None, fit.converged)


def fit_probe(
    features: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    *,
    bias: bool,
    validation_features: np.ndarray,
    validation_labels: np.ndarray,
    seed: int = 0,
) -> tuple[LinearHead, float]:
    """The linear head whose penalty does best on validation, with that penalty.

    Tries PENALTIES from the strongest on and stops when the log loss on validation rises: with few rows and many
    features a weak penalty only learns the training rows by heart.

    Args:
        features: Pooled features of the training rows, shape (N, D).
        labels: Their label ids, shape (N,).
        n_classes: C, classes that are absent from labels included.
        bias: Whether the head has a bias.
        validation_features: Pooled features of the validation rows, shape (M, D).
        validation_labels: Their label ids, shape (M,).
        seed: Random state of the logistic regression.

    Returns:
        The head, and the inverse of the L2 penalty that was chosen.

    Raises:
        DataError: As `fit_linear_head`.
    """
    chosen: tuple[LinearHead, float] | None = None
    lowest = np.inf
    for c in PENALTIES:
        head = fit_linear_head(features, labels, n_classes, bias=bias, seed=seed, c=c)
        logits = validation_features @ head.weight.T + (0.0 if head.bias is None else head.bias)
        losses = -log_softmax(logits)[np.arange(len(validation_labels)), validation_labels]
        if chosen is not None and losses.mean() >= lowest:
            break
        chosen, lowest = (head, c), float(losses.mean())
    assert chosen is not None
    return chosen


def _fit_vectorizer(texts: Sequence[str]) -> tuple["TfidfVectorizer | None", "csr_matrix | None"]:
    """TF-IDF vectorizer and sparse features (N, terms), or (None, None) where no text holds a word."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    for min_df in (2, 1) if len(texts) >= MIN_DF_ROWS else (1,):
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=min_df)
        try:
            return vectorizer, vectorizer.fit_transform(texts)
        except ValueError:  # with strings it is raised for an empty vocabulary only
            continue
    return None, None


def _fit_logistic(
    features: "np.ndarray | csr_matrix", labels: np.ndarray, *, c: float, fit_intercept: bool, seed: int, max_iter: int
) -> _Fit:
    """L2-penalised multinomial logistic regression; two classes become two rows of opposite sign."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model = LogisticRegression(C=c, fit_intercept=fit_intercept, max_iter=max_iter, random_state=seed)
    # One thread: on two cores, BLAS threads that wait for each other made short steps up to 50 times slower.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features, labels)
    unconverged = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    for warning in caught:
        if warning not in unconverged:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)

    weight, bias = model.coef_, np.broadcast_to(model.intercept_, len(model.coef_))
    if len(model.classes_) == 2:  # softmax of (-z/2, z/2) is the logistic function of z
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return _Fit(model.classes_, weight - weight.mean(axis=0), bias - bias.mean(), not unconverged)


def _shrink_mean(features: np.ndarray) -> np.ndarray:
    """Scale the features to size 1 along their mean, in place; returns u, shape (D,), of the map I - u uᵀ applied."""
    mean = features.mean(axis=0)
    direction = mean / max(float(np.linalg.norm(mean)), np.finfo(np.float64).tiny)
    along = features @ direction  # (N,)
    size = float(np.sqrt(np.mean(along**2)))
    if size <= 1:
        return np.zeros_like(mean)
    u: np.ndarray = direction * np.sqrt(1 - 1 / size)
    features -= np.outer(features @ u, u)
    return u


def _row_of_absent_class(features: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Weights, shape (D,), that give about LOWEST on every training row, or zeros where no direction does."""
    if (features @ mean).min() <= 0:
        return np.zeros_like(mean)
    row: np.ndarray = LOWEST * mean / (mean @ mean)
    return row


def _require_two_classes(labels: np.ndarray, name: str) -> None:
    """Refuse training rows that nothing can be told apart in."""
    n_found = len(np.unique(labels))
    if n_found < 2:
        raise DataError(f"{name} needs training rows of at least two classes; got {n_found}.")


def _check_features(features: np.ndarray, labels: np.ndarray) -> None:
    """Refuse what no head can be fitted to."""
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        raise DataError(f"features must have shape (N, D) and labels (N,); got {features.shape} and {labels.shape}.")
    n_bad = int((~np.isfinite(features)).any(axis=1).sum())
    if n_bad:
        raise DataError(f"Features must be finite numbers; {n_bad:,} of {len(features):,} rows hold NaN or infinity.")
    _require_two_classes(labels, "The probe")
