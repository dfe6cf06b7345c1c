"""Compiled layers train the same, measure the same, and are the plain ones again afterwards."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from conftest import BaseFolder
from packed_attention import stand_in
from textlift.models import compiled as compiling
from textlift.runtime import Runtime
from textlift.training.loop import TrainStep
from textlift.training.session import TrainingSession
from tiny_models import CPU, disturb, session, wrapped

HALF = Runtime("cpu", "bf16", 1, ())
# What is compiled is drawn as a graph and run by torch's own operators: quick, and the same numbers.
AS_GRAPH = {"backend": "aot_eager", "fullgraph": True}
needs_dynamo = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def losses(folder: object, runtime: Runtime, method: str = "lora", **settings: object) -> list[float]:
    predictor, _ = wrapped(folder, method)  # type: ignore[arg-type]
    predictor = dataclasses.replace(disturb(predictor), runtime=runtime)
    training: TrainingSession = session(predictor, patience=None, n=20, **settings)
    return [event.loss for event in training.run() if isinstance(event, TrainStep)]


@needs_dynamo
@pytest.mark.parametrize("name", ["bert", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "llama"))])
def test_a_packed_training_in_bf16_is_one_graph_for_a_layer(
    base_folder: BaseFolder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    expected = losses(base_folder(name), HALF)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(compiling.torch, "compile", partial(torch.compile, **AS_GRAPH))
    assert losses(base_folder(name), HALF, compile=True) == expected
    # The first layer's input needs no gradient, the second's does. Other sizes add no graph, but for one that is the
    # width of the model as well (gpt2's 128 here), which torch takes for a fixed one.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= (4 if name == "gpt2" else 2)


@pytest.mark.slow
@needs_dynamo
@pytest.mark.parametrize("method", ["adapter", "dora", "prefix-tuning"])
def test_what_is_no_single_graph_trains_the_same(
    base_folder: BaseFolder, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = losses(base_folder("bert"), CPU, method)
    torch._dynamo.reset()
    monkeypatch.setattr(compiling.torch, "compile", partial(torch.compile, backend="aot_eager"))
    assert losses(base_folder("bert"), CPU, method, compile=True) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@needs_dynamo
def test_layers_that_are_computed_again_train_the_same_compiled(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = losses(base_folder("bert"), CPU, gradient_checkpointing=True)
    torch._dynamo.reset()
    monkeypatch.setattr(compiling.torch, "compile", partial(torch.compile, backend="aot_eager"))
    again = losses(base_folder("bert"), CPU, gradient_checkpointing=True, compile=True)
    assert again == pytest.approx(expected, rel=1e-5)


@needs_dynamo
def test_a_compiler_that_fails_leaves_the_layers_as_they_are(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no compiler on this machine")

    expected = losses(base_folder("bert"), CPU)
    torch._dynamo.reset()
    monkeypatch.setattr(compiling.torch, "compile", partial(torch.compile, backend=fail))
    assert losses(base_folder("bert"), CPU, compile=True) == expected


def test_only_passes_that_record_gradients_are_compiled(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[bool] = []

    def watched(plain: Callable[..., Any], **_: object) -> Callable[..., Any]:
        def forward(*inputs: Any, **options: Any) -> Any:
            recorded.append(torch.is_grad_enabled())
            return plain(*inputs, **options)

        return forward

    monkeypatch.setattr(compiling.torch, "compile", watched)
    training = session(wrapped(base_folder("bert"), "lora")[0], compile=True)
    steps = sum(isinstance(event, TrainStep) for event in training.run())
    assert recorded == [True] * steps * len(training.classifier.layers())
    assert not any("forward" in vars(layer) for layer in training.classifier.layers())


@pytest.mark.slow
@needs_dynamo
def test_torchs_own_compiler_trains_the_same_to_rounding(base_folder: BaseFolder) -> None:
    expected = losses(base_folder("bert"), CPU)
    torch._dynamo.reset()
    np.testing.assert_allclose(losses(base_folder("bert"), CPU, compile=True), expected, rtol=1e-4)
