"""The error book as its part of the page shows it: slices as bars, words shaded by what they carry.

Knows the key "error_book" of results.json as a plain dict. What it gives the template is text, still to be escaped, and
our own SVG. Nothing is told by a colour alone: numbers stand beside bars and below shaded words.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from textlift.report import wording
from textlift.report.svg import at, tag

OPEN = 4  # mistakes that are shown without unfolding
NAMED = 3  # words that are named with their weight
TEXT_WIDTH, PIECE_WIDTH, NEAR_WIDTH = 600, 160, 160  # columns
_LEAST = 0.1  # of the largest weight: below it a word is not shaded
_LEVELS = 4
_SURE = 0.9995  # a mistake is never told as 100 %
_LOWEST = 5  # slices told where none is below the rest


def view(results: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the template needs, or None for a run without an error book."""
    book = results.get("error_book")
    if not book:
        return None
    shown = book["slices"]["shown"]
    below = [_slice(one) for one in shown if one["is_below"]]
    mistakes = [_mistake(row) for row in book["confident"]]
    return {
        "variant": book["variant"],
        "folder": book["folder"],
        "mistakes": book["mistakes"]["test"],
        "rows": book["rows"]["test"],
        "share": book["mistakes"]["test"] / max(1, book["rows"]["test"]),
        "below": below,
        "same": book["slices"]["below"] - len(below),
        "lowest": [] if below else [_slice(one) for one in shown[:_LOWEST]],
        "slices": book["slices"],
        "open": mistakes[:OPEN],
        "folded": mistakes[OPEN:],
        "nearest_by": book["nearest_by"],
        "labels": [
            {**found, "sentence": _capital(found["sentence"]), "rows": [_plain(row) for row in found["rows"]]}
            for found in book["label_errors"]
        ],
        "changes": [
            {
                **change,
                "right": [_plain(row) for row in change["right"]],
                "wrong": [_mistake(row) for row in change["wrong"]],
            }
            for change in book["changes"]
        ],
        "right": [_plain(row) for row in results["examples"]["right"]],
    }


def one_line(text: str, width: int) -> str:
    """Foreign text on one line, clipped."""
    return wording.clip(re.sub(r"\s*\n\s*", " ↵ ", text.strip()), width)


def shade(weight: float, largest: float) -> str:
    """Class name of a word: "for" or "against" the prediction with a level from 1 to 4, or "" for little."""
    share = abs(weight) / largest if largest > 0 else 0.0
    if share < _LEAST:
        return ""
    return f"{'for' if weight > 0 else 'against'}{min(_LEVELS, 1 + int(share * _LEVELS))}"


def _mistake(row: Mapping[str, Any]) -> dict[str, Any]:
    words = row.get("words")
    if not words or not words["parts"]:
        return {**_plain(row), "pieces": [], "carried": [], "opposed": [], "unread": 0, "near": _near(row)}
    parts = words["parts"]
    largest = max(abs(weight) for _, weight in parts)
    ordered = sorted(parts, key=lambda part: -part[1])
    return {
        **_plain(row),
        "pieces": [
            {"text": one_line(part, PIECE_WIDTH), "space": _space(part), "class": shade(weight, largest)}
            for part, weight in parts
        ],
        "carried": _named(ordered, largest),
        "opposed": _named([part for part in reversed(ordered) if part[1] < 0], largest),
        "unread": words["unread"],
        "near": _near(row),
    }


def _space(part: str) -> str:
    """What stands after a word: nothing, a space, or the mark of a line break."""
    after = part[len(part.rstrip()) :]
    return " ↵ " if "\n" in after else " " if after else ""


def _named(parts: Sequence[Any], largest: float) -> list[dict[str, str]]:
    strong = [(part, weight) for part, weight in parts[:NAMED] if shade(weight, largest)]
    return [{"word": one_line(part, 40), "weight": wording.signed(weight, digits=1)} for part, weight in strong]


def _near(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {**one, "text": one_line(one["text"], NEAR_WIDTH), "similarity": f"{one['similarity']:.2f}"}
        for one in row.get("nearest", [])
    ]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    probability = "> 99.9 %" if row["probability"] >= _SURE else wording.percent(row["probability"])
    return {**row, "text": one_line(row["text"], TEXT_WIDTH), "probability": probability}


def _slice(one: Mapping[str, Any]) -> dict[str, Any]:
    return {**one, "bar": slice_bar(one["accuracy"], one["low"], high=one["high"], rest=one["rest_accuracy"])}


def slice_bar(accuracy: float, low: float, *, high: float, rest: float) -> Markup:
    """Accuracy of a slice as a bar from 0 to 100 % with its interval, the rest as a line across; hidden to readers."""
    return tag(
        "svg",
        tag("rect", class_="track", x="0", y="5", width="100%", height="10"),
        tag("rect", class_="bar tuned", x="0", y="5", width=at(accuracy), height="10"),
        tag("line", class_="halo", x1=at(low), x2=at(high), y1="10", y2="10"),
        tag("line", class_="whisker", x1=at(low), x2=at(high), y1="10", y2="10"),
        tag("line", class_="rest", x1=at(rest), x2=at(rest), y1="0", y2="20"),
        class_="plot strip",
        aria_hidden="true",
        width="100%",
        height="20",
    )
