"""Probabilities of a linear head for the rows that it was not fitted to."""

import numpy as np

from textlift.evaluation.baselines import fit_linear_head
from textlift.evaluation.metrics import softmax

FOLDS = 5
MOST_ROWS = 10_000  # that a fold is fitted to: more would cost time and hardly change a probability


def out_of_fold(
    features: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    *,
    groups: np.ndarray,
    bias: bool,
    c: float,
    seed: int = 0,
) -> np.ndarray:
    """Probability of each class for each row, shape (N, C), from heads that saw neither it nor its like.

    Args:
        features: Pooled features of the training rows, shape (N, D).
        labels: Their label ids, shape (N,).
        n_classes: C, classes that are absent from labels included.
        groups: A number for each row, equal for rows that stay together, shape (N,).
        bias: Whether the head has a bias.
        c: Inverse of the L2 penalty.
        seed: Of the folds.

    Raises:
        DataError: As `fit_linear_head`; a fold must leave rows of two classes.
    """
    draw = np.random.default_rng(seed)
    _, numbers = np.unique(groups, return_inverse=True)
    folds = (draw.permutation(int(numbers.max()) + 1) % FOLDS)[numbers]
    probabilities = np.zeros((len(labels), n_classes))
    for fold in range(FOLDS):
        held = folds == fold
        rows = np.flatnonzero(~held)
        if len(rows) > MOST_ROWS:
            rows = np.sort(draw.choice(rows, MOST_ROWS, replace=False))
        if held.any():
            head = fit_linear_head(features[rows], labels[rows], n_classes, bias=bias, seed=seed, c=c)
            logits = features[held] @ head.weight.T + (0.0 if head.bias is None else head.bias)
            probabilities[held] = softmax(logits)
    return probabilities
