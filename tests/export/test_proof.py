"""What is saved loads with plain peft, transformers and sentence-transformers in a fresh process."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from conftest import BaseFolder
from textlift.errors import ModelError
from textlift.export import proof
from textlift.export.card import model_card
from textlift.export.loading import attach_adapter, merge
from textlift.export.proof import prove_saved
from textlift.export.saving import save_adapter, save_model, settings_of
from tiny_models import BUILDERS, EMBEDDERS, TEXTS, disturb, fresh, wrapped

IN_DEFAULT_TIER = ("gpt2", "embedder")
FAMILIES = [name if name in IN_DEFAULT_TIER else pytest.param(name, marks=pytest.mark.slow) for name in BUILDERS]


@pytest.mark.parametrize("name", FAMILIES)
def test_plain_libraries_give_the_logits_of_adapter_and_merged_model(
    base_folder: BaseFolder, tmp_path: Path, name: str
) -> None:
    predictor, base = wrapped(base_folder(name), "lora")
    disturb(predictor)
    settings = settings_of(base, predictor, kind="adapter", method="lora", label_values=predictor.label_names)
    save_adapter(predictor, tmp_path / "adapter", settings=settings, card="")
    merged, _ = fresh(base_folder(name), seed=1)
    attach_adapter(merged.classifier, tmp_path / "adapter")
    merge(merged)
    settings = settings_of(base, merged, kind="model", method="merged", label_values=predictor.label_names)
    save_model(merged, tmp_path / "model", settings=settings, card="")

    records = prove_saved(predictor, base, TEXTS, adapter=tmp_path / "adapter", model=tmp_path / "model")

    if name in EMBEDDERS:
        loaders = ["encoder_adapter", *(["sentence_transformer"] if find_spec("sentence_transformers") else [])]
    else:
        loaders = ["adapter", "pipeline"]
    assert [record["loader"] for record in records] == loaders
    assert all(record["texts"] == proof.SAMPLE for record in records)
    assert all(record["largest_logit_difference"] < 1e-3 for record in records)


def test_a_classifier_that_computes_in_bf16_is_proved_in_fp32(base_folder: BaseFolder, tmp_path: Path) -> None:
    predictor, base = wrapped(base_folder("bert"), "lora")
    half = replace(disturb(predictor), runtime=replace(predictor.runtime, precision="bf16"))
    settings = settings_of(base, half, kind="adapter", method="lora", label_values=half.label_names)
    save_adapter(half, tmp_path / "adapter", settings=settings, card="")
    rounded = half.forward(half.tokenize(TEXTS)).logits
    (record,) = prove_saved(half, base, TEXTS, adapter=tmp_path / "adapter", model=None)
    assert record["largest_logit_difference"] < 1e-4 < np.abs(rounded - half.exact_logits(TEXTS)).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BUILDERS))
def test_plain_libraries_give_the_logits_of_a_fully_tuned_model(
    base_folder: BaseFolder, tmp_path: Path, name: str
) -> None:
    predictor, base = wrapped(base_folder(name), "full")
    disturb(predictor)
    settings = settings_of(base, predictor, kind="model", method="full", label_values=predictor.label_names)
    save_model(predictor, tmp_path / "model", settings=settings, card="")
    records = prove_saved(predictor, base, TEXTS, adapter=None, model=tmp_path / "model")
    assert len(records) == (1 if name not in EMBEDDERS or find_spec("sentence_transformers") else 0)


def test_logits_that_differ_are_told_and_refused(
    base_folder: BaseFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, base = fresh(base_folder("bert"))
    expected = predictor.forward(predictor.tokenize(proof._sample(TEXTS))).logits
    monkeypatch.setattr(proof, "_run", lambda job: {"adapter": (expected + 0.1).tolist()})
    with pytest.raises(ModelError, match=r"loaded as adapter they differ by 0.1 \(tolerance 0.001\)"):
        prove_saved(predictor, base, TEXTS, adapter=tmp_path, model=None)
    monkeypatch.setattr(proof, "_run", lambda job: {"adapter": np.full_like(expected, np.nan).tolist()})
    with pytest.raises(ModelError, match="differ by nan"):
        prove_saved(predictor, base, TEXTS, adapter=tmp_path, model=None)


def test_a_process_that_fails_is_told_with_its_last_line(
    base_folder: BaseFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit('first\\nthe adapter is not there')")
    monkeypatch.setattr(proof.plain_check, "__file__", str(program))
    predictor, base = fresh(base_folder("bert"))
    with pytest.raises(ModelError, match="in a fresh process; it does not: the adapter is not there"):
        prove_saved(predictor, base, TEXTS, adapter=tmp_path, model=None)


def test_nothing_to_load_needs_no_process(base_folder: BaseFolder) -> None:
    predictor, base = fresh(base_folder("bert"))
    assert prove_saved(predictor, base, TEXTS, adapter=None, model=None) == []


def test_the_sample_goes_from_short_to_long_and_is_never_empty() -> None:
    texts = ["x" * n for n in range(1, 41)]
    sample = proof._sample(["", " ", *reversed(texts)])
    assert len(sample) == proof.SAMPLE
    assert (sample[0], sample[-1]) == (texts[0], texts[-1])
    assert proof._sample(["one"]) == ["one"]
    assert proof._sample(["", "\n"]) == ["a text"]


@pytest.mark.parametrize(
    ("name", "kind", "loader"),
    [
        ("bert", "adapter", "AutoPeftModelForSequenceClassification"),
        ("embedder", "adapter", "PeftModel.from_pretrained"),
        ("bert", "model", 'pipeline("text-classification"'),
        ("embedder", "model", "SentenceTransformer"),
    ],
)
def test_the_card_tells_scores_and_how_to_load(base_folder: BaseFolder, name: str, kind: str, loader: str) -> None:
    predictor, base = fresh(base_folder(name))
    settings = settings_of(base, predictor, kind=kind, method="lora", label_values=predictor.label_names)
    score = {"n": 1234, "accuracy": 0.9, "accuracy_low": 0.88, "accuracy_high": 0.92, "f1_macro": 0.8}
    record = {
        "method": "lora",
        "trained_parameters": 10,
        "total_parameters": 1000,
        "validation": score,
        "test": score,
    }
    card = model_card(record, settings, name="job <b>", dataset="rows.csv")
    assert loader in card
    assert "| test | 1,234 | 0.9000 (0.8800 to 0.9200) | 0.8000 |" in card
    assert "<b>" not in card
    assert card.startswith("---\nbase_model: ")
