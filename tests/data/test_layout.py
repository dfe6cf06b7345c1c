from pathlib import Path

import pytest

from textlift.data.card import read_card
from textlift.data.layout import layout_of, layout_of_config, matches, split_of
from textlift.data.sources import find_source
from textlift.errors import DataError, InputNotFoundError
from textlift.recipe import DataSection

CARD = """---
license: mit
dataset_info:
- config_name: split
  features:
  - {name: text, dtype: string}
  - name: label
    dtype:
      class_label:
        names: {'0': sad, '1': glad}
configs:
- config_name: split
  default: true
  data_files:
  - {split: train, path: split/train-*}
  - {split: test, path: [split/test-*]}
  - {split: unsupervised, path: split/more-*}
- config_name: unsplit
  data_files:
  - {split: train, path: unsplit/train-*}
---
# Words
"""


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("training set.csv", "train"),
        ("testing set.csv", "test"),
        ("sent_valid.csv", "validation"),
        ("my-dev.tsv", "validation"),
        ("trn.jsonl", "train"),
        ("Val.CSV", "validation"),
        ("eval_2.json", "validation"),
        ("train-00000-of-00002-de5fab.parquet", "train"),
        ("test/0000.parquet", "test"),
        ("latest.csv", None),
        ("trained.csv", None),
        ("train_test.csv", None),
        ("reviews.csv", None),
    ],
)
def test_a_split_is_told_by_a_whole_word_of_the_file_name(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_files_beside_the_splits_are_left_out_and_told() -> None:
    layout = layout_of(["train.csv", "test.csv", "notes.csv", "README.md"], place="here")
    assert layout.files == {"train": ["train.csv"], "test": ["test.csv"]}
    assert layout.reasons[-1] == "Files whose names say no split were left out: 'notes.csv'."


def test_a_single_file_is_train() -> None:
    assert layout_of(["reviews.csv"], place="here").files == {"train": ["reviews.csv"]}


def test_files_that_say_no_split_are_named() -> None:
    with pytest.raises(DataError, match=r"here: file names must say their split.*found 'a.csv', 'b.csv'"):
        layout_of(["a.csv", "b.csv"], place="here")


def test_two_files_for_one_split_are_named() -> None:
    with pytest.raises(DataError, match=r"one file must be train; found 'train.csv', 'train.parquet'"):
        layout_of(["train.csv", "train.parquet"], place="here")


def test_a_missing_shard_is_told() -> None:
    with pytest.raises(DataError, match="train must have 3 parts; found 2"):
        layout_of(["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"], place="here")


def test_the_folder_data_is_looked_into() -> None:
    assert layout_of(["data/train.csv", "data/test.csv", "README.md"], place="here").files["test"] == ["data/test.csv"]


@pytest.mark.parametrize(
    ("path", "pattern", "fits"),
    [
        ("data/train-1.csv", "data/train-*", True),
        ("data/deep/train-1.csv", "data/*", False),
        ("data/deep/train-1.csv", "**/train-*", True),
        ("train-1.csv", "**/train-*", True),
        ("a+b (1).csv", "a+b (1).csv", True),
        ("file1.csv", "file[0-3].csv", True),
        ("fileA.csv", "file?.csv", True),
    ],
)
def test_patterns_of_a_card_are_those_of_file_names(path: str, pattern: str, fits: bool) -> None:
    assert matches(path, pattern) is fits


def test_a_card_tells_splits_by_patterns_and_leaves_others_out() -> None:
    card = read_card(CARD)
    files = ["split/train-0-of-1.csv", "split/test-0-of-1.csv", "split/more-0-of-1.csv", "unsplit/train-0.csv"]
    layout = layout_of_config(card.config(None, place="x") or {}, files, place="x")
    assert layout.files == {"train": ["split/train-0-of-1.csv"], "test": ["split/test-0-of-1.csv"]}
    assert layout.reasons[-1] == "Splits left out: 'unsupervised'."


def test_a_configuration_is_chosen_by_name() -> None:
    chosen = read_card(CARD).config("unsplit", place="x") or {}
    assert layout_of_config(chosen, ["unsplit/train-0.csv"], place="x").files == {"train": ["unsplit/train-0.csv"]}


def test_an_unknown_configuration_is_told_with_the_known_ones() -> None:
    with pytest.raises(InputNotFoundError, match=r"configuration 'unsplitt'; it has 'split', 'unsplit'. Did you mean"):
        read_card(CARD).config("unsplitt", place="x")


def test_class_names_are_those_of_the_configuration() -> None:
    card = read_card(CARD)
    assert card.class_names("split") == {"label": ("sad", "glad")}


def test_patterns_without_splits_leave_the_word_to_file_names() -> None:
    assert layout_of_config({"data_files": "d/*.csv"}, ["d/test.csv", "d/train.csv", "x.csv"], place="x").files == {
        "train": ["d/train.csv"],
        "test": ["d/test.csv"],
    }


def test_files_that_a_card_names_in_vain_are_told() -> None:
    with pytest.raises(DataError, match=r"its card names 'gone.csv' for train"):
        layout_of_config({"data_files": [{"split": "train", "path": "gone.csv"}]}, ["x.csv"], place="x")


@pytest.mark.parametrize("text", ["", "# no header", "---\nnever closed", "---\n: [\n---\n", "---\n- list\n---\n"])
def test_a_readme_without_a_header_is_no_card(text: str) -> None:
    assert read_card(text).configs == []


def test_a_local_folder_wins_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "train.csv").write_text("text,label\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert find_source(DataSection(source="owner/name")).files["train"][0].name == "train.csv"


def test_a_card_in_a_local_folder_tells_its_splits(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD.replace("split/", ""), encoding="utf-8")
    for name in ("train-0.csv", "test-0.csv", "other.csv"):
        (tmp_path / name).write_text("text,label\n", encoding="utf-8")
    source = find_source(DataSection(source=str(tmp_path)))
    assert {split: [file.name for file in files] for split, files in source.files.items()} == {
        "train": ["train-0.csv"],
        "test": ["test-0.csv"],
    }
    assert source.class_names == {"label": ("sad", "glad")}


@pytest.mark.parametrize("source", ["gone.csv", "a/b/c", "./gone", "~/gone", "gone.gz", "C:\\gone"])
def test_what_must_be_a_file_is_not_looked_for_on_the_hub(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputNotFoundError, match="must be a data file"):
        find_source(DataSection(source=source))
