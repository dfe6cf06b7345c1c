"""What holds on a CPU holds on a GPU: a run ends and is proved, is resumed, survives full memory. `pytest -m gpu`."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import BaseFolder
from textlift.inference import Predictor
from textlift.memory import PeakMemory
from textlift.models.classifier import padding_shift
from textlift.models.families import FAMILIES
from textlift.progress import Progress
from textlift.runtime import Runtime
from textlift.training.checkpoint import restore_latest, save_checkpoint
from textlift.training.loop import Shrunk, TrainStep
from textlift.training.rehearsal import rehearse
from textlift.training.session import Measurement, TrainingSession
from textlift.workflow.main_job import run_recipe
from textlift.workflow.planning import Request, resolve
from tiny_models import (
    EVERY_BASE,
    TEXTS,
    disturb,
    fresh,
    logits_of,
    session,
    wide_base,
    wrapped,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
EXACT, HALF = Runtime("cuda", "fp32", 1, ()), Runtime("cuda", "bf16", 1, ())
PACKED = [*(name for name, family in FAMILIES.items() if family.packs), "embedder"]


def on_gpu(predictor: Predictor, runtime: Runtime) -> Predictor:
    predictor.classifier.to(runtime.device)
    return replace(predictor, runtime=runtime)


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sums in one order; without it the backward pass of attention adds in the order in which blocks finish."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", ["bert", "gpt2", "embedder"])
def test_a_whole_run_ends_with_adapter_proof_and_report(
    base_folder: BaseFolder, data_file: Path, tmp_path: Path, name: str
) -> None:
    request = Request(str(data_file), model=str(base_folder(name)), overrides=["training.epochs=2"])
    run_recipe(resolve(request), output=tmp_path / "run", progress=Progress(silent=True))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["environment"]["device"], results["environment"]["precision"]) == ("cuda", "bf16")
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    proofs = [record["proof"] for record in results["variants"].values() if record.get("proof")]
    assert proofs
    assert all(one["largest_logit_difference"] <= one["tolerance"] for some in proofs for one in some)


@pytest.mark.parametrize("name", EVERY_BASE)
def test_logits_in_fp32_are_those_of_the_cpu(base_folder: BaseFolder, name: str) -> None:
    expected = logits_of(fresh(base_folder(name))[0])
    found = logits_of(on_gpu(fresh(base_folder(name))[0], EXACT))
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("name", EVERY_BASE)
def test_padding_changes_no_logit(base_folder: BaseFolder, name: str) -> None:
    predictor, base = fresh(base_folder(name))
    predictor = on_gpu(predictor, EXACT)
    ids = torch.from_numpy(predictor.tokenize(TEXTS[:1])[0].astype(np.int64))[None]
    assert padding_shift(predictor.classifier, ids, pad_token_id=base.tokenizer.pad_token_id, padding=9) < 1e-4


@pytest.mark.parametrize("name", PACKED)
def test_packed_logits_in_bf16_are_as_near_to_fp32_as_padded_ones(base_folder: BaseFolder, name: str) -> None:
    expected = logits_of(fresh(base_folder(name))[0])
    predictor = on_gpu(fresh(base_folder(name))[0], HALF)
    assert predictor.classifier.packs, predictor.classifier.not_packed
    packed = logits_of(predictor)
    predictor.classifier.packs = False
    padded = logits_of(predictor)
    scale = np.linalg.norm(expected)
    assert np.linalg.norm(packed - expected) / scale <= 1.5 * np.linalg.norm(padded - expected) / scale + 0.005


@pytest.mark.parametrize("method", ["lora", "full", "adapter", "prompt-tuning", "prefix-tuning", "adalora"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_training_in_bf16_lowers_the_loss_and_keeps_what_trains_in_fp32(
    base_folder: BaseFolder, name: str, method: str
) -> None:
    training = session(on_gpu(wrapped(base_folder(name), method)[0], HALF), epochs=6, patience=None)
    losses = [event.loss for event in training.run() if isinstance(event, TrainStep)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert {weight.dtype for weight in training.trained_weights().values()} == {torch.float32}


@pytest.mark.parametrize("runtime", [EXACT, HALF], ids=lambda runtime: str(runtime.precision))
@pytest.mark.usefixtures("deterministic")
def test_a_resumed_training_is_the_unbroken_one_bit_for_bit(
    base_folder: BaseFolder, tmp_path: Path, runtime: Runtime
) -> None:
    def begin() -> TrainingSession:
        predictor = on_gpu(wrapped(base_folder("bert"), "lora", dropout=0.3)[0], runtime)
        torch.manual_seed(5)
        return session(predictor, epochs=2, patience=None)

    whole, broken, resumed = begin(), begin(), begin()
    torch.manual_seed(5)
    list(whole.run())
    torch.manual_seed(5)
    for event in broken.run():
        if isinstance(event, Measurement) and event.step >= 2:
            save_checkpoint(broken, tmp_path, job={"recipe": "it"}, environment={})
            break
    assert restore_latest(resumed, tmp_path, job={"recipe": "it"}, environment={}).step >= 2
    list(resumed.run())
    assert resumed.progress.history == whole.progress.history
    others = resumed.trained_weights()
    assert all(torch.equal(weight, others[name]) for name, weight in whole.trained_weights().items())


def test_full_memory_halves_the_budget_and_trains_the_same(tmp_path: Path) -> None:
    def begin() -> TrainingSession:
        predictor = on_gpu(wrapped(wide_base(tmp_path / "wide"), "lora")[0], HALF)
        return session(predictor, n=1024, batch_size=512, tokens_per_batch=10**6, patience=None)

    plain = begin()
    held, memory = torch.cuda.memory_allocated(), PeakMemory("cuda")
    expected = [event.loss for event in plain.run() if isinstance(event, TrainStep)]
    needed = (memory.bytes() or 0) - held
    del plain
    training = begin()
    torch.cuda.empty_cache()
    limit = torch.cuda.memory_reserved() + 0.6 * needed
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        events = list(training.run())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any(isinstance(event, Shrunk) for event in events)
    losses = [event.loss for event in events if isinstance(event, TrainStep)]
    assert losses == pytest.approx(expected, rel=0.02)


def test_the_memory_that_is_planned_is_within_a_tenth_of_what_is_taken(tmp_path: Path) -> None:
    for method in ("lora", "full"):
        predictor = on_gpu(wrapped(wide_base(tmp_path / method), method)[0], HALF)
        training = session(predictor, n=512, batch_size=128, patience=None)
        planned = rehearse(training).peak_memory_bytes
        memory = PeakMemory("cuda")
        list(training.run())
        assert planned == pytest.approx(memory.bytes(), rel=0.1)


def test_a_step_waits_for_the_gpu_once(base_folder: BaseFolder) -> None:
    training = session(on_gpu(wrapped(base_folder("bert"), "lora")[0], HALF), patience=None)
    assert training.classifier.packs
    events = training.run()
    next(event for event in events if isinstance(event, TrainStep))  # the first sets up moments
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            next(event for event in events if isinstance(event, TrainStep))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(one.message) for one in told if "synchroniz" in str(one.message)]
    assert len(waits) == 1, waits


@pytest.mark.filterwarnings("ignore")
def test_compiled_layers_train_the_same_to_rounding(base_folder: BaseFolder) -> None:
    losses = []
    for compiles in (False, True):
        predictor = on_gpu(disturb(wrapped(base_folder("bert"), "lora")[0]), HALF)
        training = session(predictor, patience=None, compile=compiles)
        losses.append([event.loss for event in training.run() if isinstance(event, TrainStep)])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_a_quantized_base_trains(base_folder: BaseFolder, data_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    request = Request(str(data_file), model=str(base_folder("gpt2")), methods=["qlora"])
    run_recipe(resolve(request), output=tmp_path / "run", progress=Progress(silent=True))
    assert (tmp_path / "run" / "variants" / "qlora" / "adapter").is_dir()
