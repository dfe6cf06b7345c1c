"""Layers computed again going back: the same training, with less kept; refused where it cannot be."""

from typing import Any

import pytest
import torch

from conftest import BaseFolder
from method_pairs import pairs
from textlift.errors import RecipeError
from textlift.methods.registry import METHODS
from textlift.progress import Progress
from textlift.training import rehearsal
from textlift.training.loop import TrainStep
from textlift.training.session import TrainingSession
from textlift.training.state import Hooks
from textlift.workflow.forecasting import tell_forecast
from tiny_models import fresh, session, wrapped

WITHOUT_SUCH_LAYERS = {"albert", "mpnet"}


def losses(training: TrainingSession) -> list[float]:
    torch.manual_seed(3)
    return [event.loss for event in training.run() if isinstance(event, TrainStep)]


@pytest.mark.parametrize(
    ("name", "method"),
    [pair for pair in pairs(["lora", "full", "prompt-tuning"]) if pair.values[0] not in WITHOUT_SUCH_LAYERS],
)
def test_the_steps_are_those_of_a_training_that_keeps_everything(
    base_folder: BaseFolder, name: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"epochs": 2, "patience": None, "base_dropout": METHODS[method].base_dropout}
    plain = session(wrapped(base_folder(name), method)[0], **settings)
    again = session(wrapped(base_folder(name), method)[0], gradient_checkpointing=True, **settings)
    assert losses(again) == pytest.approx(losses(plain), rel=1e-5)
    assert again.progress.history[0] == plain.progress.history[0]
    assert "incompatible" not in caplog.text


def test_less_is_kept(base_folder: BaseFolder) -> None:
    plain = session(wrapped(base_folder("bert"), "lora")[0])
    again = session(wrapped(base_folder("bert"), "lora")[0], gradient_checkpointing=True)
    rows = torch.arange(4).numpy()
    assert rehearsal._saved_bytes(again, rows) < 0.5 * rehearsal._saved_bytes(plain, rows)


def test_it_is_turned_on_where_nothing_else_fits_and_the_price_is_told(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = session(wrapped(base_folder("bert"), "lora")[0], batch_size=1)
    free = iter([100_000, 10**9])
    monkeypatch.setattr(rehearsal, "available_memory", lambda _: next(free))
    tell_forecast("lora", training, Progress())
    told = capsys.readouterr().err
    assert "gradient checkpointing: nothing else fits into memory; each layer is computed twice" in told


def test_it_stays_off_where_memory_suffices(base_folder: BaseFolder, capsys: pytest.CaptureFixture[str]) -> None:
    tell_forecast("lora", session(wrapped(base_folder("bert"), "lora")[0]), Progress())
    assert "gradient checkpointing" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["albert", "mpnet"])
def test_an_architecture_without_such_layers_is_refused(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = fresh(base_folder(name))
    predictor.classifier.requires_grad_(True)
    with pytest.raises(RecipeError, match=r"training\.gradient_checkpointing must meet an architecture"):
        session(predictor, gradient_checkpointing=True)


def test_trained_keys_and_values_are_not_dropped_but_refused(base_folder: BaseFolder) -> None:
    training = session(wrapped(base_folder("bert"), "prefix-tuning")[0])
    training.hooks = Hooks(feeds_keys=True)
    assert not training.recompute()
