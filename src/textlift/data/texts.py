"""Texts without labels, for prediction: a column of a data file, lines of a text file, or standard input."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from textlift.data.columns import by_name, text_by_content
from textlift.data.encodings import encoding_problem, known_encoding
from textlift.data.files import expanded, must_be_readable, read_table
from textlift.data.problems import located, raise_problems
from textlift.errors import DataError


def read_texts(
    source: str | Path, *, text_column: str | None = None, delimiter: str | None = None, encoding: str = "utf-8"
) -> list[str]:
    """The texts of a file, or of standard input for "-"; a text a line there and in .txt files.

    An empty line is an empty text, so that results stand in the order and number of the lines.

    Raises:
        DataError: The file cannot be read, or which column holds the texts is not plain.
        InputNotFoundError: The file is not there or may not be read.
    """
    if str(source) == "-":
        return _standard_input(encoding)
    path = expanded(source)
    if path.suffix.casefold() == ".txt":
        must_be_readable(path)
        return _lines_of(path, encoding)
    return _column(path, text_column=text_column, delimiter=delimiter, encoding=encoding)


def _column(path: Path, *, text_column: str | None, delimiter: str | None, encoding: str) -> list[str]:
    problems: list[str] = []
    chosen: list[str] = []

    def want(header: Sequence[str]) -> Sequence[str] | None:
        try:
            found = by_name("text", header, text_column)
        except DataError as error:
            problems.append(located(path.name, str(error), ""))
            return ()
        if found is None and len(header) != 1:
            return None
        chosen.append(found[0] if found else header[0])
        return chosen

    table = read_table(path, name=path.name, want=want, delimiter=delimiter, encoding=encoding, advance=lambda _: None)
    problems += map(str, table.problems)
    if not problems and not chosen:
        try:
            chosen.append(text_by_content(table.columns)[0])
        except DataError as error:
            problems.append(located(path.name, str(error), ""))
    raise_problems(problems)
    return table.columns[chosen[0]]


def _lines_of(path: Path, encoding: str) -> list[str]:
    codec = known_encoding(encoding)
    try:
        with path.open("rb") as file:
            return _lines(file, codec)
    except UnicodeError:
        problem = encoding_problem(path, name=path.name, encoding=codec, records=lambda lines: iter(["", *lines]))
    raise DataError(str(problem))


def _standard_input(encoding: str) -> list[str]:
    try:
        return _lines(sys.stdin.buffer, known_encoding(encoding))
    except UnicodeError as error:
        raise DataError(
            f"standard input must be {encoding}; found other bytes. Pass --encoding, or convert it."
        ) from error


def _lines(file: BinaryIO, codec: str) -> list[str]:
    text = io.TextIOWrapper(file, encoding=codec, newline="\n")
    try:
        return [line.rstrip("\r\n") for line in text]
    finally:
        text.detach()  # standard input is not ours to close
