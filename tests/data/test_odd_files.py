"""Files that are not what their name says, that change while they are read, and names that are no files."""

import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from textlift.data import files as data_files
from textlift.data import parquet_rows, read_dataset, read_texts
from textlift.errors import DataError, InputNotFoundError, RecipeError, StorageError, TextliftError
from textlift.recipe import DataSection

CSV = "text,label\n" + "".join(f"text number {i} of the file,{'ab'[i % 2]}\n" for i in range(40))
RECORDS = [{"text": f"text number {i} of the file", "label": "ab"[i % 2]} for i in range(40)]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n"
PAGE = "<!DOCTYPE html>\n<html><head><title>404, not found</title></head></html>\n"


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["a b", "c d"], "label": ["x", "y"]}), sink)
    return sink.getvalue()


def archive() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr("a.csv", CSV)
    return sink.getvalue()


def message_of(act: Callable[[], object], kind: type[TextliftError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        act()
    assert str(caught.value).count("\n") <= 2
    assert len(str(caught.value)) < 900
    return str(caught.value)


def refusal(path: Path, kind: type[TextliftError] = DataError, **options: object) -> str:
    return message_of(lambda: read_dataset(DataSection(source=str(path), **options)), kind)


MISNAMED = [
    ("a.csv", LINES, ["the file is JSON lines", "Name it .jsonl"]),
    ("a.csv", json.dumps(RECORDS), ["the file is a JSON array", "Name it .json"]),
    ("a.tsv", json.dumps(RECORDS, indent=1), ["the file is a JSON array", "Name it .json"]),
    ("a.jsonl", CSV, ["line 1, column 1 is not JSON", "name the file .csv"]),
    ("a.csv", PAGE, ["the file is a web page", "Fetch the file itself"]),
    ("a.jsonl", PAGE, ["the file is a web page"]),
    ("a.parquet", PAGE, ["must be a Parquet file; it is a web page"]),
    ("a.csv", POINTER, ["pointer of Git LFS", "git lfs pull"]),
    ("a.jsonl", POINTER, ["pointer of Git LFS"]),
    ("a.parquet", POINTER, ["must be a Parquet file; it is a pointer of Git LFS"]),
    ("a.parquet", gzip.compress(parquet()), ["must be a Parquet file; it is compressed with gzip"]),
    ("a.parquet", CSV, ["must be a Parquet file; it does not start as one"]),
    ("a.jsonl", archive(), ["a ZIP archive"]),
    ("a.json", parquet(), ["the file is a Parquet file"]),
    ("a.csv", "\0" * 5000, ["NUL bytes", "fetch or write it again"]),
    ("a.jsonl", "\0" * 5000, ["NUL bytes"]),
    ("a.parquet", "\0" * 5000, ["NUL bytes"]),
    ("a.csv", CSV.encode("utf-16-le"), ["must be UTF-8; every second byte is NUL", "--encoding utf-16-le"]),
    ("a.csv", CSV.encode("utf-16-be"), ["--encoding utf-16-be"]),
    ("a.jsonl", LINES.encode("utf-16-le"), ["--encoding utf-16-le"]),
    ("a.csv", "sep=,\n" + CSV, ["the first row must name the columns; found 'sep=,'"]),
    ("a.json", json.dumps({"data": RECORDS}, indent=1), ["or one array of objects"]),
    ("a.csv", CSV.replace("text,label", "te\0xt,label", 1), ["a NUL byte is in the header"]),
    ("a.csv", CSV.replace("text,label", "text,label\0", 1), ["a NUL byte is in the header"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "said"), MISNAMED)
def test_a_file_of_another_kind_is_told_by_what_it_is(
    tmp_path: Path, name: str, content: str | bytes, said: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal(path)
    assert [words for words in said if words not in message] == [], message


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-8"])
def test_a_byte_order_mark_is_no_part_of_the_first_cell(tmp_path: Path, name: str, encoding: str) -> None:
    content = CSV.replace("text,label", '"text","label"', 1) if name == "a.csv" else LINES
    (tmp_path / name).write_bytes(f"\ufeff{content}".encode(encoding))
    dataset = read_dataset(DataSection(source=str(tmp_path / name), encoding=encoding))
    assert dataset.text_column == "text"
    assert len(dataset.splits["train"]) == 40


def test_plain_text_read_as_utf_16_is_told_to_be_utf_8(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV + "café,a\n", encoding="utf-8")
    assert "It looks like utf-8: pass --encoding utf-8." in refusal(tmp_path / "a.csv", encoding="utf-16")


@pytest.mark.parametrize("encoding", ["idna", "punycode", "unicode_escape", "raw_unicode_escape", "utf-7", "undefined"])
def test_codecs_that_rewrite_what_is_written_are_no_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_text(CSV, encoding="utf-8")
    assert "must be a text encoding" in refusal(tmp_path / "a.csv", RecipeError, encoding=encoding)


@pytest.mark.parametrize("delimiter", ["\n", "\r", '"', "\0"])
def test_a_character_that_cannot_part_fields_is_no_delimiter(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "a.csv").write_text(CSV, encoding="utf-8")
    assert "one character that can part fields" in refusal(tmp_path / "a.csv", RecipeError, delimiter=delimiter)


def change_after(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[], object]) -> None:
    """Let something happen to the file once this function of the reader has run."""
    before = getattr(data_files, name)

    def then_changed(*arguments: object, **options: object) -> object:
        result = before(*arguments, **options)
        change()
        return result

    monkeypatch.setattr(data_files, name, then_changed)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize("moment", ["_not_as_named", "read_csv read_json read_parquet", "file_sha256"])
def test_a_file_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, moment: str
) -> None:
    path = tmp_path / name
    path.write_bytes({"a.csv": CSV.encode(), "a.jsonl": LINES.encode()}.get(name) or parquet())

    def grow() -> None:
        with path.open("ab") as file:
            file.write(b"and more")

    for one in moment.split():
        change_after(monkeypatch, one, grow)
    message = refusal(path)
    assert (
        message == f"{name}: must stay as it is while it is read; it changed. Wait until it is written, then try again."
    )


def test_a_file_that_is_replaced_by_one_of_equal_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "other"
    path.write_text(CSV, encoding="utf-8")

    def replace() -> None:
        other.write_text(CSV.upper(), encoding="utf-8")
        os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        other.replace(path)

    change_after(monkeypatch, "read_csv", replace)
    assert "it changed" in refusal(path)


@pytest.mark.parametrize("moment", ["must_be_readable", "_not_as_named", "read_csv", "file_sha256"])
def test_a_file_that_vanishes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV, encoding="utf-8")
    change_after(monkeypatch, moment, lambda: path.unlink(missing_ok=True))
    assert "it changed" in refusal(path)
    path.write_text(CSV, encoding="utf-8")
    if moment != "file_sha256":  # texts alone have no checksum
        assert "it changed" in message_of(lambda: read_texts(path))


def test_a_disk_that_fails_half_way_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv"
    path.write_text(CSV, encoding="utf-8")

    def fail(*arguments: object, **options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(data_files, "read_csv", fail)
    message = refusal(path, StorageError)
    assert message == "a.csv: must be read to its end; Input/output error. Check the disk, or copy the file."


def test_parquet_that_holds_other_rows_than_it_says_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet())
    monkeypatch.setattr(parquet_rows, "_row_count", lambda file: 3)
    assert "its footer counts 3 rows, it holds 2" in refusal(path)


@pytest.mark.parametrize(
    "name", ["a" * 300 + ".csv", "a" * 5000, "~no-such-person/a.csv", "~no-such-person", "b\0.csv"]
)
def test_a_name_that_can_be_no_file_is_no_input(tmp_path: Path, name: str) -> None:
    said = message_of(lambda: read_dataset(DataSection(source=name)), InputNotFoundError)
    assert "must be" in said
    said = message_of(lambda: read_dataset(DataSection(files={"train": name})), InputNotFoundError)
    assert "must be" in said
    said = message_of(lambda: read_texts(name), InputNotFoundError)
    assert "must be" in said


def test_a_link_that_leads_nowhere_says_where(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to("gone.csv")
    message = refusal(tmp_path / "a.csv", InputNotFoundError)
    assert "it is a link to 'gone.csv', which is not there" in message
    assert "Did you mean" not in message


def test_a_file_is_no_folder_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV, encoding="utf-8")
    assert "is a file, no folder" in refusal(tmp_path / "a.csv" / "b.csv", InputNotFoundError)
