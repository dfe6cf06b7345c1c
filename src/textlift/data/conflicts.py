"""Rows of the same text with two labels, as a table for people."""

from pathlib import Path

import numpy as np

from textlift.data.dataset import Dataset
from textlift.data.listing import COLUMNS, write_table
from textlift.data.splits import without_empty
from textlift.data.text_checks import label_numbers, two_labels


def conflict_rows(dataset: Dataset) -> list[dict[str, str | int]]:
    """Rows whose text (case, white space and links aside) carries two labels, in any splits; like texts together."""
    dataset = without_empty(dataset)
    if not dataset.splits:
        return []
    groups = np.concatenate(list(dataset.text_groups.values()))
    labels = label_numbers([label for rows in dataset.splits.values() for label in rows.labels])
    places = np.flatnonzero(two_labels(groups, labels)).tolist()
    flat = [(split, place) for split, rows in dataset.splits.items() for place in range(len(rows))] if places else []
    found: list[dict[str, str | int]] = []
    for number in sorted(places, key=lambda number: (int(groups[number]), number)):
        split, place = flat[number]
        rows = dataset.splits[split]
        values = (split, rows.sources[place], rows.row_numbers[place], rows.labels[place], rows.texts[place])
        found.append(dict(zip(COLUMNS, values, strict=True)))
    return found


def write_conflicts(path: Path, dataset: Dataset) -> int:
    """Write the conflicting rows as CSV and return their number; no file is written where there is none.

    Cells are for people: see `csv_cell`. The places (file and row) lead to the texts as they were written.

    Raises:
        CannotCreateError: The file cannot be written.
    """
    rows = conflict_rows(dataset)
    if not rows:
        return 0
    write_table(path, COLUMNS, rows)
    return len(rows)
