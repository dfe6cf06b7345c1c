"""A saved variant is refused on another base, another tokenizer or other label names; both sides are named."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import BaseFolder
from textlift.errors import ModelError
from textlift.export.fingerprint import tokenizer_fingerprint
from textlift.export.loading import attach_adapter, load_variant
from textlift.export.saving import read_settings, save_adapter, save_model, settings_of
from textlift.methods.registry import METHODS
from textlift.models.loading import build_classifier, open_base
from tiny_models import BUILDERS, CPU, LABEL_NAMES, TEXTS, disturb, fresh, logits_of, wrapped

KINDS = [("bert", "lora"), ("roberta", "lora"), ("gpt2", "lora"), ("embedder", "lora"), ("bert", "bitfit"),
         ("bert", "adapter"), ("embedder", "adapter"), ("bert", "full"), ("embedder", "full")]  # fmt: skip


@pytest.fixture(scope="session")
def saved_variant(
    base_folder: BaseFolder, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str, Path], Path]:
    """A copy of a saved variant in a folder of the test, to spoil."""
    written: dict[tuple[str, str], Path] = {}

    def copy(name: str, method: str, folder: Path) -> Path:
        if (name, method) not in written:
            place = tmp_path_factory.mktemp(f"checked-{name}-{method}")
            predictor, base = wrapped(base_folder(name), method)
            disturb(predictor)
            kind = "adapter" if METHODS[method].saves_adapter else "model"
            settings = settings_of(base, predictor, kind=kind, method=method, label_values=LABEL_NAMES)
            (save_adapter if kind == "adapter" else save_model)(predictor, place, settings=settings, card="")
            written[name, method] = place
        return Path(shutil.copytree(written[name, method], folder / "saved"))

    return copy


def rewrite(folder: Path, **changes: Any) -> None:
    """Change textlift.json as somebody would who knows how its own sha256 and those of the files are made."""
    path = folder / "textlift.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    values.update(changes)
    values = {key: value for key, value in values.items() if value is not Ellipsis and key != "sha256"}
    if isinstance(values.get("files"), dict) and "files" not in changes:
        values["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in values["files"]}
    values["sha256"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(values), encoding="utf-8")


def with_words_swapped(base: Path, folder: Path) -> Path:
    """A copy of a base whose tokenizer gives two words each other's ids: same size, same weights, other answers."""
    copy = Path(shutil.copytree(base, folder))
    path = copy / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = values["model"]["vocab"]
    vocabulary["wave"], vocabulary["root"] = vocabulary["root"], vocabulary["wave"]
    path.write_text(json.dumps(values), encoding="utf-8")
    return copy


# ---- tokenizer


@pytest.mark.parametrize(
    ("name", "method"), [("bert", "lora"), ("gpt2", "lora"), ("embedder", "lora"), ("bert", "adapter")]
)
def test_another_tokenizer_of_the_same_size_is_refused_with_both_named(
    base_folder: BaseFolder, saved_variant: Callable[..., Path], tmp_path: Path, name: str, method: str
) -> None:
    folder = saved_variant(name, method, tmp_path)
    other = with_words_swapped(base_folder(name), tmp_path / "other")
    ours, theirs = (tokenizer_fingerprint(open_base(str(base)).tokenizer)[:12] for base in (base_folder(name), other))
    with pytest.raises(ModelError, match="with which the adapter was trained; found that of") as caught:
        load_variant(folder, CPU, base_name=str(other))
    told = str(caught.value)
    assert ours != theirs
    assert all(part in told for part in (ours, theirs, str(base_folder(name)), str(other)))
    assert len(told.splitlines()) <= 3


def test_a_tokenizer_that_folds_case_is_not_one_that_keeps_it(base_folder: BaseFolder, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(base_folder("bert"), tmp_path / "copy"))
    values = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    values["normalizer"] = {"type": "Lowercase"}
    (copy / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    prints = {tokenizer_fingerprint(open_base(str(base)).tokenizer) for base in (base_folder("bert"), copy)}
    assert len(prints) == 2


@pytest.mark.parametrize("name", list(BUILDERS))
def test_the_fingerprint_survives_saving_and_another_length_limit(
    base_folder: BaseFolder, tmp_path: Path, name: str
) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = open_base(str(base_folder(name))).tokenizer
    before = tokenizer_fingerprint(tokenizer)
    tokenizer(TEXTS, padding=True, truncation=True, max_length=8)
    assert tokenizer_fingerprint(tokenizer) == before
    tokenizer.model_max_length = 24
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(AutoTokenizer.from_pretrained(tmp_path)) == before


def test_what_was_saved_before_tokenizers_were_recorded_still_loads(
    base_folder: BaseFolder, saved_variant: Callable[..., Path], tmp_path: Path
) -> None:
    folder = saved_variant("bert", "lora", tmp_path)
    rewrite(folder, tokenizer_sha256=...)
    assert read_settings(folder).tokenizer_sha256 is None
    other = with_words_swapped(base_folder("bert"), tmp_path / "other")
    for base in (None, str(other)):
        assert load_variant(folder, CPU, base_name=base).label_names == LABEL_NAMES


@pytest.mark.parametrize("name", ["bert", "embedder"])
def test_a_model_whose_tokenizer_reads_otherwise_is_refused(
    saved_variant: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    folder = saved_variant(name, "full", tmp_path)
    written = read_settings(folder).tokenizer_sha256
    rewrite(folder, tokenizer_sha256="0" * 64)
    with pytest.raises(ModelError, match=rf"fingerprint 000000000000\); found {str(written)[:12]}, as transformers "):
        load_variant(folder, CPU)


# ---- label names


@pytest.mark.parametrize(("name", "method"), KINDS)
@pytest.mark.parametrize("names", [("sea", "sky"), ("sea", "sky", "soil", "sun")])
def test_weights_for_another_number_of_labels_are_refused_with_both_named(
    saved_variant: Callable[..., Path], tmp_path: Path, name: str, method: str, names: tuple[str, ...]
) -> None:
    folder = saved_variant(name, method, tmp_path)
    rewrite(folder, label_names=names, label_values=names)
    with pytest.raises(ModelError, match="must fit") as caught:
        load_variant(folder, CPU)
    told = str(caught.value)
    assert f"the {len(names)} label names of textlift.json ('sea', 'sky'" in told
    assert "3 rows" in told or "3 outputs" in told or "found 'sea', 'sky', 'soil'" in told
    assert len(told.splitlines()) <= 3


def test_label_names_in_another_order_than_the_model_says_are_refused(
    saved_variant: Callable[..., Path], tmp_path: Path
) -> None:
    folder = saved_variant("bert", "full", tmp_path)
    rewrite(folder, label_names=("sky", "sea", "soil"))
    with pytest.raises(ModelError, match=r"label 0 is 'sky' in textlift.json, 'sea' in config.json"):
        load_variant(folder, CPU)


def test_an_adapter_is_refused_on_a_classifier_of_other_classes(
    base_folder: BaseFolder, saved_variant: Callable[..., Path], tmp_path: Path
) -> None:
    folder = saved_variant("bert", "lora", tmp_path)
    classifier = build_classifier(open_base(str(base_folder("bert"))), ("a", "b"), seed=0)
    with pytest.raises(ModelError, match=r"the 3 label names .*found a classifier of 2 classes"):
        attach_adapter(classifier, folder)


def test_label_names_of_any_script_travel_with_the_variant(base_folder: BaseFolder, tmp_path: Path) -> None:
    names = ("\U0001f600\u2028", "<b>\x1b[31m\x9b", "../\ud83d")
    base = open_base(str(base_folder("bert")))
    predictor, _ = fresh(base_folder("bert"))
    object.__setattr__(predictor, "label_names", names)
    settings = settings_of(base, predictor, kind="model", method="full", label_values=names)
    predictor.classifier.model.config.id2label = dict(enumerate(names))
    save_model(predictor, tmp_path, settings=settings, card="")
    raw = (tmp_path / "textlift.json").read_text(encoding="utf-8")
    assert not set(raw) & {"\u2028", "\x1b", "\x9b", "\ud83d"}
    assert load_variant(tmp_path, CPU).label_names == names
    np.testing.assert_allclose(logits_of(load_variant(tmp_path, CPU)), logits_of(predictor), atol=1e-6)


# ---- a textlift.json that somebody else wrote


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"label_names": ["sea", "sea", "sky"]}, "label_names must be different strings"),
        ({"label_names": [1, 2, 3]}, "label_names must be different strings"),
        ({"label_names": ...}, "must say what this version of textlift reads; 'label_names'"),
        ({"label_values": ["0"]}, "one for each of the 3 label_names; found 1"),
        ({"files": ["README.md"]}, "must say what this version of textlift reads"),
        ({"files": {"../../secret": "0"}}, r"must name files of its own folder; found '../../secret'"),
        ({"files": {"/dev/zero": "0"}}, r"must name files of its own folder; found '/dev/zero'"),
        ({"later": 1}, "must say what this version of textlift reads; .*later"),
    ],
)
def test_settings_that_do_not_fit_are_told(
    saved_variant: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    folder = saved_variant("bert", "lora", tmp_path)
    rewrite(folder, **changes)
    with pytest.raises(ModelError, match=told) as caught:
        read_settings(folder)
    assert caught.value.exit_code == 65
