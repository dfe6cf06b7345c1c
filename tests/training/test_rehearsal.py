"""A rehearsal tells what a training takes and leaves it as it was; what cannot fit is refused with what would."""

import dataclasses
import gc
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cli_calls import Command
from conftest import BaseFolder
from textlift.data.batching import TokenizedTexts, padded_tokens
from textlift.errors import RecipeError
from textlift.inference import ForwardResult, Predictor
from textlift.progress import Progress
from textlift.runtime import onednn_product
from textlift.training.rehearsal import Forecast, rehearse, widest_pass
from textlift.training.session import TrainingSession
from textlift.workflow.forecasting import forecast_lines, require_fit, tell_forecast
from tiny_encoders import FAST
from tiny_models import session, wrapped


def tiny_session(base_folder: BaseFolder, method: str = "lora") -> TrainingSession:
    predictor, _ = wrapped(base_folder("bert"), method, **({"dropout": 0.3} if method == "lora" else {}))
    return session(predictor, epochs=2, patience=None, base_dropout=method == "full")


@pytest.mark.parametrize("method", ["lora", "full", "adalora", "prompt-tuning"])
def test_a_rehearsed_training_is_the_same_as_one_that_was_not(base_folder: BaseFolder, method: str) -> None:
    plain, rehearsed = (tiny_session(base_folder, method) for _ in range(2))
    torch.manual_seed(7)
    list(plain.run())
    torch.manual_seed(7)
    rehearse(rehearsed)
    list(rehearsed.run())
    assert rehearsed.progress.history == plain.progress.history
    weights = plain.trained_weights()
    assert all(torch.equal(weight, weights[name]) for name, weight in rehearsed.trained_weights().items())


def test_steps_widest_pass_and_checkpoints_are_told(base_folder: BaseFolder) -> None:
    training = tiny_session(base_folder)
    forecast = rehearse(training)
    lengths = training.train.tokens.lengths
    parts = [part for indices in training.batches_of_epoch(0) for part in training.parts_of(indices)]
    trained = sum(weight.numel() for weight in training.trained_weights().values())
    assert forecast.steps == training.total_steps == 6
    assert forecast.fits
    assert forecast.widest[1] == max(len(part) * int(lengths[part].max()) for part in parts)
    assert forecast.checkpoint_bytes == 2 * 16 * trained
    assert forecast.seconds_per_epoch is not None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_passes_as_wide_the_one_of_the_longest_texts_is_rehearsed(order: tuple[int, ...]) -> None:
    lengths = np.array([8, 8, 8, 8, 16, 15, 20])
    passes = (np.arange(4), np.array([4, 5]), np.array([6]))  # 32, 32 and 20 padded tokens
    assert widest_pass([passes[place] for place in order], lengths).tolist() == [4, 5]


@pytest.mark.skipif(onednn_product() is None, reason="torch is built without oneDNN")
def test_steps_are_split_as_the_dropout_of_the_training_wants_them(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textlift.training.session.price_of_pass", lambda _: 8)
    predictor = dataclasses.replace(wrapped(base_folder("bert"), "lora")[0], runtime=FAST)
    training = session(predictor, batch_size=24, base_dropout=True)
    forecast = rehearse(training)
    training.classifier.set_training(base_dropout=True)
    lengths = training.train.tokens.lengths
    parts = training.parts_of(np.arange(24))
    assert len(parts) > 1
    assert forecast.widest[1] == max(padded_tokens(part, lengths) for part in parts)


def test_a_measurement_is_rehearsed_too_by_its_widest_batches(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    training, widths = tiny_session(base_folder), []
    forward = Predictor.forward

    def counted(predictor: Predictor, tokens: TokenizedTexts) -> ForwardResult:
        widths.append(int(tokens.lengths.max()))
        return forward(predictor, tokens)

    monkeypatch.setattr(Predictor, "forward", counted)
    rehearse(training)
    assert widths == [int(training.validation.tokens.lengths.max())]


@pytest.mark.parametrize(("steps", "more"), [(6, 40_000), (60, 400_000), (600, 400_000)])
def test_a_fast_training_is_told_more_room_for_the_holes_that_its_kernels_leave_in_many_steps(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch, steps: int, more: int
) -> None:
    monkeypatch.setattr("textlift.training.rehearsal.PeakMemory", lambda _: SimpleNamespace(bytes=lambda: 3_000_000))
    monkeypatch.setattr("textlift.training.rehearsal.resident_memory", lambda _: 1_000_000)
    told = []
    for fast in (False, True):
        training = tiny_session(base_folder)
        training.is_fast, training.total_steps = fast, steps
        told.append(rehearse(training).peak_memory_bytes)
    assert None not in told
    assert told[1] - told[0] == more


def test_what_cannot_fit_is_refused_with_the_budget_that_would(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny_session(base_folder)
    monkeypatch.setattr("textlift.training.rehearsal.available_memory", lambda _: 10**9)
    assert rehearse(training).fits
    monkeypatch.setattr("textlift.training.rehearsal.available_memory", lambda _: 400_000)
    forecast = rehearse(training)
    assert not forecast.fits
    assert forecast.seconds_per_epoch is None
    assert 0 < forecast.fitting_tokens < forecast.widest[1]
    with pytest.raises(RecipeError, match=rf"Pass --set training.tokens_per_batch={forecast.fitting_tokens}") as caught:
        tell_forecast("lora", training, Progress(silent=True))
    assert len(str(caught.value).splitlines()) <= 3
    assert caught.value.exit_code == 78


def test_where_not_even_one_text_fits_another_model_is_advised() -> None:
    forecast = Forecast(10, None, (4, 400), 5_000_000_000, 1_000_000, 0, fits=False, fitting_tokens=0)
    with pytest.raises(RecipeError, match=r"4 texts of 100 tokens must fit .* 5.00 GB in all, .*\nPass fewer tokens"):
        require_fit("lora", forecast)


def test_a_system_that_tells_no_memory_is_not_taken_for_one_without() -> None:
    forecast = Forecast(10, 61.0, (4, 400), None, None, 0, fits=True, fitting_tokens=8192)
    require_fit("lora", forecast)
    assert [" ".join(line.split()) for line in forecast_lines(forecast)] == [
        "peak memory not told by this system; widest pass 4 texts, 400 tokens",
        "an epoch 1 min 01 s; 10 steps planned",
    ]


def test_memory_that_runs_out_in_the_rehearsal_is_left_to_the_training(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("textlift.training.rehearsal.gradients_of", out_of_memory)
    tell_forecast("lora", tiny_session(base_folder), Progress())
    assert "training will take smaller parts" in capsys.readouterr().err


def test_plan_tells_every_variant_that_is_trained(base_folder: BaseFolder, data_file: object, command: Command) -> None:
    arguments = ("plan", data_file, "--model", base_folder("bert"), "--methods", "lora,full,merged")
    lora, full = json.loads(command(*arguments, "--json").out)
    assert (lora["variant"], full["variant"]) == ("lora", "full")
    assert lora["trained_parameters"] < full["trained_parameters"] <= full["total_parameters"]
    assert lora["checkpoint_bytes"] < full["checkpoint_bytes"]
    told = command(*arguments).out
    assert "parameters trained" in told
    assert "peak memory" in told
    assert "disk" in told


def test_nothing_of_a_rehearsal_stays_in_memory(base_folder: BaseFolder) -> None:
    def parameters() -> int:
        gc.collect()
        return sum(type(one) is torch.nn.Parameter for one in gc.get_objects())

    before = parameters()
    rehearse(tiny_session(base_folder))
    assert parameters() == before
