"""What checks of the data find: a code, a severity in words, a message for people."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from textlift.data.problems import in_three_lines
from textlift.errors import DataError

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One thing found in the rows."""

    code: str
    severity: Severity
    message: str
    split: str | None = None
    count: int = 0  # rows (of a code about classes: classes)
    rows: tuple[int, ...] = ()  # row numbers of the first 20
    details: Mapping[str, float] = field(default_factory=dict)  # further figures, by name

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain values for a JSON file."""
        return {**asdict(self), "rows": list(self.rows), "details": dict(self.details)}


def raise_errors(findings: Iterable[Finding]) -> None:
    """Stop where a finding is an error; every error is told, in three lines at most.

    Raises:
        DataError: At least one finding is an error.
    """
    errors = [finding.message for finding in findings if finding.severity == "error"]
    if errors:
        raise DataError(in_three_lines(errors))
