"""What rsLoRA, LoRA+, DoRA, PiSSA and OLoRA change about LoRA, and that what is saved of the last two is plain LoRA."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from conftest import BaseFolder
from textlift.errors import RecipeError
from textlift.export.loading import load_variant
from textlift.export.saving import save_adapter, settings_of
from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.methods.started import plain_lora
from textlift.runtime import quiet_libraries
from textlift.training.checkpoint import Restored, restore_latest, save_checkpoint
from textlift.training.optim import make_optimizer
from textlift.training.session import Measurement, TrainingSession
from tiny_models import CPU, LABEL_NAMES, TEXTS, disturb, fresh, logits_of, session, wrapped

started = pytest.mark.parametrize("method", ["pissa", "olora"])


def lora_layers(predictor: Predictor) -> dict[str, Any]:
    found = {name: layer for name, layer in predictor.classifier.named_modules() if isinstance(layer, LoraLayer)}
    assert found
    return found


def frozen_weights(predictor: Predictor) -> dict[str, torch.Tensor]:
    weights = {name: layer.get_base_layer().weight for name, layer in lora_layers(predictor).items()}
    return {name: weight.detach().clone() for name, weight in weights.items()}


def test_rslora_scales_by_the_root_of_the_rank(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "rslora", rank=4, alpha=6.0)
    assert {layer.scaling["default"] for layer in lora_layers(predictor).values()} == {3.0}


def test_the_second_matrix_of_lora_plus_and_nothing_else_learns_faster(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora+")
    entry = METHODS["lora+"]
    named = dict(predictor.classifier.named_parameters())
    ratios = entry.rate_ratios(entry.options(rate_ratio=4.0))
    optimizer = make_optimizer(named.items(), learning_rate=0.1, weight_decay=0.0, ratios=ratios)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in named.items():
        if parameter.requires_grad:
            assert rates[id(parameter)] == pytest.approx(0.4 if ".lora_B." in name else 0.1)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_rows_of_a_dora_weight_have_the_trained_length(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = wrapped(base_folder(name), "dora")
    lengths = {key: layer.lora_magnitude_vector["default"].weight for key, layer in lora_layers(predictor).items()}
    disturb(predictor)
    merged = predictor.classifier.model.merge_and_unload()
    for key, length in lengths.items():
        weight = merged.get_submodule(key.removeprefix("model.base_model.model.")).weight
        rows = (weight.T if name == "gpt2" else weight).norm(dim=1)
        torch.testing.assert_close(rows, length.abs())


@started
@pytest.mark.parametrize("name", ["bert", "gpt2", "qwen2", "embedder"])
def test_the_start_moves_weights_and_no_logit(base_folder: BaseFolder, name: str, method: str) -> None:
    plain, _ = fresh(base_folder(name))
    predictor, _ = wrapped(base_folder(name), method)
    for key, weight in frozen_weights(predictor).items():
        original = plain.classifier.get_submodule(key.replace("model.base_model.model.", "model.")).weight
        assert (weight - original).norm() > 0.1 * original.norm()
    np.testing.assert_allclose(logits_of(predictor), logits_of(plain), atol=1e-5)


@started
def test_the_start_is_that_of_peft(base_folder: BaseFolder, method: str) -> None:
    ours, _ = wrapped(base_folder("bert"), method, rank=3)
    theirs, _ = fresh(base_folder("bert"))
    targets = theirs.classifier.linear_layers()
    config = LoraConfig(r=3, lora_alpha=16, target_modules=targets, init_lora_weights=method)
    with quiet_libraries():
        theirs.classifier.model = get_peft_model(theirs.classifier.model, config)
    for mine, others in zip(lora_layers(ours).values(), lora_layers(theirs).values(), strict=True):
        torch.testing.assert_close(mine.get_base_layer().weight, others.get_base_layer().weight, rtol=0, atol=1e-5)
        torch.testing.assert_close(mine.lora_A["default"].weight, others.lora_A["default"].weight, rtol=0, atol=1e-4)
        torch.testing.assert_close(mine.lora_B["default"].weight, others.lora_B["default"].weight, rtol=0, atol=1e-4)


def test_a_fast_decomposition_leaves_hardly_more_behind_than_the_exact_one(base_folder: BaseFolder) -> None:
    exact = frozen_weights(wrapped(base_folder("bert"), "pissa")[0])
    fast = frozen_weights(wrapped(base_folder("bert"), "pissa", iterations=16)[0])
    for key, weight in exact.items():
        assert 0.999 < fast[key].norm() / weight.norm() < 1.05


@started
def test_the_same_seed_starts_from_the_same_bits(base_folder: BaseFolder, method: str) -> None:
    options = {"iterations": 2} if method == "pissa" else {}
    one, other = (wrapped(base_folder("bert"), method, **options)[0].classifier for _ in range(2))
    for mine, others in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, others)


@started
def test_a_rank_beyond_a_side_of_a_weight_is_refused_with_the_layer(base_folder: BaseFolder, method: str) -> None:
    with pytest.raises(RecipeError, match=r"method.rank must be at most 32, the smaller side of .*query.*found 33"):
        wrapped(base_folder("bert"), method, rank=33)


@started
@pytest.mark.parametrize("name", ["bert", "gpt2", "embedder"])
def test_what_is_saved_is_plain_lora_on_the_original_base(
    base_folder: BaseFolder, tmp_path: Path, name: str, method: str
) -> None:
    predictor, base = wrapped(base_folder(name), method, rank=3, alpha=5.0)
    original = frozen_weights(wrapped(base_folder(name), "lora")[0])
    trained = logits_of(disturb(predictor))

    predictor.classifier.model = plain_lora(predictor.classifier.model, None)
    for key, weight in frozen_weights(predictor).items():
        torch.testing.assert_close(weight, original[key], rtol=0, atol=1e-6)
    settings = settings_of(base, predictor, kind="adapter", method=method, label_values=LABEL_NAMES)
    save_adapter(predictor, tmp_path, settings=settings, card="")

    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (6, 10.0, True)
    np.testing.assert_allclose(logits_of(load_variant(tmp_path, CPU)), trained, atol=1e-5)


@started
def test_turning_it_plain_a_second_time_changes_nothing(base_folder: BaseFolder, method: str) -> None:
    predictor, _ = wrapped(base_folder("bert"), method)
    once = logits_of(disturb(predictor))
    for _ in range(2):
        predictor.classifier.model = plain_lora(predictor.classifier.model, None)
    np.testing.assert_allclose(logits_of(predictor, TEXTS), once, atol=1e-5)
    assert predictor.classifier.model.peft_config["default"].r == 16


@started
def test_a_continued_training_equals_an_unbroken_one(base_folder: BaseFolder, tmp_path: Path, method: str) -> None:
    def training() -> TrainingSession:
        return session(wrapped(base_folder("bert"), method)[0], evaluations_per_epoch=3, patience=None)

    unbroken, stopped, continued = training(), training(), training()
    list(unbroken.run())
    for event in stopped.run():
        if isinstance(event, Measurement) and event.step == 1:
            save_checkpoint(stopped, tmp_path, job={"recipe": "of this job"}, environment={})
            break
    assert restore_latest(continued, tmp_path, job={"recipe": "of this job"}, environment={}) == Restored(1)
    list(continued.run())
    assert unbroken.progress.history == continued.progress.history
    for name, weight in unbroken.trained_weights().items():
        assert torch.equal(weight, continued.trained_weights()[name])
