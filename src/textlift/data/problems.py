"""What is wrong with files, collected and told at once in three lines at most."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from textlift.errors import DataError, row_list, safe_for_terminal


def quoted(text: str, width: int = 60) -> str:
    """Foreign text as it stands in a message: on one line, shortened, control characters as codes."""
    line = safe_for_terminal(text[: 2 * width]).replace("\n", "\\n")
    return f"'{line[:width]}...'" if len(line) > width or len(text) > 2 * width else f"'{line}'"


def listed(names: Iterable[str], most: int = 12) -> str:
    """Foreign names in a message: "'text', 'label'", with the number of those left out."""
    kept = list(names)
    more = f" and {len(kept) - most} more" if len(kept) > most else ""
    return ", ".join(quoted(name, 40) for name in kept[:most]) + more


@dataclass
class Problem:
    """One thing wrong with a file: what was found, in which rows, what to do."""

    file: str
    found: str
    advice: str
    rows: list[int] = field(default_factory=list)  # the first ones
    count: int = 0  # rows in all; 0 where the file as a whole is meant

    def add(self, row: int) -> None:
        """Count one more row."""
        self.count += 1
        if len(self.rows) < 20:
            self.rows.append(row)

    def __str__(self) -> str:
        """The problem as a line: file, first row, what was found, how many rows, what to do."""
        return located(self.file, self.found, self.advice, rows=self.rows, count=self.count)


def located(file: str, found: str, advice: str, *, rows: Sequence[int] = (), count: int = 0) -> str:
    """A complaint with its place: "train.csv:3: label is empty. 12 rows (3, 9, 14, ...). Fix the rows."."""
    place = f"{safe_for_terminal(file)}:{rows[0]}" if rows else safe_for_terminal(file)
    many = f" {count:,} rows ({row_list(rows, count=count)})." if count > 1 else ""
    return f"{place}: {found}{many} {advice}".rstrip()


def in_three_lines(complaints: Sequence[str]) -> str:
    """All complaints, a line each; from the third on they share the last line."""
    lines = [complaint.replace("\n", " ") for complaint in complaints]
    return "\n".join([*lines[:2], " | ".join(lines[2:])] if len(lines) > 2 else lines)


def raise_problems(problems: Sequence[object]) -> None:
    """Raise one DataError that tells every problem, or return where there is none."""
    if problems:
        raise DataError(in_three_lines([str(problem) for problem in problems]))
