"""Encoder layers in bf16: as near to the exact values and gradients as torch's autocast is, whatever their form."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from conftest import BaseFolder
from textlift.models.encoder_layer import settled, use_whole_layers
from textlift.models.kernels import frozen_rounded, has_bf16_products, use_linear_kernel
from textlift.runtime import onednn_product
from tiny_encoders import FAST, batch, outcome, tiny
from tiny_models import wrapped

pytestmark = pytest.mark.skipif(
    onednn_product() is None or not has_bf16_products(FAST), reason="this processor has no bf16 products"
)
QUERIES_AND_VALUES = ["query", "value", "q_lin", "v_lin"]
TARGETS: list[Any] = ["all-linear", QUERIES_AND_VALUES, ["key", "k_lin"], ["output.dense", "lin2"]]
SEEDS = 7
Outcome = tuple[torch.Tensor, dict[str, torch.Tensor]]


def rounded(model: Any, inputs: dict[str, torch.Tensor]) -> Outcome:
    use_linear_kernel(model, FAST)
    shared = use_whole_layers(model, FAST)
    with frozen_rounded(model, rows=100), settled(shared):
        return outcome(model, inputs)


def distances(found: Outcome, expected: Outcome) -> np.ndarray:
    """Of the values, and of the gradients: the mean over all weights of how far one is off, over its size."""
    assert list(found[1]) == list(expected[1])
    each = [float((found[1][key] - one).norm() / one.norm()) for key, one in expected[1].items() if one.norm() > 0]
    return np.array([float((found[0] - expected[0]).norm()), float(np.mean(each))])


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("tokens", [4, 20, 70, 140])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_values_and_gradients_are_as_near_to_the_exact_ones_as_those_of_autocast(
    kind: str, tokens: int, targets: Any
) -> None:
    ratios = []
    for seed in range(SEEDS):
        model, inputs = tiny(kind, seed=seed, target_modules=targets), batch(tokens)
        exact = outcome(model, inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            usual = outcome(model, inputs)
        found = rounded(model, inputs)
        assert {gradient.dtype for gradient in found[1].values()} == {torch.float32}
        ratios.append(distances(found, exact) / distances(usual, exact))
    assert (np.array(ratios) > 0).all()
    assert (np.median(ratios, axis=0) < 1.5).all()  # one seed in ten is twice as far off, in either


def test_layers_below_the_lowest_adapter_get_no_gradient_and_the_others_all() -> None:
    places = {"layers_to_transform": [1], "target_modules": ["query", "value", "intermediate.dense"]}
    model, inputs = tiny("bert", **places), batch(9)
    exact = outcome(model, inputs)
    assert (distances(rounded(model, inputs), exact) < (0.5, 0.1)).all()


@pytest.mark.parametrize("low", [True, False])
def test_half_of_an_adapter_can_be_frozen(low: bool) -> None:
    model, inputs = tiny("bert"), batch(9)
    for name, weight in model.named_parameters():
        weight.requires_grad_(("lora_A" if low else "lora_B") in name)
    exact = outcome(model, inputs)
    found = rounded(model, inputs)
    assert {("lora_A" in name, "lora_B" in name) for name in found[1]} == {(low, not low)}
    assert (distances(found, exact) < (0.5, 0.1)).all()


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("tokens", [7, 20, 45])
def test_gradients_are_right_where_the_first_token_alone_asks(base_folder: BaseFolder, name: str, tokens: int) -> None:
    found = {}
    for rounds in (False, True):
        predictor, _ = wrapped(base_folder(name), "lora")
        classifier = dataclasses.replace(predictor, runtime=FAST).classifier
        use_linear_kernel(classifier, FAST)
        ids = torch.randint(3, 20, (5, tokens), generator=torch.Generator().manual_seed(1))
        seen = (torch.arange(tokens) < torch.tensor([tokens, 3, 5, tokens, tokens - 1])[:, None]).long()
        torch.manual_seed(0)
        for weight in classifier.parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=0.1)
        classifier.set_training(base_dropout=False)
        with frozen_rounded(classifier, rows=100) if rounds else settled(None), settled(classifier.whole_layers):
            torch.nn.functional.cross_entropy(classifier(ids, seen), torch.tensor([0, 1, 2, 0, 1])).backward()
        found[rounds] = {key: p.grad for key, p in classifier.named_parameters() if p.grad is not None}
    assert list(found[True]) == list(found[False])
    for key, exact in found[False].items():
        assert float((found[True][key] - exact).norm()) < 0.1 * float(exact.norm()), key


def test_a_weight_that_moved_counts_in_the_next_pass() -> None:
    model, inputs = tiny("bert"), batch(9)
    use_linear_kernel(model, FAST)
    shared = use_whole_layers(model, FAST)
    with frozen_rounded(model, rows=100), settled(shared):
        before = outcome(model, inputs)[0]
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.mul_(2.0)
        after = outcome(model, inputs)[0]
    exact = outcome(model, inputs)[0]
    assert float((after - exact).norm()) < 0.1 * float((after - before).norm())
