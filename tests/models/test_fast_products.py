"""Products with frozen weights in bf16: near the exact ones, only while training, and gone afterwards."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import BaseFolder
from textlift.models.kernels import frozen_in_bf16, has_bf16_products, use_linear_kernel
from textlift.runtime import Runtime, onednn_product
from textlift.training.checkpoint import restore_latest, save_checkpoint
from textlift.training.loop import TrainStep
from textlift.training.session import Measurement, TrainingSession
from tiny_models import logits_of, session, wrapped

FAST = Runtime("cpu", "fp32", 1, (), "onednn")

pytestmark = pytest.mark.skipif(
    onednn_product() is None or not has_bf16_products(FAST), reason="this processor has no bf16 products"
)


def trained(base_folder: BaseFolder, name: str, method: str, *, fast: bool) -> tuple[TrainingSession, list[float]]:
    predictor, _ = wrapped(base_folder(name), method)
    use_linear_kernel(predictor.classifier, FAST)
    training = session(predictor, epochs=3, patience=None)
    training.is_fast = fast
    torch.manual_seed(1)
    return training, [event.loss for event in training.run() if isinstance(event, TrainStep)]


@pytest.mark.parametrize("method", ["lora", "ia3", "prompt-tuning", "bitfit", "adapter", "full"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "embedder"])
def test_losses_stay_near_the_exact_ones_and_measurements_are_exact(
    base_folder: BaseFolder, name: str, method: str
) -> None:
    if (name, method) == ("llama", "bitfit"):
        pytest.skip("no biases")
    _, exact = trained(base_folder, name, method, fast=False)
    training, near = trained(base_folder, name, method, fast=True)
    assert near == pytest.approx(exact, rel=0.05, abs=0.02)
    assert (near == exact) == (method == "full")  # every weight trains: nothing is frozen
    first = training.progress.history[0]["validation"]
    assert first == trained(base_folder, name, method, fast=False)[0].progress.history[0]["validation"]


def test_the_copies_are_gone_when_training_is_over(base_folder: BaseFolder) -> None:
    training, _ = trained(base_folder, "bert", "lora", fast=True)
    assert not [module for module in training.classifier.modules() if "in_bf16" in vars(module)]
    assert {p.dtype for p in training.classifier.parameters()} == {torch.float32}


def test_a_pass_without_gradients_is_exact_while_they_are_there(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    use_linear_kernel(predictor.classifier, FAST)
    before = logits_of(predictor)
    with frozen_in_bf16(predictor.classifier):
        assert (logits_of(predictor) == before).all()


def test_two_trainings_of_one_seed_are_the_same(base_folder: BaseFolder) -> None:
    assert trained(base_folder, "bert", "lora", fast=True)[1] == trained(base_folder, "bert", "lora", fast=True)[1]


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
