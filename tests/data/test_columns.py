from pathlib import Path

import pytest

from textlift.data import Dataset, read_dataset
from textlift.errors import DataError
from textlift.recipe import DataSection

SENTENCES = [f"the {word} was rather {mood} on day {i}" for i, (word, mood) in enumerate([("food", "good")] * 12)]


def read(folder: Path, header: str, cells: list[list[str]], **options: object) -> Dataset:
    path = folder / "a.csv"
    path.write_text("\n".join([header, *(",".join(row) for row in zip(*cells, strict=True))]) + "\n", encoding="utf-8")
    return read_dataset(DataSection(source=str(path), **options))


LABELS = ["x", "y"] * 6
NUMBERS = [str(i) for i in range(12)]


def test_known_names_are_taken_whatever_their_case(tmp_path: Path) -> None:
    dataset = read(tmp_path, "id,Tweet,Sentiment", [NUMBERS, SENTENCES, LABELS])
    assert (dataset.text_column, dataset.label_column) == ("Tweet", "Sentiment")
    assert "The texts are in column 'Tweet', a name known for texts." in dataset.reasons
    assert "Columns left out: 'id'." in dataset.reasons


def test_the_plainest_name_wins_over_other_known_names(tmp_path: Path) -> None:
    dataset = read(tmp_path, "content,text,topic,label", [SENTENCES, SENTENCES, LABELS, LABELS])
    assert (dataset.text_column, dataset.label_column) == ("text", "label")


def test_two_known_names_are_not_guessed_between(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found 'review', 'comment'\. Choose with --text COLUMN\. .*'topic', 'intent'"):
        read(tmp_path, "review,comment,topic,intent", [SENTENCES, SENTENCES, LABELS, LABELS])


def test_a_given_column_leaves_the_other_known_name_for_the_labels(tmp_path: Path) -> None:
    dataset = read(tmp_path, "text,label,topic", [SENTENCES, LABELS, SENTENCES], text="topic")
    assert (dataset.text_column, dataset.label_column) == ("topic", "label")


def test_unknown_names_are_found_by_content(tmp_path: Path) -> None:
    dataset = read(tmp_path, "key,words,kind", [NUMBERS, SENTENCES, LABELS])
    assert (dataset.text_column, dataset.label_column) == ("words", "kind")
    assert "The labels are in column 'kind', the only one with few distinct values (2)." in dataset.reasons


def test_a_column_of_links_or_dates_is_no_text(tmp_path: Path) -> None:
    links = [f"https://example.org/a/long/path/to/page/number/{i}" for i in range(12)]
    dates = [f"2024-01-{i + 10} 10:00:00" for i in range(12)]
    assert read(tmp_path, "u,d,words,kind", [links, dates, SENTENCES, LABELS]).text_column == "words"


def test_by_far_the_longest_free_text_is_taken(tmp_path: Path) -> None:
    titles = [f"day number {number}" for number in "abcdefghijkl"]
    assert read(tmp_path, "t,b,kind", [titles, [text * 3 for text in SENTENCES], LABELS]).text_column == "b"


def test_texts_of_like_length_are_not_guessed_between(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be plain; found 'a', 'b'.*--text"):
        read(tmp_path, "a,b,kind", [SENTENCES, SENTENCES, LABELS])


def test_two_columns_of_few_values_are_not_guessed_between(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found 'coarse', 'fine'\. Choose with --label"):
        read(tmp_path, "text,coarse,fine", [SENTENCES, LABELS, LABELS])


def test_one_column_cannot_be_text_and_label(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be two columns"):
        read(tmp_path, "text,label", [SENTENCES, LABELS], text="text", label="text")


def test_names_are_taken_as_written_and_the_nearest_is_offered(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean ' kind'"):
        read(tmp_path, "text, kind", [SENTENCES, LABELS], label="kind")
