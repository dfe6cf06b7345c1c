"""The error book of whole runs on a tiny base model: its files, its sums, and runs that lack what it stands on."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textlift
from cli_calls import SUBJECTS, Command, rows
from conftest import BaseFolder
from textlift.evaluation.error_book import unit_rows
from textlift.progress import Progress
from textlift.runs import RunDirectory
from textlift.workflow.features import kept_features
from textlift.workflow.main_job import run_recipe
from textlift.workflow.planning import Request, resolve

FILES = {"mistakes.csv", "likely-wrong-labels.csv", "slices.csv", "became-right.csv", "became-wrong.csv"}
Run = Callable[..., Path]


def made(text: str, place: Path, *overrides: str, model: Path, resume: bool = False, **request: Any) -> Path:
    """The directory of a short run over rows written to a place."""
    (place / "rows.csv").write_text(text, encoding="utf-8")
    asked = Request(
        str(place / "rows.csv"),
        model=str(model),
        methods=["lora"],
        overrides=["training.epochs=1", *overrides],
        **request,
    )
    return run_recipe(resolve(asked), output=place / "run", progress=Progress(silent=True), resume=resume).directory


@pytest.fixture
def run(base_folder: BaseFolder, tmp_path: Path) -> Run:
    return lambda text, *overrides, **request: made(text, tmp_path, *overrides, model=base_folder("bert"), **request)


def wrong_labels(n: int = 90) -> str:
    """Rows of which every fourth has a wrong label."""
    lines, names = rows(n).splitlines(), list(SUBJECTS)
    for number in range(3, n, 4):
        text, label = lines[number].rsplit(",", 1)
        lines[number] = f"{text},{names[(names.index(label) + 1) % 3]}"
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def mistaken_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mistaken")


@pytest.fixture(scope="module")
def mistaken(base_folder: BaseFolder, mistaken_data: Path) -> Path:
    """A run with mistakes to list."""
    return made(wrong_labels(360), mistaken_data, model=base_folder("bert"))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def book_of(run_folder: Path) -> dict[str, Any]:
    book: dict[str, Any] = json.loads((run_folder / "results.json").read_text())["error_book"]
    return book


def test_its_files_stand_in_the_run_and_their_rows_add_up(finished: Path) -> None:
    book, folder = book_of(finished), finished / "error-book"
    assert {path.name for path in folder.iterdir()} == FILES
    mistakes = table(folder / "mistakes.csv")
    assert sum(row["split"] == "test" for row in mistakes) == book["mistakes"]["test"]
    assert sum(row["split"] == "validation" for row in mistakes) == book["mistakes"]["validation"]
    assert all(row["label"] != row["prediction"] for row in mistakes)
    assert len(table(folder / "slices.csv")) == book["slices"]["tried"]
    assert len(table(folder / "became-right.csv")) == book["changes"][0]["became_right"]
    assert all(row["new_label"] == "" for row in table(folder / "likely-wrong-labels.csv"))


def test_what_became_right_and_wrong_is_the_difference_of_the_scores(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    book, variants = results["error_book"], results["variants"]
    for change in book["changes"]:
        gap = variants[book["variant"]]["test"]["accuracy"] - variants[change["against"]]["test"]["accuracy"]
        assert change["became_right"] - change["became_wrong"] == round(gap * book["rows"]["test"])


def test_the_features_kept_are_unit_rows_of_train_and_test(finished: Path) -> None:
    kept = kept_features(RunDirectory(finished))
    assert kept is not None
    counted = json.loads((finished / "results.json").read_text())["task"]["rows"]
    assert {split: len(kept.rows[split]) for split in kept.rows} == {split: counted[split] for split in kept.rows}
    assert np.linalg.norm(kept.unit["train"].astype(float), axis=1) == pytest.approx(1, abs=1e-2)
    assert kept.of_test(counted["test"]) is None
    assert unit_rows(kept.unit["test"])[3] == pytest.approx(kept.of_test(3), abs=1e-3)


def test_a_listed_mistake_has_its_words_and_its_nearest_rows(mistaken: Path) -> None:
    book = book_of(mistaken)
    assert book["mistakes"]["test"] > 0
    for row in book["confident"]:
        assert "".join(part for part, _ in row["words"]["parts"]) == row["text"]
        assert len(row["nearest"]) == 3
        assert row["nearest"][0]["similarity"] >= row["nearest"][2]["similarity"]
    assert book["nearest_by"] == "cosine of the features that the base model has before tuning"


def test_a_slice_of_one_class_is_as_its_class(mistaken: Path) -> None:
    found = [row for row in table(mistaken / "error-book" / "slices.csv") if row["slice"].startswith("labelled ")]
    assert len(found) == 3
    assert all(row["class_accuracy"] == row["accuracy"] for row in found)


def test_a_run_that_was_killed_before_its_end_gives_the_same_error_book(
    mistaken: Path, mistaken_data: Path, base_folder: BaseFolder
) -> None:
    before = {name: (mistaken / "error-book" / name).read_bytes() for name in FILES}
    book = book_of(mistaken)
    (mistaken / "results.json").unlink()
    shutil.rmtree(mistaken / "error-book")
    again = made(wrong_labels(360), mistaken_data, model=base_folder("bert"), resume=True)
    assert book_of(again) == book
    assert {name: (again / "error-book" / name).read_bytes() for name in FILES} == before


def test_without_a_frozen_pass_there_are_no_near_rows_and_no_changes(run: Run) -> None:
    directory = run(wrong_labels(), "baselines=[majority]", "training.head_start=fresh")
    book = book_of(directory)
    assert (book["nearest_by"], book["changes"]) == ("", [])
    assert all(row["nearest"] == [] and row["words"]["parts"] for row in book["confident"])
    assert "The run measured no baseline of the same base model." in (directory / "report.html").read_text()


def test_without_the_probe_the_changes_are_those_against_the_untrained_model(run: Run) -> None:
    book = book_of(run(wrong_labels(), "baselines=[untrained]"))
    assert [change["against"] for change in book["changes"]] == ["untrained"]


def test_two_rows_of_test_make_an_error_book(run: Run, tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,label\nwave boat,sea\nbird,soil\n")
    book = book_of(run(rows(60), test=str(tmp_path / "test.csv")))
    assert book["rows"]["test"] == 2
    assert (book["slices"]["tried"], book["slices"]["shown"]) == (0, [])


def test_many_classes_most_of_which_are_never_predicted_make_an_error_book(run: Run) -> None:
    text = "text,label\n" + "".join(f"wave number {n} of {n % 120},class {n % 120}\n" for n in range(720))
    book = book_of(run(text, "data.min_per_class=1"))
    assert book["mistakes"]["test"] > 0
    assert book["confident"]


# ---- explain


def explained(command: Command, *arguments: object) -> Sequence[dict[str, Any]]:
    told: Sequence[dict[str, Any]] = json.loads(command("explain", *arguments, "--json").out)
    return told


def test_explain_tells_the_words_and_the_nearest_training_rows(finished: Path, command: Command) -> None:
    (told,) = explained(command, finished, "we saw the wave and boat")
    assert told["prediction"] in SUBJECTS
    assert [part for part, _ in told["words"]["parts"]] == ["we ", "saw ", "the ", "wave ", "and ", "boat"]
    assert len(told["nearest"]) == 3
    assert told["note"] == "near by cosine of the features that the base model has before tuning"


def test_explain_prints_one_line_for_each_strong_word_and_near_row(finished: Path, command: Command) -> None:
    ended = command("explain", finished, "we saw the \x1b[31mwave", "")
    assert ended.code == 0
    assert "\x1b" not in ended.out
    assert ended.out.count("near in train") == 6


def test_explain_without_the_data_of_the_run_says_why_there_are_no_near_rows(
    finished: Path, command: Command, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(finished, moved)
    (moved / "recipe.yaml").write_text((moved / "recipe.yaml").read_text().replace("rows.csv", "gone.csv"))
    (told,) = explained(command, moved, "wave")
    assert told["nearest"] == []
    assert told["note"].startswith("no near rows: ")
    (moved / "features.safetensors").unlink()
    (told,) = explained(command, moved / "lora", "wave")
    assert "only a run that passed train through the frozen base model knows them" in told["note"]


def test_explain_in_python_takes_one_text_or_several(finished: Path) -> None:
    assert [told["text"] for told in textlift.explain(finished, "wave")] == ["wave"]


def test_explain_of_an_exported_folder_has_words_alone(finished: Path, command: Command) -> None:
    (told,) = explained(command, finished / "variants" / "lora" / "adapter", "wave")
    assert told["words"]["parts"][0][0] == "wave"
    assert told["nearest"] == []


# ---- the way back


def test_a_label_that_is_filled_in_goes_into_the_cleaned_copy(
    mistaken: Path, mistaken_data: Path, command: Command, tmp_path: Path
) -> None:
    row = table(mistaken / "error-book" / "mistakes.csv")[0]
    listing = tmp_path / "relabel.csv"
    with listing.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*row, "new_label"])
        writer.writeheader()
        writer.writerow({**row, "new_label": row["prediction"]})
    ended = command("check", mistaken_data / "rows.csv", "--fix", tmp_path / "clean", "--relabel", listing, "--json")
    fixed = json.loads(ended.out)["fixed"]
    assert fixed["changes"] == {"relabelled: new_label of relabel.csv": 1}
    (change,) = table(tmp_path / "clean" / "log" / "changes.csv")
    assert (change["row"], change["label"], change["label_after"]) == (row["row"], row["label"], row["prediction"])
    written = (tmp_path / "clean" / "train.csv").read_text().splitlines()[int(row["row"])]
    assert written == f'"{row["text"]}","{row["prediction"]}"'


def test_a_listing_that_does_not_fit_leaves_nothing_behind(command: Command, data_file: Path, tmp_path: Path) -> None:
    listing = tmp_path / "relabel.csv"
    listing.write_text("source,row,label,new_label,text\nrows.csv,1,sea,lake,x\n")
    ended = command("check", data_file, "--fix", tmp_path / "clean", "--relabel", listing)
    assert ended.code == 65
    assert not (tmp_path / "clean").exists()


def test_relabel_without_fix_is_refused(command: Command, data_file: Path, tmp_path: Path) -> None:
    ended = command("check", data_file, "--relabel", tmp_path / "x.csv")
    assert (ended.code, "pass --fix DIR too" in ended.err) == (2, True)
