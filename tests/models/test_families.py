"""The family table against the modules of tiny models, and the discovery for architectures outside the table."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from conftest import BaseFolder
from textlift.errors import ModelError
from textlift.models.families import FAMILIES, discover_family, is_linear, linear_layer_names, locate, located
from tiny_models import OTHERS, TABLE, TEXTS, fresh, logits_of

FAMILIES_AND_OTHERS = [*TABLE, *OTHERS]


def test_the_table_is_covered_by_tiny_models() -> None:
    assert set(FAMILIES) == set(TABLE)


@pytest.mark.parametrize("name", FAMILIES_AND_OTHERS)
def test_the_linear_layers_are_all_of_the_repeated_layers(base_folder: BaseFolder, name: str) -> None:
    classifier = fresh(base_folder(name))[0].classifier
    layers = f"{classifier.family.layer_list}."
    all_linear = [
        key for key, module in classifier.model.named_modules() if key.startswith(layers) and is_linear(module)
    ]
    assert sorted(classifier.linear_layers()) == sorted(all_linear)


@pytest.mark.parametrize("name", list(TABLE))
def test_discovery_finds_what_the_table_says(base_folder: BaseFolder, name: str) -> None:
    model = fresh(base_folder(name))[0].classifier.model
    found, told = discover_family(model, name, model.base_model_prefix), FAMILIES[name]
    assert (found.layer_list, found.final_linear, found.fan_in_fan_out) == (
        told.layer_list,
        told.final_linear,
        told.fan_in_fan_out,
    )
    assert set(found.linear_layers) == set(told.linear_layers)
    assert set(found.head_modules) == set(told.head_modules)


@pytest.mark.parametrize("name", FAMILIES_AND_OTHERS)
def test_head_modules_exist_and_hold_the_final_linear_layer(base_folder: BaseFolder, name: str) -> None:
    classifier = fresh(base_folder(name))[0].classifier
    heads = classifier.head_modules()
    assert len(heads) == len(classifier.family.head_modules)
    assert any(f"{classifier.family.final_linear}.".startswith(f"{head}.") for head in heads)


@pytest.mark.parametrize("name", [*FAMILIES_AND_OTHERS, "embedder"])
def test_logits_are_the_final_linear_layer_of_the_pooled_features(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = fresh(base_folder(name))
    result = predictor.forward(predictor.tokenize([*TEXTS, ""]), features=True)
    final = predictor.classifier.final_linear()
    bias = 0.0 if final.bias is None else final.bias.numpy()
    assert result.features is not None
    assert result.features.shape == (len(TEXTS) + 1, 32)
    np.testing.assert_allclose(result.features @ final.weight.numpy().T + bias, result.logits, atol=1e-5)
    with torch.no_grad():
        final.weight.zero_()
    assert np.allclose(logits_of(predictor), bias)


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "gpt2", "llama", "albert"])
def test_a_bare_base_model_has_the_same_linear_layers_without_prefix(base_folder: BaseFolder, name: str) -> None:
    native = fresh(base_folder(name))[0].classifier
    bare = fresh(base_folder(name), pooling="mean")[0].classifier
    prefix = f"{native.model.base_model_prefix}."
    assert bare.linear_layers() == [layer.removeprefix(prefix) for layer in native.linear_layers()]
    assert bare.head_modules() == []


def test_an_architecture_without_layers_is_refused_with_the_tested_families_named() -> None:
    with pytest.raises(ModelError, match=r"'plain' must have a list of layers(.|\n)*Families that are tested: bert, "):
        discover_family(nn.Sequential(nn.Linear(2, 2)), "plain", "base")


def test_a_layer_list_without_the_named_layers_is_refused() -> None:
    model = nn.Module()
    model.bert = nn.Module()
    model.bert.encoder = nn.Module()
    model.bert.encoder.layer = nn.ModuleList([nn.ReLU()])
    with pytest.raises(ModelError, match=r"bert: none of attention.self.query, .* is in bert.encoder.layer"):
        linear_layer_names(model, FAMILIES["bert"])


def test_a_module_is_located_with_and_without_the_leading_attribute() -> None:
    model = nn.ModuleDict({"pooler": nn.Linear(2, 2)})
    assert locate(model, "pooler") == locate(model, "bert.pooler") == "pooler"
    assert located(model, ["bert.pooler", "classifier"]) == ["pooler"]
    with pytest.raises(ModelError, match="must have a module 'classifier'"):
        locate(model, "classifier")


def test_a_pooler_that_the_checkpoint_lacks_counts_as_head(base_folder: BaseFolder) -> None:
    assert "albert.pooler" in fresh(base_folder("albert"))[0].classifier.head_modules()


def test_folders_hold_no_classification_head(base_folder: BaseFolder) -> None:
    from safetensors import safe_open

    for name in FAMILIES_AND_OTHERS:
        path = Path(base_folder(name)) / "model.safetensors"
        with safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            assert not [key for key in file.keys() if key.startswith(("classifier", "score"))]  # noqa: SIM118
