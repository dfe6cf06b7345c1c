"""Plots as inline SVG, from plain numbers.

Widths are percentages and heights are pixels, so that a plot fills its box on a desktop, a phone and paper without
shrinking its text. Colours and type come from the style sheet of the page by class names. Knows no results.json.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from textlift.escaping import visible
from textlift.report.svg import at, figure, short, tag, text_at
from textlift.report.wording import clip, display_width, interval, percent, points, whole

MAX_MATRIX_CLASSES = 20
MAX_CURVE_POINTS = 120

Point = tuple[float, float]


@dataclass(frozen=True)
class Bar:
    """One bar: a share, the bounds of its interval, and "baseline", "tuned" or "merged" as its tone."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    tone: str = "baseline"


@dataclass(frozen=True)
class ClassBar:
    """F1 of one class for the tuned variant and, where there is one, for the baseline."""

    name: str
    tuned: float
    baseline: float | None = None


@dataclass(frozen=True)
class Confusion:
    """Rows of one class predicted as another: how many, and which share of the true class."""

    true: str
    predicted: str
    count: int
    share: float


# ---- bars with intervals

_BAR_ROW = 46  # px: a line of text, the bar under it, air


def score_bars(bars: Sequence[Bar], *, key: str, title: str) -> Markup:
    """Horizontal bars from 0 to 100 %, name and value above each, the interval drawn across its end."""
    described = "; ".join(f"{visible(bar.name)} {_value(bar)}" for bar in bars)
    rows = [_bar_row(bar, top=index * _BAR_ROW) for index, bar in enumerate(bars)]
    return figure(key, len(bars) * _BAR_ROW, *rows, title=title, description=f"{described}.")


def _value(bar: Bar) -> str:
    bounds = interval(bar.low, bar.high)
    return f"{percent(bar.value)} ({bounds})" if bounds else percent(bar.value)


def _bar_row(bar: Bar, *, top: float) -> Markup:
    bounds = interval(bar.low, bar.high)
    middle = top + 27
    parts = [
        text_at(clip(bar.name, 28), "0", top + 14, class_=f"name {bar.tone}"),
        _value_text(percent(bar.value), soft=f"{bounds}  ", y=top + 14),
        _level_bar("track", 1.0, y=middle - 5, height=10),
        _level_bar(f"bar {bar.tone}", bar.value, y=middle - 5, height=10),
    ]
    if bounds and bar.low is not None and bar.high is not None:
        parts += _whisker(bar.low, bar.high, middle=middle)
    return tag("g", *parts)


def _value_text(value: str, *, soft: str, y: float) -> Markup:
    parts = (tag("tspan", soft, class_="soft"), tag("tspan", value, class_="value"))
    return tag("text", *parts, x="100%", y=short(y), text_anchor="end")


def _level_bar(class_: str, share: float, *, y: float, height: float) -> Markup:
    return tag("rect", class_=class_, x="0", y=short(y), width=at(share), height=short(height))


def _whisker(low: float, high: float, *, middle: float) -> list[Markup]:
    span = {"x1": at(low), "x2": at(high), "y1": short(middle), "y2": short(middle)}
    ends = [
        tag("line", class_="whisker", x1=at(x), x2=at(x), y1=short(middle - 7), y2=short(middle + 7))
        for x in (low, high)
    ]
    return [tag("line", class_="halo", **span), tag("line", class_="whisker", **span), *ends]


_LEFT = 2 * "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}"
_RIGHT = 2 * "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"


def difference_strip(difference: float, low: float, high: float, *, extent: float) -> Markup:
    """A small interval on an axis from -extent to +extent; hidden to screen readers, as its numbers stand beside it."""
    reach = extent or 1.0

    def place(value: float) -> str:
        return at(0.5 + 0.46 * min(max(value / reach, -1.0), 1.0))

    clear = "clear" if low > 0 or high < 0 else "open"
    arrow = _RIGHT if difference > 0 else _LEFT
    is_beyond = abs(difference) > reach
    beyond = text_at(arrow, place(difference), 15, class_="beyond", text_anchor="middle") if is_beyond else ""
    return tag(
        "svg",
        tag("line", class_="zero", x1="50%", x2="50%", y1="0", y2="20"),
        tag("line", class_=f"strip {clear}", x1=place(low), x2=place(high), y1="10", y2="10"),
        beyond or tag("circle", class_=f"strip {clear}", cx=place(difference), cy="10", r="3.5"),
        class_="plot strip",
        aria_hidden="true",
        width="100%",
        height="20",
    )


# ---- learning curves

_CURVE_TOP, _CURVE_HEIGHT = 18, 200  # px
_CURVE_LEFT = 0.1  # share of the width that the numbers of the vertical axis take


def ticks(low: float, high: float, *, count: int = 4) -> list[float]:
    """About count round numbers that span low to high, the first and last at or outside of it."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * count >= span * 0.999)
    first = math.floor(low / step + 1e-9)
    last = max(math.ceil(high / step - 1e-9), first + 1)
    return [round(number * step, 10) for number in range(first, last + 1)]


def thin(curve: Sequence[Point]) -> list[Point]:
    """The curve as at most 120 points, each the mean of equally many neighbours; without values that are no number."""
    finite = [point for point in curve if math.isfinite(point[1])]
    size = math.ceil(len(finite) / MAX_CURVE_POINTS) or 1
    groups = [finite[start : start + size] for start in range(0, len(finite), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def learning_curves(
    curves: Mapping[str, Sequence[Point]],
    *,
    key: str,
    title: str,
    as_percent: bool = False,
    marked: str | None = None,
    kept: Point | None = None,
) -> Markup:
    """One line per variant over the optimizer steps, in the order of the legend; empty where there is no point.

    Args:
        curves: Per variant its points (step, value), in order of steps.
        key: Start of the ids of this plot, used once on the page.
        title: Name of the plot for those who do not see it.
        as_percent: Whether the values are shares.
        marked: Variant whose highest point is marked with its value.
        kept: The point that is marked in place of the highest.
    """
    lines = {name: thin(curve) for name, curve in curves.items()}
    values = [value for line in lines.values() for _, value in line]
    if not values:
        return Markup()
    levels = ticks(min(values), max(values))
    last = max(step for line in lines.values() for step, _ in line) or 1
    low, span = levels[0], levels[-1] - levels[0]

    def place(point: Point) -> Point:
        return _CURVE_LEFT + (1 - _CURVE_LEFT) * point[0] / last, 1 - (point[1] - low) / span

    drawn = [_line([place(p) for p in line], class_=f"curve c{i % 8}") for i, line in enumerate(lines.values())]
    canvas = tag(
        "svg", *drawn, x="0", y=str(_CURVE_TOP), width="100%", height=str(_CURVE_HEIGHT), viewBox="0 0 1000 1000",
        preserveAspectRatio="none", overflow="visible",
    )  # fmt: skip
    mark = ""
    if marked and lines.get(marked):
        mark = _mark(kept or max(lines[marked], key=lambda point: point[1]), place=place)
    described = "; ".join(
        f"{visible(name)}: {_level(line[0][1], as_percent)} at step {line[0][0]:g}, "
        f"{_level(line[-1][1], as_percent)} at step {line[-1][0]:g}"
        for name, line in lines.items()
        if line
    )
    axes = _axes(levels, last=last, as_percent=as_percent)
    height = _CURVE_TOP + _CURVE_HEIGHT + 26
    return figure(key, height, axes, canvas, mark, title=title, description=f"{described}.")


def _level(value: float, as_percent: bool) -> str:
    return percent(value) if as_percent else f"{value:.3g}"


def _line(places: Sequence[Point], *, class_: str) -> Markup:
    # A line of length zero with round ends shows as a dot: one point is seen too.
    is_single = len(places) == 1
    shown = [*places, *places] if is_single else places
    corners = " ".join(f"{short(1000 * x)},{short(1000 * y)}" for x, y in shown)
    kind = f"{class_} single" if is_single else class_
    return tag("polyline", class_=kind, points=corners, vector_effect="non-scaling-stroke")


def _axes(levels: Sequence[float], *, last: float, as_percent: bool) -> Markup:
    parts = []
    digits = max((len(f"{level:g}".partition(".")[2]) for level in levels), default=0)
    for level in levels:
        y = _CURVE_TOP + _CURVE_HEIGHT * (1 - (level - levels[0]) / (levels[-1] - levels[0]))
        shown = f"{100 * level:g} %" if as_percent else f"{level:.{digits}f}"
        parts.append(tag("line", class_="grid", x1=at(_CURVE_LEFT), x2="100%", y1=short(y), y2=short(y)))
        parts.append(text_at(shown, "0", y + 4, class_="tick"))
    bottom = _CURVE_TOP + _CURVE_HEIGHT + 18
    parts.append(text_at("step 0", at(_CURVE_LEFT), bottom, class_="tick"))
    if last >= 2:
        parts.append(text_at(whole(last / 2), at((1 + _CURVE_LEFT) / 2), bottom, class_="tick", text_anchor="middle"))
    parts.append(text_at(whole(last), "100%", bottom, class_="tick", text_anchor="end"))
    return tag("g", *parts)


def _mark(point: Point, *, place: Callable[[Point], Point]) -> Markup:
    x, y = place(point)
    top = _CURVE_TOP + _CURVE_HEIGHT * y
    anchor = "end" if x > 0.8 else "start" if x < 0.25 else "middle"
    return tag(
        "g",
        tag("circle", class_="dot", cx=at(x), cy=short(top), r="4"),
        text_at(percent(point[1]), at(x), top - 10, class_="value halo", text_anchor=anchor),
    )


def curve_key(index: int) -> Markup:
    """The sample of line for entry index of a legend."""
    sample = tag("line", class_=f"curve c{index % 8}", x1="1", x2="27", y1="6", y2="6")
    return tag("svg", sample, class_="key", aria_hidden="true", width="28", height="12")


# ---- confusion


def confusion_matrix(counts: Sequence[Sequence[int]], label_names: Sequence[str], *, key: str, title: str) -> Markup:
    """A grid of counts, rows the true class, shaded by the share of its row; at most 20 classes."""
    n_classes = len(label_names)
    names = [clip(name, 16) for name in label_names]
    longest = max(map(display_width, names))
    least = 16 + 7.4 * longest + 40 * n_classes  # px: room for the row names and every count
    left = (16 + 7.4 * longest) / least  # share of the width that row names take
    head, row_height = 36 + 5 * longest, 36
    parts = [text_at("true", "0", head - 10, class_="tick"), text_at("predicted", at(left), 12, class_="tick")]
    cell = (1 - left) / n_classes
    for index, name in enumerate(names):
        middle = head + row_height * (index + 0.62)
        parts.append(text_at(name, "0", middle, class_="name"))
        # Its own svg puts the origin on a percentage, around which the name can be turned.
        turned = text_at(name, "0", 0, class_="name", transform="rotate(-40)")
        parts.append(
            tag("svg", turned, x=at(left + cell * (index + 0.4)), y=short(head - 8), width="1", height="1",
                 overflow="visible")
        )  # fmt: skip
    for row, row_counts in enumerate(counts):
        for column, count in enumerate(row_counts):
            share = count / (sum(row_counts) or 1)
            x, y = left + cell * column, head + row_height * row
            parts.append(
                tag("rect", class_="cell", x=at(x), y=short(y), width=at(cell), height=str(row_height),
                     style=f"--share:{share:.3f}")
            )  # fmt: skip
            kind = "right" if row == column else "none" if count == 0 else "wrong"
            middle = y + row_height * 0.62
            parts.append(text_at(whole(count), at(x + cell / 2), middle, class_=f"count {kind}", text_anchor="middle"))
    right = sum(counts[index][index] for index in range(n_classes))
    total = sum(map(sum, counts))
    described = f"{whole(right)} of {whole(total)} rows on the diagonal. " + _described(counts, label_names)
    overhang = max(round(5.8 * display_width(names[-1])) - 20, 0)  # px that the last turned name juts out
    width = f"padding-right:{overhang}px;min-width:{least + overhang:.0f}px;max-width:{190 + 66 * n_classes}px"
    return figure(key, head + row_height * n_classes + 2, *parts, title=title, description=described, style=width)


def _described(counts: Sequence[Sequence[int]], label_names: Sequence[str]) -> str:
    pairs = most_confused(counts, label_names, limit=3)
    if not pairs:
        return "No class is taken for another."
    listed = "; ".join(f"{clip(p.true, 40)} as {clip(p.predicted, 40)}: {whole(p.count)}" for p in pairs)
    return f"Most often confused: {listed}."


def most_confused(counts: Sequence[Sequence[int]], label_names: Sequence[str], *, limit: int = 20) -> list[Confusion]:
    """The pairs of classes confused most often, by count and then by share of the true class."""
    pairs = [
        Confusion(label_names[row], label_names[column], count, count / sum(row_counts))
        for row, row_counts in enumerate(counts)
        for column, count in enumerate(row_counts)
        if row != column and count
    ]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.share, pair.true, pair.predicted))[:limit]


# ---- per class

_CLASS_ROW = 46  # px


def class_bars(bars: Sequence[ClassBar], *, key: str, title: str) -> Markup:
    """F1 of each class: the tuned variant over the baseline, its value and the gain in points above them."""
    rows = [_class_row(bar, top=index * _CLASS_ROW) for index, bar in enumerate(bars)]
    described = "; ".join(
        f"{clip(bar.name, 40)} {percent(bar.tuned)}"
        + (f" (baseline {percent(bar.baseline)})" if bar.baseline is not None else "")
        for bar in bars
    )
    return figure(key, len(bars) * _CLASS_ROW, *rows, title=title, description=f"{described}.")


def _class_row(bar: ClassBar, *, top: float) -> Markup:
    gain = "" if bar.baseline is None else f"{points(bar.tuned - bar.baseline)}  "
    baseline = "" if bar.baseline is None else _level_bar("bar baseline", bar.baseline, y=top + 29, height=5)
    return tag(
        "g",
        text_at(clip(bar.name, 28), "0", top + 14, class_="name"),
        _value_text(percent(bar.tuned), soft=gain, y=top + 14),
        _level_bar("track", 1.0, y=top + 21, height=13),
        _level_bar("bar tuned", bar.tuned, y=top + 21, height=8),
        baseline,
    )
