"""The loss over all pairs of a step: its value, its gradients however the step is split, what it makes of texts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from conftest import BaseFolder
from method_pairs import pairs
from textlift.data.batching import collate
from textlift.evaluation.baselines import fit_linear_head
from textlift.training import session as session_module
from textlift.training.checkpoint import restore_latest, save_checkpoint
from textlift.training.contrast import HEAD_RATIO, PairLoss
from textlift.training.loop import TrainStep, gradients_of
from textlift.training.random_state import random_states
from textlift.training.session import Examples, Measurement, TrainingSession
from tiny_models import CPU, TEXTS, disturb, session, wrapped

LOSS = PairLoss(2.0)


def step_of(training: TrainingSession, *, budget: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of one step over all rows, split at a budget of tokens."""
    training.progress.tokens_per_batch = budget
    training.classifier.set_training(base_dropout=False)
    batches = training.micro_batches(np.arange(24))
    assert (len(batches) > 1) == (budget < 1000)
    loss, *_ = gradients_of(
        training.classifier, batches, runtime=CPU, penalty=None, row_loss=training.row_loss, pair_loss=LOSS
    )
    gradients = {
        name: p.grad.clone()
        for name, p in training.classifier.named_parameters()
        if p.requires_grad and p.grad is not None
    }
    training.optimizer.zero_grad(set_to_none=True)
    return float(loss), gradients


def test_the_loss_is_the_mean_squared_error_of_the_cosines_each_kind_of_pair_a_half() -> None:
    features, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 2, 0])
    errors: dict[bool, list[float]] = {True: [], False: []}
    for one in range(5):
        for other in range(one):
            alike = bool(labels[one] == labels[other])
            cosine = float(cosine_similarity(features[one], features[other], dim=0))
            errors[alike].append((cosine - alike) ** 2)
    expected = 2.0 * (np.mean(errors[True]) + np.mean(errors[False])) / 2
    assert float(LOSS.of(features, labels)) == pytest.approx(expected, rel=1e-5)


def test_texts_that_look_as_they_should_cost_nothing() -> None:
    features = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    assert float(LOSS.of(features, torch.tensor([0, 0, 1]))) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("labels", "expected"), [([0], 0.0), ([0, 0], 1.0), ([0, 1], 0.0)])
def test_a_kind_of_pair_that_is_missing_costs_nothing(labels: list[int], expected: float) -> None:
    assert float(LOSS.of(torch.eye(2)[: len(labels)], torch.tensor(labels))) == expected


@pytest.mark.parametrize(("name", "method"), pairs(["lora", "prompt-tuning", "prefix-tuning", "full", "last-layers"]))
def test_features_are_those_that_the_predictor_tells_and_logits_stay(
    base_folder: BaseFolder, name: str, method: str
) -> None:
    predictor = disturb(wrapped(base_folder(name), method)[0])
    tokens = predictor.tokenize(TEXTS[:5])
    expected = predictor.forward(tokens, features=True)
    batch = collate(tokens, np.arange(5), pad_token_id=int(predictor.tokenizer.pad_token_id or 0))
    with torch.no_grad():
        logits, features = predictor.classifier.with_features(batch["input_ids"], batch["attention_mask"])
    np.testing.assert_allclose(logits.numpy(), expected.logits, atol=1e-4)
    np.testing.assert_allclose(features.numpy(), expected.features, atol=1e-4)
    assert not predictor.classifier.final_linear()._forward_pre_hooks


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "llama", "embedder"])
def test_pairs_reach_over_micro_batches(base_folder: BaseFolder, name: str) -> None:
    training = session(disturb(wrapped(base_folder(name), "lora")[0]))
    whole, expected = step_of(training, budget=8192)
    split, found = step_of(training, budget=60)
    assert split == pytest.approx(whole, rel=1e-4)
    assert found.keys() == expected.keys()
    for weight, gradient in expected.items():
        torch.testing.assert_close(found[weight], gradient, rtol=1e-3, atol=1e-5)


def test_the_pass_that_looks_at_all_pairs_first_draws_the_dropout_of_the_one_that_follows(
    base_folder: BaseFolder,
) -> None:
    training = session(disturb(wrapped(base_folder("bert"), "lora", dropout=0.5)[0]))
    training.progress.tokens_per_batch = 60
    training.classifier.set_training(base_dropout=False)
    batches = training.micro_batches(np.arange(24))
    before = random_states("cpu")[0]
    gradients, loss = LOSS.pulls(training.classifier, batches, runtime=CPU)
    assert torch.equal(random_states("cpu")[0], before)
    seen = [training.classifier.with_features(one["input_ids"], one["attention_mask"])[1] for one in batches]
    features = torch.cat(seen).detach().requires_grad_(True)
    again = LOSS.of(features, torch.cat([one["labels"] for one in batches]))
    again.backward()
    assert float(loss) == pytest.approx(float(again.detach()), rel=1e-6)
    torch.testing.assert_close(torch.cat(gradients), features.grad)


def test_without_a_weight_nothing_changes(base_folder: BaseFolder) -> None:
    training = session(wrapped(base_folder("bert"), "lora")[0])
    assert training.pair_loss is None
    assert {group["lr"] / 5e-3 for group in training.optimizer.param_groups} == {
        training.schedule.lr_lambdas[0](0)  # of the warm-up alone
    }


@pytest.mark.parametrize("name", ["bert", "gpt2", "embedder"])
def test_the_last_layer_alone_learns_faster_where_pairs_count(base_folder: BaseFolder, name: str) -> None:
    training = session(wrapped(base_folder(name), "lora")[0], contrastive_weight=4, warmup_ratio=0)
    of_head = {id(p) for p in training.classifier.final_linear().parameters()}
    rates = {
        (id(p) in of_head, round(group["lr"] / 5e-3, 6))
        for group in training.optimizer.param_groups
        for p in group["params"]
    }
    assert rates == {(True, HEAD_RATIO), (False, 1.0)}


def test_texts_of_one_class_grow_alike(base_folder: BaseFolder) -> None:
    gaps = {}
    for weight in (0.0, 4.0):
        predictor, _ = wrapped(base_folder("embedder"), "lora")
        training = session(predictor, epochs=6, batch_size=24, learning_rate=2e-2, contrastive_weight=weight)
        steps = [event for event in training.run() if isinstance(event, TrainStep)]
        assert len(steps) == 6
        features = predictor.forward(training.train.tokens, features=True).features
        assert features is not None
        looks = features / np.linalg.norm(features, axis=1, keepdims=True)
        alike = training.train.labels[:, None] == training.train.labels
        cosines: Any = looks @ looks.T
        gaps[weight] = cosines[alike].mean() - cosines[~alike].mean()
    assert gaps[4.0] > 1.5 * gaps[0.0] > 0


def test_a_continued_training_with_pairs_equals_an_unbroken_one(base_folder: BaseFolder, tmp_path: Path) -> None:
    def fresh_session() -> TrainingSession:
        torch.manual_seed(3)
        predictor, _ = wrapped(base_folder("bert"), "lora", dropout=0.3)
        return session(predictor, contrastive_weight=4, tokens_per_batch=60, evaluations_per_epoch=3, patience=None)

    unbroken, stopped, continued = fresh_session(), fresh_session(), fresh_session()
    torch.manual_seed(11)
    list(unbroken.run())
    torch.manual_seed(11)
    for event in stopped.run():
        if isinstance(event, Measurement) and event.step == 2:
            save_checkpoint(stopped, tmp_path, job={}, environment={})
            break
    assert restore_latest(continued, tmp_path, job={}, environment={}).step == 2
    list(continued.run())
    assert unbroken.progress.history == continued.progress.history
    assert unbroken.progress.step == 3


@pytest.mark.parametrize(("name", "method"), pairs(bases=["bert", "roberta", "gpt2", "embedder"]))
def test_the_head_is_fitted_anew_on_the_texts_that_pairs_moved(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch, name: str, method: str
) -> None:
    monkeypatch.setattr(session_module, "quick_scores", lambda labels, logits: (0.5, 1.0))  # what is anew wins
    predictor, _ = wrapped(base_folder(name), method)
    training = session(predictor, contrastive_weight=4, patience=None)
    *_, last = training.run()
    assert isinstance(last, Measurement)
    assert last.is_refit
    features = predictor.forward(training.train.tokens, features=True).features
    assert features is not None
    linear = predictor.classifier.final_linear()
    has_bias = linear.bias is not None
    expected = fit_linear_head(features, training.train.labels, len(predictor.label_names), bias=has_bias)
    np.testing.assert_allclose(linear.weight.detach().numpy(), expected.weight, rtol=1e-3, atol=1e-3)


def told(
    training: TrainingSession, monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]]
) -> tuple[dict[int, dict[str, torch.Tensor]], Measurement]:
    """The weights after each step of a training whose measurements say these scores, and the last measurement."""
    left = iter(scores)
    monkeypatch.setattr(session_module, "quick_scores", lambda labels, logits: next(left))
    after: dict[int, dict[str, torch.Tensor]] = {}
    last: Any = None
    for last in training.run():
        if isinstance(last, TrainStep):
            after[last.number] = {name: weight.clone() for name, weight in training.trained_weights().items()}
    assert isinstance(last, Measurement)
    assert last.is_refit
    assert "is_refit" not in training.progress.history[-2]
    entry = training.progress.history[-1]
    assert (entry["is_refit"], entry["is_kept"]) == (True, last.is_best)
    assert next(left, None) is None
    return after, last


def with_rows_to_steer(base_folder: BaseFolder, **settings: Any) -> TrainingSession:
    """A training with pairs of three steps, measured before the first and after the last; 23 of its rows steer."""
    training = session(
        wrapped(base_folder("bert"), "lora")[0], contrastive_weight=4, evaluations_per_epoch=1, **settings
    )
    rows = training.validation
    training.validation = Examples(rows.tokens.take(np.arange(23)), rows.labels[:23])
    return training


def changed(training: TrainingSession, before: dict[str, torch.Tensor]) -> set[str]:
    """The names of the weights that are not as they were."""
    return {name for name, weight in training.trained_weights().items() if not torch.equal(weight, before[name])}


def test_last_weights_that_validation_shows_to_be_worse_are_not_kept(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = with_rows_to_steer(base_folder, epochs=2)
    after, last = told(training, monkeypatch, [(0.5, 0.9), (0.9, 0.5), (0.5, 0.5), (0.7, 0.3)])
    assert not last.is_best
    assert not changed(training, after[3])
    assert (training.progress.best_accuracy, training.progress.best_log_loss) == (0.9, 0.5)


def test_last_weights_are_kept_where_so_few_validation_rows_do_not_tell_them_from_the_best(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = with_rows_to_steer(base_folder, epochs=2)
    after, last = told(training, monkeypatch, [(0.5, 0.9), (0.9, 0.3), (0.6, 0.4), (0.85, 0.5)])
    assert last.is_best
    assert changed(training, after[6]) == {name for name in after[6] if "classifier" in name}
    assert (training.progress.best_step, training.progress.best_accuracy) == (6, 0.85)
    assert training.progress.best_log_loss == 0.5


@pytest.mark.parametrize(("accuracy", "is_kept"), [(22 / 23, True), (18 / 23, False)])
def test_one_answer_less_than_all_right_does_not_discard_the_last_weights(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch, accuracy: float, is_kept: bool
) -> None:
    _, last = told(with_rows_to_steer(base_folder), monkeypatch, [(0.5, 0.9), (1.0, 0.3), (accuracy, 0.5)])
    assert last.is_best == is_kept


def test_where_the_training_rows_steer_the_best_weights_get_the_fitted_head(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = session(wrapped(base_folder("bert"), "lora")[0], contrastive_weight=4, evaluations_per_epoch=1, epochs=2)
    after, last = told(training, monkeypatch, [(0.5, 0.9), (0.9, 0.3), (0.9, 0.4), (0.9, 0.5)])
    assert last.is_best
    assert changed(training, after[3]) == {name for name in after[3] if "classifier" in name}


def test_patience_ends_no_training_with_pairs(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "quick_scores", lambda labels, logits: (0.5, 1.0))
    training = session(
        wrapped(base_folder("bert"), "lora")[0], epochs=3, evaluations_per_epoch=3, patience=2, contrastive_weight=4
    )
    assert [event.number for event in training.run() if isinstance(event, TrainStep)][-1] == training.total_steps
    assert training.end_reason == ""


def test_without_pairs_the_head_stays_as_trained(base_folder: BaseFolder) -> None:
    training = session(wrapped(base_folder("bert"), "lora")[0])
    assert not any(isinstance(event, Measurement) and event.is_refit for event in training.run())


def test_a_training_that_is_restored_at_its_end_fits_no_head_again(base_folder: BaseFolder, tmp_path: Path) -> None:
    ended = session(wrapped(base_folder("bert"), "lora")[0], contrastive_weight=4, patience=None)
    for event in ended.run():
        if isinstance(event, Measurement) and event.is_refit:
            save_checkpoint(ended, tmp_path, job={}, environment={})
    restored = session(wrapped(base_folder("bert"), "lora")[0], contrastive_weight=4, patience=None)
    restore_latest(restored, tmp_path, job={}, environment={})
    assert list(restored.run()) == []
    assert restored.progress.history == ended.progress.history
    left = ended.trained_weights()
    assert all(torch.equal(weight, left[name]) for name, weight in restored.trained_weights().items())
