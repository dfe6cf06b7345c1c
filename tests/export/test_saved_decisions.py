"""decision.json beside the weights: every kind survives saving, loading and merging; what others wrote is refused."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import BaseFolder
from decision_samples import DECISIONS
from textlift.errors import ModelError
from textlift.evaluation.decisions import Decision
from textlift.export.deciding import DECISION, read_decision, write_decision
from textlift.export.loading import load_variant, merge
from textlift.export.proof import prove_saved
from textlift.export.saving import SETTINGS, save_adapter, save_model, settings_of
from textlift.inference import Predictor
from tiny_models import CPU, LABEL_NAMES, TEXTS, disturb, fresh, wrapped


def save_with(base: Path, folder: Path, decision: Decision, *, method: str = "lora") -> Predictor:
    """A predictor with a decision, saved as an adapter, or as a model where the method is "full"."""
    predictor, opened = wrapped(base, method)
    disturb(predictor)
    predictor = dataclasses.replace(predictor, decision=decision)
    kind = "adapter" if method == "lora" else "model"
    settings = settings_of(opened, predictor, kind=kind, method=method, label_values=LABEL_NAMES)
    (save_adapter if kind == "adapter" else save_model)(predictor, folder, settings=settings, card="")
    return predictor


def sealed_again(folder: Path, change: Any) -> None:
    """textlift.json with a change, and with the sha256 of its own content that fits it, as a stranger may write."""
    values = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    del values["sha256"]
    change(values)
    values["sha256"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    (folder / SETTINGS).write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize("name", DECISIONS)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_kind_of_decision_survives_saving_and_loading(
    base_folder: BaseFolder, tmp_path: Path, method: str, name: str
) -> None:
    saved = save_with(base_folder("bert"), tmp_path, DECISIONS[name], method=method)
    loaded = load_variant(tmp_path, CPU, base_name=str(base_folder("bert")))
    assert loaded.decision == DECISIONS[name]
    assert [one.label for one in loaded.predict(TEXTS)] == [one.label for one in saved.predict(TEXTS)]


def test_a_merged_folder_carries_the_decision_and_loads_with_plain_libraries(
    base_folder: BaseFolder, tmp_path: Path
) -> None:
    base = "embedder"
    save_with(base_folder(base), tmp_path / "adapter", DECISIONS["thresholds"])
    loaded = merge(load_variant(tmp_path / "adapter", CPU, base_name=str(base_folder(base))))
    opened = fresh(base_folder(base))[1]
    settings = settings_of(opened, loaded, kind="model", method="merged", label_values=LABEL_NAMES)
    save_model(loaded, tmp_path / "model", settings=settings, card="")
    proof = prove_saved(loaded, opened, TEXTS, adapter=None, model=tmp_path / "model")
    assert proof
    assert load_variant(tmp_path / "model", CPU).decision == DECISIONS["thresholds"]


def test_a_folder_of_an_earlier_version_loads_with_the_decision_that_changes_nothing(
    base_folder: BaseFolder, tmp_path: Path
) -> None:
    save_with(base_folder("bert"), tmp_path, DECISIONS["temperature"])
    (tmp_path / DECISION).unlink()
    sealed_again(tmp_path, lambda values: values["files"].pop(DECISION))
    assert load_variant(tmp_path, CPU, base_name=str(base_folder("bert"))).decision.is_identity


def test_a_decision_that_was_changed_is_refused(base_folder: BaseFolder, tmp_path: Path) -> None:
    save_with(base_folder("bert"), tmp_path, DECISIONS["temperature"])
    text = (tmp_path / DECISION).read_text(encoding="utf-8")
    (tmp_path / DECISION).write_text(text.replace("1.7", "9.7"), encoding="utf-8")
    with pytest.raises(ModelError, match=r"decision\.json: must be the file that textlift wrote"):
        load_variant(tmp_path, CPU, base_name=str(base_folder("bert")))


def test_a_decision_that_was_taken_away_is_missed(base_folder: BaseFolder, tmp_path: Path) -> None:
    save_with(base_folder("bert"), tmp_path, DECISIONS["temperature"])
    (tmp_path / DECISION).unlink()
    with pytest.raises(ModelError, match="found no file"):
        load_variant(tmp_path, CPU, base_name=str(base_folder("bert")))


def test_a_decision_that_was_put_into_an_old_folder_is_refused(base_folder: BaseFolder, tmp_path: Path) -> None:
    save_with(base_folder("bert"), tmp_path, DECISIONS["temperature"])
    sealed_again(tmp_path, lambda values: values["files"].pop(DECISION))
    with pytest.raises(ModelError, match="put there by another hand"):
        load_variant(tmp_path, CPU, base_name=str(base_folder("bert")))


def test_what_is_saved_is_compared_with_what_was_to_be_saved(base_folder: BaseFolder, tmp_path: Path) -> None:
    predictor = save_with(base_folder("bert"), tmp_path, DECISIONS["temperature"])
    other = dataclasses.replace(predictor, decision=DECISIONS["abstention"])
    with pytest.raises(ModelError, match="read back it is another one"):
        prove_saved(other, fresh(base_folder("bert"))[1], TEXTS, adapter=tmp_path, model=None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "must be for the 3 labels"),
        ('{"label_names": ["sea", "soil", "sky"]}', "must be for the 3 labels of the variant, in their order"),
        ('{"label_names": ["sea", "sky", "soil"]}', "format_version must be 1; found None"),
        ('{"label_names": ["sea", "sky", "soil"], "format_version": 1}', "unknown or missing"),
        ('{"temperature": 1' + "0" * 5000 + "}", "cannot be read"),
    ],
)
def test_a_decision_in_other_words_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / DECISION).write_text(text, encoding="utf-8")
    with pytest.raises(ModelError) as error:
        read_decision(tmp_path, LABEL_NAMES)
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_a_decision_for_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    write_decision(tmp_path, Decision(thresholds=(0.5, None)), LABEL_NAMES)
    with pytest.raises(ModelError, match="must be for 3 classes; it is for 2"):
        read_decision(tmp_path, LABEL_NAMES)


def test_a_predictor_applies_its_decision_unless_asked_for_raw_answers(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    deciding = dataclasses.replace(disturb(predictor), decision=Decision(temperature=3.0))
    raw = predictor.predict_proba(TEXTS)
    np.testing.assert_array_equal(deciding.predict_proba(TEXTS, raw=True), raw)
    assert (deciding.predict_proba(TEXTS).max(axis=1) < raw.max(axis=1)).all()
    assert deciding.predict(TEXTS, raw=True) == predictor.predict(TEXTS)


def test_a_prediction_without_an_answer_has_no_label_and_says_so(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    unsure = dataclasses.replace(predictor, decision=Decision(least_confidence=1.0))
    (one,) = unsure.predict(["the boat"])
    assert one.label is None
    assert one.abstained
    assert one.to_dict()["abstained"] is True
