"""Fusion: the weighted sum of saved LoRA adapters, its fold into one, and the adapters that it refuses."""

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
from textlift.errors import InputNotFoundError, ModelError, RecipeError
from textlift.export.loading import attach_adapter, load_variant, merge
from textlift.export.saving import save_adapter, save_model, settings_of
from textlift.inference import Predictor
from textlift.methods.fusion import FusionOptions, fold, require_same_base
from textlift.methods.registry import METHODS, method_of
from textlift.models.loading import open_base
from textlift.recipe import Variant
from textlift.runtime import quiet_libraries
from textlift.training.session import TrainingSession
from tiny_models import (
    CPU,
    LABEL_NAMES,
    disturb,
    fresh,
    logits_of,
    lora_adapter,
    options_of,
    session,
    wrapped,
)

BASES = ("bert", "gpt2", "embedder")


def layers_of(predictor: Predictor) -> dict[str, Any]:
    return {name: layer for name, layer in predictor.classifier.named_modules() if hasattr(layer, "fusion_weights")}


def weigh(predictor: Predictor, weights: list[float]) -> Predictor:
    """The same weights in every layer."""
    for layer in layers_of(predictor).values():
        with torch.no_grad():
            layer.fusion_weights.copy_(torch.tensor(weights))
    return predictor


def folded(base: Path, folder: Path, *, seed: int = 3) -> Predictor:
    """Two adapters fused with weights of a seed, folded and saved."""
    predictor, opened = wrapped(base, "fusion")
    disturb(predictor, seed)
    predictor.classifier.model = fold(predictor.classifier.model, options_of(base, "fusion"))
    settings = settings_of(opened, predictor, kind="adapter", method="fusion", label_values=LABEL_NAMES)
    save_adapter(predictor, folder, settings=settings, card="")
    return predictor


def same_head(predictor: Predictor, other: Predictor) -> None:
    """Give a predictor the final layer of another."""
    predictor.classifier.final_linear().load_state_dict(other.classifier.final_linear().state_dict())


@pytest.mark.parametrize("name", BASES)
def test_a_layer_adds_the_weighted_products_of_the_adapters(base_folder: BaseFolder, name: str) -> None:
    paths = options_of(base_folder(name), "fusion").adapters
    predictor, _ = wrapped(base_folder(name), "fusion")
    weigh(predictor, [0.7, -1.3])
    for key, layer in layers_of(predictor).items():
        base = layer.base_layer
        weight = base.weight if name == "gpt2" else base.weight.T  # (D_in, D_out)
        x = torch.randn(3, weight.shape[0])
        expected = x @ weight + base.bias
        for path, share, rank in zip(paths, (0.7, -1.3), (2, 3), strict=True):
            stored = load_file(Path(path) / "adapter_model.safetensors")
            place = f"base_model.model.{key.removeprefix('model.')}"
            low, high = (stored[f"{place}.lora_{letter}.weight"] for letter in "AB")
            assert len(low) == rank
            expected += share * (16 / rank) * x @ low.T @ high.T
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    assert len(layers_of(predictor)) == (8 if name == "gpt2" else 12)


@pytest.mark.parametrize("name", BASES)
def test_weight_one_of_one_adapter_is_that_adapter(base_folder: BaseFolder, name: str) -> None:
    path = options_of(base_folder(name), "fusion").adapters[1]
    alone, _ = fresh(base_folder(name))
    attach_adapter(alone.classifier, Path(path))
    predictor, _ = wrapped(base_folder(name), "fusion")
    weigh(predictor, [0.0, 1.0])
    same_head(predictor, alone)
    if name == "bert":  # the pooler is a part of the head that the adapter brought
        own = alone.classifier.model.base_model.model.bert.pooler.modules_to_save["default"]
        predictor.classifier.model.bert.pooler.load_state_dict(own.state_dict())
    np.testing.assert_allclose(logits_of(predictor), logits_of(alone), atol=1e-5)


def test_peft_sums_the_same_where_it_does_not_refuse(base_folder: BaseFolder) -> None:
    from peft import PeftModel

    first, second = options_of(base_folder("embedder"), "fusion").adapters
    peft, _ = fresh(base_folder("embedder"))
    with quiet_libraries():
        model = PeftModel.from_pretrained(peft.classifier.model, first, adapter_name="first")
        model.load_adapter(second, adapter_name="second")
        model.add_weighted_adapter(["first", "second"], [0.7, -1.3], adapter_name="both", combination_type="cat")
        model.set_adapter("both")
    peft.classifier.model = model
    predictor, _ = wrapped(base_folder("embedder"), "fusion")
    np.testing.assert_allclose(logits_of(weigh(predictor, [0.7, -1.3])), logits_of(peft), atol=1e-5)


@pytest.mark.parametrize("name", BASES)
def test_the_start_is_the_base_model(base_folder: BaseFolder, name: str) -> None:
    np.testing.assert_allclose(
        logits_of(wrapped(base_folder(name), "fusion")[0]), logits_of(fresh(base_folder(name))[0]), atol=1e-6
    )


@pytest.mark.parametrize("name", BASES)
def test_folding_keeps_the_logits_and_leaves_plain_lora_of_the_summed_rank(
    base_folder: BaseFolder, tmp_path: Path, name: str
) -> None:
    predictor, _ = wrapped(base_folder(name), "fusion")
    before = logits_of(disturb(predictor))
    saved = folded(base_folder(name), tmp_path)
    np.testing.assert_allclose(logits_of(saved), before, atol=1e-5)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["rank_pattern"]) == ("LORA", 5, 5, {})
    assert not [key for key in saved.classifier.state_dict() if "fus" in key]


@pytest.mark.parametrize("name", ["gpt2", "embedder"])
def test_what_is_folded_loads_merges_and_can_be_fused_again(base_folder: BaseFolder, tmp_path: Path, name: str) -> None:
    saved = folded(base_folder(name), tmp_path / "fused")
    loaded = load_variant(tmp_path / "fused", CPU)
    np.testing.assert_allclose(logits_of(loaded), logits_of(saved), atol=1e-6)
    other = lora_adapter(base_folder(name), seed=1, rank=2)
    again, _ = wrapped(base_folder(name), "fusion", adapters=(str(tmp_path / "fused"), other))
    weigh(again, [1.0, 0.0])
    same_head(again, saved)
    np.testing.assert_allclose(logits_of(again), logits_of(saved), atol=1e-5)
    before = logits_of(loaded)
    np.testing.assert_allclose(logits_of(merge(loaded)), before, atol=1e-4)


def test_adapters_of_other_layers_and_scales_are_summed_where_they_are(base_folder: BaseFolder, tmp_path: Path) -> None:
    base = base_folder("bert")
    values = lora_adapter(base, seed=5, target_modules=("query", "value"), alpha=3.0)
    outputs = lora_adapter(base, seed=6, target_modules=("value", "output.dense"), rank=4)
    predictor, _ = wrapped(base, "fusion", adapters=(values, outputs))
    counts = {key.rsplit(".", 1)[-1]: len(layer.fusion_weights) for key, layer in layers_of(predictor).items()}
    assert counts == {"query": 1, "value": 2, "dense": 1}
    before = logits_of(disturb(predictor))
    predictor.classifier.model = fold(predictor.classifier.model, FusionOptions(adapters=(values, outputs)))
    np.testing.assert_allclose(logits_of(predictor), before, atol=1e-5)
    settings = settings_of(fresh(base)[1], predictor, kind="adapter", method="fusion", label_values=LABEL_NAMES)
    save_adapter(predictor, tmp_path, settings=settings, card="")
    np.testing.assert_allclose(logits_of(load_variant(tmp_path, CPU)), before, atol=1e-5)


def test_a_scale_by_the_root_of_the_rank_is_kept(base_folder: BaseFolder, tmp_path: Path) -> None:
    predictor, opened = wrapped(base_folder("embedder"), "rslora", rank=4)
    disturb(predictor)
    settings = settings_of(opened, predictor, kind="adapter", method="rslora", label_values=LABEL_NAMES)
    save_adapter(predictor, tmp_path, settings=settings, card="")
    other = lora_adapter(base_folder("embedder"), seed=1, rank=2)
    fused, _ = wrapped(base_folder("embedder"), "fusion", adapters=(str(tmp_path), other))
    weigh(fused, [1.0, 0.0])
    same_head(fused, predictor)
    np.testing.assert_allclose(logits_of(fused), logits_of(predictor), atol=1e-5)


@pytest.mark.parametrize("name", BASES)
def test_only_weights_and_head_train_and_the_adapters_stay(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = wrapped(base_folder(name), "fusion")
    before = {key: p.detach().clone() for key, p in predictor.classifier.named_parameters()}
    training: TrainingSession = session(predictor, epochs=2, patience=None)
    for _ in training.run():
        pass
    heads = tuple(f"model.{head}." for head in predictor.classifier.head_modules()) or ("head.",)
    changed = {key for key, p in predictor.classifier.named_parameters() if not torch.equal(p, before[key])}
    assert changed == {key for key in before if "fusion_weights" in key or key.startswith(heads)}
    assert any("fused_low" in key for key in before)


def test_a_pickled_copy_gives_the_same(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("embedder"), "fusion")
    expected = logits_of(disturb(predictor))
    copy = dataclasses.replace(predictor, classifier=pickle.loads(pickle.dumps(predictor.classifier)))
    np.testing.assert_array_equal(logits_of(copy), expected)


def test_an_adapter_of_another_base_is_refused(base_folder: BaseFolder, tmp_path: Path) -> None:
    other = shutil.copytree(base_folder("bert"), tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["bert.embeddings.LayerNorm.bias"][0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    paths = (lora_adapter(base_folder("bert"), seed=1, rank=2), lora_adapter(other, seed=1, rank=2))
    with pytest.raises(ModelError, match="must have been trained on the base model of this run; it was on") as caught:
        require_same_base(FusionOptions(adapters=paths), open_base(str(base_folder("bert"))).folder.sha256, "native")
    assert str(caught.value).startswith(paths[1])
    assert caught.value.exit_code == 65


def test_an_adapter_of_another_pooling_is_refused(base_folder: BaseFolder) -> None:
    base = base_folder("embedder")
    options = options_of(base, "fusion")
    weights = open_base(str(base)).folder.sha256
    require_same_base(options, weights, "mean")
    with pytest.raises(ModelError, match=r"trained with pooling native, as in this run; found mean.\nPass --set"):
        require_same_base(options, weights, "native")


def test_a_folder_that_is_not_there_is_named(base_folder: BaseFolder, tmp_path: Path) -> None:
    adapter = lora_adapter(base_folder("bert"), seed=1, rank=2)
    with pytest.raises(InputNotFoundError, match="must be a run directory, RUN/variant, or an exported folder"):
        FusionOptions(adapters=(adapter, str(tmp_path / "none")))


def test_a_whole_model_is_refused(base_folder: BaseFolder, tmp_path: Path) -> None:
    predictor, opened = fresh(base_folder("bert"))
    settings = settings_of(opened, predictor, kind="model", method="full", label_values=LABEL_NAMES)
    save_model(predictor, tmp_path, settings=settings, card="")
    adapter = lora_adapter(base_folder("bert"), seed=1, rank=2)
    with pytest.raises(ValidationError, match=r"must name LoRA adapters; .* is a whole model \(method full\)"):
        FusionOptions(adapters=(adapter, str(tmp_path)))


@pytest.mark.parametrize(
    ("method", "options", "told"),
    [
        ("adapter", {}, r"adapter \(BOTTLENECK\)"),
        ("dora", {}, r"dora \(use_dora\)"),
        ("lora", {"bias": "lora_only"}, r"lora \(trained biases\)"),
    ],
)
def test_an_adapter_that_is_not_plain_lora_is_refused(
    base_folder: BaseFolder, tmp_path: Path, method: str, options: dict[str, Any], told: str
) -> None:
    predictor, opened = wrapped(base_folder("bert"), method, **options)
    settings = settings_of(opened, predictor, kind="adapter", method=method, label_values=LABEL_NAMES)
    save_adapter(predictor, tmp_path, settings=settings, card="")
    adapter = lora_adapter(base_folder("bert"), seed=1, rank=2)
    with pytest.raises(ValidationError, match=rf"must name LoRA adapters that add A and B alone; .* is {told}"):
        FusionOptions(adapters=(adapter, str(tmp_path)))


def test_the_same_adapter_twice_is_refused(base_folder: BaseFolder) -> None:
    adapter = lora_adapter(base_folder("bert"), seed=1, rank=2)
    with pytest.raises(RecipeError, match="must be different ones"):
        method_of(Variant(name="fused", method="fusion", options={"adapters": [adapter, f"{adapter}/"]}))


def test_one_adapter_alone_is_refused(base_folder: BaseFolder) -> None:
    adapter = lora_adapter(base_folder("bert"), seed=1, rank=2)
    with pytest.raises(RecipeError, match=r"method.adapters: .*at least 2 items"):
        method_of(Variant(name="fused", method="fusion", options={"adapters": [adapter]}))


def test_no_adapters_are_refused_by_the_name_of_the_option() -> None:
    with pytest.raises(RecipeError, match=r"method.adapters: must be given"):
        method_of(Variant(name="fused", method="fusion"))


def test_a_damaged_adapter_is_refused(base_folder: BaseFolder, tmp_path: Path) -> None:
    adapter = lora_adapter(base_folder("bert"), seed=1, rank=2)
    copy = shutil.copytree(adapter, tmp_path / "copy")
    data = bytearray((copy / "adapter_model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "adapter_model.safetensors").write_bytes(bytes(data))
    with pytest.raises(ModelError, match=r"adapter_model.safetensors: must be the file that textlift wrote"):
        wrapped(base_folder("bert"), "fusion", adapters=(adapter, str(copy)))
    (copy / "adapter_config.json").write_text("[]")
    with pytest.raises(ValidationError, match=r"adapter_config.json: must hold an object"):
        METHODS["fusion"].options(adapters=(adapter, str(copy)))
