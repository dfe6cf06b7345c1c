"""A cleaned copy of labelled rows, with every change told: what --fix writes. The rows given stay as they are.

Texts are repaired in every split, since texts that are met later would be repaired too. Rows are taken out of training
rows alone, so that scores stay comparable: only rows without text or label leave the others.

Labels are changed by relabelling.py alone, where a person says so.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from textlift.data.alike import is_blank
from textlift.data.dataset import Dataset, Rows
from textlift.data.debris import KINDS
from textlift.data.listing import shortened, write_table
from textlift.data.near import near_pairs
from textlift.data.text_checks import label_numbers, two_labels
from textlift.errors import CannotCreateError, DataError

LOG = "log"  # below the rows, where a reader of the folder looks for none
LOG_COLUMNS = ("action", "reason", "split", "source", "row", "label", "text", "text_after", "label_after")
_ROUNDS = 10  # a row has several near ones, of which each round finds one


@dataclass(frozen=True)
class Change:
    """One row that was repaired or left out."""

    action: str  # repaired, left out, relabelled
    reason: str
    split: str
    source: str
    row: int
    label: str
    text: str
    text_after: str = ""
    label_after: str = ""


def cleaned(dataset: Dataset) -> tuple[Dataset, list[Change]]:
    """The data set with what can be put right put right, and each change.

    In order: debris that has a repair (see `KINDS`); rows without text or label; training rows whose text is in a later
    split, and validation rows whose text is in test; training rows of a text with two labels, all of them; repeats in
    train after the first; rows of train or validation that are nearly one of a later split. A split of which no row is
    left is left out.

    Raises:
        DataError: No training row is left.
    """
    changes: list[Change] = []
    splits = {split: _repaired(split, rows, changes) for split, rows in dataset.splits.items()}
    dataset = replace(dataset, splits=splits)
    steps: tuple[tuple[str, Callable[[Dataset], dict[str, list[int]]]], ...] = (
        ("no text or no label", _blank),
        ("text is also in a later split", _leaked),
        ("text has two labels", _conflicting),
        ("text repeats an earlier one", _repeated),
    )
    for reason, find in steps:
        dataset = _without(dataset, find(dataset), reason, changes=changes)
    for _ in range(_ROUNDS):
        near = _near(dataset)
        if not any(near.values()):
            break
        dataset = _without(dataset, near, "text is nearly one of a later split", changes=changes)
    if "train" not in dataset.splits:
        raise DataError(f"{dataset.name}: training rows must be left after cleaning; none are. Add rows.")
    return dataset, changes


def write_cleaned(folder: Path, dataset: Dataset, changes: Sequence[Change]) -> None:
    """Write each split as SPLIT.csv with the columns of the source, and log/changes.csv for people.

    Raises:
        CannotCreateError: A file cannot be written.
    """
    write_table(folder / LOG / "changes.csv", LOG_COLUMNS, (_told(change) for change in changes))
    for split, rows in dataset.splits.items():
        path = folder / f"{split}.csv"
        try:
            with path.open("w", encoding="utf-8", newline="") as file:
                # Every cell in quotes: Python before 3.13 leaves a lone carriage return bare.
                writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
                writer.writerow([dataset.text_column, dataset.label_column])
                writer.writerows(zip(rows.texts, rows.labels, strict=True))
        except OSError as error:
            raise CannotCreateError(f"{path}: must be writable; {error.strerror}.") from error


def _told(change: Change) -> dict[str, str | int]:
    values = (change.action, change.reason, change.split, change.source, change.row, change.label)
    texts = (shortened(change.text), shortened(change.text_after))
    return dict(zip(LOG_COLUMNS, (*values, *texts, change.label_after), strict=True))


def _repaired(split: str, rows: Rows, changes: list[Change]) -> Rows:
    texts = []
    for place, text in enumerate(rows.texts):
        after, reasons = text, []
        for kind in KINDS:
            if kind.repair is not None and kind.is_in(after):
                after = kind.repair(after)
                reasons.append(kind.what)
        texts.append(after)
        if after != text:
            changes.append(_change(split, rows, place, action="repaired", reason=", ".join(reasons), after=after))
    return replace(rows, texts=texts)


def _without(dataset: Dataset, taken: dict[str, list[int]], reason: str, *, changes: list[Change]) -> Dataset:
    splits = dict(dataset.splits)
    for split, places in taken.items():
        rows, gone = splits[split], set(places)
        changes += [_change(split, rows, place, action="left out", reason=reason) for place in sorted(gone)]
        if gone:
            splits[split] = rows.take([place for place in range(len(rows)) if place not in gone])
    return replace(dataset, splits={split: rows for split, rows in splits.items() if len(rows)})


def _change(split: str, rows: Rows, place: int, *, action: str, reason: str, after: str = "") -> Change:
    source, row = rows.sources[place], rows.row_numbers[place]
    return Change(action, reason, split, source, row, rows.labels[place], rows.texts[place], after)


def _blank(dataset: Dataset) -> dict[str, list[int]]:
    return {
        split: [place for place in range(len(rows)) if is_blank(rows.texts[place]) or is_blank(rows.labels[place])]
        for split, rows in dataset.splits.items()
    }


def _leaked(dataset: Dataset) -> dict[str, list[int]]:
    groups = dataset.text_groups
    taken = {}
    for earlier, later in _earlier_and_later(dataset):
        known = np.concatenate([groups[split] for split in later])
        taken[earlier] = np.flatnonzero(np.isin(groups[earlier], known)).tolist()
    return taken


def _conflicting(dataset: Dataset) -> dict[str, list[int]]:
    if "train" not in dataset.splits:
        return {}
    conflicting = two_labels(dataset.text_groups["train"], label_numbers(dataset.splits["train"].labels))
    return {"train": np.flatnonzero(conflicting).tolist()}


def _repeated(dataset: Dataset) -> dict[str, list[int]]:
    if "train" not in dataset.splits:
        return {}
    groups = dataset.text_groups["train"]
    again = np.ones(len(groups), dtype=bool)
    again[np.unique(groups, return_index=True)[1]] = False
    return {"train": np.flatnonzero(again).tolist()}


def _near(dataset: Dataset) -> dict[str, list[int]]:
    taken: dict[str, list[int]] = {}
    for earlier, later in _earlier_and_later(dataset):
        found = [near_pairs(dataset, earlier, other) for other in later]
        taken[earlier] = sorted({partner for pairs in found for partner in pairs.values()})
    return taken


def _earlier_and_later(dataset: Dataset) -> Iterator[tuple[str, list[str]]]:
    order: list[str] = [split for split in ("train", "validation", "test") if split in dataset.splits]
    for number, split in enumerate(order[:-1]):
        yield split, order[number + 1 :]
