"""Calibration and decisions in the report: reliability before and after, accuracy against coverage, what is stored.

Knows the record of a variant as plain dicts; see docs/results-format.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from textlift.report.svg import at, figure, short, tag, text_at
from textlift.report.wording import clip, percent, points

_TOP, _HEIGHT, _SHARES = 8, 190, 30  # px: of the plot, and of the share of rows under it
_LEFT = 0.13  # share of the width that the numbers of the vertical axis take

Point = tuple[float, float]


@dataclass(frozen=True)
class DecisionPanel:
    """What the report shows of the decision of a variant; sentences are plain text with foreign names in them."""

    before: Markup
    after: Markup
    coverage: Markup
    ece_before: float
    ece_after: float
    ece_by_chance: float
    temperature: float
    is_applied: bool
    area: float
    sentences: list[str]
    stored: list[tuple[str, str]]


def decision_panel(record: Mapping[str, Any], label_names: Sequence[str]) -> DecisionPanel | None:
    """The panel of a variant; None where its record says nothing of calibration, as of one of an earlier version."""
    if not record.get("calibration") or not record.get("decision"):
        return None
    calibration, curve = record["calibration"], record["coverage_curve"]
    test, bins = calibration["test"], calibration["reliability"]
    return DecisionPanel(
        before=reliability_plot(bins["before"], key="reliability-before", title="Confidence and accuracy, before"),
        after=reliability_plot(bins["after"], key="reliability-after", title="Confidence and accuracy, calibrated"),
        coverage=coverage_plot(curve["points"], key="coverage", title="Accuracy of the most confident share of rows"),
        ece_before=test["ece_before"],
        ece_after=test["ece_after"],
        ece_by_chance=test["ece_by_chance"],
        temperature=calibration["temperature"],
        is_applied=calibration["applied"],
        area=curve["area"],
        sentences=[*_correction_sentences(record.get("prior_correction")), *_outcome_sentences(record["decision"])],
        stored=_stored(record["decision"], label_names),
    )


# ---- plots


def reliability_plot(bins: Sequence[Mapping[str, Any]], *, key: str, title: str) -> Markup:
    """Bars of accuracy by confidence, the diagonal where both are equal, and under them the share of rows of each bin.

    Args:
        bins: Each with low, high, rows, confidence and accuracy.
        key: Start of the ids of this plot, used once on the page.
        title: For those who do not see it.
    """
    rows = sum(one["rows"] for one in bins) or 1
    most = max((one["rows"] for one in bins), default=1) or 1
    floor = _TOP + _HEIGHT
    parts = [_axes(0.0)]
    for one in bins:
        place = {"x": at(_across(one["low"]) + 0.002), "width": at(_across(one["high"]) - _across(one["low"]) - 0.004)}
        tall = _HEIGHT * one["accuracy"]
        parts.append(tag("rect", class_="bar tuned", y=short(floor - tall), height=short(tall), **place))
        share = (_SHARES - 6) * one["rows"] / most
        parts.append(tag("rect", class_="bar baseline", y=short(floor + 6), height=short(max(share, 1.0)), **place))
    ends = {"x1": at(_across(0)), "x2": "100%", "y1": short(floor), "y2": short(_TOP)}
    parts += [tag("line", class_="halo", **ends), tag("line", class_="whisker", **ends)]
    parts.append(_bottom("confidence", floor + _SHARES + 16))
    described = "; ".join(
        f"confidence {percent(one['confidence'])}, accuracy {percent(one['accuracy'])}, {percent(one['rows'] / rows)} "
        "of rows"
        for one in bins
    )
    return figure(key, floor + _SHARES + 20, *parts, title=title, description=f"{described}.")


def coverage_plot(curve: Sequence[Mapping[str, Any]], *, key: str, title: str) -> Markup:
    """Accuracy over the share of rows that are answered, the most confident first.

    Args:
        curve: Points with coverage and accuracy.
        key: Start of the ids of this plot.
        title: For those who do not see it.
    """
    if not curve:
        return Markup()
    lowest = min(one["accuracy"] for one in curve)
    least = next(level for level in (0.96, 0.92, 0.8, 0.6, 0.2, 0.0) if level <= lowest)
    floor = _TOP + _HEIGHT
    places = [(_across(one["coverage"]), (one["accuracy"] - least) / (1 - least)) for one in curve]
    corners = " ".join(f"{short(1000 * x)},{short(1000 * (1 - y))}" for x, y in [*places, places[-1]])
    canvas = tag(
        "svg",
        tag("polyline", class_="curve c0", points=corners, vector_effect="non-scaling-stroke"),
        x="0", y=str(_TOP), width="100%", height=str(_HEIGHT), viewBox="0 0 1000 1000", preserveAspectRatio="none",
        overflow="visible",
    )  # fmt: skip
    described = "; ".join(f"{percent(one['coverage'])} of rows: {percent(one['accuracy'])}" for one in curve[4::5])
    bottom = _bottom("share of rows answered", floor + 18)
    height = floor + _SHARES + 20  # as tall as its neighbours
    return figure(key, height, _axes(least), canvas, bottom, title=title, description=f"{described}.")


def _across(share: float) -> float:
    return _LEFT + (1 - _LEFT) * share


def _axes(least: float) -> Markup:
    """Lines of accuracy from least to 1, with their numbers."""
    parts = []
    for step in range(5):
        level = least + (1 - least) * step / 4
        y = _TOP + _HEIGHT * (1 - step / 4)
        parts.append(tag("line", class_="grid", x1=at(_LEFT), x2="100%", y1=short(y), y2=short(y)))
        parts.append(text_at(f"{100 * level:g} %", "0", y + 4, class_="tick"))
    return tag("g", *parts)


def _bottom(name: str, y: float) -> Markup:
    return tag(
        "g",
        text_at("0", at(_LEFT), y, class_="tick"),
        text_at(name, at(_across(0.5)), y, class_="tick", text_anchor="middle"),
        text_at("100 %", "100%", y, class_="tick", text_anchor="end"),
    )


# ---- words


def _correction_sentences(record: Mapping[str, Any] | None) -> list[str]:
    if not record:
        return []
    estimated, known = record["estimated"], record.get("known")
    differ = "Classes have other shares in test than in training." if record["is_noticeable"] else (
        "The texts of test give no sign of other shares of classes than in training."
    )  # fmt: skip
    if not record["is_noticeable"] and not record["is_applied"]:
        return [differ]
    told = [differ]
    told.append(
        "Prior correction by shares estimated from what the model says of the texts of test, without their labels, "
        f"{'gives' if record['is_applied'] else 'would give'} {percent(estimated['accuracy_after'])} in place of "
        f"{percent(estimated['accuracy_before'])}: {points(estimated['difference'])} points "
        f"({points(estimated['low'])} to {points(estimated['high'])})."
    )
    if record["is_applied"] and record["used"]["priors"] != estimated["priors"]:
        used = record["used"]
        told.append(f"The shares of the recipe give {percent(used['accuracy_after'])}.")
    if known:
        told.append(
            f"Someone who knows the shares of test would get {percent(known['accuracy_after'])}; this figure takes "
            "them from its labels and is no score of the model."
        )
    if not record["is_applied"]:
        told.append("It is not applied; --set decision.priors=estimate does so.")
    return told


def _outcome_sentences(decision: Mapping[str, Any]) -> list[str]:
    test = decision["test"]
    told = []
    if test["coverage"] < 1:
        right = percent(test["accuracy_answered"])
        told.append(f"With the stored decision {percent(test['coverage'])} of test rows are answered, {right} rightly.")
    elif any(decision["stored"][name] is not None for name in ("priors", "costs", "thresholds")):
        told.append(f"With the stored decision {percent(test['accuracy'])} of test rows are right.")
    if test.get("mean_cost") is not None:
        told.append(f"Its mean cost on test is {test['mean_cost']:.3f}.")
    return told


def _stored(decision: Mapping[str, Any], label_names: Sequence[str]) -> list[tuple[str, str]]:
    """Name and value of each part of the stored decision that is set."""
    stored = decision["stored"]
    rows = [("temperature", f"{stored['temperature']:.3f}")]
    if stored["priors"] is not None:
        shares = (
            f"{clip(name, 30)} {percent(share)}" for name, share in zip(label_names, stored["priors"], strict=False)
        )
        rows.append(("shares of classes", _listed(list(shares))))
    if stored["costs"] is not None:
        rows.append(("costs", "the class of the least expected cost is chosen"))
    for one in decision.get("chosen", ()):
        name = f" of {clip(label_names[one['label_id']], 30)}" if "label_id" in one else ""
        start = "not set" if one["threshold"] is None else f"from a probability of {one['threshold']:.3f} on"
        reached = (
            "" if one["is_reached"] else f"; not reached on validation, {percent(one['on_validation'])} is the nearest"
        )
        rows.append((f"{one['kind']} {percent(one['wanted'])}{name}", f"{start}{reached}"))
    return rows


def _listed(parts: list[str], most: int = 12) -> str:
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more" if len(parts) > most else "")
