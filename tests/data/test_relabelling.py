"""Labels that a person filled in go into the copy, and nowhere else; what does not fit is refused."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from samples import dataset

from textlift.data import relabelled
from textlift.data.listing import shortened, write_table
from textlift.errors import DataError, InputNotFoundError

COLUMNS = ("split", "source", "row", "label", "new_label", "text")
DATA = replace(
    dataset(train=[("=sum", "0"), ("two\nlines", "0"), ("three " * 100, "1")], test=[("four", "1")]),
    label_names=("=no", "yes"),
)


def listing(folder: Path, *rows: Sequence[object]) -> Path:
    path = folder / "likely-wrong-labels.csv"
    write_table(path, COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in rows])
    return path


def test_a_filled_label_is_taken_and_told(tmp_path: Path) -> None:
    path = listing(
        tmp_path, ("train", "train.csv", 1, "=no", "yes", "=sum"), ("test", "test.csv", 1, "yes", "", "four")
    )
    after, (change,) = relabelled(DATA, path)
    assert after.splits["train"].labels == ["1", "0", "1"]
    assert after.splits["test"] == DATA.splits["test"]
    assert (change.action, change.row, change.label, change.label_after) == ("relabelled", 1, "0", "1")


def test_the_rows_given_keep_their_labels(tmp_path: Path) -> None:
    relabelled(DATA, listing(tmp_path, ("train", "train.csv", 1, "=no", "yes", "=sum")))
    assert DATA.splits["train"].labels == ["0", "0", "1"]


@pytest.mark.parametrize("new", ["'=no", "=no", "0", " =no "], ids=["escaped", "as named", "as written", "spaces"])
def test_a_label_may_be_written_as_the_listing_or_the_data_have_it(tmp_path: Path, new: str) -> None:
    path = listing(tmp_path, ("test", "test.csv", 1, "yes", "", "four"))
    path.write_text(path.read_text().replace('"yes",""', f'"yes","{new}"'))
    assert relabelled(DATA, path)[0].splits["test"].labels == ["0"]


def test_the_split_of_a_run_may_be_another_than_that_of_the_file(tmp_path: Path) -> None:
    path = listing(tmp_path, ("validation", "train.csv", 3, "yes", "=no", shortened("three " * 100)))
    assert relabelled(DATA, path)[0].splits["train"].labels == ["0", "0", "0"]


def test_a_listing_that_a_spreadsheet_saved_anew_is_read(tmp_path: Path) -> None:
    path = tmp_path / "saved.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=";", lineterminator="\r\n")
        writer.writerows([COLUMNS, ("train", "train.csv", 2, "'=no", "yes", "two\r\nlines")])
    assert relabelled(DATA, path)[0].splits["train"].labels == ["0", "1", "1"]


def test_a_label_that_is_the_same_changes_nothing(tmp_path: Path) -> None:
    assert relabelled(DATA, listing(tmp_path, ("test", "test.csv", 1, "yes", "yes", "four")))[1] == []


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("test", "test.csv", 1, "yes", "yess", "four"), r"csv:2: new_label must be one of .* Did you mean 'yes'\?"),
        (("test", "test.csv", 9, "yes", "=no", "four"), "csv:2: source and row must lead to a row of the data"),
        (("test", "other.csv", 1, "yes", "=no", "four"), "'other.csv' row '1' is not there"),
        (
            ("test", "test.csv", 1, "yes", "=no", "five"),
            "the text must be that of 'test.csv' row 1; it is another: 'five'",
        ),
        (("test", "test.csv", 1, "=no", "yes", "four"), "the label must be that of 'test.csv' row 1, 'yes'; found"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(tmp_path: Path, row: Sequence[object], told: str) -> None:
    with pytest.raises(DataError, match=told) as error:
        relabelled(DATA, listing(tmp_path, row))
    assert len(str(error.value).splitlines()) <= 3


def test_a_row_that_stands_twice_is_refused(tmp_path: Path) -> None:
    row = ("test", "test.csv", 1, "yes", "=no", "four")
    with pytest.raises(DataError, match="csv:3: each row must be relabelled once; line 2"):
        relabelled(DATA, listing(tmp_path, row, row))


def test_a_listing_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,label\na,b\n")
    with pytest.raises(DataError, match=r"x.csv: must have the columns .*'new_label'"):
        relabelled(DATA, path)


def test_a_listing_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError, match="it is not there"):
        relabelled(DATA, tmp_path / "none.csv")


def test_no_row_is_relabelled_by_a_listing_that_nobody_filled(tmp_path: Path) -> None:
    after, changes = relabelled(DATA, listing(tmp_path, ("gone", "gone.csv", 1, "x", "", "x")))
    assert (after, changes) == (DATA, [])
