"""Every opening of the test rows is written down and stays."""

from pathlib import Path
from types import SimpleNamespace

from textlift.data.dataset import Rows
from textlift.runs import LEDGER, RunDirectory
from textlift.workflow.ledger import open_rows, summary
from textlift.workflow.preparation import split_digest

DATASET = SimpleNamespace(splits={"test": Rows(["a", "b"], ["x", "y"], [1, 2], ["f.csv"] * 2)})
OTHER = SimpleNamespace(splits={"test": Rows(["c"], ["x"], [1], ["f.csv"])})
ROWS = split_digest(DATASET, "test")


def opened(folder: Path, *recipes: str, dataset: SimpleNamespace = DATASET) -> RunDirectory:
    folder.mkdir(exist_ok=True)
    run = RunDirectory(folder)
    for recipe in recipes:
        open_rows(run, dataset, split="test", what="run", recipe=recipe, command="textlift run f.csv")
    return run


def test_each_opening_is_counted_with_its_recipe(tmp_path: Path) -> None:
    told = summary(opened(tmp_path / "run", "r1", "r1", "r2"), ROWS)
    assert (told["openings"], told["recipes"], len(told["entries"])) == (3, 2, 3)


def test_openings_of_other_rows_do_not_count(tmp_path: Path) -> None:
    run = opened(tmp_path / "run", "r1")
    opened(tmp_path / "run", "r1", dataset=OTHER)
    assert summary(run, ROWS)["openings"] == 1


def test_runs_in_the_same_folder_that_opened_the_same_rows_are_named(tmp_path: Path) -> None:
    opened(tmp_path / "first", "r1", "r3")
    opened(tmp_path / "unrelated", "r9", dataset=OTHER)
    told = summary(opened(tmp_path / "run", "r2"), ROWS)
    assert told["beside"] == [{"run": "first", "openings": 2}]
    assert (told["openings"], told["recipes"]) == (3, 3)


def test_a_line_that_was_cut_off_does_not_hide_the_others(tmp_path: Path) -> None:
    run = opened(tmp_path / "run", "r1")
    with (run.path / LEDGER).open("ab") as file:
        file.write(b'{"time": "2026\n')
    assert summary(opened(tmp_path / "run", "r2"), ROWS)["openings"] == 2


def test_files_beside_the_run_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    assert summary(opened(tmp_path / "run", "r1"), ROWS)["beside"] == []
