"""A training from start to end: when it measures, when it stops, which weights it leaves."""

import numpy as np
import pytest
import torch

from conftest import BaseFolder
from textlift.evaluation.metrics import quick_scores
from textlift.training import session as session_module
from textlift.training.loop import TrainStep
from textlift.training.session import Measurement, TrainingSession
from textlift.training.steps import affordable_evaluations
from tiny_models import session, wrapped


def tiny_session(base_folder: BaseFolder, **settings: object) -> TrainingSession:
    return session(wrapped(base_folder("bert"), "lora")[0], **settings)  # type: ignore[arg-type]


def measured_steps(training: TrainingSession) -> list[int]:
    return [event.step for event in training.run() if isinstance(event, Measurement)]


def told_scores(monkeypatch: pytest.MonkeyPatch, accuracies: list[float]) -> None:
    """Let the measurements of a session say these accuracies, in turn."""
    left = iter(accuracies)
    monkeypatch.setattr(session_module, "quick_scores", lambda labels, logits: (next(left), 1.0))


def test_it_measures_before_the_first_step_and_evenly_through_each_epoch(base_folder: BaseFolder) -> None:
    training = tiny_session(base_folder, epochs=2, batch_size=2, evaluations_per_epoch=4, patience=None)
    assert measured_steps(training) == [0, 3, 6, 9, 12, 15, 18, 21, 24]


def test_more_measurements_than_steps_measure_each_step_once(base_folder: BaseFolder) -> None:
    training = tiny_session(base_folder, batch_size=8, evaluations_per_epoch=50, patience=None)
    assert measured_steps(training) == [0, 1, 2, 3]


def test_the_last_step_of_a_limit_is_measured(base_folder: BaseFolder) -> None:
    training = tiny_session(base_folder, batch_size=2, max_steps=5, evaluations_per_epoch=3, patience=None)
    assert measured_steps(training) == [0, 4, 5]
    assert training.progress.step == training.total_steps == 5


def test_max_steps_beyond_the_epochs_changes_nothing(base_folder: BaseFolder) -> None:
    assert tiny_session(base_folder, batch_size=10, epochs=2, max_steps=99).total_steps == 6


def test_it_stops_when_validation_no_longer_gains(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    told_scores(monkeypatch, [0.1, 0.5, 0.4, 0.4, 0.9])
    training = tiny_session(base_folder, epochs=3, batch_size=8, evaluations_per_epoch=3, patience=2)
    assert measured_steps(training) == [0, 1, 2, 3]
    assert (training.progress.best_step, training.progress.best_accuracy) == (1, 0.5)
    assert training.progress.without_gain == 2


def test_a_gain_starts_the_patience_anew(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    told_scores(monkeypatch, [0.1, 0.5, 0.4, 0.6, 0.5, 0.5, 0.9])
    training = tiny_session(base_folder, epochs=3, batch_size=8, evaluations_per_epoch=3, patience=2)
    assert measured_steps(training) == [0, 1, 2, 3, 4, 5]
    assert training.progress.best_step == 3


def test_a_lower_log_loss_is_a_gain_though_accuracy_stands_still(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter([(0.5, 0.9), (0.8, 0.8), (0.5, 0.7), (0.5, 0.6), (0.5, 0.65), (0.8, 0.65), (0.5, 0.7), (0.5, 0.7)])
    monkeypatch.setattr(session_module, "quick_scores", lambda labels, logits: next(left))
    training = tiny_session(base_folder, epochs=3, batch_size=8, evaluations_per_epoch=3, patience=2)
    assert measured_steps(training) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert training.progress.best_step == 5


def test_the_best_weights_are_put_back_at_the_end(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    told_scores(monkeypatch, [0.1, 0.2, 0.9, 0.3])
    training = tiny_session(base_folder, batch_size=8, evaluations_per_epoch=3, patience=None)
    at_step: dict[int, dict[str, torch.Tensor]] = {}
    for event in training.run():
        if isinstance(event, TrainStep):
            at_step[event.number] = {key: weight.clone() for key, weight in training.trained_weights().items()}
    left = training.trained_weights()
    assert all(torch.equal(weight, at_step[2][key]) for key, weight in left.items())
    assert not all(torch.equal(weight, at_step[3][key]) for key, weight in left.items())


def test_equal_accuracy_is_decided_by_the_loss(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95), (0.4, 0.1)])
    monkeypatch.setattr(session_module, "quick_scores", lambda labels, logits: next(left))
    training = tiny_session(base_folder, batch_size=8, evaluations_per_epoch=3, patience=None)
    assert [event.is_best for event in training.run() if isinstance(event, Measurement)] == [True, True, False, False]


def test_the_history_tells_every_step_and_measurement(base_folder: BaseFolder) -> None:
    training = tiny_session(base_folder, batch_size=8, evaluations_per_epoch=1, patience=None)
    list(training.run())
    history = training.progress.history
    assert [entry["step"] for entry in history] == [0, 1, 2, 3, 3]
    assert set(history[0]) == {"step", "epoch", "validation"}
    assert set(history[1]) == {"step", "epoch", "train_loss", "learning_rate", "grad_norm"}
    assert [entry["epoch"] for entry in history] == [0.0, 0.3333, 0.6667, 1.0, 1.0]
    assert training.progress.useful_tokens == int(training.train.tokens.lengths.sum())
    assert training.progress.seconds > 0


def test_the_same_seed_trains_the_same_weights_and_another_does_not(base_folder: BaseFolder) -> None:
    left = []
    for seed in (0, 0, 1):
        predictor, _ = wrapped(base_folder("bert"), "lora", dropout=0.2)
        torch.manual_seed(seed)
        training = session(predictor, seed=seed, patience=None)
        list(training.run())
        left.append(training.trained_weights())
    assert all(torch.equal(weight, left[1][key]) for key, weight in left[0].items())
    assert not all(torch.equal(weight, left[2][key]) for key, weight in left[0].items())


def test_the_dropout_of_the_base_is_off_unless_asked_for(base_folder: BaseFolder) -> None:
    losses = []
    for base_dropout in (False, False, True):
        predictor, _ = wrapped(base_folder("roberta"), "lora")
        torch.manual_seed(len(losses))
        training = session(predictor, base_dropout=base_dropout, max_steps=1)
        losses.append(next(event.loss for event in training.run() if isinstance(event, TrainStep)))
    assert losses[0] == losses[1] != losses[2]


def test_quick_scores_are_accuracy_and_natural_log_loss() -> None:
    logits = np.log(np.array([[0.7, 0.3], [0.2, 0.8], [0.6, 0.4]], dtype=np.float32)) + 100.0
    accuracy, log_loss = quick_scores(np.array([0, 1, 1]), logits)
    assert accuracy == pytest.approx(2 / 3)
    assert log_loss == pytest.approx(-np.log([0.7, 0.8, 0.4]).mean(), abs=1e-5)


def test_measuring_takes_at_most_about_a_quarter_of_the_time() -> None:
    assert affordable_evaluations(4, train_tokens=16_000, validation_tokens=2_000) == 4
    assert affordable_evaluations(4, train_tokens=400, validation_tokens=100) == 3
    assert affordable_evaluations(4, train_tokens=200, validation_tokens=5_000) == 1


def test_an_early_end_for_want_of_gain_says_so(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    told_scores(monkeypatch, [0.5, 0.4, 0.4, 0.9])
    training = tiny_session(base_folder, epochs=3, batch_size=8, evaluations_per_epoch=3, patience=2)
    list(training.run())
    assert training.end_reason == "2 measurements without gain"


def test_known_logits_stand_for_the_first_measurement_alone(base_folder: BaseFolder) -> None:
    plain = tiny_session(base_folder, batch_size=8, evaluations_per_epoch=1, patience=None)
    known = np.full((len(plain.validation.labels), plain.classifier.n_classes), 0.5, dtype=np.float32)
    told = tiny_session(base_folder, batch_size=8, evaluations_per_epoch=1, patience=None)
    told.start_logits = known
    without, with_known = ([e for e in one.run() if isinstance(e, Measurement)] for one in (plain, told))
    assert with_known[0].log_loss == pytest.approx(np.log(plain.classifier.n_classes))
    assert without[0].log_loss != with_known[0].log_loss
    assert [one.log_loss for one in without[1:]] == [one.log_loss for one in with_known[1:]]
