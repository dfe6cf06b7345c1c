import io
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textlift.data import read_texts
from textlift.errors import DataError, InputNotFoundError


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'id,text\n1,one\n2,"two\nlines"\n'),
        ("a.tsv", 'text\tid\none\t1\n"two\nlines"\t2\n'),
        ("a.csv", 'anything\none\n"two\nlines"\n'),
        ("a.jsonl", '{"text": "one"}\n{"text": "two\\nlines", "id": 1}\n'),
    ],
)
def test_texts_are_read_from_a_column(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_texts(tmp_path / name) == ["one", "two\nlines"]


def test_texts_are_read_from_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"words": ["one", None], "text": ["x", "y"]}), tmp_path / "a.parquet")
    assert read_texts(tmp_path / "a.parquet", text_column="words") == ["one", ""]


def test_a_text_file_holds_a_text_a_line_and_empty_lines_count(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\n\ntwo\u2028x".encode())
    assert read_texts(tmp_path / "a.txt") == ["one", "", "two\u2028x"]


def test_standard_input_holds_a_text_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é\nb\n".encode())))
    assert read_texts("-") == ["é", "b"]


def test_standard_input_in_another_encoding_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xe9\n")))
    with pytest.raises(DataError, match="standard input must be utf-8"):
        read_texts("-")


def test_a_fault_in_a_text_file_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\xe9\n")
    with pytest.raises(DataError, match=r"a.txt:3: must be UTF-8; byte 0xE9 at offset 8"):
        read_texts(tmp_path / "a.txt")


def test_a_missing_column_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,id\nx,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="column 'words' must be in the header; found 'text', 'id'"):
        read_texts(tmp_path / "a.csv", text_column="words")


def test_a_column_that_is_not_plain_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column looks like texts"):
        read_texts(tmp_path / "a.csv")


def test_a_missing_file_is_no_input(tmp_path: Path) -> None:
    for name in ("a.txt", "a.csv"):
        with pytest.raises(InputNotFoundError):
            read_texts(tmp_path / name)
