"""Products with frozen weights in fewer bits: near the exact ones, only until training ends, and gone afterwards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import BaseFolder
from textlift.models import eight_bits
from textlift.models.kernels import frozen_rounded, has_bf16_products, use_linear_kernel
from textlift.runtime import Runtime, onednn_product
from textlift.training.checkpoint import restore_latest, save_checkpoint
from textlift.training.loop import TrainStep
from textlift.training.session import Measurement, TrainingSession
from tiny_models import TEXTS, logits_of, session, wrapped

FAST = Runtime("cpu", "fp32", 1, (), "onednn")

pytestmark = pytest.mark.skipif(
    onednn_product() is None or not has_bf16_products(FAST), reason="this processor has no bf16 products"
)
needs_eight_bits = pytest.mark.skipif(
    not eight_bits.has_eight_bit_products(), reason="this processor has no products in eight bits"
)


@pytest.fixture(params=["bf16", pytest.param("eight bits", marks=needs_eight_bits)])
def bits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In eight bits are all products of encoder layers, however small."""
    if request.param == "eight bits":
        monkeypatch.setattr(eight_bits, "_LEAST", 0)


def trained(base_folder: BaseFolder, name: str, method: str, *, fast: bool) -> tuple[TrainingSession, list[float]]:
    predictor, _ = wrapped(base_folder(name), method)
    use_linear_kernel(predictor.classifier, FAST)
    training = session(predictor, epochs=3, patience=None)
    training.is_fast = fast
    torch.manual_seed(1)
    return training, [event.loss for event in training.run() if isinstance(event, TrainStep)]


@pytest.mark.parametrize("method", ["lora", "ia3", "prompt-tuning", "bitfit", "adapter", "full"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "embedder"])
def test_losses_and_measurements_stay_near_the_exact_ones(base_folder: BaseFolder, name: str, method: str) -> None:
    if (name, method) == ("llama", "bitfit"):
        pytest.skip("no biases")
    plain, exact = trained(base_folder, name, method, fast=False)
    training, near = trained(base_folder, name, method, fast=True)
    assert near == pytest.approx(exact, rel=0.05, abs=0.02)
    assert (near == exact) == (method == "full")  # every weight trains: nothing is frozen
    measured, known = (one.progress.history[0]["validation"]["log_loss"] for one in (training, plain))
    assert measured == pytest.approx(known, rel=0.05)
    assert (measured == known) == (method == "full")


@pytest.mark.usefixtures("bits")
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_scores_after_a_fast_training_are_exact(base_folder: BaseFolder, name: str) -> None:
    training, _ = trained(base_folder, name, "lora", fast=True)
    exact, _ = wrapped(base_folder(name), "lora")
    use_linear_kernel(exact.classifier, FAST)
    exact.classifier.load_state_dict(training.classifier.state_dict())
    assert (logits_of(training.predictor) == logits_of(exact)).all()


def test_the_copies_are_gone_when_training_is_over(base_folder: BaseFolder) -> None:
    training, _ = trained(base_folder, "bert", "lora", fast=True)
    assert not [module for module in training.classifier.modules() if "in_bf16" in vars(module)]
    assert {p.dtype for p in training.classifier.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2"])
def test_a_pass_is_rounded_while_they_are_there_with_gradients_or_without(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = wrapped(base_folder(name), "lora")
    predictor = replace(predictor, runtime=FAST)
    use_linear_kernel(predictor.classifier, FAST)
    before = logits_of(predictor)
    inputs = predictor._inputs(predictor.tokenize(TEXTS[:8]), np.arange(8))
    with frozen_rounded(predictor.classifier, rows=100):
        measured = predictor._batch_logits(inputs)  # first: that what it makes can be trained with
        trains = predictor.classifier(**inputs).detach().numpy()
    assert measured == pytest.approx(trains, abs=1e-6)
    assert np.abs(measured - before[:8]).max() == pytest.approx(0, abs=0.05)
    assert (measured != predictor._batch_logits(inputs)).any()
    assert (logits_of(predictor) == before).all()


@pytest.mark.usefixtures("bits")
def test_two_trainings_of_one_seed_are_the_same(base_folder: BaseFolder) -> None:
    assert trained(base_folder, "bert", "lora", fast=True)[1] == trained(base_folder, "bert", "lora", fast=True)[1]


@pytest.mark.usefixtures("bits")
@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2"])
def test_a_continued_training_equals_an_unbroken_one(base_folder: BaseFolder, tmp_path: Path, name: str) -> None:
    def begin() -> TrainingSession:
        predictor, _ = wrapped(base_folder(name), "lora")
        torch.manual_seed(1)
        training = session(replace(predictor, runtime=FAST), epochs=2, batch_size=4, patience=None)
        training.is_fast = True
        return training

    unbroken = begin()
    list(unbroken.run())
    stopped = begin()
    for event in stopped.run():
        if isinstance(event, Measurement) and event.step:
            save_checkpoint(stopped, tmp_path, job={}, environment={})
            break
    continued = begin()
    assert restore_latest(continued, tmp_path, job={}, environment={}).step > 0
    list(continued.run())
    assert continued.progress.history == unbroken.progress.history
    for key, weight in unbroken.trained_weights().items():
        assert torch.equal(weight, continued.trained_weights()[key])
