"""Runs that fuse saved adapters: what is refused before any work, and what makes another run of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from conftest import BaseFolder
from textlift.errors import CannotCreateError, ModelError
from textlift.progress import Progress
from textlift.recipe import Recipe
from textlift.workflow.main_job import run_recipe
from textlift.workflow.planning import Request, resolve
from textlift.workflow.preparation import prepare
from tiny_models import lora_adapter

QUIET = Progress(silent=True)


@pytest.fixture
def fusion(base_folder: BaseFolder, data_file: Path, tmp_path: Path) -> Callable[..., Recipe]:
    """A recipe that fuses two adapters, which are copies below tmp_path/run."""

    def recipe(base: Path | None = None) -> Recipe:
        folder = base_folder("embedder")
        paths = [tmp_path / "run" / "variants" / f"lora-{seed}" / "adapter" for seed in (1, 2)]
        for seed, path in enumerate(paths, start=1):
            if not path.exists():
                shutil.copytree(lora_adapter(folder, seed=seed, rank=2), path)
        values = {"method.adapters": [str(path) for path in paths]}
        return resolve(Request(str(data_file), model=str(base or folder), method="fusion", values=values))

    return recipe


def changed_base(folder: Path, place: Path) -> Path:
    other = shutil.copytree(folder, place)
    weights = load_file(other / "model.safetensors")
    weights["embeddings.LayerNorm.bias"][0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    return other


def test_an_adapter_of_another_base_is_refused_before_anything_is_written(
    fusion: Callable[..., Recipe], base_folder: BaseFolder, tmp_path: Path
) -> None:
    other = changed_base(base_folder("embedder"), tmp_path / "other")
    with pytest.raises(ModelError, match="must have been trained on the base model of this run; it was on"):
        run_recipe(fusion(other), output=tmp_path / "fused", progress=QUIET)
    assert not (tmp_path / "fused").exists()


def test_a_run_is_not_written_over_an_adapter_that_it_fuses(fusion: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = fusion()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(CannotCreateError, match=r"must not hold an adapter that this run starts from.*variants/lora-1"):
        run_recipe(recipe, output=tmp_path / "run", overwrite=True, progress=QUIET)
    assert (tmp_path / "run" / "variants" / "lora-1" / "adapter" / "adapter_model.safetensors").is_file()


def test_the_same_place_with_another_adapter_is_another_run(fusion: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = fusion()
    before = prepare(recipe, QUIET).fingerprint
    assert prepare(recipe, QUIET).fingerprint == before
    first, second = (tmp_path / "run" / "variants" / f"lora-{seed}" / "adapter" for seed in (1, 2))
    shutil.copy(second / "adapter_model.safetensors", first / "adapter_model.safetensors")
    assert prepare(recipe, QUIET).fingerprint != before
