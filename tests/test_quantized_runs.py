"""Runs with a quantized base: what is recorded, loaded again, merged and refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import BaseFolder
from textlift import api
from textlift.errors import ModelError, RecipeError
from textlift.export.saving import read_settings
from textlift.methods.registry import quantization_of
from textlift.progress import Progress
from textlift.recipe import parse_recipe
from textlift.runs import RunDirectory
from textlift.workflow import merging, variants, verbs
from textlift.workflow.main_job import run_recipe
from textlift.workflow.merging import MergeCost
from textlift.workflow.planning import Request, resolve
from textlift.workflow.preparation import prepare
from tiny_models import logits_of

pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="session")
def quantized_run(base_folder: BaseFolder, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with a qlora variant and its merged model; read it, never write it."""
    output = tmp_path_factory.mktemp("runs") / "quantized"
    request = Request(str(data_file), model=str(base_folder("gpt2")), methods=["qlora", "merged"])
    run_recipe(resolve(request), output=output, progress=Progress(silent=True))
    return output


@pytest.fixture
def own_run(quantized_run: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of it whose results may be changed."""

    def copied(change: Callable[[dict[str, Any]], object]) -> Path:
        path = shutil.copytree(quantized_run, tmp_path / "run")
        results = json.loads((path / "results.json").read_text())
        change(results)
        (path / "results.json").write_text(json.dumps(results))
        return path

    return copied


@pytest.fixture
def unproved(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fresh process: other tests hold that what is written loads."""
    for module in (verbs, variants):
        monkeypatch.setattr(module, "prove_saved", lambda *_, **__: [])


def too_costly(results: dict[str, Any]) -> None:
    results["variants"]["merged"]["merge_cost"] = MergeCost(0.92, 0.5, 9, 100, 1.0).to_dict()


def without_merged(results: dict[str, Any]) -> None:
    del results["variants"]["merged"]


def stored_logits(run: Path, variant: str) -> tuple[list[str], np.ndarray]:
    """Answers and logits of the test rows."""
    lines = RunDirectory(run).read_lines(f"variants/{variant}/predictions.jsonl")
    rows = [row for row in lines if row["split"] == "test"]
    return [row["prediction"] for row in rows], np.array([row["logits"] for row in rows])


def test_a_run_records_bits_bytes_and_the_cost_of_merging(quantized_run: Path) -> None:
    records = RunDirectory(quantized_run).read("results.json")["variants"]
    qlora, merged = records["qlora"], records["merged"]
    assert qlora["settings"]["quantization"] == "4bit"
    assert set(qlora["base_weight_bytes"]) == {"quantized", "embeddings", "other", "in_fp32"}
    assert qlora["total_parameters"] > qlora["base_weight_bytes"]["in_fp32"] / 4
    cost = MergeCost(**merged["merge_cost"])
    assert cost.accuracy_before == qlora["validation"]["accuracy"]
    assert cost.accuracy_after == merged["validation"]["accuracy"]
    assert 0 < cost.largest_logit_difference <= merged["largest_logit_difference"]
    assert bool(merged["warnings"]) == cost.is_too_high


def test_a_saved_variant_predicts_and_evaluates_as_its_run_did(quantized_run: Path, data_file: Path) -> None:
    for name in ("qlora", "merged"):
        answers, logits = stored_logits(quantized_run, name)
        test = prepare(resolve(Request(str(data_file), model=_base(quantized_run))), Progress(silent=True)).dataset
        predictor = api.load(quantized_run / name)
        texts = test.splits["test"].texts
        np.testing.assert_allclose(logits_of(predictor, texts), logits, atol=1e-5)
        assert [prediction.label for prediction in predictor.predict(texts)] == answers
    assert api.evaluate(quantized_run / "qlora", data_file)["n"] == 120


def _base(run: Path) -> str:
    return str(read_settings(run / "variants" / "qlora" / "adapter").base_name)


def test_a_merged_variant_that_costs_too_much_is_not_loaded_or_exported(
    own_run: Callable[..., Path], tmp_path: Path, unproved: None
) -> None:
    run = own_run(too_costly)
    for name in ("merged", "qlora"):
        with pytest.raises(ModelError, match=r"92.00% of validation became 50.00%.*\nUse qlora itself, or pass"):
            api.export(run / name, tmp_path / "out")
    with pytest.raises(ModelError, match=r"Use qlora itself, or textlift export .*/merged DIR --to merged --force"):
        api.load(run / "merged")
    api.load(run / "qlora")
    assert not (tmp_path / "out").exists()
    api.export(run / "qlora", tmp_path / "out", force=True)
    assert read_settings(tmp_path / "out").quantization == "none"


def test_a_variant_that_its_run_did_not_merge_is_measured_when_it_is_exported(
    own_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unproved: None
) -> None:
    run = own_run(without_merged)
    monkeypatch.setattr(merging, "TOLERANCE", -1.0)
    with pytest.raises(ModelError, match=r"-100 point of accuracy; .* became .*answers differ"):
        api.export(run / "qlora", tmp_path / "refused")
    monkeypatch.setattr(merging, "TOLERANCE", 1.0)
    api.export(run / "qlora", tmp_path / "out")
    assert read_settings(tmp_path / "out").kind == "model"


def test_a_merged_model_that_cannot_be_measured_needs_force(own_run: Callable[..., Path], tmp_path: Path) -> None:
    run = own_run(without_merged)
    results = json.loads((run / "results.json").read_text())
    results["task"]["test_fingerprint"] = "of other rows"
    (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(ModelError, match=r"measured on the run's rows; they have changed\.\nBring them back, or"):
        api.export(run / "qlora", tmp_path / "out")
    with pytest.raises(ModelError, match=r"this folder is outside one\.\nName RUN/variant, or pass --force"):
        api.export(run / "variants" / "qlora" / "adapter", tmp_path / "out")


# ---- what a recipe asks


def recipe_of(base: Path, *overrides: str, methods: tuple[str, ...] = ("lora",)) -> Any:
    return resolve(Request("no_such_file.csv", model=str(base), methods=methods, overrides=overrides))


@pytest.mark.parametrize("method", ["full", "bitfit"])
def test_a_method_that_changes_packed_weights_is_refused_before_a_row_is_read(
    base_folder: BaseFolder, method: str
) -> None:
    recipe = recipe_of(base_folder("bert"), "model.quantization=4bit", methods=(method,))
    with pytest.raises(RecipeError, match=rf"{method} does not train on a base .* 4 bits.*\n.*model.quantization=none"):
        prepare(recipe, Progress(silent=True))


def test_qlora_in_full_precision_is_refused_with_lora_named() -> None:
    variant = {"method": {"name": "qlora"}, "quantization": "none"}
    recipe = parse_recipe({"data": {"source": "no_such_file.csv"}, "variants": {"a": variant}})
    with pytest.raises(RecipeError, match=r"variants.a: method qlora must have its base in 8 or 4 bits.*\nUse lora"):
        prepare(recipe, Progress(silent=True))


@pytest.mark.parametrize(
    ("method", "of_recipe", "of_variant", "settled"),
    [
        ("lora", "none", None, "none"),
        ("qlora", "none", None, "4bit"),
        ("lora", "8bit", None, "8bit"),
        ("qlora", "8bit", None, "8bit"),
        ("lora", "8bit", "none", "none"),
        ("lora", "none", "4bit", "4bit"),
        ("qlora", "4bit", "8bit", "8bit"),
    ],
)
def test_the_variant_says_the_bits_before_the_recipe_and_the_recipe_before_the_method(
    method: str, of_recipe: str, of_variant: str | None, settled: str
) -> None:
    recipe = parse_recipe(
        {
            "data": {"source": "rows.csv"},
            "model": {"quantization": of_recipe},
            "variants": {"a": {"method": {"name": method}, "quantization": of_variant}, "b": {"merge_of": "a"}},
        }
    )
    assert [quantization_of(variant) for variant in recipe.settled_variants()] == [settled, settled]


def test_a_variant_of_one_answer_is_warned_of_in_record_and_verdict(
    base_folder: BaseFolder, data_file: Path, unproved: None
) -> None:
    overrides = ["training.learning_rate=1e-9", "training.head_start=fresh", "training.max_steps=1", "baselines=[]"]
    request = Request(str(data_file), model=str(base_folder("roberta")), methods=["lora"], overrides=overrides)
    output = data_file.parent / "one-answer"
    result = run_recipe(resolve(request), output=output, progress=Progress(silent=True))
    record = result.results["variants"]["lora"]
    assert len(set(stored_logits(output, "lora")[0])) == 1
    assert record["warnings"] == [
        "lora predicts a single class for every row; try a lower learning rate or more epochs."
    ]
    assert f"Warning: {record['warnings'][0]}" in result.verdict
    assert record["warnings"][0] in (output / "report.html").read_text(encoding="utf-8")
    assert record["warnings"][0] in str(result).replace("\n", " ")
