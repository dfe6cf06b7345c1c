"""A data set in memory: its splits as lists of strings, its labels, and how all of it was found out.

Knows nothing of files, tokens or models.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from textlift.data.alike import group_alike
from textlift.data.problems import quoted
from textlift.errors import DataError


@dataclass(frozen=True)
class Rows:
    """One split: texts and labels as written, with the place of each row."""

    texts: list[str]
    labels: list[str]
    row_numbers: list[int]  # record in its file, 1 = the first after the header
    sources: list[str]  # name of its file, as shown to people

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.texts)

    def take(self, indices: Sequence[int]) -> "Rows":
        """The rows at these positions, in the order given."""
        return Rows(
            texts=[self.texts[i] for i in indices],
            labels=[self.labels[i] for i in indices],
            row_numbers=[self.row_numbers[i] for i in indices],
            sources=[self.sources[i] for i in indices],
        )


@dataclass(frozen=True)
class Dataset:
    """Splits in the order train, validation, test; a label id is a position in label_values and label_names."""

    name: str
    splits: dict[str, Rows]
    label_names: tuple[str, ...]  # what people see
    label_values: tuple[str, ...]  # as written in the files
    text_column: str
    label_column: str
    reasons: tuple[str, ...]  # how columns, splits and names were found, one sentence each
    fingerprints: dict[str, dict[str, str | int]]  # file name -> sha256, bytes, rows (and commit, for the Hub)
    beside: Mapping[str, Counter[tuple[str, str]]] = field(
        default_factory=dict
    )  # other column -> (value, label) -> rows
    prepared: bool = False  # whether these are the splits that training, steering and the last test use

    def label_ids(self, split: str) -> npt.NDArray[np.int64]:
        """Label ids of a split, shape (N,).

        Raises:
            DataError: A row has a label that is none of label_values, such as an empty one.
        """
        ids = {value: number for number, value in enumerate(self.label_values)}
        rows = self.splits[split]
        try:
            return np.fromiter((ids[label] for label in rows.labels), dtype=np.int64, count=len(rows))
        except KeyError as error:
            at = rows.labels.index(error.args[0])
            raise DataError(
                f"{rows.sources[at]}:{rows.row_numbers[at]}: label must be one of the {len(ids)} labels of the data "
                f"set; found {quoted(error.args[0])}."
            ) from None

    def name_of(self, value: str) -> str:
        """What people see for a label as written."""
        return dict(zip(self.label_values, self.label_names, strict=True)).get(value, value)

    @cached_property
    def text_groups(self) -> dict[str, npt.NDArray[np.int64]]:
        """For each split a number for each row, equal for texts that are alike (case, white space, links aside)."""
        numbers = group_alike(text for rows in self.splits.values() for text in rows.texts)
        ends = np.cumsum([len(rows) for rows in self.splits.values()])
        return dict(zip(self.splits, np.split(numbers, ends[:-1]), strict=True))
