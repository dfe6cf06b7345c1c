"""Numbers and foreign text as every table, plot and page of a report shows them.

Knows no markup: escaping for Markdown, HTML or SVG is the work of the place that writes it.
"""

import math
import re
import unicodedata

from textlift.escaping import JOINERS, visible

MISSING = "\N{EN DASH}"

METRIC_NAMES = {
    "accuracy": "Accuracy",
    "f1_weighted": "F1 weighted",
    "f1_macro": "F1 macro",
    "precision_weighted": "Precision weighted",
    "recall_weighted": "Recall weighted",
    "precision_macro": "Precision macro",
    "recall_macro": "Recall macro",
    "log_loss": "Log loss",
}


def display_width(text: str) -> int:
    """Columns that text takes in a terminal: wide characters take two, combining ones none."""
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character) or character in JOINERS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def clip(text: str, width: int) -> str:
    """Foreign text made visible and cut with an ellipsis so that it takes at most width columns."""
    shown = visible(text[: 8 * width])  # a cut before the work: a cell may hold a book
    if display_width(shown) <= width and len(text) <= 8 * width:
        return shown[: 4 * width]
    kept, used = [], 0
    for character in shown[: 4 * width]:  # combining marks are free in columns but not in number
        used += _columns(character)
        if used >= width:
            break
        kept.append(character)
    return "".join(kept) + "…"


def wrap(text: str, width: int) -> str:
    """Visible text broken into lines of at most width columns, inside a word only where it is longer than a line."""
    lines = [""]
    for word in visible(text).split():
        for piece in _pieces(word, width):
            joined = f"{lines[-1]} {piece}" if lines[-1] else piece
            if display_width(joined) <= width:
                lines[-1] = joined
            else:
                lines.append(piece)
    return "\n".join(lines)


def _pieces(word: str, width: int) -> list[str]:
    pieces, room = [""], width
    for character in word:
        taken = _columns(character)
        if taken > room:
            pieces.append("")
            room = width
        pieces[-1] += character
        room -= taken
    return pieces


def percent(share: float | None) -> str:
    """A share as a percentage: 0.931 is "93.1 %"; one too small to show is "< 0.1 %"."""
    if share is None or not math.isfinite(share):
        return MISSING
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def interval(low: float | None, high: float | None) -> str:
    """Two shares as the bounds of an interval in percent: "92.0 to 94.1"; empty where they are not known."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def points(difference: float | None) -> str:
    """A difference of two shares in percentage points, with its sign: "+6.1"."""
    return signed(None if difference is None else 100 * difference, digits=1)


def signed(value: float | None, *, digits: int) -> str:
    """A number with its sign, a true minus, and no sign for zero as shown."""
    if value is None or not math.isfinite(value):
        return MISSING
    rounded = round(value, digits)
    sign = "+" if rounded > 0 else "\N{MINUS SIGN}" if rounded < 0 else ""
    return f"{sign}{abs(rounded):.{digits}f}"


def difference(value: float | None, metric: str) -> str:
    """A paired difference in the unit of its metric: points for a share, plain for the log loss."""
    return signed(value, digits=3) if metric == "log_loss" else points(value)


def whole(number: float | None) -> str:
    """A count with thousands separators: "22,713,216"."""
    return MISSING if number is None or not math.isfinite(number) else f"{number:,.0f}"


def decimal(value: float | None) -> str:
    """A number with three decimals."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:.3f}"


def p_value(value: float | None) -> str:
    """A p-value, never shown as zero."""
    if value is None or not math.isfinite(value):
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float | None) -> str:
    """A time for reading: "0.4 s", "42 s", "3 min 12 s", "1 h 05 min"."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    total = round(seconds)
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def memory(n_bytes: float | None) -> str:
    """An amount of memory in MiB, from 1 GiB on in GiB."""
    if n_bytes is None:
        return MISSING
    return f"{n_bytes / 2**20:,.0f} MiB" if n_bytes < 2**30 else f"{n_bytes / 2**30:,.1f} GiB"


def moment(created: str) -> str:
    """An ISO time for reading: "2026-05-12 14:03:20 UTC"."""
    return re.sub(r"\.\d+", "", created).replace("T", " ", 1).replace("+00:00", " UTC")
