"""The faster linear layers: equal to those of torch and peft to rounding, and theirs again where they do not serve."""

import dataclasses
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from conftest import BaseFolder
from method_pairs import pairs
from textlift.inference import Predictor
from textlift.models.kernels import FusedTanhGELU, fuse_activations, use_linear_kernel
from textlift.runtime import ONEDNN, Runtime, onednn_product
from textlift.training.session import TrainingSession
from tiny_models import CPU, TABLE, TEXTS, disturb, fresh, logits_of, session, wrapped

pytestmark = pytest.mark.skipif(onednn_product() is None, reason="torch is built without oneDNN")
FAST = Runtime("cpu", "fp32", 1, (), ONEDNN)


def with_kernel(predictor: Predictor, runtime: Runtime) -> Predictor:
    return dataclasses.replace(predictor, runtime=runtime)


def trained(predictor: Predictor, **settings: object) -> tuple[list[float], dict[str, torch.Tensor]]:
    training: TrainingSession = session(predictor, epochs=2, patience=None, **settings)
    for _ in training.run():
        pass
    losses = [row["train_loss"] for row in training.progress.history if "train_loss" in row]
    return losses, training.trained_weights()


@pytest.mark.parametrize(("name", "method"), pairs())
def test_training_is_that_of_torch_and_peft_to_rounding(base_folder: BaseFolder, name: str, method: str) -> None:
    plain, _ = wrapped(base_folder(name), method)
    losses, weights = trained(plain, learning_rate=1e-3)
    fast, _ = wrapped(base_folder(name), method)
    fast_losses, fast_weights = trained(with_kernel(fast, FAST), learning_rate=1e-3)
    assert fast_losses == pytest.approx(losses, rel=1e-4, abs=1e-5)
    assert list(fast_weights) == list(weights)
    # AdamW divides by the gradient's size, so a gradient of mere rounding moves a weight as far as any other.
    close = [torch.isclose(fast_weights[key], weight, atol=1e-4).float().mean() for key, weight in weights.items()]
    assert min(close) > 0.9


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_gradients_are_those_of_peft_to_rounding(base_folder: BaseFolder, name: str) -> None:
    gradients = []
    for runtime in (CPU, FAST):
        predictor, _ = wrapped(base_folder(name), "lora", rank=3)
        disturb(predictor)
        session(with_kernel(predictor, runtime))
        tokens = predictor.tokenize(TEXTS[:4])
        ids = torch.ones((4, int(tokens.lengths.max())), dtype=torch.long)
        predictor.classifier(ids, torch.ones_like(ids)).square().sum().backward()
        gradients.append({key: p.grad for key, p in predictor.classifier.named_parameters() if p.grad is not None})
    assert list(gradients[0]) == list(gradients[1])
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("name", ["bert", "gpt2", "embedder"])
def test_what_is_saved_does_not_know_the_kernel(base_folder: BaseFolder, name: str) -> None:
    plain, _ = wrapped(base_folder(name), "lora")
    fast, _ = wrapped(base_folder(name), "lora")
    fast = with_kernel(fast, FAST)
    session(fast)
    assert list(fast.classifier.state_dict()) == list(plain.classifier.state_dict())
    merged = fast.classifier.model.merge_and_unload()
    assert not [module for module in merged.modules() if hasattr(module, "lora_A")]


@pytest.mark.parametrize("name", TABLE)
def test_the_layers_of_a_family_are_found_after_the_swap(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = fresh(base_folder(name))
    before = predictor.classifier.linear_layers()
    assert with_kernel(predictor, FAST).classifier.linear_layers() == before


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7), (1, 7), (0, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_gives_value_and_gradients_of_its_parent_for_every_shape(shape: tuple[int, ...], bias: bool) -> None:
    plain, fast = nn.Linear(7, 4, bias=bias), nn.Linear(7, 4, bias=bias)
    fast.load_state_dict(plain.state_dict())
    use_linear_kernel(fast, FAST)
    x, other = torch.randn(shape).requires_grad_(), torch.empty(shape).requires_grad_()
    other.data.copy_(x.data)
    plain(x).square().sum().backward()
    fast(other).square().sum().backward()
    torch.testing.assert_close(other.grad, x.grad)
    for mine, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_wide_trained_weight_has_its_parents_gradient_from_a_strided_input() -> None:
    plain = nn.Linear(96, 80)
    fast = nn.Linear(96, 80)
    fast.load_state_dict(plain.state_dict())
    use_linear_kernel(fast, FAST)
    x = torch.randn(70, 5, 96)[:, 0]  # as the first position of each text
    plain(x).square().sum().backward()
    fast(x).square().sum().backward()
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-3)


def test_the_transposed_layer_of_gpt2_gives_value_and_gradients_of_its_parent() -> None:
    plain, fast = Conv1D(6, 5), Conv1D(6, 5)
    fast.load_state_dict(plain.state_dict())
    use_linear_kernel(fast, FAST)
    x = torch.randn(3, 2, 5)
    torch.testing.assert_close(fast(x), plain(x))
    plain(x).square().sum().backward()
    fast(x).square().sum().backward()
    torch.testing.assert_close(fast.weight.grad, plain.weight.grad)
    torch.testing.assert_close(fast.bias.grad, plain.bias.grad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_dtype_runs_the_layers_own_forward(dtype: torch.dtype) -> None:
    layer = nn.Linear(4, 3).to(dtype)
    x = torch.randn(2, 4, dtype=dtype)
    expected = layer(x)
    use_linear_kernel(layer, FAST)
    assert torch.equal(layer(x), expected)


def test_autocast_runs_the_layers_own_forward() -> None:
    layer = nn.Linear(4, 3)
    use_linear_kernel(layer, FAST)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.randn(2, 4)).dtype == torch.bfloat16


def test_dropout_inside_an_adapter_is_still_drawn(base_folder: BaseFolder) -> None:
    outputs = []
    for runtime in (CPU, FAST):
        predictor, _ = wrapped(base_folder("bert"), "lora", dropout=0.5)
        disturb(predictor)
        session(with_kernel(predictor, runtime))
        predictor.classifier.set_training(base_dropout=False)
        torch.manual_seed(0)
        ids = torch.ones((2, 5), dtype=torch.long)
        outputs.append(predictor.classifier(ids, torch.ones_like(ids)).detach())
    torch.testing.assert_close(outputs[1], outputs[0])


def test_an_adapter_that_is_switched_off_gives_the_base_model(base_folder: BaseFolder) -> None:
    plain, _ = wrapped(base_folder("bert"), "lora")
    before = logits_of(plain)
    fast = with_kernel(disturb(plain), FAST)
    session(fast)
    with fast.classifier.model.disable_adapter():
        off = logits_of(fast)
    on = logits_of(fast)
    assert abs(off - on).max() > 1e-3
    assert abs(off - before).max() < 1e-5


def test_the_torch_kernel_leaves_every_layer_as_it_is(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    kinds = [type(module) for module in predictor.classifier.modules()]
    use_linear_kernel(predictor.classifier, CPU)
    assert [type(module) for module in predictor.classifier.modules()] == kinds


@pytest.mark.parametrize("name", ["bert", "distilbert", "gpt2"])
def test_a_pickled_model_is_read_in_a_process_that_made_no_layer_yet(
    base_folder: BaseFolder, tmp_path: Path, name: str
) -> None:
    predictor, _ = wrapped(base_folder(name), "lora")
    fast = with_kernel(disturb(predictor), FAST)
    session(fast)
    ids = torch.ones((1, 4), dtype=torch.long)
    fast.classifier.eval()
    expected = fast.classifier(ids, torch.ones_like(ids)).tolist()
    (tmp_path / "model").write_bytes(pickle.dumps(fast.classifier))
    program = (
        "import pickle, sys, torch; model = pickle.load(open(sys.argv[1], 'rb')); "
        "ids = torch.ones((1, 4), dtype=torch.long); print(model(ids, torch.ones_like(ids)).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model")], capture_output=True, text=True, check=True
    )
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast"])
def test_a_fused_activation_is_that_of_transformers_to_rounding(name: str) -> None:
    from transformers.activations import ACT2FN

    holder = nn.Sequential(ACT2FN[name])
    x = torch.linspace(-9, 9, 2001, dtype=torch.float64, requires_grad=True)
    expected = holder(x)
    (slope,) = torch.autograd.grad(expected.sum(), x)
    fuse_activations(holder)
    assert isinstance(holder[0], FusedTanhGELU)
    (found,) = torch.autograd.grad(holder(x).sum(), x)
    torch.testing.assert_close(holder(x), expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(found, slope, atol=1e-9, rtol=0)


def test_the_activations_of_gpt2_are_fused_and_others_stay(base_folder: BaseFolder) -> None:
    def fused(name: str) -> int:
        return sum(isinstance(module, FusedTanhGELU) for module in fresh(base_folder(name))[0].classifier.modules())

    assert fused("gpt2") == 2
    assert fused("bert") == 0
