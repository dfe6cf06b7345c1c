"""A saved variant gives the logits of the trained one; a damaged one, or another base, is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import BaseFolder
from method_pairs import pairs, works
from textlift.errors import ModelError, StorageError
from textlift.export.loading import load_variant, merge
from textlift.export.saving import read_settings, save_adapter, save_model, settings_of
from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.models.loading import BaseModel
from tiny_models import CPU, LABEL_NAMES, MAX_LENGTH, TABLE, TEXTS, disturb, logits_of, options_of, wrapped

MERGE_TOLERANCE = 1e-4  # a share of the largest logit: the fold adds in another order


def trained(base: Path, method: str, **options: object) -> tuple[Predictor, BaseModel]:
    """A wrapped predictor with moved weights, as it is once its training has ended."""
    predictor, opened = wrapped(base, method, **options)
    disturb(predictor)
    before_save = METHODS[method].before_save
    if before_save is not None:
        predictor.classifier.model = before_save(predictor.classifier.model, options_of(base, method, **options))
    return predictor, opened


def save(base: Path, method: str, folder: Path, **options: object) -> Predictor:
    """A trained predictor, saved as its method is saved."""
    predictor, opened = trained(base, method, **options)
    kind = "adapter" if METHODS[method].saves_adapter else "model"
    settings = settings_of(opened, predictor, kind=kind, method=method, label_values=("0", "1", "2"))
    (save_adapter if kind == "adapter" else save_model)(predictor, folder, settings=settings, card="# card\n")
    return predictor


@pytest.fixture(scope="session")
def saved(base_folder: BaseFolder, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Saved variants by base and method; read them, never write them."""
    written: dict[tuple[str, str], Path] = {}

    def folder(name: str, method: str) -> Path:
        if (name, method) not in written:
            written[name, method] = tmp_path_factory.mktemp(f"saved-{name}-{method}")
            save(base_folder(name), method, written[name, method])
        return written[name, method]

    return folder


@pytest.mark.parametrize(("name", "method"), pairs())
def test_loading_gives_the_logits_that_were_saved(
    base_folder: BaseFolder, tmp_path: Path, name: str, method: str
) -> None:
    predictor = save(base_folder(name), method, tmp_path)
    loaded = load_variant(tmp_path, CPU)
    np.testing.assert_allclose(logits_of(loaded), logits_of(predictor), atol=1e-6)
    assert (loaded.label_names, loaded.max_length, loaded.name) == (LABEL_NAMES, MAX_LENGTH, method)
    assert not any(parameter.requires_grad for parameter in loaded.classifier.parameters())


@pytest.mark.parametrize(("name", "method"), pairs([name for name, method in METHODS.items() if method.mergeable]))
def test_merging_keeps_the_logits_and_leaves_a_plain_model(
    base_folder: BaseFolder, tmp_path: Path, name: str, method: str
) -> None:
    predictor, base = trained(base_folder(name), method)
    before = logits_of(predictor)
    merged = merge(predictor)
    scale = float(np.abs(before).max())
    np.testing.assert_allclose(logits_of(merged), before, atol=MERGE_TOLERANCE * scale)
    assert not [key for key in merged.classifier.state_dict() if "lora" in key or "modules_to_save" in key]

    settings = settings_of(base, merged, kind="model", method="merged", label_values=LABEL_NAMES)
    save_model(merged, tmp_path, settings=settings, card="")
    np.testing.assert_allclose(logits_of(load_variant(tmp_path, CPU)), logits_of(merged), atol=1e-6)


def test_an_adapter_loads_onto_a_copy_of_its_base(base_folder: BaseFolder, tmp_path: Path) -> None:
    predictor = save(base_folder("bert"), "lora", tmp_path / "adapter")
    copy = shutil.copytree(base_folder("bert"), tmp_path / "elsewhere")
    loaded = load_variant(tmp_path / "adapter", CPU, base_name=str(copy))
    np.testing.assert_allclose(logits_of(loaded), logits_of(predictor), atol=1e-6)


def test_an_adapter_holds_only_its_own_weights_and_the_head(saved: Callable[[str, str], Path]) -> None:
    for name in TABLE:
        keys = load_file(saved(name, "lora") / "adapter_model.safetensors").keys()
        heads = [key for key in keys if ".lora_" not in key]
        assert any(".lora_A." in key for key in keys)
        assert heads
        assert not [key for key in heads if "embed" in key or "layer" in key]


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_padding_token_travels_with_what_is_saved(
    saved: Callable[[str, str], Path], name: str, method: str
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(saved(name, method))
    assert tokenizer.pad_token == ("<pad>" if name == "qwen2" else "<end>")
    if method == "full":
        config = json.loads((saved(name, method) / "config.json").read_text())
        assert config["pad_token_id"] == tokenizer.pad_token_id


def test_settings_tell_base_labels_and_limits(saved: Callable[[str, str], Path], base_folder: BaseFolder) -> None:
    settings = read_settings(saved("bert", "lora"))
    assert (settings.kind, settings.method, settings.pooling) == ("adapter", "lora", "native")
    assert settings.base_public_name == str(base_folder("bert"))
    assert settings.label_names == LABEL_NAMES
    assert settings.label_values == ("0", "1", "2")
    assert set(settings.base_sha256) == {"model.safetensors"}
    written = {path.name for path in saved("bert", "lora").iterdir()}
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "textlift.json",
        "tokenizer.json",
    } <= written


def test_an_adapter_is_refused_on_another_base_with_both_named(base_folder: BaseFolder, tmp_path: Path) -> None:
    save(base_folder("bert"), "lora", tmp_path / "adapter")
    other = shutil.copytree(base_folder("bert"), tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["bert.embeddings.LayerNorm.bias"][0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="on which the adapter was trained; found") as caught:
        load_variant(tmp_path / "adapter", CPU, base_name=str(other))
    assert str(base_folder("bert")) in str(caught.value)
    assert str(other) in str(caught.value)
    assert caught.value.exit_code == 65


@pytest.mark.parametrize(("name", "method"), [("bert", "lora"), ("embedder", "lora"), ("embedder", "full")])
def test_one_flipped_byte_in_any_file_is_found(
    saved: Callable[[str, str], Path], tmp_path: Path, name: str, method: str
) -> None:
    folder = shutil.copytree(saved(name, method), tmp_path / "saved")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        spoilt = bytearray(data)
        spoilt[len(data) // 2] ^= 1
        path.write_bytes(bytes(spoilt))
        with pytest.raises(ModelError, match=path.name) as caught:
            load_variant(folder, CPU)
        assert caught.value.exit_code == 65
        path.write_bytes(data)
    load_variant(folder, CPU)


def test_every_single_byte_of_the_settings_counts(saved: Callable[[str, str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved("bert", "lora"), tmp_path / "saved")
    path = folder / "textlift.json"
    data = path.read_bytes()
    settings = read_settings(folder)
    for place in range(0, len(data), 5):
        spoilt = bytearray(data)
        spoilt[place] ^= 4
        path.write_bytes(bytes(spoilt))
        try:
            assert read_settings(folder) == settings  # white space
        except ModelError:
            continue


def test_a_missing_file_is_named(saved: Callable[[str, str], Path], tmp_path: Path) -> None:
    folder = shutil.copytree(saved("bert", "lora"), tmp_path / "saved")
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"adapter_model.safetensors: must be the file that textlift wrote.*found no file"
    ):
        load_variant(folder, CPU)


@pytest.mark.parametrize("content", [None, "", "[]", '{"format_version": 99}', '{"format_version": 1}'])
def test_a_folder_without_readable_settings_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "textlift.json").write_text(content)
    with pytest.raises(ModelError, match=r"textlift.json"):
        read_settings(tmp_path)


def test_a_place_that_cannot_be_written_is_told(base_folder: BaseFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for method in (method for method in METHODS if works("gpt2", method)):
        with pytest.raises(StorageError, match="must be written whole") as caught:
            save(base_folder("gpt2"), method, tmp_path / "file" / "saved")
        assert caught.value.exit_code == 74


def test_saving_keeps_the_limit_of_the_tokenizer_in_memory_and_writes_that_of_the_variant(
    base_folder: BaseFolder, tmp_path: Path
) -> None:
    predictor = save(base_folder("bert"), "lora", tmp_path)
    assert predictor.tokenizer.model_max_length == 48
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == MAX_LENGTH


def test_a_saved_mean_pooled_model_has_the_three_modules(saved: Callable[[str, str], Path]) -> None:
    folder = saved("embedder", "full")
    modules = json.loads((folder / "modules.json").read_text())
    assert [module["type"].rsplit(".", 1)[-1] for module in modules] == ["Transformer", "Pooling", "Dense"]
    dense = load_file(folder / "2_Dense" / "model.safetensors")
    assert {key: tuple(tensor.shape) for key, tensor in dense.items()} == {
        "linear.weight": (3, 32),
        "linear.bias": (3,),
    }


def test_head_weights_survive_bit_by_bit(base_folder: BaseFolder, tmp_path: Path) -> None:
    for name in ("roberta", "deberta-v2", "embedder"):
        predictor = save(base_folder(name), "lora", tmp_path / name)
        loaded = load_variant(tmp_path / name, CPU).classifier
        assert torch.equal(loaded.final_linear().weight, predictor.classifier.final_linear().weight)
        assert len(logits_of(predictor, TEXTS[:1])) == 1
