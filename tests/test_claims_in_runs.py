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


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def of_two_seeds(base_folder: BaseFolder, data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two seeds, heads drawn afresh; read it, never write it."""
    from textlift.progress import Progress
    from textlift.workflow.main_job import run_recipe
    from textlift.workflow.planning import Request, resolve

    output = tmp_path_factory.mktemp("seeds") / "run"
    overrides = ["baselines=[majority, tfidf, untrained]", "training.head_start=fresh", "training.epochs=1"]
    values = {"seed": 7, "seeds": 2}
    request = Request(str(data_file), model=str(base_folder("bert")), overrides=overrides, values=values)
    run_recipe(resolve(request), output=output, progress=Progress(silent=True))
    return output


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be written."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_each_seed_is_trained_and_scored(of_two_seeds: Path) -> None:
    found = results(of_two_seeds)
    seeds = found["variants"]["lora"]["seeds"]
    assert seeds["values"] == [7, 8]
    assert seeds["test"]["accuracy"]["values"][0] == found["variants"]["lora"]["test"]["accuracy"]
    folders = (of_two_seeds / "variants" / "lora", of_two_seeds / "variants" / "lora" / "seeds" / "8")
    assert len({(folder / "predictions.jsonl").read_text() for folder in folders}) == 2


def test_accuracies_are_compared_by_their_means_over_the_seeds(of_two_seeds: Path) -> None:
    found = results(of_two_seeds)
    row = next(one for one in found["comparisons"] if (one["a"], one["b"]) == ("lora", "tfidf"))
    mean = found["variants"]["lora"]["seeds"]["test"]["accuracy"]["mean"]
    assert row["seeds"] == {"a": 2, "b": 1}
    assert row["difference"] == pytest.approx(mean - found["variants"]["tfidf"]["test"]["accuracy"])
    assert "Over 2 seeds lora is right on" in found["verdict"]


def test_a_run_of_several_seeds_that_is_continued_gives_the_same(
    command: Command, of_two_seeds: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(of_two_seeds, tmp_path / "broken"))
    shutil.rmtree(broken / "variants" / "lora" / "seeds")
    (broken / "results.json").unlink()
    assert command("run", broken / "recipe.yaml", "--output", broken, "--resume").code == 0
    left, right = results(of_two_seeds), results(broken)
    assert left["variants"]["lora"]["seeds"] == right["variants"]["lora"]["seeds"]
    assert left["comparisons"] == right["comparisons"]


def test_the_ledger_stays_where_a_run_is_replaced(command: Command, copied: Path) -> None:
    quick = ["--set", "baselines=[majority]", "--set", "training.max_steps=1"]
    assert command("run", copied / "recipe.yaml", *quick, "--output", copied, "--overwrite").code == 0
    ledger = results(copied)["ledger"]
    assert (ledger["openings"], ledger["recipes"]) == (2, 2)
    assert "opened 2 times, with 2 recipes" in (copied / "report.html").read_text()


def test_evaluate_is_written_into_the_ledger_of_the_run(command: Command, copied: Path, tmp_path: Path) -> None:
    before = entries(copied)
    (tmp_path / "other.csv").write_text(rows(30, start=500))
    assert command("evaluate", copied, tmp_path / "other.csv").code == 0
    (added,) = entries(copied)[len(before) :]
    assert (added["what"], added["n"]) == ("evaluate lora", 30)
    assert added["rows"] != before[0]["rows"]
    assert added["recipe"] == before[0]["recipe"]


def test_two_runs_on_the_same_test_rows_are_compared_with_a_warning(
    command: Command, copied: Path, finished: Path
) -> None:
    told = command("compare", copied, finished).out.replace("\n", " ")
    assert "Chosen by test: 2 runs were scored on the same test rows, opened 2 times in all" in told
