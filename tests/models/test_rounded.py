"""Layers under autocast: frozen weights rounded once, LoRA as one function, both equal to those of torch and peft."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from conftest import BaseFolder
from textlift.inference import Predictor
from textlift.models import rounded
from textlift.models.rounded import rounded_once
from textlift.runtime import Runtime
from textlift.training.loop import TrainStep, gradients_of
from textlift.training.session import Measurement, TrainingSession
from tiny_models import CPU, disturb, session, wrapped

HALF = Runtime("cpu", "bf16", 1, ())
BASES = ["bert", "gpt2", "llama", "embedder"]


def half(predictor: Predictor) -> Predictor:
    return dataclasses.replace(predictor, runtime=HALF)


def gradients(training: TrainingSession, runtime: Runtime, *, once: bool) -> dict[str, torch.Tensor]:
    classifier = training.classifier
    classifier.zero_grad()
    classifier.set_training(base_dropout=False)
    with rounded_once(classifier) if once else nullcontext():
        gradients_of(classifier, training.micro_batches(np.arange(8)), runtime=runtime, penalty=None)
    return {name: p.grad.clone() for name, p in classifier.named_parameters() if p.grad is not None}


def flat(some: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.flatten() for gradient in some.values()])


@pytest.mark.parametrize("method", ["ia3", "adapter", "probe", "last-layers", "layernorm", "dora", "vera"])
@pytest.mark.parametrize("name", BASES)
def test_rounding_a_frozen_weight_once_changes_no_bit(base_folder: BaseFolder, name: str, method: str) -> None:
    predictor, _ = wrapped(base_folder(name), method)
    training = session(half(disturb(predictor)))
    plain, once = (gradients(training, HALF, once=way) for way in (False, True))
    assert plain.keys() == once.keys()
    assert all(torch.equal(once[key], gradient) for key, gradient in plain.items())


@pytest.mark.parametrize("name", BASES)
def test_lora_as_one_function_is_as_near_to_fp32_as_peft_is(base_folder: BaseFolder, name: str) -> None:
    distances = []
    for seed in range(3):  # one draw alone says little of rounding
        predictor, _ = wrapped(base_folder(name), "lora", rank=3)
        training = session(half(disturb(predictor, seed)))
        exact = flat(gradients(training, CPU, once=False))
        ways = [flat(gradients(training, HALF, once=way)) for way in (False, True)]
        assert not torch.equal(*ways)
        distances.append([float((way - exact).norm() / exact.norm()) for way in ways])
    plain, once = np.mean(distances, axis=0)
    assert once <= 1.2 * plain < 0.1


@pytest.mark.parametrize("conv1d", [False, True])
def test_the_function_of_lora_has_the_derivatives_of_its_formula(conv1d: bool) -> None:
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(5, 6), torch.randn(4, 6), torch.randn(4)
    rows, low, high = (some.double().requires_grad_() for some in (rows, torch.randn(2, 6), torch.randn(4, 2)))
    weight = weight.double().t().contiguous().t() if conv1d else weight.double()

    def run(rows: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        done: torch.Tensor = rounded._LoraSum.apply(rows, weight, bias.double(), low, high, 1.5)
        return done

    expected = rows @ weight.t() + bias + 1.5 * (rows @ low.t()) @ high.t()
    torch.testing.assert_close(run(rows, low, high), expected)
    # Gradients of A and B come in fp32, whatever the products are in.
    made, wanted = (torch.autograd.grad(y.square().sum(), (rows, low, high)) for y in (run(rows, low, high), expected))
    for one, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_measurements_are_those_of_torch_and_peft(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    training = session(half(disturb(predictor)), patience=None)
    last = [event for event in training.run() if isinstance(event, Measurement) and event.is_best][-1]
    logits = training.predictor.forward(training.validation.tokens).logits  # no longer inside the session
    assert last.accuracy == float((logits.argmax(axis=1) == training.validation.labels).mean())
    with rounded_once(training.classifier):
        assert np.array_equal(training.predictor.forward(training.validation.tokens).logits, logits)


def test_a_session_in_bf16_trains_and_leaves_layers_and_weights_as_they_were(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("gpt2"), "lora")
    training = session(half(predictor), patience=None, epochs=3)
    kinds = [type(layer) for layer in training.classifier.modules()]
    frozen = {name: p.clone() for name, p in training.classifier.named_parameters() if not p.requires_grad}
    losses = [event.loss for event in training.run() if isinstance(event, TrainStep)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert [type(layer) for layer in training.classifier.modules()] == kinds
    assert not any(hasattr(layer, "rounded") for layer in training.classifier.modules())
    after = dict(training.classifier.named_parameters())
    assert all(torch.equal(after[name], weight) for name, weight in frozen.items())
    assert all(p.dtype == torch.float32 for p in after.values())


def test_only_passes_that_record_gradients_in_bf16_are_changed(base_folder: BaseFolder) -> None:
    layer = nn.Linear(6, 4).requires_grad_(False)
    x = torch.randn(3, 6)
    expected = layer(x)
    with rounded_once(layer):
        assert torch.equal(layer(x), expected)
        with torch.autocast("cpu", dtype=torch.float16):
            assert layer(x).dtype == torch.float16
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded_weight = layer(x)
            with torch.no_grad():
                assert torch.equal(layer(x), rounded_weight)
