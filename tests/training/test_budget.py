"""Training under a budget: equal tokens or equal seconds, planned, told, and continued."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from conftest import BaseFolder
from textlift.training import session as session_module
from textlift.training.checkpoint import Restored, restore_latest, save_checkpoint
from textlift.training.loop import TrainStep
from textlift.training.session import Measurement, TrainingSession
from tiny_models import session, wrapped

MARK, HERE = {"recipe": "of this job"}, {"torch": "2.0"}


def tiny_session(base_folder: BaseFolder, **settings: object) -> TrainingSession:
    return session(wrapped(base_folder("bert"), "lora", dropout=0.3)[0], **{"patience": None, **settings})  # type: ignore[arg-type]


def with_clock(monkeypatch: pytest.MonkeyPatch, step_seconds: float) -> None:
    """Let every optimizer step take this long."""
    reads = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(reads) * step_seconds)
    monkeypatch.setattr(session_module, "time", clock)


@pytest.mark.parametrize("batch_size", [2, 5, 24])
@pytest.mark.parametrize("max_tokens", [60, 500, 700])
def test_a_budget_of_tokens_takes_every_step_that_it_holds_and_no_more(
    base_folder: BaseFolder, batch_size: int, max_tokens: int
) -> None:
    training = tiny_session(base_folder, epochs=3, batch_size=batch_size, max_tokens=max_tokens)
    used = [event.useful_tokens for event in training.run() if isinstance(event, TrainStep)]
    assert len(used) == training.total_steps
    assert sum(used) <= max_tokens or len(used) == 1
    longer = tiny_session(base_folder, epochs=3, batch_size=batch_size)
    every = [event.useful_tokens for event in longer.run() if isinstance(event, TrainStep)]
    assert every[: len(used)] == used
    assert sum(every[: len(used) + 1]) > max_tokens


def test_a_budget_of_tokens_beyond_the_epochs_changes_nothing(base_folder: BaseFolder) -> None:
    assert tiny_session(base_folder, batch_size=8, max_tokens=10**9).total_steps == 3


def test_a_budget_of_tokens_ends_the_learning_rate_at_its_last_step(base_folder: BaseFolder) -> None:
    training = tiny_session(base_folder, epochs=9, batch_size=8, max_tokens=600)
    rates = [event.learning_rate for event in training.run() if isinstance(event, TrainStep)]
    assert 3 < len(rates) < 27
    assert rates[-1] == pytest.approx(rates[0] / len(rates))


def test_a_budget_of_seconds_ends_training_with_a_measurement_and_says_so(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_clock(monkeypatch, 0.25)
    training = tiny_session(base_folder, epochs=9, batch_size=8, evaluations_per_epoch=1, max_seconds=1.0)
    assert [event.step for event in training.run() if isinstance(event, Measurement)] == [0, 3, 4]
    assert training.progress.seconds == 1.0
    assert training.end_reason == "max_seconds 1 is used up"


def test_under_a_budget_of_seconds_the_learning_rate_falls_to_zero_with_the_time(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_clock(monkeypatch, 0.1)
    training = tiny_session(base_folder, epochs=90, batch_size=8, max_seconds=1.0, warmup_ratio=0.2, learning_rate=1e-2)
    rates = [event.learning_rate for event in training.run() if isinstance(event, TrainStep)]
    assert len(rates) == 10
    assert rates.index(max(rates)) == 3  # a fifth of the time is used up before the fourth step at the latest
    assert rates[-1] < 0.3 * max(rates)
    assert training.schedule.get_last_lr()[0] < 0.2 * max(rates)


def test_a_budget_of_seconds_that_the_epochs_do_not_use_changes_nothing(base_folder: BaseFolder) -> None:
    weights = []
    for settings in ({}, {"max_seconds": 10_000.0}):
        torch.manual_seed(0)
        training = tiny_session(base_folder, batch_size=8, **settings)
        list(training.run())
        assert training.end_reason == ""
        weights.append(training.trained_weights())
    assert all(torch.equal(weight, weights[1][key]) for key, weight in weights[0].items())


def stopped_at(training: TrainingSession, step: int, folder: Path) -> TrainingSession:
    """Run to the measurement after a step, and save there."""
    for event in training.run():
        if isinstance(event, Measurement) and event.step == step:
            break
    save_checkpoint(training, folder, job=MARK, environment=HERE)
    return training


def test_a_training_under_a_budget_of_tokens_continues_bit_for_bit(base_folder: BaseFolder, tmp_path: Path) -> None:
    settings = {"epochs": 2, "batch_size": 4, "evaluations_per_epoch": 3, "max_tokens": 400}
    torch.manual_seed(11)
    unbroken = tiny_session(base_folder, **settings)
    torch.manual_seed(11)
    list(unbroken.run())
    assert 4 < unbroken.progress.step < 12
    begun = tiny_session(base_folder, **settings)
    torch.manual_seed(11)
    stopped_at(begun, 4, tmp_path)
    continued = tiny_session(base_folder, **settings)
    torch.manual_seed(12345)  # the state of the generator comes from the checkpoint
    assert restore_latest(continued, tmp_path, job=MARK, environment=HERE) == Restored(4)
    list(continued.run())
    weights = continued.trained_weights()
    assert all(torch.equal(weight, weights[key]) for key, weight in unbroken.trained_weights().items())
    assert continued.progress.history == unbroken.progress.history
    assert continued.progress.useful_tokens == unbroken.progress.useful_tokens <= 400


def test_seconds_that_are_used_up_stay_used_up(
    base_folder: BaseFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_clock(monkeypatch, 0.25)
    settings = {"epochs": 9, "batch_size": 8, "evaluations_per_epoch": 1, "max_seconds": 1.25}
    stopped_at(tiny_session(base_folder, **settings), 3, tmp_path)
    continued = tiny_session(base_folder, **settings)
    restore_latest(continued, tmp_path, job=MARK, environment=HERE)
    list(continued.run())
    assert continued.progress.step == 5
    assert continued.end_reason == "max_seconds 1.25 is used up"
