"""JSON lines, and JSON files that hold one array of objects.

Numbers keep the spelling they have in the file; true, false and null are the words of JSON, null being an empty cell.
"""

import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from textlift.data.encodings import encoding_problem, known_encoding
from textlift.data.problems import Problem, quoted
from textlift.data.table import Advance, RowProblems, Table, Want

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_KINDS: dict[type, str] = {dict: "struct", list: "list"}
_PROBE = 1000  # rows whose keys make the list of columns


class _Constant:
    """NaN or Infinity, which JSON does not have but Python's reader lets through."""

    def __init__(self, name: str) -> None:
        self.name = name


class _RepeatedKeyError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=str, parse_float=str, parse_constant=_Constant)


def read_json(path: Path, *, name: str, want: Want, encoding: str = "utf-8", advance: Advance) -> Table:
    """The wanted columns of a JSON or JSON lines file, with all that is wrong with it."""
    codec = known_encoding(encoding)
    table = Table()
    problems = RowProblems(name, table.problems)
    with path.open("rb") as file:
        text = io.TextIOWrapper(file, encoding=codec, newline="\n")
        try:
            rows = _array(text, problems) if _is_array(path) else _objects(text, problems, advance)
            _read_rows(rows, table, want=want, problems=problems)
        except UnicodeError:
            table.problems.append(encoding_problem(path, name=name, encoding=codec, records=_from_one))
    if not table.row_numbers and not table.problems:
        table.problems.append(Problem(name, "must hold labelled rows; found no rows.", "Add rows."))
    return table


def _is_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\0")[:1] == b"["


def _from_one(text: TextIO) -> Iterator[str]:
    return itertools.chain([""], (line for line in text if not line.isspace()))  # no header: the first row is 1


def _without_mark(text: TextIO) -> Iterator[str]:
    """The lines; the codecs of UTF-16 and UTF-32 with a byte order in their name keep the mark before the first."""
    for first in text:
        yield first.removeprefix("\ufeff")
        break
    yield from text


def _objects(text: TextIO, problems: RowProblems, advance: Advance) -> Iterator[tuple[int, dict[str, Any]]]:
    row = 0
    for number, line in enumerate(_without_mark(text), start=1):
        if not number % 4096:
            advance(text.buffer.tell())
        stripped = line.strip(" \t\r\n")
        if not stripped:
            continue
        row += 1
        value = _decoded(stripped, row, place=f"line {number}, ", problems=problems)
        if isinstance(value, dict):
            yield row, value
        elif value is not _BROKEN:
            _not_an_object(value, row, problems)


def _array(text: TextIO, problems: RowProblems) -> Iterator[tuple[int, dict[str, Any]]]:
    values = _decoded(text.read().removeprefix("\ufeff").strip(" \t\r\n"), 0, place="", problems=problems)
    for row, value in enumerate(values if isinstance(values, list) else [], start=1):
        if isinstance(value, dict):
            yield row, value
        else:
            _not_an_object(value, row, problems)


_BROKEN = object()


def _decoded(text: str, row: int, *, place: str, problems: RowProblems) -> object:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = place or f"line {error.lineno}, "
        found = f"{place}column {error.colno} is not JSON: {error.msg[:1].lower()}{error.msg[1:]}."
        other = "" if text[:1] in {"{", "["} else ", or name the file .csv if it is one"
        advice = f"Write one JSON object on each line, or one array of objects{other}."
        problems.add("json", row, found=found, advice=advice)
    except _RepeatedKeyError as error:
        found = f"{place}a key must stand once in an object; found {quoted(str(error))} twice."
        problems.add("key", row, found=found, advice="Take one out.")
    except RecursionError:
        problems.add("deep", row, found=f"{place}the JSON is nested too deeply.", advice="Write flat objects.")
    return _BROKEN


def _not_an_object(value: object, row: int, problems: RowProblems) -> None:
    kind = "a list" if isinstance(value, list) else "a plain value"
    problems.add("object", row, found=f"a row must be an object; found {kind}.", advice='Write {"text": ..., ...}.')


def _read_rows(rows: Iterator[tuple[int, dict[str, Any]]], table: Table, *, want: Want, problems: RowProblems) -> None:
    first = list(itertools.islice(rows, _PROBE))
    table.names = tuple(dict.fromkeys(key for _, row in first for key in row))
    wanted = want(table.names) if first else ()
    if wanted is None:
        nested = {key for _, row in first for key, value in row.items() if type(value) in _KINDS}
        wanted = [name for name in table.names if name not in nested]
    table.columns = {column: [] for column in wanted}
    takers = [(column.append, name) for name, column in table.columns.items()]
    for number, row in itertools.chain(first, rows):
        table.row_numbers.append(number)
        for take, name in takers:
            value = row.get(name)
            if type(value) is not str or not (value.isascii() or not _LONE_SURROGATE.search(value)):
                value = _cell(value, name, row=number, problems=problems)
            take(value)


def _cell(value: object, column: str, *, row: int, problems: RowProblems) -> str:
    shown = quoted(column)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Constant):
        found = f"{shown} is {value.name}, which is no JSON value."
        problems.add(f"constant {column}", row, found=found, advice="Write a text, a number, or null.")
    elif type(value) in _KINDS:
        found = f"{shown} is {_KINDS[type(value)]}; it must be a text or a number."
        problems.add(f"nested {column}", row, found=found, advice="Write one value in each row.")
    elif isinstance(value, str):
        found = f"{shown} holds half of a character (a lone surrogate such as \\ud83d)."
        problems.add(f"surrogate {column}", row, found=found, advice="Write the whole character.")
    elif value is None:
        return ""
    return "\ufffd"  # the row is refused; an empty cell would be told a second time
