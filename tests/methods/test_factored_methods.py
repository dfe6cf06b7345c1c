"""AdaLoRA's ranks and its loss, VeRA's shared matrices, and the shapes of LoHa's and LoKr's parts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from conftest import BaseFolder
from textlift.export.loading import load_variant, merge
from textlift.export.saving import save_adapter, settings_of
from textlift.inference import Predictor
from textlift.methods.factored import AdaLoraOptions, orthogonality
from textlift.methods.registry import METHODS
from textlift.models.loading import BaseModel
from textlift.training.session import TrainingSession
from textlift.training.tuning import apply_method, hooks_of
from tiny_models import CPU, LABEL_NAMES, disturb, fresh, logits_of, session, wrapped

ADALORA = METHODS["adalora"]
STEPS = 12


def trained_adalora(folder: Path, **options: Any) -> tuple[TrainingSession, BaseModel]:
    """Twelve steps with the schedule of the ranks; not yet run."""
    predictor, base = fresh(folder)
    torch.manual_seed(0)
    checked = ADALORA.options(**{"interval": 2, **options})
    apply_method(predictor.classifier, ADALORA, checked, total_steps=STEPS)
    training = session(predictor, epochs=4, patience=None)
    training.hooks = hooks_of(predictor.classifier, ADALORA, checked)
    return training, base


def singular_values(predictor: Predictor) -> dict[str, torch.Tensor]:
    named = predictor.classifier.named_parameters()
    return {name: values.detach().flatten() for name, values in named if ".lora_E." in name}


def save(predictor: Predictor, base: BaseModel, method: str, folder: Path) -> dict[str, torch.Tensor]:
    """What the adapter file holds."""
    entry = METHODS[method]
    if entry.before_save is not None:
        predictor.classifier.model = entry.before_save(predictor.classifier.model, None)
    settings = settings_of(base, predictor, kind="adapter", method=method, label_values=LABEL_NAMES)
    save_adapter(predictor, folder, settings=settings, card="")
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"rank": 12}, "initial_rank must be greater than method.rank; found 12 and 12"),
        ({"warmup_share": 0.5, "final_share": 0.5}, "less than 1 together; found 0.5 and 0.5"),
    ],
)
def test_a_schedule_that_leaves_no_room_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        AdaLoraOptions(**options)


@pytest.mark.parametrize("total_steps", [1, 2, 3, 10])
def test_a_schedule_fits_into_any_number_of_steps(base_folder: BaseFolder, total_steps: int) -> None:
    predictor, _ = fresh(base_folder("embedder"))
    options = ADALORA.options(warmup_share=0.5, final_share=0.49)
    apply_method(predictor.classifier, ADALORA, options, total_steps=total_steps)
    config = predictor.classifier.model.peft_config["default"]
    assert config.tinit + config.tfinal < config.total_step == total_steps


def test_ranks_fall_to_the_mean_that_was_asked_for_and_stay(base_folder: BaseFolder) -> None:
    training, _ = trained_adalora(base_folder("bert"), rank=2, initial_rank=6)
    ranks = []
    training.best = {}
    for _ in training.run():
        ranks.append([int(values.ne(0).sum()) for values in singular_values(training.predictor).values()])
        if training.progress.step == STEPS:
            break
    layers = len(ranks[0])
    assert sum(ranks[2]) == 6 * layers  # the first steps are warm-up
    assert sum(ranks[-1]) <= 2 * layers
    assert len(set(ranks[-1])) > 1  # each layer has a rank of its own
    assert ranks[-1] == ranks[-2] == ranks[-3]


@pytest.mark.parametrize("name", ["bert", "gpt2", "embedder"])
def test_only_ranks_that_count_are_saved_and_the_logits_stay(
    base_folder: BaseFolder, tmp_path: Path, name: str
) -> None:
    training, base = trained_adalora(base_folder(name), rank=2, initial_rank=6)
    list(training.run())
    predictor = training.predictor
    expected = logits_of(predictor)
    kept = [int(values.ne(0).sum()) for values in singular_values(predictor).values()]
    saved = save(predictor, base, "adalora", tmp_path)
    assert [len(tensor) for key, tensor in sorted(saved.items()) if key.endswith(".lora_E")] == [
        count for _, count in sorted(zip(singular_values(predictor), kept, strict=True))
    ]
    loaded = load_variant(tmp_path, CPU)
    np.testing.assert_allclose(logits_of(loaded), expected, atol=1e-6)
    np.testing.assert_allclose(logits_of(merge(loaded)), expected, atol=1e-5)


def test_best_weights_from_before_the_ranks_fell_are_saved_whole(base_folder: BaseFolder, tmp_path: Path) -> None:
    training, base = trained_adalora(base_folder("bert"), rank=2, initial_rank=6)
    early: dict[str, torch.Tensor] = {}
    for _ in training.run():
        if training.progress.step == 1 and not early:
            early = {name: weight.clone() for name, weight in training.trained_weights().items()}
    training.best = early
    training.restore_best()
    expected = logits_of(training.predictor)
    saved = save(training.predictor, base, "adalora", tmp_path)
    assert {len(tensor) for key, tensor in saved.items() if key.endswith(".lora_E")} == {6}
    np.testing.assert_allclose(logits_of(load_variant(tmp_path, CPU)), expected, atol=1e-6)


def test_an_adapter_that_never_trained_is_saved_with_rank_zero(base_folder: BaseFolder, tmp_path: Path) -> None:
    predictor, base = wrapped(base_folder("bert"), "adalora")
    expected = logits_of(predictor)
    saved = save(predictor, base, "adalora", tmp_path)
    assert {len(tensor) for key, tensor in saved.items() if key.endswith(".lora_E")} == {0}
    np.testing.assert_allclose(logits_of(load_variant(tmp_path, CPU)), expected, atol=1e-6)


def test_the_loss_of_adalora_is_that_of_peft(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "adalora", orthogonal_weight=0.3)
    model = disturb(predictor).classifier.model
    inputs = {"input_ids": torch.full((2, 4), 7), "labels": torch.tensor([0, 1])}
    with_theirs = model(**inputs).loss
    model.peft_config["default"].orth_reg_weight = 0.0
    without = model(**inputs).loss
    model.peft_config["default"].orth_reg_weight = 0.3
    torch.testing.assert_close(orthogonality(model), with_theirs - without)


def test_a_heavy_loss_of_its_own_brings_the_matrices_nearer_to_orthonormal(base_folder: BaseFolder) -> None:
    distances = []
    for weight in (0.001, 10.0):
        training, _ = trained_adalora(base_folder("embedder"), orthogonal_weight=weight)
        for _ in training.run():
            training.best = {}  # the weights at the end, not the best
        distances.append(orthogonality(training.classifier.model).detach() / weight)
    assert distances[1] < 0.98 * distances[0]


def test_the_matrices_of_vera_are_shared_and_saved_once(base_folder: BaseFolder, tmp_path: Path) -> None:
    predictor, base = wrapped(base_folder("bert"), "vera", rank=5)
    projections = {
        layer.vera_A["default"].data_ptr()
        for layer in predictor.classifier.modules()
        if hasattr(layer, "vera_lambda_d")
    }
    assert len(projections) == 1
    saved = save(predictor, base, "vera", tmp_path)
    shapes = {key: tuple(tensor.shape) for key, tensor in saved.items() if ".vera_" in key and "lambda" not in key}
    assert shapes == {"base_model.vera_A": (5, 48), "base_model.vera_B": (48, 5)}


def test_saved_matrices_of_vera_count_whatever_the_seed_would_give(base_folder: BaseFolder, tmp_path: Path) -> None:
    predictor, base = wrapped(base_folder("bert"), "vera", rank=5, projection_seed=3)
    expected = logits_of(disturb(predictor))
    save(predictor, base, "vera", tmp_path)
    path = tmp_path / "adapter_config.json"
    assert json.loads(path.read_text())["save_projection"] is True
    np.testing.assert_allclose(logits_of(load_variant(tmp_path, CPU)), expected, atol=1e-6)
    other, _ = wrapped(base_folder("bert"), "vera", rank=5, projection_seed=4)
    assert not torch.equal(
        other.classifier.model.base_model.vera_A["default"], predictor.classifier.model.base_model.vera_A["default"]
    )


def test_loha_multiplies_two_thin_products(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "loha", rank=3, alpha=6.0, target_modules=("query",))
    disturb(predictor)
    layer = next(layer for layer in predictor.classifier.modules() if hasattr(layer, "hada_w1_a"))
    first = layer.hada_w1_a["default"] @ layer.hada_w1_b["default"]
    second = layer.hada_w2_a["default"] @ layer.hada_w2_b["default"]
    torch.testing.assert_close(layer.get_delta_weight("default"), 2.0 * first * second)
    assert torch.linalg.matrix_rank(first * second) == 9


@pytest.mark.parametrize(("factor", "sides"), [(None, (4, 4)), (2, (2, 2)), (8, (8, 8))])
def test_the_factor_of_lokr_is_the_side_of_its_small_matrix(
    base_folder: BaseFolder, factor: int | None, sides: tuple[int, int]
) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lokr", rank=1, factor=factor, target_modules=("query",))
    layer = next(layer for layer in predictor.classifier.modules() if hasattr(layer, "lokr_w1"))
    assert tuple(layer.lokr_w1["default"].shape) == sides
    thin = 32 // sides[0]
    assert tuple(layer.lokr_w2_a["default"].shape) == (thin, 1)
    assert layer.get_delta_weight("default").shape == (32, 32)


def test_lokr_with_thin_parts_survives_saving_and_folding(base_folder: BaseFolder, tmp_path: Path) -> None:
    predictor, base = wrapped(base_folder("llama"), "lokr", rank=1)
    expected = logits_of(disturb(predictor))
    saved = save(predictor, base, "lokr", tmp_path)
    assert any(key.endswith(".lokr_w2_a") for key in saved)
    loaded = load_variant(tmp_path, CPU)
    np.testing.assert_allclose(logits_of(loaded), expected, atol=1e-6)
    np.testing.assert_allclose(logits_of(merge(loaded)), expected, atol=1e-5)
