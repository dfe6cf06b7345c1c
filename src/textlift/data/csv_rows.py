"""CSV and TSV files, read strictly: nothing is repaired, records are counted as they are written.

Source: RFC 4180, by Python's csv module in strict mode.
"""

import csv
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from textlift.data.encodings import encoding_problem, known_encoding
from textlift.data.problems import Problem, listed, quoted
from textlift.data.table import Advance, RowProblems, Table, Want
from textlift.errors import RecipeError

_DELIMITERS = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}
_SEPARATOR_LINES = {"sep=", *(f"sep={delimiter}" for delimiter in _DELIMITERS)}
_NO_DELIMITERS = '\r\n"\0'
_TYPED = {"\t": "$'\\t', or name the file .tsv"}  # a tab cannot be typed as it is


def read_csv(
    path: Path, *, name: str, want: Want, delimiter: str | None = None, encoding: str = "utf-8", advance: Advance
) -> Table:
    """The wanted columns of a CSV file, or of a TSV file by its ending, with all that is wrong with it."""
    csv.field_size_limit(2**31 - 1)  # the default refuses a text of 128 KiB; a C long has 32 bits on Windows
    delimiter = delimiter or ("\t" if path.suffix.casefold() in {".tsv", ".tab"} else ",")
    if delimiter in _NO_DELIMITERS:
        raise _no_delimiter(delimiter)
    codec = known_encoding(encoding)
    table = Table()
    place = _Place()
    with path.open("rb") as file:
        text = io.TextIOWrapper(file, encoding=codec, newline="")
        records = _records(_lines(text, place, advance), delimiter)
        try:
            header = next(filter(None, records), [])
            place.complete_lines = place.lines
            if place.has_nul:
                table.problems.append(Problem(name, "a NUL byte is in the header.", _WITHOUT_NUL))
            elif _header_is_usable(header, table, path=path, name=name, delimiter=delimiter):
                _read_rows(records, header, table, name=name, want=want, place=place)
        except UnicodeError:
            table.problems.append(
                encoding_problem(path, name=name, encoding=codec, records=lambda lines: _loose(lines, delimiter))
            )
        except csv.Error as error:
            table.problems.append(_quote_problem(path, error, name=name, codec=codec, delimiter=delimiter, place=place))
    return table


@dataclass
class _Place:
    """How far a file is read."""

    rows: int = 0  # records after the header
    lines: int = 0
    complete_lines: int = 0  # those of whole records
    has_nul: bool = False  # since the last record


_WITHOUT_NUL = "Take it out, or save the file as text."


def _records(lines: Iterator[str], delimiter: str, *, strict: bool = True) -> Iterator[list[str]]:
    try:
        return csv.reader(lines, delimiter=delimiter, strict=strict)
    except (TypeError, ValueError) as error:
        raise _no_delimiter(delimiter) from error


def _no_delimiter(delimiter: str) -> RecipeError:
    return RecipeError(f"data.delimiter must be one character that can part fields; found {delimiter!r}.")


def _lines(text: TextIO, place: _Place, advance: Advance) -> Iterator[str]:
    for number, line in enumerate(text, start=1):
        place.lines = number
        if number == 1:  # the codecs of UTF-16 and UTF-32 with a byte order in their name keep the mark
            line = line.removeprefix("\ufeff")  # noqa: PLW2901 - the mark is no part of the line
        if not number % 4096:
            advance(text.buffer.tell())
        if "\0" in line:  # Python 3.10's csv module cannot read on past one
            place.has_nul = True
            yield line.replace("\0", "\ufffd")
        else:
            yield line


def _read_rows(
    records: Iterator[list[str]], header: list[str], table: Table, *, name: str, want: Want, place: _Place
) -> None:
    table.names = tuple(header)
    wanted = want(header)
    table.columns = {column: [] for column in (header if wanted is None else wanted)}
    takers = [(cells.append, header.index(column)) for column, cells in table.columns.items()]
    numbers, width, row = table.row_numbers, len(header), 0
    problems = RowProblems(name, table.problems)
    place.has_nul = False
    for record in records:
        place.complete_lines = place.lines
        if not record:  # a blank line is no record
            continue
        row += 1
        place.rows = row
        if place.has_nul:
            place.has_nul = False
            problems.add("nul", row, found="a NUL byte is in the row.", advice=_WITHOUT_NUL)
        if len(record) != width:
            found = f"row {row} has {len(record)} field{'s' * (len(record) != 1)}, header {width}."
            problems.add("fields", row, found=found, advice="Put texts that hold the delimiter in double quotes.")
            continue
        numbers.append(row)
        for take, position in takers:
            take(record[position])
    if not row:
        table.problems.append(Problem(name, "must hold labelled rows; found a header and no rows.", "Add rows."))


def _header_is_usable(header: list[str], table: Table, *, path: Path, name: str, delimiter: str) -> bool:
    doubled = sorted({column for column in header if header.count(column) > 1})
    if not header:
        table.problems.append(Problem(name, "must hold a header and rows; found blank lines, no rows.", "Add rows."))
    elif "".join(header).casefold() in _SEPARATOR_LINES:
        found = f"the first row must name the columns; found {quoted(delimiter.join(header))}, a line for Excel."
        table.problems.append(Problem(name, found, "Take that line out."))
    elif len(header) == 1 and (other := _better_delimiter(path, delimiter)):
        found = f"fields must be parted by {_DELIMITERS.get(delimiter, repr(delimiter))}; found {_DELIMITERS[other]}."
        typed = _TYPED.get(other, f"'{other}'")
        table.problems.append(Problem(name, found, f"Pass --delimiter {typed}."))
    elif doubled:
        found = f"column names must differ; found {listed(doubled)} more than once."
        table.problems.append(Problem(name, found, "Rename one."))
    else:
        return True
    return False


def _better_delimiter(path: Path, used: str) -> str | None:
    with path.open("rb") as file:
        sample = file.read(1 << 16)
    lines = sample.decode("utf-8-sig", errors="replace").splitlines(keepends=True)
    lines = lines[:-1] if len(sample) == 1 << 16 and len(lines) > 1 else lines  # the last one is cut
    for delimiter in _DELIMITERS:
        records = itertools.islice(csv.reader(lines, delimiter=delimiter), 21)
        try:
            widths = {len(record) for record in records if record}
        except csv.Error:
            continue
        if delimiter != used and len(widths) == 1 and widths.pop() > 1:
            return delimiter
    return None


def _loose(lines: TextIO, delimiter: str) -> Iterator[str]:
    """Records as strings, header first, whatever their quotes look like."""
    for record in _records((line.replace("\0", "") for line in lines), delimiter, strict=False):
        if record:
            yield " ".join(record)


def _quote_problem(path: Path, error: csv.Error, *, name: str, codec: str, delimiter: str, place: _Place) -> Problem:
    opened = place.complete_lines + 1
    if "unexpected end of data" in str(error):
        opened += _lines_before_last_field(path, codec, delimiter, first=opened)
        found = f"the quote opened at line {opened} is never closed."
    elif "expected after" in str(error):
        found = f"text follows the closing quote of a field in the record that starts at line {opened}."
    else:
        found = f"the record that starts at line {opened} cannot be read: {quoted(str(error))}."
    rows = [place.rows + 1] if place.complete_lines else []
    return Problem(name, found, 'Close the quote, and write a quote inside a quoted field as "".', rows, len(rows))


def _lines_before_last_field(path: Path, codec: str, delimiter: str, *, first: int) -> int:
    with path.open(encoding=codec, newline="", errors="replace") as text:
        lines = itertools.islice(text, first - 1, None)
        record: list[str] = next(_records((line.replace("\0", "") for line in lines), delimiter, strict=False), [])
    return sum(field.count("\n") for field in record[:-1])
