"""Labels that a person corrected in a listing, put into a copy of the rows: nothing else, and each change told.

A row is found by source and row number; its text and label must still be those of the listing.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from textlift.data.cleaning import Change
from textlift.data.dataset import Dataset
from textlift.data.listing import shortened
from textlift.data.problems import listed, quoted
from textlift.errors import DataError, InputNotFoundError, nearest
from textlift.escaping import csv_cell

NEW_LABEL = "new_label"
_NEEDED = ("source", "row", "label", NEW_LABEL, "text")
_DELIMITERS = (",", ";", "\t")  # a spreadsheet may save with another than it read


@dataclass(frozen=True)
class _Place:
    """Where a row stands in the data set, and its row in the listing."""

    split: str
    number: int
    line: int
    cells: Mapping[str, str]


def relabelled(dataset: Dataset, listing: Path) -> tuple[Dataset, list[Change]]:
    """The data set with each filled new_label of a listing in place of the label, and each change.

    Args:
        dataset: As read.
        listing: A table such as likely-wrong-labels.csv; rows whose new_label is empty stay.

    Raises:
        InputNotFoundError: There is no such file.
        DataError: It lacks a column; or a row is not there, its text or label is another, or the new label is unknown.
    """
    values = _values(dataset)
    places = _places(dataset, listing)
    labels = {split: list(rows.labels) for split, rows in dataset.splits.items()}
    changes, seen = [], dict[tuple[str, int], int]()
    for place in places:
        rows, cells = dataset.splits[place.split], place.cells
        at, new = f"{listing.name}:{place.line}", cells[NEW_LABEL].strip()
        text, label = rows.texts[place.number], rows.labels[place.number]
        if _same(csv_cell(shortened(text))) != _same(cells["text"]):
            raise DataError(
                f"{at}: the text must be that of {quoted(cells['source'])} row {cells['row']}; it is another: "
                f"{quoted(cells['text'])}.\nThe rows changed since the listing was written; make it anew."
            )
        if cells["label"].strip() not in {csv_cell(label).strip(), csv_cell(dataset.name_of(label)).strip()}:
            raise DataError(
                f"{at}: the label must be that of {quoted(cells['source'])} row {cells['row']}, "
                f"{quoted(dataset.name_of(label))}; found {quoted(cells['label'])}.\nThe labels changed since the "
                "listing was written; make it anew."
            )
        if new not in values:
            raise DataError(
                f"{at}: new_label must be one of {listed(dataset.label_names)}; found {quoted(new)}."
                f"{nearest(new, dataset.label_names)}"
            )
        if seen.setdefault((place.split, place.number), place.line) != place.line:
            first = seen[place.split, place.number]
            raise DataError(f"{at}: each row must be relabelled once; line {first} names the same row. Take one out.")
        if values[new] != label:
            labels[place.split][place.number] = values[new]
            changes.append(
                Change(
                    "relabelled",
                    f"new_label of {listing.name}",
                    split=place.split,
                    source=rows.sources[place.number],
                    row=rows.row_numbers[place.number],
                    label=label,
                    text=text,
                    label_after=values[new],
                )
            )
    splits = {split: replace(rows, labels=labels[split]) for split, rows in dataset.splits.items()}
    return replace(dataset, splits=splits), changes


def _values(dataset: Dataset) -> dict[str, str]:
    """The label value for every way to write it; a name that people see goes before a value."""
    written = [*zip(dataset.label_values, dataset.label_values, strict=True)]
    written += zip(dataset.label_names, dataset.label_values, strict=True)
    return {form.strip(): value for name, value in written for form in (csv_cell(name), name)}


def _places(dataset: Dataset, listing: Path) -> list[_Place]:
    known: dict[tuple[str, str], tuple[str, int]] = {}
    for split, rows in dataset.splits.items():
        for number, (source, row) in enumerate(zip(rows.sources, rows.row_numbers, strict=True)):
            known[csv_cell(source), str(row)] = (split, number)
    places = []
    for line, cells in _filled(listing):
        found = known.get((cells["source"], cells["row"].strip()))
        if found is None:
            raise DataError(
                f"{listing.name}:{line}: source and row must lead to a row of the data; {quoted(cells['source'])} row "
                f"{quoted(cells['row'])} is not there.\nPass the data that the listing was written of."
            )
        places.append(_Place(*found, line=line, cells=cells))
    return places


def _filled(listing: Path) -> Sequence[tuple[int, dict[str, str]]]:
    """The rows of a listing whose new_label is filled, with the line at which each ends."""
    try:
        with listing.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = next((one for one in _DELIMITERS if one in header), ",")
            file.seek(0)
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{listing.name}: must have the columns {', '.join(_NEEDED)}; {listed(missing)} missing."
                    "\nPass error-book/likely-wrong-labels.csv of a run."
                )
            rows = [(reader.line_num, {name: row[name] or "" for name in _NEEDED}) for row in reader]
    except FileNotFoundError as error:
        raise InputNotFoundError(f"{listing}: must be a listing with a column new_label; it is not there.") from error
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"{listing}: must be a CSV file in UTF-8; {error}.") from error
    return [(line, cells) for line, cells in rows if cells[NEW_LABEL].strip()]


def _same(text: str) -> str:
    """A text as it can be compared after a spreadsheet saved it: line breaks aside."""
    return " ".join(text.split())
