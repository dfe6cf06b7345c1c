"""Several seeds and the ledger, through the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli_calls import Command, rows

BaseFolder = Callable[[str], Path]


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.fixture
def arguments(base_folder: BaseFolder, data_file: Path) -> list[str]:
    baselines = "baselines=[majority, tfidf, untrained]"  # nothing to start from: the head is drawn from the seed
    return ["run", str(data_file), "--model", str(base_folder("bert")), "--set", baselines,
            "--set", "training.head_start=fresh", "--set", "training.epochs=1"]  # fmt: skip


def test_each_seed_is_trained_scored_and_compared(command: Command, arguments: list[str], tmp_path: Path) -> None:
    ended = command(*arguments, "--seeds", 3, "--seed", 7, "--output", tmp_path / "run")
    assert ended.code == 0, ended.err
    found = results(tmp_path / "run")
    seeds = found["variants"]["lora"]["seeds"]
    assert seeds["values"] == [7, 8, 9]
    assert seeds["test"]["accuracy"]["values"][0] == found["variants"]["lora"]["test"]["accuracy"]
    row = next(one for one in found["comparisons"] if (one["a"], one["b"]) == ("lora", "tfidf"))
    assert row["seeds"] == {"a": 3, "b": 1}
    assert row["difference"] == pytest.approx(
        seeds["test"]["accuracy"]["mean"] - found["variants"]["tfidf"]["test"]["accuracy"]
    )
    assert "Over 3 seeds lora is right on" in found["verdict"]
    logits = {
        (tmp_path / "run" / "variants" / place / "predictions.jsonl").read_text()
        for place in ("lora", "lora/seeds/8", "lora/seeds/9")
    }
    assert len(logits) == 3


def test_a_run_of_several_seeds_that_is_continued_gives_the_same(
    command: Command, arguments: list[str], tmp_path: Path
) -> None:
    arguments = [*arguments, "--seeds", "2"]
    command(*arguments, "--output", tmp_path / "whole")
    command(*arguments, "--output", tmp_path / "broken")
    shutil.rmtree(tmp_path / "broken" / "variants" / "lora" / "seeds")
    (tmp_path / "broken" / "results.json").unlink()
    assert command(*arguments, "--output", tmp_path / "broken", "--resume").code == 0
    left, right = results(tmp_path / "whole"), results(tmp_path / "broken")
    assert left["variants"]["lora"]["seeds"] == right["variants"]["lora"]["seeds"]
    assert left["comparisons"] == right["comparisons"]


def test_the_ledger_stays_where_a_run_is_replaced(command: Command, arguments: list[str], tmp_path: Path) -> None:
    command(*arguments, "--output", tmp_path / "run")
    other = [*arguments, "--set", "method.rank=2"]
    command(*other, "--output", tmp_path / "run", "--overwrite")
    ledger = results(tmp_path / "run")["ledger"]
    assert (ledger["openings"], ledger["recipes"]) == (2, 2)
    assert "opened 2 times, with 2 recipes" in (tmp_path / "run" / "report.html").read_text()


def test_evaluate_is_written_into_the_ledger_of_the_run(command: Command, arguments: list[str], tmp_path: Path) -> None:
    command(*arguments, "--output", tmp_path / "run")
    (tmp_path / "other.csv").write_text(rows(30, start=500))
    assert command("evaluate", tmp_path / "run", tmp_path / "other.csv").code == 0
    entries = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    assert [(entry["what"], entry["n"]) for entry in entries] == [("run", 24), ("evaluate lora", 30)]
    assert entries[0]["rows"] != entries[1]["rows"]


def test_two_runs_on_the_same_test_rows_are_compared_with_a_warning(
    command: Command, arguments: list[str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        command(*arguments, "--output", tmp_path / name)
    ended = command("compare", tmp_path / "one", tmp_path / "two")
    assert "Chosen by test: 2 runs were scored on the same test rows, opened 2 times in all" in ended.out.replace(
        "\n", " "
    )
