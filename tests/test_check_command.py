"""`textlift check` on a tiny base model: what it tells, what it writes, how it ends."""

import json
from pathlib import Path

import pytest

from cli_calls import SUBJECTS, Command, rows
from textlift.data import Finding
from textlift.workflow.baselines import FrozenPass
from textlift.workflow.preparation import Job


def test_check_tells_what_is_in_a_file(data_file: Path, command: Command) -> None:
    told = json.loads(command("check", data_file, "--json").out)
    assert sum(told["rows"].values()) == 120
    assert set(told["labels"]["train"]) == set(SUBJECTS)


def test_check_ends_with_65_on_errors_and_lists_conflicts(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(rows(20) + "the same,sea\nthe same,sky\n,sky\n", encoding="utf-8")
    ended = command("check", path, "--output", tmp_path / "checked")
    assert ended.code == 65
    assert "error: rows.csv:23: text is empty" in ended.out
    assert len((tmp_path / "checked" / "conflicts.csv").read_text().splitlines()) == 3


def test_check_writes_the_rows_of_each_finding(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(rows(40) + "a &amp; b,sea\na &amp; b,sea\n", encoding="utf-8")
    ended = command("check", path, "--output", tmp_path / "checked", "--json")
    told = {one["code"]: one for one in json.loads(ended.out)["checks"]}
    assert ended.code == 0
    assert told["duplicate_text"]["file"] == "findings/duplicate_text_train.csv"
    assert len((tmp_path / "checked" / told["duplicate_text"]["file"]).read_text().splitlines()) == 2
    assert told["html_entities"]["why"]


def test_check_fix_writes_a_cleaned_copy_and_leaves_the_rows_as_they_are(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(rows(40) + "a &amp; b,sea\na &amp; b,sea\n,sky\nx,sea\nx,sky\n", encoding="utf-8")
    before = path.read_bytes()
    ended = command("check", path, "--fix", tmp_path / "clean", "--json")
    fixed = json.loads(ended.out)["fixed"]
    assert ended.code == 0  # of the copy; the rows given have an error
    assert fixed["changes"] == {
        "repaired: HTML entities (&amp;)": 2,
        "left out: no text or no label": 1,
        "left out: text has two labels": 2,
        "left out: text repeats an earlier one": 1,
    }
    assert path.read_bytes() == before
    assert len((tmp_path / "clean" / "log" / "changes.csv").read_text().splitlines()) == 7
    assert "a & b" in (tmp_path / "clean" / "train.csv").read_text()
    assert command("check", tmp_path / "clean").code == 0


def test_check_fix_never_writes_into_a_folder_that_holds_something(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(rows(40), encoding="utf-8")
    assert command("check", path, "--fix", tmp_path).code == 73


def test_a_run_says_how_far_its_scores_can_be_trusted(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["soundness"]["level"] in {"sound", "minor", "doubtful"}
    assert "What to do next" in (finished / "report.html").read_text()
    assert json.loads((finished / "checks.json").read_text()) == results["checks"]
    assert (finished / "probe-checks.json").is_file()


def test_check_with_a_model_looks_at_its_features(
    command: Command, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(job: Job, frozen: FrozenPass) -> list[Finding]:
        return [Finding("label_errors", "info", f"features {frozen.features('train').shape[0]}")]

    monkeypatch.setattr("textlift.workflow.checking.probe_findings", told)
    model = json.loads((finished / "results.json").read_text())["model"]["name"]
    path = tmp_path / "rows.csv"
    path.write_text(rows(60), encoding="utf-8")
    assert "info: features 42" in command("check", path, "--model", model).out
