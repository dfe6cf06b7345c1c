"""What checks of the data find: a code, a severity in words, a message for people, and all of its rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from textlift.data.dataset import Rows
from textlift.data.problems import in_three_lines, located
from textlift.errors import DataError

Severity = Literal["error", "warning", "info"]
Cell = str | int | float
MOST_ROWS = 20  # row numbers that a finding tells itself; all of them stand in its file
RANK: Mapping[str, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Listing:
    """Every row of a finding, by split, and what else is known of each."""

    parts: tuple[tuple[str, Rows], ...]
    columns: Mapping[str, Sequence[Cell]] = field(default_factory=dict)  # a value for each row of parts

    def __len__(self) -> int:
        """Number of rows."""
        return sum(len(rows) for _, rows in self.parts)


@dataclass(frozen=True)
class Finding:
    """One thing found in the rows."""

    code: str
    severity: Severity
    message: str  # what was found and, where it is short, what to do
    split: str | None = None
    count: int = 0  # rows (of a code about classes or columns: of those)
    rows: tuple[int, ...] = ()  # row numbers of the first 20
    details: Mapping[str, float] = field(default_factory=dict)  # further figures, by name
    why: str = ""  # why it matters
    advice: str = ""  # what to do
    against_scores: bool = False  # whether it stands against trusting the scores on test
    earlier: str | None = None  # the split that these rows are in, too, or nearly
    file: str | None = None  # where all of its rows stand, once written
    listing: Listing | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain values for a JSON file."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "split": self.split,
            "count": self.count,
            "rows": list(self.rows),
            "details": dict(self.details),
            "why": self.why,
            "advice": self.advice,
            "against_scores": self.against_scores,
            "earlier": self.earlier,
            "file": self.file,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Finding":
        """The finding that `to_dict` gave, without its rows."""
        return cls(**{**values, "rows": tuple(values["rows"])})


def rows_finding(
    code: str,
    severity: Severity,
    where: tuple[str, Rows, Sequence[int]],
    *,
    found: str,
    advice: str,
    details: Mapping[str, float] | None = None,
    columns: Mapping[str, Sequence[Cell]] | None = None,
    tells_count: bool = False,
    why: str = "",
) -> Finding:
    """A finding at places of one split; the message tells its first rows.

    Args:
        code: Of the finding.
        severity: How bad it is.
        where: Split, its rows and the places found, at least one.
        found: What was found, one sentence.
        advice: What to do, one sentence.
        details: Further figures.
        columns: What else is known of each place.
        tells_count: Whether the sentence on what was found tells the number of rows itself.
        why: Why it matters, where the check that finds it does not say.
    """
    split, rows, places = where
    first = rows.sources[places[0]]
    here = [rows.row_numbers[place] for place in places[:MOST_ROWS] if rows.sources[place] == first]
    message = located(first, found, advice, rows=here, count=0 if tells_count else len(places))
    numbers = tuple(rows.row_numbers[place] for place in places[:MOST_ROWS])
    listing = Listing(((split, rows.take(places)),), columns or {})
    return Finding(code, severity, message, split, len(places), numbers, details or {}, why, advice, listing=listing)


def partner_columns(rows: Rows, partners: Sequence[int]) -> dict[str, list[Cell]]:
    """Columns of a listing that name the row which each of its rows is like."""
    return {
        "like_source": [rows.sources[place] for place in partners],
        "like_row": [rows.row_numbers[place] for place in partners],
        "like_label": [rows.labels[place] for place in partners],
    }


def raise_errors(findings: Iterable[Finding]) -> None:
    """Stop where a finding is an error; every error is told, in three lines at most.

    Raises:
        DataError: At least one finding is an error.
    """
    errors = [finding.message for finding in findings if finding.severity == "error"]
    if errors:
        raise DataError(in_three_lines(errors))


def percent(share: float) -> str:
    """A share as a percentage that is never shown as none: "0.6 %", "< 0.1 %"."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"
