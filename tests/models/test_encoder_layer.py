"""Encoder layers as one function: logits and gradients of transformers and peft, and theirs again where it must be."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from conftest import BaseFolder
from textlift.models import encoder_layer
from textlift.models.encoder_layer import LAYOUTS, settled, use_whole_layers
from textlift.models.kernels import use_linear_kernel
from textlift.models.products import Part, multiply_gelu
from textlift.runtime import onednn_product
from tiny_encoders import FAST, KINDS, batch, outcome, tiny
from tiny_models import CPU, fresh, logits_of, session, wrapped

pytestmark = pytest.mark.skipif(onednn_product() is None, reason="torch is built without oneDNN")


def is_whole(model: nn.Module) -> list[bool]:
    """For each encoder layer, whether its next pass is one function."""
    layers: list[Any] = [layer for layer in model.modules() if type(layer).__name__.startswith("Whole")]
    return [encoder_layer._look(layer, LAYOUTS[_parent(layer)]) is not None for layer in layers]


def _parent(layer: Any) -> str:
    kind = type(layer).__mro__[1]
    return f"{kind.__module__}.{kind.__qualname__}"


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-4) -> None:
    assert list(found) == list(expected)
    for key, gradient in expected.items():
        size = float(gradient.abs().max())
        torch.testing.assert_close(found[key], gradient, rtol=tolerance, atol=max(0.1 * tolerance * size, 1e-7))


@pytest.mark.parametrize("targets", ["all-linear", ["query", "value", "q_lin", "v_lin"], ["output.dense", "lin2"]])
@pytest.mark.parametrize("tokens", [4, 17, 60])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_of_every_layout_gives_values_and_gradients_of_its_parent(kind: str, tokens: int, targets: Any) -> None:
    model, inputs = tiny(kind, target_modules=targets), batch(tokens)
    values, gradients = outcome(model, inputs)
    use_linear_kernel(model, FAST)
    use_whole_layers(model, FAST)
    assert is_whole(model) == [True] * 3
    found, found_gradients = outcome(model, inputs)
    torch.testing.assert_close(found, values, rtol=1e-4, atol=1e-5)
    close(found_gradients, gradients)
    with torch.no_grad():
        torch.testing.assert_close(
            model(**inputs).last_hidden_state * inputs["attention_mask"][..., None], values, rtol=1e-4, atol=1e-5
        )


def test_layers_below_the_lowest_adapter_get_no_gradient_and_the_others_all() -> None:
    model, inputs = (
        tiny("bert", layers_to_transform=[1], target_modules=["query", "value", "intermediate.dense"]),
        batch(9),
    )
    _, gradients = outcome(model, inputs)
    use_linear_kernel(model, FAST)
    use_whole_layers(model, FAST)
    assert is_whole(model) == [True] * 3
    close(outcome(model, inputs)[1], gradients)


@pytest.mark.parametrize("low", [True, False])
def test_half_of_an_adapter_can_be_frozen(low: bool) -> None:
    model, inputs = tiny("bert"), batch(9)
    for name, weight in model.named_parameters():
        weight.requires_grad_(("lora_A" if low else "lora_B") in name)
    _, gradients = outcome(model, inputs)
    use_linear_kernel(model, FAST)
    use_whole_layers(model, FAST)
    found = outcome(model, inputs)[1]
    assert {("lora_A" in name, "lora_B" in name) for name in found} == {(low, not low)}
    close(found, gradients)


def test_the_torch_kernel_leaves_every_layer_as_it_is() -> None:
    model = tiny("bert")
    assert use_whole_layers(model, CPU) is None
    assert is_whole(model) == []


def _train_a_norm(model: Any) -> None:
    next(p for name, p in model.named_parameters() if "LayerNorm.weight" in name and ".1." in name).requires_grad_()


def _train_a_bias(model: Any) -> None:
    next(p for name, p in model.named_parameters() if "intermediate" in name and name.endswith("bias")).requires_grad_()


def _hook(model: Any) -> None:
    inner = model.get_submodule("base_model.model.encoder.layer.1.intermediate")
    inner.register_forward_hook(lambda _, __, output: output * 2)


def _hook_a_linear_layer(model: Any) -> None:
    inner = model.get_submodule("base_model.model.encoder.layer.1.output.dense")
    inner.register_forward_hook(lambda _, __, output: output * 2)


def _train_the_bias_of_a_norm(model: Any) -> None:
    next(p for name, p in model.named_parameters() if "LayerNorm.bias" in name and ".1." in name).requires_grad_()


def _drop(model: Any) -> None:
    model.get_submodule("base_model.model.encoder.layer.1").train()


def _other_activation(model: Any) -> None:
    model.get_submodule("base_model.model.encoder.layer.1.intermediate").intermediate_act_fn = nn.ReLU()


@pytest.mark.parametrize(
    "change",
    [
        _train_a_norm,
        _train_the_bias_of_a_norm,
        _train_a_bias,
        _hook,
        _hook_a_linear_layer,
        _drop,
        _other_activation,
    ],
    ids=lambda change: change.__name__[1:],
)
def test_a_layer_that_is_not_served_runs_its_parents_forward(change: Any) -> None:
    outcomes = []
    for runtime in (CPU, FAST):
        model = tiny("bert")
        use_linear_kernel(model, runtime)
        use_whole_layers(model, runtime)
        change(model)
        torch.manual_seed(5)
        outcomes.append(outcome(model, batch(9)))
    assert False in is_whole(model)
    torch.testing.assert_close(outcomes[1][0], outcomes[0][0], rtol=1e-4, atol=1e-5)
    close(outcomes[1][1], outcomes[0][1])


def test_layers_that_are_settled_see_a_change_of_mode() -> None:
    model = tiny("bert")
    use_linear_kernel(model, FAST)
    shared = use_whole_layers(model, FAST)
    assert shared is not None
    with settled(shared), torch.no_grad():
        before = model(**batch(9)).last_hidden_state
        model.train()
        shared.forget()
        assert not torch.equal(model(**batch(9)).last_hidden_state, before)  # dropout
    assert shared.settled is None


def test_a_classifier_tells_its_layers_of_a_change_of_mode(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    classifier = dataclasses.replace(predictor, runtime=FAST).classifier
    shared = classifier.whole_layers
    assert shared is not None
    with settled(shared):
        for change in (lambda: classifier.set_training(base_dropout=True), classifier.eval):
            shared.settled = {(1, True): None}
            change()
            assert shared.settled == {}


def test_a_second_predictor_of_a_classifier_shares_what_its_layers_have(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    first = dataclasses.replace(predictor, runtime=FAST).classifier.whole_layers
    assert dataclasses.replace(predictor, runtime=FAST).classifier.whole_layers is first


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta", "embedder", "electra"])
@pytest.mark.parametrize("method", ["lora", "rslora", "pissa"])
def test_a_classifier_with_lora_is_whole_while_it_trains(base_folder: BaseFolder, name: str, method: str) -> None:
    predictor, _ = wrapped(base_folder(name), method)
    training = session(dataclasses.replace(predictor, runtime=FAST))
    training.classifier.set_training(base_dropout=False)
    assert set(is_whole(training.classifier)) == {True}


@pytest.mark.parametrize("name", ["bert", "distilbert", "roberta"])
def test_the_first_token_alone_asks_in_the_last_layer(base_folder: BaseFolder, name: str) -> None:
    plain, _ = fresh(base_folder(name))
    expected = logits_of(plain)
    predictor, _ = fresh(base_folder(name))
    predictor = dataclasses.replace(predictor, runtime=FAST)
    layer: Any = predictor.classifier.layers()[-1]
    shapes = []
    hook = layer.register_forward_hook(lambda _, __, output: shapes.append(output.shape[1]))
    np.testing.assert_allclose(logits_of(predictor), expected, atol=1e-5)
    hook.remove()
    assert set(shapes) == {1}


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("rows", [1, 33])
def test_gelu_inside_the_product_is_that_of_torch(rows: int, approximate: str) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((rows, 24), (40, 24), (40,)))
    expected = functional.gelu(functional.linear(x, weight, bias), approximate=approximate)
    found = multiply_gelu(x, Part(weight, bias), approximate=approximate)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_an_unknown_class_is_not_in_the_module() -> None:
    with pytest.raises(AttributeError, match="WholeNothing"):
        _ = encoder_layer.WholeNothing
