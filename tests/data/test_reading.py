import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textlift.data import Dataset, read_dataset
from textlift.errors import DataError, RecipeError
from textlift.recipe import DataSection

# Everything that UTF-8 and CSV can hold: no lone surrogates, no NUL.
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="")
    return path


def read(source: Path, **options: object) -> Dataset:
    return read_dataset(DataSection(source=str(source), **options))


def quoted_csv(rows: list[tuple[str, str]]) -> str:
    return "".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) + "\r\n" for row in rows)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8))
def test_csv_cells_come_back_as_written(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = write(tmp_path_factory.mktemp("csv") / "a.csv", quoted_csv([("text", "label"), *rows]))
    train = read(path).splits["train"]
    assert list(zip(train.texts, train.labels, strict=True)) == rows
    assert train.row_numbers == list(range(1, len(rows) + 1))


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), escape=st.booleans())
def test_json_cells_come_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], escape: bool
) -> None:
    lines = (json.dumps({"text": text, "label": label}, ensure_ascii=escape) + "\n" for text, label in rows)
    train = read(write(tmp_path_factory.mktemp("json") / "a.jsonl", "".join(lines))).splits["train"]
    assert list(zip(train.texts, train.labels, strict=True)) == rows


def test_json_numbers_and_truth_values_keep_their_spelling(tmp_path: Path) -> None:
    lines = "".join(f'{{"text": "a", "label": {value}}}\n' for value in ("1", "1.50", "true", '"x"', "-0"))
    assert read(write(tmp_path / "a.jsonl", lines)).splits["train"].labels == ["1", "1.50", "true", "x", "-0"]


def test_parquet_numbers_and_truth_values_get_their_json_spelling(tmp_path: Path) -> None:
    for values, spelled in (([1, 2], ["1", "2"]), ([1.5, 2.0], ["1.5", "2.0"]), ([True, False], ["true", "false"])):
        pq.write_table(pa.table({"text": ["a", "b"], "label": values}), tmp_path / "a.parquet")
        assert read(tmp_path / "a.parquet").splits["train"].labels == spelled


def test_class_label_names_of_a_parquet_file_are_used_and_told(tmp_path: Path) -> None:
    note = {"info": {"features": {"label": {"names": ["sad", "glad"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["a", "b"], "label": [1, 0]}).replace_schema_metadata({"huggingface": json.dumps(note)})
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = read(tmp_path / "a.parquet")
    assert (dataset.label_values, dataset.label_names) == (("0", "1"), ("sad", "glad"))
    assert any("'sad', 'glad'" in reason for reason in dataset.reasons)
    assert dataset.label_ids("train").tolist() == [1, 0]


def test_number_labels_are_ordered_as_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,10\nb,9\nc,-1\nd,x\ne,01\n")
    assert read(path).label_values == ("-1", "01", "9", "10", "x")


def test_given_label_names_settle_names_and_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,0\nb,1\n")
    dataset = read(path, label_names={"1": "glad", "0": "sad", "2": "unused"})
    assert (dataset.label_values, dataset.label_names) == (("1", "0"), ("glad", "sad"))


def test_a_label_without_a_given_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,0\nb,1\n")
    with pytest.raises(DataError, match="found '1' without a name"):
        read(path, label_names={"0": "sad"})


def test_one_name_for_two_labels_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,0\nb,1\n")
    with pytest.raises(RecipeError, match="'same' twice"):
        read(path, label_names={"0": "same", "1": "same"})


def test_a_test_split_with_withheld_labels_is_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\na,0\nb,1\n")
    write(tmp_path / "validation.csv", "text,label\nc,0\nd,1\n")
    write(tmp_path / "test.csv", "text,label\ne,-1\nf,-1\n")
    dataset = read(tmp_path)
    assert list(dataset.splits) == ["train", "validation"]
    assert "The test rows were left out: they carry no labels (all are -1)." in dataset.reasons


def test_a_split_column_tells_the_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,split\na,0,train\nb,1,Test\nc,1,dev\nd,1,training\n")
    dataset = read(path)
    assert {split: rows.row_numbers for split, rows in dataset.splits.items()} == {
        "train": [1, 4], "validation": [3], "test": [2],
    }  # fmt: skip


def test_a_column_named_split_with_other_words_is_left_out_and_told(tmp_path: Path) -> None:
    dataset = read(write(tmp_path / "a.csv", "text,label,split\na,0,train\nb,1,banana\n"))
    assert list(dataset.splits) == ["train"]
    assert any("'split' was left out" in reason for reason in dataset.reasons)


def test_a_split_column_that_is_asked_for_must_hold_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label,part\na,0,train\nb,1,banana\n")
    with pytest.raises(DataError, match=r"a.csv:2: 'part' must say train, validation or test; found 'banana'"):
        read(path, split_column="part")


def test_files_are_given_by_split(tmp_path: Path) -> None:
    train = write(tmp_path / "mine.csv", "text,label\na,0\nb,1\n")
    test = write(tmp_path / "theirs.jsonl", '{"text": "c", "label": 1}\n')
    dataset = read_dataset(DataSection(files={"test": str(test), "train": str(train)}))
    assert {split: rows.texts for split, rows in dataset.splits.items()} == {"train": ["a", "b"], "test": ["c"]}


def test_a_file_for_test_stands_beside_a_source_file(tmp_path: Path) -> None:
    train = write(tmp_path / "mine.csv", "text,label\na,0\nb,1\n")
    test = write(tmp_path / "theirs.csv", "text,label\nc,0\n")
    dataset = read(train, files={"test": str(test)})
    assert list(dataset.splits) == ["train", "test"]
    assert dataset.name == "mine"


def test_two_sources_of_train_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.csv", "text,label\na,0\nb,1\n")
    with pytest.raises(RecipeError, match="must not stand beside"):
        read(path, files={"train": str(path)})


def test_no_source_is_a_fault_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match="both are empty"):
        read_dataset(DataSection())


def test_shards_are_joined_in_order(tmp_path: Path) -> None:
    for number in (1, 0):
        write(tmp_path / "data" / f"train-0000{number}-of-00002.csv", f"text,label\nfrom {number},{number}\n")
    train = read(tmp_path).splits["train"]
    assert train.texts == ["from 0", "from 1"]
    assert train.sources == ["data/train-00000-of-00002.csv", "data/train-00001-of-00002.csv"]


def test_a_later_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", "text,label\na,0\nb,1\n")
    write(tmp_path / "test.csv", "text,class\na,0\nb,1\n")
    with pytest.raises(
        DataError, match=r"test.csv: the header must have 'label', as the first file; found 'text', 'class'"
    ):
        read(tmp_path)


def test_fingerprints_tell_checksum_bytes_and_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\na,0\nb,1\n")
    expected = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": 19, "rows": 2}
    assert read(path).fingerprints == {"a.csv": expected}


def test_progress_ends_at_the_size_of_the_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,label\n" + "some text,a\nother text,b\n" * 6000)
    told: list[tuple[int, int]] = []
    read_dataset(DataSection(source=str(path)), progress=lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert told[-1] == (size, size)
    assert len(told) > 2
    assert told == sorted(told)


def test_a_delimiter_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text;label\na, b;1\nc;0\n")
    assert read(path, delimiter=";").splits["train"].texts == ["a, b", "c"]


def test_tsv_is_parted_by_tabs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "text\tlabel\na, b\t1\nc\t0\n")
    assert read(path).splits["train"].texts == ["a, b", "c"]
