"""Folders of base models that are refused: before any weight is read, or because the weights do not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import BaseFolder
from textlift.errors import ModelError
from textlift.models.loading import build_classifier, open_base
from tiny_models import LABEL_NAMES


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def added(folder: Path) -> list[dict[str, Any]]:
    tokens: list[dict[str, Any]] = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    return tokens


def with_id(folder: Path, token: str, number: int) -> dict[str, Any]:
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    return {**model, "vocab": {**model["vocab"], token: number}}


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def bert(base_folder: BaseFolder, tmp_path: Path) -> Path:
    """A BERT folder that a test may spoil."""
    return shutil.copytree(base_folder("bert"), tmp_path / "bert")


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def only_bin(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


REFUSED_UNREAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (
        lambda folder: (folder / "config.json").unlink(),
        "must have a config.json; the folder has none",
    ),
    "no tokenizer": (without_tokenizer, r"must have a tokenizer \(tokenizer.json, vocab.txt, vocab.json, ...\)"),
    "only .bin weights": (only_bin, "weights must be safetensors; found pytorch_model.bin.\nConvert them once"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "must be safetensors; found no weights"),
    "code in config.json": (
        lambda folder: change_json(folder / "config.json", auto_map={"AutoModel": "code.Model"}),
        r"config.json names code of its own \(auto_map\); textlift runs no remote code",
    ),
    "code deep in config.json": (
        lambda folder: change_json(folder / "config.json", text_config={"parts": [{"auto_map": {"AutoModel": "a.B"}}]}),
        r"config.json names code of its own \(auto_map\)",
    ),
    "code in tokenizer_config.json": (
        lambda folder: change_json(
            folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Tokenizer", None]}
        ),
        r"tokenizer_config.json names code of its own \(auto_map\)",
    ),
    "code in a folder below": (
        lambda folder: write_json(
            folder / "1_Pooling" / "config.json", {"parts": [{"auto_map": {"A": "code.Pooling"}}]}
        ),
        r"1_Pooling/config.json names code of its own \(auto_map\)",
    ),
    "code in tokenizer.json": (
        lambda folder: change_json(folder / "tokenizer.json", auto_map={"AutoTokenizer": "code.Tokenizer"}),
        r"tokenizer.json names code of its own \(auto_map\)",
    ),
    "a kernel of the Hub": (
        lambda folder: change_json(folder / "config.json", attn_implementation="someone/kernel"),
        r"config.json names code of its own \(attn_implementation\)",
    ),
    "a kernel of the Hub, deep": (
        lambda folder: change_json(folder / "config.json", text_config={"_attn_implementation": {"": "some/kernel:a"}}),
        r"config.json names code of its own \(_attn_implementation\)",
    ),
    "JSON without end": (
        lambda folder: (folder / "more.json").write_text("[" * 100_000),
        "more.json must be JSON; it is nested too deeply",
    ),
    "an adapter in the folder": (
        lambda folder: write_json(folder / "adapter_config.json", {"base_model_name_or_path": "other"}),
        "must be a base model; adapter_config.json says that the folder holds an adapter",
    ),
    "an index without its weights": (
        lambda folder: write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": "gone.safetensors"}}),
        "index.json must name weights in the folder; 1 are not there, such as 'gone.safetensors'",
    ),
    "an index that leads out of the folder": (
        lambda folder: write_json(
            folder / "model.safetensors.index.json", {"weight_map": {"a": "../bert/model.safetensors"}}
        ),
        "index.json must name weights in the folder; 1 are not there, such as '../bert/model.safetensors'",
    ),
    "an index of nothing": (
        lambda folder: write_json(folder / "model.safetensors.index.json", []),
        "index.json must name weights in the folder; it names none",
    ),
    "a length that is no number": (
        lambda folder: change_json(folder / "tokenizer_config.json", model_max_length="long"),
        "model_max_length in tokenizer_config.json must be a whole number; found 'long'",
    ),
    "token ids beyond the model's": (
        lambda folder: change_json(
            folder / "tokenizer.json",
            added_tokens=[{**one, "id": 5000} if one["content"] == "[MASK]" else one for one in added(folder)],
            model=with_id(folder, "[MASK]", 5000),
        ),
        "the tokenizer has token ids up to 5000, the model",
    ),
    "config.json that is no JSON": (
        lambda folder: (folder / "config.json").write_text("{"),
        r"config.json must be JSON; it cannot be read",
    ),
    "config.json that is a list": (
        lambda folder: (folder / "config.json").write_text("[]"),
        "config.json must hold an object; found list",
    ),
    "an unknown architecture": (
        lambda folder: change_json(folder / "config.json", model_type="no-such-type"),
        "configuration and tokenizer must be readable by transformers; .*no-such-type",
    ),
    "a tokenizer.json of another form": (
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        "configuration and tokenizer must be readable by transformers",
    ),
    "a vocabulary larger than the model's": (
        lambda folder: change_json(folder / "config.json", vocab_size=10),
        "tokenizer and model must share a vocabulary; the tokenizer has token ids up to 75, the model 10",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), REFUSED_UNREAD.values(), ids=REFUSED_UNREAD)
def test_a_folder_is_refused_before_its_weights_are_read(
    bert: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(bert)
    with pytest.raises(ModelError, match=message) as caught:
        open_base(str(bert))
    assert caught.value.exit_code == 65
    assert str(bert) in str(caught.value)


def lose(key: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        change_weights(folder, lambda weights: weights.__delitem__(key))

    return spoil


def cut_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


REFUSED_LOADING: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights cut short": (cut_weights, "must load into bert"),
    "weights that are no safetensors": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"<html>not found</html>"),
        "must load into bert",
    ),
    "a layer that is missing": (
        lose("bert.encoder.layer.1.attention.self.query.weight"),
        r"every weight of the base must be in the checkpoint.*1 are not, such as bert.encoder.layer.1.attention.self.q",
    ),
    "embeddings that are missing": (
        lose("bert.embeddings.position_embeddings.weight"),
        "1 are not, such as bert.embeddings.position_embeddings.weight",
    ),
    "weights of another width": (
        lambda folder: change_json(folder / "config.json", intermediate_size=64),
        r"in the shape that config.json says; 6 are not, such as bert.encoder.layer.0.intermediate.dense.bias",
    ),
    "a weight that is no number": (
        lambda folder: change_weights(
            folder, lambda weights: weights["bert.encoder.layer.1.output.dense.bias"].fill_(float("nan"))
        ),
        "weights must be finite numbers; bert.encoder.layer.1.output.dense.bias holds NaN or infinity",
    ),
    "weights of no bytes": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "must load into bert"),
    "more layers than weights": (
        lambda folder: change_json(folder / "config.json", num_hidden_layers=3),
        "such as bert.encoder.layer.2.",
    ),
}


@pytest.mark.parametrize("pooling", ["native", "mean"])
@pytest.mark.parametrize(("spoil", "message"), REFUSED_LOADING.values(), ids=REFUSED_LOADING)
def test_weights_that_do_not_fit_are_refused(
    bert: Path, spoil: Callable[[Path], object], message: str, pooling: str
) -> None:
    spoil(bert)
    base = open_base(str(bert), pooling=pooling)
    if pooling == "mean":
        message = message.replace("as bert.", "as ").replace("; bert.", "; ")  # a bare base model has no prefix
    with pytest.raises(ModelError, match=message):
        build_classifier(base, LABEL_NAMES, seed=0)
