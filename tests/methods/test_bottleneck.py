"""Bottleneck adapters: where they stand, what they compute, how they are saved and proved."""

import dataclasses
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from conftest import BaseFolder
from textlift.errors import ModelError, RecipeError
from textlift.export.card import model_card
from textlift.export.loading import load_variant
from textlift.export.proof import prove_saved
from textlift.export.saving import save_adapter, settings_of
from textlift.inference import Predictor
from textlift.methods import bottleneck
from textlift.methods.bottleneck import BottleneckOptions, load_bottleneck, wrap_bottleneck
from textlift.models.loading import BaseModel
from textlift.training.tuning import parts_of
from textlift.workflow.verbs import export_variant
from tiny_models import BUILDERS, CPU, LABEL_NAMES, TEXTS, disturb, fresh, logits_of, wrapped

ENDS = {
    "bert": "output.dense",
    "distilbert": "ffn.lin2",
    "roberta": "output.dense",
    "deberta-v2": "output.dense",
    "modernbert": "mlp.Wo",
    "gpt2": "mlp.c_proj",
    "llama": "mlp.down_proj",
    "qwen2": "mlp.down_proj",
    "qwen3": "mlp.down_proj",
    "embedder": "output.dense",
    "electra": "output.dense",
    "albert": "albert_layers.0.ffn_output",
    "mpnet": "output.dense",
    "opt": "fc2",
    "gpt_neox": "mlp.dense_4h_to_h",
}


def layers_of(predictor: Predictor) -> dict[str, Any]:
    return {name: m for name, m in predictor.classifier.named_modules() if hasattr(m, "bottleneck_down")}


def saved(base: Path, folder: Path, **options: object) -> tuple[Predictor, BaseModel]:
    predictor, opened = wrapped(base, "adapter", **options)
    disturb(predictor)
    settings = settings_of(opened, predictor, kind="adapter", method="adapter", label_values=LABEL_NAMES)
    save_adapter(predictor, folder, settings=settings, card="")
    return predictor, opened


@pytest.mark.parametrize("name", list(BUILDERS))
def test_one_adapter_stands_after_the_feed_forward_part_of_each_layer(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = wrapped(base_folder(name), "adapter")
    places = list(layers_of(predictor))
    assert [place.partition(f".{index}.")[2] for index, place in enumerate(places)] == [ENDS[name]] * len(places)
    assert len(places) == (1 if name == "albert" else 2)  # ALBERT's layers share their weights, and so the adapter


@pytest.mark.parametrize("name", ["gpt2", "embedder"])
def test_the_start_is_the_base_model(base_folder: BaseFolder, name: str) -> None:
    np.testing.assert_array_equal(
        logits_of(wrapped(base_folder(name), "adapter")[0]), logits_of(fresh(base_folder(name))[0])
    )


@pytest.mark.parametrize("activation", ["gelu", "relu", "silu"])
def test_a_layer_adds_the_narrow_product_to_what_the_frozen_layer_gives(
    base_folder: BaseFolder, activation: str
) -> None:
    predictor, _ = wrapped(base_folder("bert"), "adapter", activation=activation, bottleneck_size=5)
    layer = next(iter(layers_of(disturb(predictor)).values()))
    x = torch.randn(3, 48)
    frozen, down, up = layer.base_layer, layer.bottleneck_down, layer.bottleneck_up
    hidden = x @ frozen.weight.T + frozen.bias
    narrow = getattr(torch.nn.functional, activation)(hidden @ down.weight.T + down.bias)
    torch.testing.assert_close(layer(x), hidden + narrow @ up.weight.T + up.bias)


@pytest.mark.parametrize(("options", "size"), [({}, 2), ({"reduction_factor": 4}, 8), ({"bottleneck_size": 7}, 7)])
def test_the_width_comes_from_the_factor_or_is_given(
    base_folder: BaseFolder, options: dict[str, int], size: int
) -> None:
    for layer in layers_of(wrapped(base_folder("gpt2"), "adapter", **options)[0]).values():
        assert layer.bottleneck_down.weight.shape == (size, 32)
        assert layer.bottleneck_up.weight.shape == (32, size)


def test_a_factor_above_the_hidden_size_leaves_one_unit(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "adapter", reduction_factor=1024)
    assert next(iter(layers_of(predictor).values())).bottleneck_down.out_features == 1


@pytest.mark.parametrize(
    "options",
    [
        {"reduction_factor": 0},
        {"bottleneck_size": 0},
        {"activation": "sin"},
        {"dropout": 1.0},
        {"bottleneck_size": "8"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BottleneckOptions(**options)


def test_dropout_is_drawn_while_training_and_never_else(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "adapter", dropout=0.5)
    disturb(predictor)
    ids = torch.ones((2, 5), dtype=torch.long)
    predictor.classifier.set_training(base_dropout=False)
    first, second = (predictor.classifier(ids, torch.ones_like(ids)) for _ in range(2))
    assert not torch.equal(first, second)
    predictor.classifier.eval()
    first, second = (predictor.classifier(ids, torch.ones_like(ids)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_frozen_layer_in_fewer_bits_keeps_its_kind_of_number(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "adapter")
    layer = next(iter(layers_of(predictor).values()))
    layer.base_layer.to(torch.bfloat16)
    assert layer.bottleneck_up.weight.dtype == torch.float32
    assert layer(torch.randn(2, 48, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_a_layer_without_a_feed_forward_part_is_refused(base_folder: BaseFolder) -> None:
    parts = parts_of(fresh(base_folder("bert"))[0].classifier)
    attention = tuple(name for name in parts.linear_layers if ".attention." in name)
    without = type(parts)(**{**vars(parts), "linear_layers": attention})
    with pytest.raises(RecipeError, match=r"end of each feed-forward part; bert.encoder.layer.0 has none.\nUse lora"):
        wrap_bottleneck(without, BottleneckOptions())


def test_a_pickled_copy_gives_the_same_where_the_layer_was_not_made_yet(
    base_folder: BaseFolder, tmp_path: Path
) -> None:
    predictor, _ = wrapped(base_folder("gpt2"), "adapter")
    expected = logits_of(disturb(predictor))
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(predictor.classifier))
    bottleneck._layer_class.cache_clear()
    copy = dataclasses.replace(predictor, classifier=pickle.loads((tmp_path / "model.pickle").read_bytes()))
    np.testing.assert_array_equal(logits_of(copy), expected)


def test_the_folder_holds_adapter_head_and_all_that_a_loader_must_know(base_folder: BaseFolder, tmp_path: Path) -> None:
    saved(base_folder("bert"), tmp_path, reduction_factor=8, activation="relu")
    keys = load_file(tmp_path / "adapter_model.safetensors").keys()
    assert {key.split(".")[-1] for key in keys} == {"weight", "bias"}
    assert all("bottleneck_" in key or key.startswith(("bert.pooler.", "classifier.")) for key in keys)
    assert len(keys) == 2 * 4 + 4
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config == {
        "peft_type": "BOTTLENECK",
        "format_version": 1,
        "base_model_name_or_path": str(base_folder("bert")),
        "revision": None,
        "task_type": "SEQ_CLS",
        "target_modules": ["bert.encoder.layer.0.output.dense", "bert.encoder.layer.1.output.dense"],
        "modules_to_save": ["bert.pooler", "classifier"],
        "bottleneck_size": 4,
        "activation": "relu",
        "dropout": 0.0,
    }


@pytest.mark.parametrize("name", ["bert", "embedder"])
def test_options_travel_with_the_adapter(base_folder: BaseFolder, tmp_path: Path, name: str) -> None:
    predictor, _ = saved(base_folder(name), tmp_path, bottleneck_size=3, activation="silu", dropout=0.2)
    loaded = load_variant(tmp_path, CPU)
    np.testing.assert_array_equal(logits_of(loaded), logits_of(predictor))
    assert all(layer.bottleneck_dropout.p == 0.2 for layer in layers_of(loaded).values())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"peft_type": "LORA"}, "must be of BOTTLENECK, format_version 1; found"),
        ({"format_version": 2}, "must be of BOTTLENECK, format_version 1; found"),
        ({"target_modules": ["bert.encoder.layer.0.output.dense"]}, "adapter and head and nothing else"),
        ({"modules_to_save": ["classifier"]}, "adapter and head and nothing else; bert.pooler"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(
    base_folder: BaseFolder, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    saved(base_folder("bert"), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=told):
        load_bottleneck(fresh(base_folder("bert"))[0].classifier.model, tmp_path)


def test_weights_of_another_shape_are_refused_as_they_load(base_folder: BaseFolder, tmp_path: Path) -> None:
    saved(base_folder("gpt2"), tmp_path, bottleneck_size=3)
    path = tmp_path / "adapter_model.safetensors"
    weights = load_file(path)
    key = next(key for key in weights if key.endswith("bottleneck_down.weight"))
    save_file({**weights, key: torch.zeros(4, 32)}, path)
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_bottleneck(fresh(base_folder("gpt2"))[0].classifier.model, tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "embedder"])
def test_textlift_itself_proves_the_adapter_in_a_fresh_process(
    base_folder: BaseFolder, tmp_path: Path, name: str
) -> None:
    base = shutil.copytree(base_folder(name), tmp_path / "base")
    predictor, opened = saved(base, tmp_path / "adapter")
    records = prove_saved(predictor, opened, TEXTS, adapter=tmp_path / "adapter", model=None)
    assert [record["loader"] for record in records] == ["textlift"]
    assert records[0]["largest_logit_difference"] < 1e-5


def test_the_export_as_a_plain_model_is_refused_with_what_to_do(base_folder: BaseFolder, tmp_path: Path) -> None:
    saved(base_folder("bert"), tmp_path / "adapter")
    with pytest.raises(
        ModelError, match=r"folds into the base model to be exported; adapter does not.*\nUse"
    ) as caught:
        export_variant(str(tmp_path / "adapter"), "merged", tmp_path / "out")
    assert "train one of lora" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_card_does_not_promise_what_peft_cannot_load(base_folder: BaseFolder) -> None:
    predictor, opened = fresh(base_folder("bert"))
    settings = settings_of(opened, predictor, kind="adapter", method="adapter", label_values=LABEL_NAMES)
    record = {"method": "adapter", "trained_parameters": 10, "total_parameters": 1000}
    card = model_card(record, settings, name="job", dataset="rows.csv")
    assert 'textlift.load("FOLDER")' in card
    assert "library_name: textlift" in card
    assert "from peft" not in card
