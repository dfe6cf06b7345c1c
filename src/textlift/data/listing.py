"""All rows of findings as tables for people: a file for each finding, places that lead to the texts as written."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from textlift.data.findings import Cell, Finding, Listing
from textlift.errors import CannotCreateError
from textlift.escaping import csv_cell

FOLDER = "findings"
COLUMNS = ("split", "source", "row", "label", "text")
_WIDTH = 300  # characters of a text that stand in a file


def write_listings(folder: Path, findings: Sequence[Finding]) -> list[Finding]:
    """Write the rows of each finding to findings/CODE.csv; returns the findings with the names of their files.

    Raises:
        CannotCreateError: A file cannot be written.
    """
    written = []
    taken: set[str] = set()
    for finding in findings:
        if finding.listing is None or not len(finding.listing):
            written.append(finding)
            continue
        stem = _stem(finding)
        number = sum(name.split(".")[0] == stem for name in taken)
        name = f"{stem}.{number + 1}" if number else stem
        taken.add(name)
        path = folder / FOLDER / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        write_table(path, (*COLUMNS, *finding.listing.columns), _rows(finding.listing))
        written.append(replace(finding, file=f"{FOLDER}/{path.name}"))
    return written


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Cell]]) -> None:
    """Write a table of foreign text for people: see `csv_cell`.

    Raises:
        CannotCreateError: The file cannot be written.
    """
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            # Python before 3.13 leaves a lone carriage return unquoted where it is not the line terminator.
            writer = csv.DictWriter(file, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
            writer.writeheader()
            writer.writerows(
                {key: csv_cell(value) if isinstance(value, str) else value for key, value in row.items()}
                for row in rows
            )
    except OSError as error:
        raise CannotCreateError(f"{path}: must be writable; {error.strerror}.") from error


def shortened(text: str) -> str:
    """The first characters of a text."""
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."


def _stem(finding: Finding) -> str:
    is_told = finding.split is None or finding.code.endswith(f"_{finding.split}")
    return finding.code if is_told else f"{finding.code}_{finding.split}"


def _rows(listing: Listing) -> Iterable[dict[str, Cell]]:
    number = 0
    for split, rows in listing.parts:
        for values in zip(rows.sources, rows.row_numbers, rows.labels, rows.texts, strict=True):
            source, row, label, text = values
            known: tuple[Cell, ...] = (split, source, row, label, shortened(text))
            yield {
                **dict(zip(COLUMNS, known, strict=True)),
                **{name: cells[number] for name, cells in listing.columns.items()},
            }
            number += 1
