"""What the score of a tuned variant costs: macro-F1 against weights, time and memory, with the Pareto frontier.

Knows the records of results.json as plain dicts. Draws in the manner of plots.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from textlift.escaping import visible
from textlift.report.labels import Place, Spot, leader_end, place_names
from textlift.report.plots import ticks
from textlift.report.svg import at, figure, short, tag, text_at
from textlift.report.wording import clip, display_width, duration, memory, percent, whole

NAME_WIDTH = 20  # columns of a name, at most
EQUAL = 1.02  # tokens within this ratio count as one budget

_TOP, _FOOT = 12, 24  # px above the plot, and under it for the numbers of the axis
_LEFT, _RIGHT = 50, 6  # px beside it
_WIDTHS = (222.0, 560.0)  # px of the plot: three beside each other, and one alone on a small tablet
_COLUMN = 6.7  # px of a column of a name

Variants = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Cost:
    """One panel: the key of a record, how it is called and told, the unit of the axis, and its scale."""

    key: str
    title: str
    is_log: bool = False


COSTS = (
    Cost("trained_parameters", "Trained parameters", is_log=True),
    Cost("train_seconds", "Training time"),
    Cost("peak_memory_bytes", "Peak memory"),
)


@dataclass(frozen=True)
class Point:
    """A variant in one panel: its cost, its score and the bounds of that."""

    name: str
    cost: float
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Panel:
    """One plot with the words over it."""

    title: str
    plot: Markup


def tuned(variants: Variants) -> dict[str, Mapping[str, Any]]:
    """The variants that were trained; baselines and merged ones cost nothing of their own."""
    return {name: record for name, record in variants.items() if record["kind"] == "tuned"}


def frontier_panels(variants: Variants, *, key: str) -> list[Panel]:
    """A panel for each cost that at least two of the variants were measured by; none where fewer were tuned.

    Args:
        variants: Records by the name that is shown.
        key: Start of the ids of these plots, used once on the page.
    """
    panels = []
    for cost in COSTS:
        points = _points(variants, cost)
        if len(points) >= 2:
            plot, unit = _plot(points, cost, key=f"{key}-{cost.key.replace('_', '-')}")
            panels.append(Panel(f"{cost.title}, {unit}" if unit else cost.title, plot))
    return panels


def _points(variants: Variants, cost: Cost) -> list[Point]:
    points = []
    for name, record in variants.items():
        value, test = record[cost.key], record["test"]
        numbers = (value, test["f1_macro"], test["f1_macro_low"], test["f1_macro_high"])
        if None not in numbers and all(map(math.isfinite, numbers)) and value > 0:
            points.append(Point(name, *map(float, numbers)))
    return points


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats: none has as high a score for less, or a higher one for as much; by cost."""
    front = [
        point
        for point in points
        if not any(
            other.cost <= point.cost and other.score >= point.score and (other.cost, other.score) != _pair(point)
            for other in points
        )
    ]
    return sorted(front, key=_pair)


def _pair(point: Point) -> tuple[float, float]:
    return point.cost, point.score


# ---- drawing


@dataclass(frozen=True)
class _Axis:
    """Numbers to shares of a length; with the numbers that are written at it."""

    low: float
    high: float
    marks: tuple[tuple[float, str], ...]
    is_log: bool = False

    def share(self, value: float) -> float:
        low, high, inner = (math.log10(v) if self.is_log else v for v in (self.low, self.high, value))
        return (inner - low) / (high - low)


def _plot(points: Sequence[Point], cost: Cost, *, key: str) -> tuple[Markup, str]:
    """The plot and the unit of its cost axis."""
    across, unit = _cost_axis([point.cost for point in points], cost)
    up = _score_axis(points)
    height = 190 + 12 * max(0, min(len(points), 30) - 5)
    front = frontier(points)

    def y(score: float) -> float:
        return _TOP + height * (1 - up.share(score))

    spots = [
        Spot(across.share(p.cost), y(p.score), _name_width(p), y(min(p.high, up.high)), y(max(p.low, up.low)))
        for p in points
    ]
    order = sorted(range(len(points)), key=lambda index: (points[index] not in front, -points[index].score))
    places = place_names(spots, widths=_WIDTHS, heights=(0, _TOP + height), order=order)
    drawn = [_whisker(spot, is_front=point in front) for point, spot in zip(points, spots, strict=True)]
    drawn += [_spot(points[i], spots[i], place=places[i], is_front=points[i] in front) for i in reversed(order)]
    steps = _steps([(across.share(p.cost), 1 - up.share(p.score)) for p in front], height=height)
    described = "; ".join(
        f"{visible(p.name)} {percent(p.score)} at {_told(p.cost, cost)}{', on the frontier' if p in front else ''}"
        for p in sorted(points, key=_pair)
    )
    plot = figure(
        key,
        _TOP + height + _FOOT,
        _grid(across, up, height=height),
        steps,
        *drawn,
        title=f"F1 macro and {cost.title.lower()}",
        description=f"{described}.",
        style=f"padding-left:{_LEFT}px;padding-right:{_RIGHT}px",
    )
    return plot, unit


def _name_width(point: Point) -> float:
    return _COLUMN * display_width(clip(point.name, NAME_WIDTH)) + 4


def _whisker(spot: Spot, *, is_front: bool) -> Markup:
    x = at(spot.x)
    kind = "range front" if is_front else "range"
    return tag("line", class_=kind, x1=x, x2=x, y1=short(spot.top), y2=short(spot.bottom))


def _spot(point: Point, spot: Spot, *, place: Place, is_front: bool) -> Markup:
    """The point and its name, in a plot of their own whose origin is the point: beside it, pixels count."""
    kind = " front" if is_front else ""
    side = (place.dx > 1) - (place.dx < -1)
    edge = place.dx - side * (spot.name_width / 2 - 2)
    parts = []
    if place.has_leader:
        x, y = leader_end(spot, place)
        parts.append(tag("line", class_="leader", x1="0", y1="0", x2=short(x), y2=short(y)))
    parts.append(tag("circle", class_=f"spot{kind}", cx="0", cy="0", r="4"))
    anchor = ("middle", "start", "end")[side]
    shown = clip(point.name, NAME_WIDTH)
    parts.append(text_at(shown, short(edge), place.dy + 4, class_=f"spot-name{kind}", text_anchor=anchor))
    return tag("svg", *parts, x=at(spot.x), y=short(spot.y), width="1", height="1", overflow="visible")


def _steps(corners: Sequence[tuple[float, float]], *, height: float) -> Markup:
    """The frontier as stairs: a higher score begins where it is paid for, and holds for whoever pays more."""
    path = [corners[0]]
    for x, y in corners[1:]:
        path += [(x, path[-1][1]), (x, y)]
    path.append((1.0, path[-1][1]))
    joined = " ".join(f"{short(1000 * x)},{short(1000 * y)}" for x, y in path)
    line = tag("polyline", class_="frontier", points=joined, vector_effect="non-scaling-stroke")
    return tag(
        "svg", line, x="0", y=short(_TOP), width="100%", height=short(height), viewBox="0 0 1000 1000",
        preserveAspectRatio="none", overflow="visible",
    )  # fmt: skip


def _grid(across: _Axis, up: _Axis, *, height: float) -> Markup:
    parts = []
    bottom = _TOP + height
    for level, told in up.marks:
        y = _TOP + height * (1 - up.share(level))
        parts.append(tag("line", class_="grid", x1="0%", x2="100%", y1=short(y), y2=short(y)))
        parts.append(text_at(told, "-8", y + 4, class_="tick", text_anchor="end"))
    for value, told in across.marks:
        x = at(across.share(value))
        parts.append(tag("line", class_="grid", x1=x, x2=x, y1=short(_TOP), y2=short(bottom)))
        parts.append(text_at(told, x, bottom + 18, class_="tick", text_anchor="middle"))
    return tag("g", *parts)


# ---- axes


def _score_axis(points: Sequence[Point]) -> _Axis:
    low, high = min(p.low for p in points), max(p.high for p in points)
    margin = 0.06 * (high - low) or 0.01
    low, high = low - margin, high + margin
    levels = [level for level in ticks(low, high, count=5) if low <= level <= high]
    return _Axis(low, high, tuple((level, f"{100 * level:g} %") for level in levels))


def _cost_axis(values: Sequence[float], cost: Cost) -> tuple[_Axis, str]:
    """The axis of a cost with a margin at both ends, and its unit."""
    low, high = min(values), max(values)
    if cost.is_log:
        factor = max((high / low) ** 0.1, 1.15)
        low, high = low / factor, high * factor
        return _Axis(low, high, _log_marks(low, high), is_log=True), ""
    margin = 0.1 * (high - low) or 0.1 * high
    low, high = max(low - margin, 0.0), high + margin
    scale, unit = _unit(cost, high)
    levels = [level for level in ticks(low / scale, high / scale, count=4) if low <= level * scale <= high]
    return _Axis(low, high, tuple((level * scale, f"{level:,g}") for level in levels)), unit


def _unit(cost: Cost, high: float) -> tuple[float, str]:
    if cost.key == "peak_memory_bytes":
        return (2.0**30, "GiB") if high >= 2**31 else (2.0**20, "MiB")
    return (60.0, "minutes") if high >= 180 else (1.0, "seconds")


def _log_marks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Powers of ten, with their doubles and halves where few of them lie between low and high; at most five."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        values = [factor * 10.0**power for power in powers for factor in factors]
        inside = [value for value in values if low <= value <= high]
        if len(inside) >= 2:
            break
    every = math.ceil(len(inside) / 4)
    return tuple((value, _counted(value)) for value in inside[::every])


def _counted(value: float) -> str:
    """A count in few characters: 1 500 is "1.5 k"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"


def _told(value: float, cost: Cost) -> str:
    if cost.key == "trained_parameters":
        return f"{whole(value)} trained parameters"
    return memory(value) if cost.key == "peak_memory_bytes" else duration(value)


# ---- words


def budget_note(variants: Variants) -> str:
    """Which budget the variants had in common: tokens, seconds, or none; empty for runs that do not tell."""
    records = list(variants.values())
    tokens = [int(record.get("useful_tokens") or 0) for record in records]
    if len(records) < 2 or 0 in tokens:
        return ""
    least, most = min(tokens), max(tokens)
    span = whole(least) if least == most else f"{whole(least)} to {whole(most)}"
    if most <= EQUAL * least:
        return f"Equal tokens: each was trained on {span} useful tokens."
    seconds = [record["train_seconds"] for record in records]
    limits = {record["settings"].get("max_seconds") for record in records}
    limit = limits.pop() if len(limits) == 1 else None
    if limit is not None and min(seconds) >= limit:  # none ended before, for want of gain or of epochs
        return f"Equal seconds: each was trained until {duration(limit)} of steps had passed, on {span} useful tokens."
    return (
        f"No equal budget: they were trained on {span} useful tokens, in {duration(min(seconds))} to "
        f"{duration(max(seconds))}."
    )
