"""What few labelled texts teach beside each row's own label: a loss over all pairs of a step, and a head at the end.

Knows pooled texts and label ids. N texts are N (N - 1) / 2 pairs, all of one pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from textlift.data.batching import TokenizedTexts
from textlift.evaluation.baselines import fit_linear_head
from textlift.inference import Predictor
from textlift.models.classifier import Classifier
from textlift.runtime import Runtime
from textlift.training.random_state import random_states, set_random_states

HEAD_RATIO = 10.0
"""Learning rate of the last linear layer over that of the rest, where pairs count (docs/performance.md)."""


@dataclass(frozen=True)
class PairLoss:
    """Texts of one class are to look the same way, those of two classes at right angles.

    Args:
        weight: What the loss is multiplied with, beside that of the rows.

    Source:
        Tunstall et al. (2022), Efficient Few-Shot Learning Without Prompts, section 3.1: squared error of the cosine
        against 1 or 0. There a pass holds one pair; that all pairs of a step count, each kind as much as the other, is
        ours.
    """

    weight: float

    def of(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of pooled texts (N, D) with label ids (N,); 0 where there is no pair."""
        looks = functional.normalize(features.float(), dim=1)
        rows, columns = torch.triu_indices(len(looks), len(looks), offset=1, device=looks.device)
        cosines = (looks @ looks.T)[rows, columns]  # (N (N - 1) / 2,)
        alike = labels[rows] == labels[columns]
        kinds = ((1 - cosines[alike]) ** 2, cosines[~alike] ** 2)
        return self.weight * sum((kind.mean() for kind in kinds if len(kind)), start=cosines.new_zeros(())) / 2

    def pulls(
        self, classifier: Classifier, batches: Sequence[Mapping[str, torch.Tensor]], *, runtime: Runtime
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The gradient of the loss in the pooled texts of each micro-batch, (B, D), and the loss of them all.

        Takes one pass more, without gradients; random numbers are afterwards as they were before.

        Source:
            Gao et al. (2021), Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, section 3.2.
        """
        states = random_states(runtime.device)
        with torch.no_grad(), runtime.autocast():
            seen = [classifier.with_features(one["input_ids"], one["attention_mask"])[1] for one in batches]
        set_random_states(states, runtime.device)
        features = torch.cat(seen).float().requires_grad_(True)
        with torch.enable_grad():
            loss = self.of(features, torch.cat([one["labels"] for one in batches]).to(features.device))
        (gradient,) = torch.autograd.grad(loss, features)
        return list(torch.split(gradient, [len(one) for one in seen])), loss.detach()


def refit_head(predictor: Predictor, tokens: TokenizedTexts, labels: np.ndarray, *, seed: int) -> None:
    """Give a classifier the head that logistic regression finds on texts as pairs have moved them.

    Args:
        predictor: The last linear layer of its classifier is changed.
        tokens: Texts that train, N.
        labels: Their label ids, (N,).
        seed: Of the logistic regression.

    Source:
        Tunstall et al. (2022), Efficient Few-Shot Learning Without Prompts, section 3.1: the second step.
    """
    features = predictor.forward(tokens, features=True).features
    assert features is not None
    bias = predictor.classifier.final_linear().bias is not None
    head = fit_linear_head(features, labels, len(predictor.label_names), bias=bias, seed=seed)
    predictor.classifier.set_head(head.weight, head.bias)
