"""The loss of the rows of one step: plain cross-entropy, or one for classes of unlike size.

Knows label ids and logits. What it changes, it changes while training alone: predictions come from plain logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from textlift.recipe import TrainingSection


@dataclass(frozen=True)
class RowLoss:
    """Cross-entropy with a weight for each class, and a number that is added to each logit before.

    Args:
        weights: Of each class, (C,); 1 where None.
        shift: Added to the logits, (C,); 0 where None.
    """

    weights: torch.Tensor | None = None
    shift: torch.Tensor | None = None

    def summed(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of logits (B, C) against label ids (B,), summed over the rows."""
        shift, weights = (None if one is None else one.to(logits.device) for one in (self.shift, self.weights))
        shifted = logits.float() if shift is None else logits.float() + shift
        return functional.cross_entropy(shifted, labels, weight=weights, reduction="sum")

    def divisor(self, labels: Sequence[torch.Tensor]) -> float:
        """What the sum over a whole step is divided by: its rows, each by the weight of its class."""
        if self.weights is None:
            return float(sum(len(part) for part in labels))
        return sum(float(self.weights[part.cpu()].double().sum()) for part in labels)


PLAIN = RowLoss()


def row_loss(settings: TrainingSection, labels: np.ndarray, n_classes: int) -> RowLoss:
    """The loss that the settings ask for, from the label ids of the training rows (N,).

    Balanced weights are N / (C * rows of the class). Logit adjustment adds tau times the log share of each class, so
    that a rare class must be told apart by more than its rarity; tau 1 is that of balanced error.

    Source:
        Menon et al. (2021), Long-tail Learning via Logit Adjustment, equation 10; weights: King and Zeng (2001),
        Logistic Regression in Rare Events Data.
    """
    counts = np.maximum(np.bincount(labels, minlength=n_classes).astype(np.float64), 1)  # a class may have no row
    weights = torch.tensor(len(labels) / (n_classes * counts), dtype=torch.float32)
    shift = torch.tensor(settings.logit_adjustment * np.log(counts / len(labels)), dtype=torch.float32)
    return RowLoss(
        weights if settings.class_weights == "balanced" else None, shift if settings.logit_adjustment else None
    )
