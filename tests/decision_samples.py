"""Logits of made-up classifiers, and decisions of every kind."""

import numpy as np

from textlift.evaluation.decisions import Decision

DECISIONS = {
    "identity": Decision(),
    "temperature": Decision(temperature=1.7),
    "priors": Decision(temperature=1.2, bias=(0.1, -0.2, 0.0), trained_priors=(0.2, 0.3, 0.5), priors=(0.6, 0.3, 0.1)),
    "costs": Decision(costs=((0.0, 5.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0))),
    "thresholds": Decision(thresholds=(0.7, None, 0.25)),
    "abstention": Decision(temperature=0.8, least_confidence=0.55),
}


def drawn_logits(n: int, priors: np.ndarray, *, seed: int = 0, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Label ids (N,) of these shares, and logits (N, C) whose softmax is right for equal shares at sharpness 1.

    A row is a normal point of variance 1 around 1.5 times the unit vector of its class.
    """
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(priors), size=n, p=priors)
    points = rng.normal(size=(n, len(priors))) + 1.5 * np.eye(len(priors))[labels]
    return labels, sharpness * 1.5 * points
