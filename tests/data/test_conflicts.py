import csv
from pathlib import Path

import pytest
from samples import dataset, plain

from textlift.data import conflict_rows, write_conflicts
from textlift.errors import CannotCreateError


def test_rows_of_one_text_with_two_labels_stand_together() -> None:
    data = dataset(train=[("same", "a"), ("other", "a"), ("SAME", "b"), *plain(4)], test=[("Other", "b")])
    assert [(row["split"], row["row"], row["label"]) for row in conflict_rows(data)] == [
        ("train", 1, "a"),
        ("train", 3, "b"),
        ("train", 2, "a"),
        ("test", 1, "b"),
    ]


def test_empty_texts_are_no_conflict() -> None:
    assert conflict_rows(dataset(train=[("", "a"), (" ", "b"), *plain(4)])) == []


def test_cells_that_a_spreadsheet_would_run_start_with_a_quote(tmp_path: Path) -> None:
    texts = ["=cmd()", "+1", "-1", "@x", "\tx", "\rx", "plain"]
    data = dataset(train=[(text, label) for text in texts for label in "ab"])
    assert write_conflicts(tmp_path / "conflicts.csv", data) == 14
    with (tmp_path / "conflicts.csv").open(encoding="utf-8", newline="") as file:
        written = [row["text"] for row in csv.DictReader(file)][::2]
    assert written == [f"'{text}" for text in texts[:-1]] + ["plain"]


def test_no_file_is_written_where_nothing_conflicts(tmp_path: Path) -> None:
    assert write_conflicts(tmp_path / "conflicts.csv", dataset(train=plain(4))) == 0
    assert not (tmp_path / "conflicts.csv").exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    data = dataset(train=[("same", "a"), ("same", "b")])
    with pytest.raises(CannotCreateError, match="must be writable"):
        write_conflicts(tmp_path / "gone" / "conflicts.csv", data)
