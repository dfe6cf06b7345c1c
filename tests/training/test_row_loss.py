"""Losses for classes of unlike size: those of torch on the whole step, however it is split."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from conftest import BaseFolder
from textlift.recipe import TrainingSection
from textlift.training.loop import TrainStep, gradients_of
from textlift.training.loss import PLAIN, row_loss
from tiny_models import CPU, session, wrapped

COUNTED = np.asarray([0] * 6 + [1] * 3 + [2])
BALANCED = TrainingSection(class_weights="balanced")
ADJUSTED = TrainingSection(logit_adjustment=1.0)


def drawn(n: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 3, generator=generator), torch.arange(n) % 3


def test_plain_settings_change_nothing() -> None:
    assert row_loss(TrainingSection(), COUNTED, 3) == PLAIN


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    expected = compute_class_weight("balanced", classes=np.arange(3), y=COUNTED)
    weights = row_loss(BALANCED, COUNTED, 3).weights
    assert weights is not None
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("parts", [(9,), (1, 8), (2, 3, 4)])
def test_a_weighted_step_has_the_loss_of_torch_on_all_its_rows(parts: tuple[int, ...]) -> None:
    logits, labels = drawn()
    loss = row_loss(BALANCED, COUNTED, 3)
    divisor = loss.divisor(labels.split(parts))
    pieces = zip(logits.split(parts), labels.split(parts), strict=True)
    total = sum(float(loss.summed(some, ids)) / divisor for some, ids in pieces)
    assert total == pytest.approx(float(torch.nn.CrossEntropyLoss(weight=loss.weights)(logits, labels)), rel=1e-5)


def test_logit_adjustment_adds_the_log_share_of_each_class() -> None:
    logits, labels = drawn()
    shift = torch.log(torch.tensor([0.6, 0.3, 0.1]))
    loss = row_loss(ADJUSTED, COUNTED, 3)
    expected = functional.cross_entropy(logits + shift, labels)
    assert float(loss.summed(logits, labels)) / loss.divisor([labels]) == pytest.approx(float(expected), rel=1e-5)


def test_both_losses_go_together() -> None:
    logits, labels = drawn()
    loss = row_loss(TrainingSection(class_weights="balanced", logit_adjustment=0.5), COUNTED, 3)
    expected = functional.cross_entropy(logits + loss.shift, labels, weight=loss.weights)
    assert float(loss.summed(logits, labels)) / loss.divisor([labels]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("settings", [BALANCED, ADJUSTED])
def test_a_class_without_a_training_row_leaves_the_loss_finite(settings: TrainingSection) -> None:
    loss = row_loss(settings, np.asarray([0, 0, 1]), 3)
    assert torch.isfinite(loss.summed(*drawn()))


@pytest.mark.parametrize("settings", [{"class_weights": "balanced"}, {"logit_adjustment": 1.0}])
def test_a_small_token_budget_trains_the_same_on_unlike_classes(base_folder: BaseFolder, settings: dict) -> None:
    losses = []
    for budget in (8192, 40):
        predictor, _ = wrapped(base_folder("bert"), "lora")
        training = session(predictor, n=23, tokens_per_batch=budget, patience=None, **settings)
        losses.append([event.loss for event in training.run() if isinstance(event, TrainStep)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_loss_of_a_step_follows_the_weights(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    training = session(predictor, n=23, class_weights="balanced")
    (batch,) = training.micro_batches(np.arange(23))
    loss, _, examples = gradients_of(
        predictor.classifier, [batch], runtime=CPU, penalty=None, row_loss=training.row_loss
    )
    with torch.no_grad():
        logits = predictor.classifier(batch["input_ids"], batch["attention_mask"])
    expected = torch.nn.CrossEntropyLoss(weight=training.row_loss.weights)(logits, batch["labels"])
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert examples == 23


@pytest.mark.parametrize("settings", [{"class_weights": "balanced"}, {"logit_adjustment": 1.0}])
def test_a_training_for_unlike_classes_gives_the_rare_one_more_answers(base_folder: BaseFolder, settings: dict) -> None:
    from textlift.training.session import Examples

    answers = []
    for chosen in ({}, settings):
        predictor, _ = wrapped(base_folder("bert"), "lora")
        training = session(predictor, epochs=3, learning_rate=5e-3, patience=None, **chosen)
        rare = np.asarray([0] * 20 + [1, 1, 2, 2])  # labels that the texts do not tell
        training.train = Examples(training.train.tokens, rare)
        training.row_loss = row_loss(training.settings, rare, 3)
        for _ in training.run():
            pass
        answers.append(predictor.predict_proba(["the near boat"])[0, 1:].sum())
    assert answers[1] > answers[0]
