"""Decisions from the recipe to the answers: a run stores them, every command applies them, --raw goes without."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import textlift
from cli_calls import Command, rows
from textlift.errors import CheckpointError, RecipeError
from tiny_models import TEXTS

OVERRIDES = [
    "training.epochs=1",
    "baselines=[majority]",
    "decision.abstain.coverage=0.5",
    "variants={weighted: {training: {class_weights: balanced}}}",
]


def run(data: Path, base: Path, output: Path, *overrides: str, resume: bool = False) -> Path:
    from textlift.progress import Progress
    from textlift.workflow.main_job import run_recipe
    from textlift.workflow.planning import Request, resolve

    recipe = resolve(Request(str(data), model=str(base), overrides=overrides))
    run_recipe(recipe, output=output, progress=Progress(silent=True), resume=resume)
    return output


@pytest.fixture(scope="module")
def deciding(base_folder: Callable[[str], Path], data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run that answers half of the rows; read it, never write it."""
    return run(data_file, base_folder("bert"), tmp_path_factory.mktemp("runs") / "deciding", *OVERRIDES)


def texts_in(folder: Path) -> Path:
    path = folder / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


def test_a_saved_variant_has_its_decision(deciding: Path) -> None:
    record = json.loads((deciding / "results.json").read_text())["variants"]["weighted"]
    stored = json.loads((deciding / "variants" / "weighted" / "adapter" / "decision.json").read_text())
    assert stored.pop("label_names") == ["sea", "sky", "soil"]
    assert stored == record["decision"]["stored"]


def test_a_merged_variant_has_the_decision_of_its_origin(finished: Path) -> None:
    variants = json.loads((finished / "results.json").read_text())["variants"]
    assert variants["merged"]["decision"]["stored"] == variants["lora"]["decision"]["stored"]
    assert variants["merged"]["calibration"]["temperature"] == variants["lora"]["calibration"]["temperature"]


def test_the_settings_of_a_variant_tell_its_class_weights(deciding: Path) -> None:
    variants = json.loads((deciding / "results.json").read_text())["variants"]
    assert variants["weighted"]["settings"]["class_weights"] == "balanced"


def test_probabilities_in_the_run_are_calibrated_and_logits_are_not(deciding: Path) -> None:
    record = json.loads((deciding / "results.json").read_text())["variants"]["weighted"]
    line = json.loads((deciding / "variants" / "weighted" / "predictions.jsonl").read_text().splitlines()[0])
    (one,) = textlift.load(f"{deciding}/weighted")._decision(raw=False).probabilities(_row(line["logits"]))
    assert line["probabilities"] == pytest.approx(one.tolist(), abs=1e-5)
    assert record["calibration"]["temperature"] != 1


def _row(logits: list[float]):
    import numpy as np

    return np.asarray([logits])


def test_predict_gives_no_label_to_rows_it_is_unsure_of(deciding: Path, command: Command, tmp_path: Path) -> None:
    lines = [
        json.loads(line) for line in command("predict", f"{deciding}/weighted", texts_in(tmp_path)).out.splitlines()
    ]
    unsure = [line for line in lines if line["label"] is None]
    assert unsure
    assert all(line["abstained"] for line in unsure)
    assert all("abstained" not in line for line in lines if line["label"] is not None)


def test_predict_raw_answers_every_row(deciding: Path, command: Command, tmp_path: Path) -> None:
    ended = command("predict", f"{deciding}/weighted", texts_in(tmp_path), "--raw")
    assert all(json.loads(line)["label"] for line in ended.out.splitlines())


def test_evaluate_tells_coverage_and_calibration(deciding: Path, command: Command, data_file: Path) -> None:
    ended = command("evaluate", f"{deciding}/weighted", data_file)
    assert ended.code == 0
    assert "calibration error" in ended.out
    assert "answered" in ended.out


def test_evaluate_raw_answers_all_rows_with_the_same_accuracy(deciding: Path, command: Command, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(rows(60, start=700), encoding="utf-8")
    stored, raw = (
        json.loads(command("evaluate", f"{deciding}/weighted", other, "--json", *flags).out)
        for flags in ((), ("--raw",))
    )
    assert stored["coverage"] < raw["coverage"] == 1
    assert stored["accuracy"] == raw["accuracy"]
    assert stored["log_loss"] != raw["log_loss"]


def test_the_python_functions_go_without_the_decision_where_asked(deciding: Path, data_file: Path) -> None:
    assert textlift.evaluate(f"{deciding}/weighted", data_file, raw=True)["coverage"] == 1
    assert textlift.load(f"{deciding}/weighted").predict_proba(TEXTS, raw=True).shape == (len(TEXTS), 3)


def test_an_export_answers_as_the_variant_does(deciding: Path, command: Command, tmp_path: Path) -> None:
    assert command("export", f"{deciding}/weighted", tmp_path / "out", "--to", "merged").code == 0
    exported, variant = textlift.load(tmp_path / "out"), textlift.load(f"{deciding}/weighted")
    assert exported.decision == variant.decision
    assert [one.label for one in exported.predict(TEXTS)] == [one.label for one in variant.predict(TEXTS)]


def test_a_label_that_is_not_there_stops_before_any_output(
    base_folder: Callable[[str], Path], data_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"found 'sae'\. Did you mean 'sea'\?"):
        run(data_file, base_folder("bert"), tmp_path / "run", "decision.thresholds.sae.precision=0.9")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_continued_with_another_loss(
    deciding: Path, base_folder: Callable[[str], Path], data_file: Path
) -> None:
    with pytest.raises(CheckpointError, match="recipe"):
        run(data_file, base_folder("bert"), deciding, *OVERRIDES, "training.class_weights=balanced", resume=True)


def test_a_run_continues_with_what_was_decided(
    deciding: Path, base_folder: Callable[[str], Path], data_file: Path
) -> None:
    before = (deciding / "variants" / "weighted" / "adapter" / "decision.json").read_bytes()
    record = json.loads((deciding / "results.json").read_text())["variants"]["weighted"]["decision"]
    run(data_file, base_folder("bert"), deciding, *OVERRIDES, resume=True)
    assert json.loads((deciding / "results.json").read_text())["variants"]["weighted"]["decision"] == record
    assert (deciding / "variants" / "weighted" / "adapter" / "decision.json").read_bytes() == before
