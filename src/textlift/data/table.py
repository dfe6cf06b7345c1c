"""What a reader makes of one file: columns of strings, record numbers, problems."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from textlift.data.problems import Problem

# Given all column names, says which to keep; None keeps every column that can hold texts or labels.
Want = Callable[[Sequence[str]], Sequence[str] | None]
Advance = Callable[[int], None]  # told the bytes read so far


@dataclass
class Table:
    """One file as read; where problems are told, the columns hold the rows that could be read."""

    names: tuple[str, ...] = ()  # all columns of the file
    columns: dict[str, list[str]] = field(default_factory=dict)  # those asked for, cells as written
    row_numbers: list[int] = field(default_factory=list)  # record of each row, 1 = first after the header
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # column -> names of its integer labels
    problems: list[Problem] = field(default_factory=list)
    state: tuple[int, ...] = ()  # of the file while it was read: device, number, bytes, time of change


class RowProblems:
    """Problems of rows, one for each kind, in the order of their first row."""

    def __init__(self, file: str, into: list[Problem]) -> None:
        self._file = file
        self._into = into
        self._by_kind: dict[str, Problem] = {}

    def add(self, kind: str, row: int, *, found: str, advice: str) -> None:
        """Count a row; what was found is told in the words of the first row of its kind."""
        if kind not in self._by_kind:
            self._by_kind[kind] = Problem(self._file, found, advice)
            self._into.append(self._by_kind[kind])
        if row:  # 0: no row can be named
            self._by_kind[kind].add(row)
