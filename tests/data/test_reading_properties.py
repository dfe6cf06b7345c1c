"""Any table that others write is read back cell for cell; any bytes are read, or refused in at most three lines."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textlift.data import Dataset, find_problems, read_dataset, read_texts
from textlift.errors import TextliftError
from textlift.recipe import DataSection

QUICK = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SURROGATES = st.characters(exclude_categories=["Cs"])
# JSON and Parquet hold every character, CSV none of NUL.
CELLS = st.text(SURROGATES, max_size=20) | st.sampled_from(
    ["NA", "null", "None", "nan", "", " ", "1", "true", "\ufeff"]
)
CSV_CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20) | st.sampled_from(
    [
        "NA",
        "null",
        'say "so"',
        "a,b",
        "a;b",
        "a\tb",
        "two\nlines",
        "two\r\nlines",
        "\r",
        '"',
        "\\",
        "'",
        "\ufeff",
        " a ",
    ]
)
Row = tuple[str, str]


def tables(cells: st.SearchStrategy[str]) -> st.SearchStrategy[list[Row]]:
    return st.lists(st.tuples(cells, cells), min_size=1, max_size=8)


def cells_of(dataset: Dataset) -> list[Row]:
    train = dataset.splits["train"]
    assert train.row_numbers == list(range(1, len(train) + 1))
    return list(zip(train.texts, train.labels, strict=True))


def read(path: Path, **options: str) -> Dataset:
    return read_dataset(DataSection(source=str(path), text="text", label="label", **options))


@QUICK
@given(
    rows=tables(CSV_CELLS),
    delimiter=st.sampled_from([",", ";", "\t", "|", "^"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    ending=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]),
)
def test_csv_is_read_as_the_standard_writer_wrote_it(
    tmp_path: Path, rows: list[Row], delimiter: str, quoting: int, ending: str, encoding: str
) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", encoding=encoding, newline="") as file:
        # A lone carriage return is left unquoted by Python before 3.13 where it is not the line end.
        has_return = any("\r" in cell for row in rows for cell in row)
        writer = csv.writer(
            file, delimiter=delimiter, quoting=csv.QUOTE_ALL if has_return else quoting, lineterminator=ending
        )
        writer.writerows([("text", "label"), *rows])
    assert cells_of(read(path, delimiter=delimiter, encoding=encoding)) == rows


@QUICK
@given(rows=tables(CSV_CELLS))
def test_tsv_is_read_as_the_standard_writer_wrote_it(tmp_path: Path, rows: list[Row]) -> None:
    path = tmp_path / "a.tsv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t", quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    assert cells_of(read(path)) == rows


@QUICK
@given(rows=tables(CELLS), escape=st.booleans(), form=st.sampled_from(["lines", "array", "indented"]))
def test_json_is_read_as_the_standard_writer_wrote_it(tmp_path: Path, rows: list[Row], escape: bool, form: str) -> None:
    records = [{"text": text, "label": label} for text, label in rows]
    indent = 1 if form == "indented" else None
    parts = records if form == "lines" else [records]
    content = "\n".join(json.dumps(part, ensure_ascii=escape, indent=indent) for part in parts)
    path = tmp_path / ("a.jsonl" if form == "lines" else "a.json")
    path.write_text(content, encoding="utf-8", newline="")
    assert cells_of(read(path)) == rows


KINDS: tuple[Callable[[list[str]], pa.Array], ...] = (
    pa.array,
    lambda cells: pa.array(cells, pa.large_string()),
    lambda cells: pa.array(cells).dictionary_encode(),
)


@QUICK
@given(
    rows=tables(CELLS),
    kind=st.sampled_from(KINDS),
    compression=st.sampled_from(["none", "snappy", "gzip", "zstd"]),
    group=st.integers(1, 9),
)
def test_parquet_is_read_as_pyarrow_wrote_it(
    tmp_path: Path, rows: list[Row], kind: Callable[[list[str]], pa.Array], compression: str, group: int
) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": kind([text for text, _ in rows]), "label": kind([label for _, label in rows])})
    pq.write_table(table, path, compression=compression, row_group_size=group)
    assert cells_of(read(path)) == rows


@QUICK
@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8))
def test_whole_numbers_keep_every_digit(tmp_path: Path, values: list[int]) -> None:
    pq.write_table(pa.table({"text": ["a"] * len(values), "label": values}), tmp_path / "a.parquet")
    lines = (json.dumps({"text": "a", "label": value}) + "\n" for value in values)
    (tmp_path / "a.jsonl").write_text("".join(lines), encoding="utf-8")
    for name in ("a.parquet", "a.jsonl"):
        assert [label for _, label in cells_of(read(tmp_path / name))] == [str(value) for value in values]


def parquet_bytes() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": ["a b", "c d"], "label": ["x", "y"]}), sink)
    return sink.getvalue()


WHOLE = {
    ".csv": b'text,label\n"two\r\nlines ""so""",x\ncaf\xc3\xa9,y\n',
    ".jsonl": b'{"text": "caf\xc3\xa9", "label": 1}\n{"text": "b", "label": null}\n',
    ".json": b'[{"text": "a", "label": true}, {"text": "b", "label": 1.5}]',
    ".parquet": parquet_bytes(),
}
PIECES = st.sampled_from(
    [b'"', b",", b"\n", b"\r", b"\0", b"{", b"[", b"]", b"text,label\n", b"\xff\xfe", b"PAR1", b"\x80"]
)


@st.composite
def spoilt(draw: st.DrawFn, ending: str) -> bytes:
    """A whole file with bytes taken out, put in or cut off, or any bytes at all."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=60) | st.lists(PIECES, max_size=12).map(b"".join))
    data = WHOLE[ending]
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 6)))
        data = data[:start] + draw(PIECES | st.binary(max_size=4)) + data[end:]
    return data[: draw(st.integers(len(data) // 2, len(data)))] if draw(st.booleans()) else data


def refusal(act: Callable[[], object]) -> str | None:
    try:
        act()
    except TextliftError as error:
        return str(error)
    return None


@pytest.mark.parametrize("ending", list(WHOLE))
@settings(QUICK, max_examples=60)
@given(data=st.data(), encoding=st.sampled_from(["utf-8", "utf-8", "utf-16", "cp1252", "utf-16-be"]))
def test_any_bytes_are_read_or_refused_in_three_lines(
    tmp_path: Path, ending: str, data: st.DataObject, encoding: str
) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(data.draw(spoilt(ending)))
    section = DataSection(source=str(path), encoding=encoding)
    told = refusal(lambda: find_problems(read_dataset(section), section))
    texts = refusal(lambda: read_texts(path, encoding=encoding))
    assert [
        message for message in (told, texts) if message is not None and not 1 <= len(message.splitlines()) <= 3
    ] == []
