import csv
from pathlib import Path

import pytest
from doctor_samples import LONG, TEST, TRAIN, sound_data
from samples import dataset, plain

from textlift.data import cleaned, find_problems, read_dataset, write_cleaned, write_listings
from textlift.data.cleaning import Change
from textlift.data.debris import KINDS
from textlift.errors import DataError
from textlift.recipe import DataSection

REPAIRS = {kind.code: kind for kind in KINDS if kind.repair is not None}


def reasons(changes: list[Change]) -> list[tuple[str, str, int]]:
    return [(change.reason, change.split, change.row) for change in changes if change.action == "left out"]


def test_training_rows_give_way_to_the_rows_that_are_scored() -> None:
    data = dataset(train=[*plain(20), ("T", "a")], validation=[("t", "a"), ("v", "a")], test=[("t", "b"), ("v", "b")])
    after, changes = cleaned(data)
    assert reasons(changes) == [
        ("text is also in a later split", "train", 21),
        ("text is also in a later split", "validation", 1),
        ("text is also in a later split", "validation", 2),
    ]
    assert after.splits["test"].texts == ["t", "v"]
    assert "validation" not in after.splits


def test_a_copy_without_training_rows_is_refused() -> None:
    with pytest.raises(DataError, match="none are"):
        cleaned(dataset(train=[("x", "a"), ("y", "b")], test=[("x", "a"), ("y", "b")]))


def test_all_training_rows_of_a_text_with_two_labels_are_left_out() -> None:
    _, changes = cleaned(dataset(train=[("x", "a"), ("X", "b"), ("x", "a"), *plain(20)]))
    assert reasons(changes) == [("text has two labels", "train", row) for row in (1, 2, 3)]


def test_of_repeats_in_train_the_first_stays_and_test_is_left_alone() -> None:
    after, changes = cleaned(dataset(train=[("x", "a"), ("x ", "a"), *plain(20)], test=[("y", "a"), ("y", "a")]))
    assert reasons(changes) == [("text repeats an earlier one", "train", 2)]
    assert len(after.splits["test"]) == 2


def test_all_training_rows_that_are_nearly_a_test_row_are_left_out() -> None:
    data = sound_data(train=[*TRAIN, *[(f"{LONG} {end}", "a") for end in "xyz"]], test=[*TEST, (f"{LONG} q", "a")])
    after, changes = cleaned(data)
    assert {row for _, split, row in reasons(changes) if split == "train"} == {401, 402, 403}
    assert [f.code for f in find_problems(after, DataSection(source="x")) if f.code.startswith("near")] == []


@pytest.mark.parametrize(
    ("text", "code", "after"),
    [
        ("good<br /><br />bad", "html_tags", "good bad"),
        ("Q&amp;A &#39;x&#39; &lt;b", "html_entities", "Q&A 'x' <b"),
        ("don\u00e2\u20ac\u2122t", "misread_utf8", "don\u2019t"),
        ("don\u00e2\x80\x99t", "misread_utf8", "don\u2019t"),
        ("\u00f0\x9f\x98\xad", "misread_utf8", "\U0001f62d"),
        ("well \x97 so", "control_characters", "well \u2014 so"),
        ("a\x00b", "control_characters", "a b"),
    ],
)
def test_debris_is_repaired(text: str, code: str, after: str) -> None:
    assert REPAIRS[code].is_in(text)
    assert REPAIRS[code].repair(text).split() == after.split()


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "R&D; AT&T",
        "fish &chips;",
        "na\u00efve caf\u00e9 \u00c2ge",
        "5 <3 me",
        "\u00c9t\u00e9",
        "I <3 U >",
    ],
)
def test_sound_texts_are_not_taken_for_debris(text: str) -> None:
    assert [kind.code for kind in KINDS if kind.is_in(text)] == []


def test_a_repair_is_logged_with_the_text_before_and_after() -> None:
    _, changes = cleaned(dataset(train=plain(20), test=[("a &amp; b", "a"), ("x", "b")]))
    (change,) = changes
    assert (change.action, change.split, change.row) == ("repaired", "test", 1)
    assert (change.text, change.text_after) == ("a &amp; b", "a & b")


def test_the_rows_given_stay_as_they_are() -> None:
    data = dataset(train=[("a &amp; b", "a"), ("x", "a"), ("x", "b"), *plain(20)])
    before = list(data.splits["train"].texts)
    cleaned(data)
    assert data.splits["train"].texts == before


def test_the_copy_reads_back_as_written(tmp_path: Path) -> None:
    odd = ['a "quote"', "line\nbreak", "lone\rreturn", "comma, here", "  spaces ", "=1+1", "NA"]
    data = dataset(train=[*[(text, "a") for text in odd], *plain(20)], test=plain(6, word="t"))
    (tmp_path / "log").mkdir()
    write_cleaned(tmp_path, data, [])
    again = read_dataset(DataSection(source=str(tmp_path)))
    assert {split: rows.texts for split, rows in again.splits.items()} == {
        split: rows.texts for split, rows in data.splits.items()
    }


def test_the_rows_of_a_finding_stand_in_its_file_with_those_they_are_like(tmp_path: Path) -> None:
    data = dataset(train=plain(20), test=[("row 0 of 20", "b"), ("=cmd()", "a"), *plain(8, word="t")])
    (leak,) = [f for f in write_listings(tmp_path, find_problems(data, DataSection(source="x"))) if f.file]
    assert leak.file == "findings/leak_train_test.csv"
    with (tmp_path / leak.file).open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["source"], row["row"], row["label"]) == ("test.csv", "1", "b")
    assert (row["like_source"], row["like_row"], row["like_label"]) == ("train.csv", "1", "a")
