"""What a report says about how its claims came to be: seeds, openings of the test rows, scores without leaks.

Knows results.json as a plain dict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textlift.report.wording import clip, interval, percent, whole

Results = Mapping[str, Any]

_NAMED = 5  # runs that a sentence names
_NAME_WIDTH = 60


@dataclass(frozen=True)
class Openings:
    """How often the test rows were opened, in words; is_doubtful where the score was chosen among several."""

    sentence: str
    is_doubtful: bool
    entries: Sequence[Mapping[str, Any]]


def openings(results: Results) -> Openings | None:
    """What the ledger tells; None for a run that kept none."""
    ledger = results.get("ledger")
    if not ledger:
        return None
    count, recipes = ledger["openings"], ledger["recipes"]
    beside = [clip(one["run"], _NAME_WIDTH) for one in ledger["beside"]]
    if count <= 1:
        return Openings("The test rows were opened once, for this report.", False, ledger["entries"])
    where = f", also by {_some(beside)} beside this run" if beside else ""
    sentence = f"The test rows were opened {whole(count)} times, with {_count(recipes, 'recipe')}{where}."
    if recipes > 1:
        sentence += " Whoever keeps the best of them by its test score has chosen by test, and that score flatters."
    return Openings(sentence, recipes > 1, ledger["entries"])


def chosen_by_test(titles: Sequence[str], runs: Sequence[Results]) -> list[str]:
    """Warnings for a comparison of runs on the same test rows: who picks the best of them picks by test."""
    groups: dict[str, list[int]] = {}
    for index, results in enumerate(runs):
        rows = results["task"].get("test_fingerprint")
        if rows:
            groups.setdefault(rows, []).append(index)
    return [_told([titles[index] for index in group], [runs[index] for index in group]) for group in groups.values()
            if len(group) > 1]  # fmt: skip


def _told(titles: Sequence[str], runs: Sequence[Results]) -> str:
    opened = max((results.get("ledger") or {}).get("openings", 1) for results in runs)
    told = (
        f"{len(runs)} runs were scored on the same test rows, opened {whole(max(opened, len(runs)))} times in all: the "
        "highest test score among them is chosen by test and flatters."
    )
    on_test, on_validation = (_leader(titles, runs, split) for split in ("test", "validation"))
    if on_test != on_validation:
        told += f" On validation, which may choose, {on_validation} leads, not {on_test}."
    return told


def _leader(titles: Sequence[str], runs: Sequence[Results], split: str) -> str:
    """The run and variant of the highest accuracy on a split, among those that were tuned or are all there is."""
    scored = [
        (record[split]["accuracy"], record["kind"] != "baseline", f"{clip(name, _NAME_WIDTH)} of {title}")
        for title, results in zip(titles, runs, strict=True)
        for name, record in results["variants"].items()
        if record["kind"] != "merged"
    ]
    tuned = [one for one in scored if one[1]] or scored
    return max(tuned, key=lambda one: one[0])[2]


@dataclass(frozen=True)
class Spread:
    """One variant over its seeds."""

    name: str
    seeds: int
    accuracy: Mapping[str, Any]
    f1_macro: Mapping[str, Any]
    agreement: float
    pairwise_agreement: float


def spreads(results: Results) -> list[Spread]:
    """Each variant that was trained from several seeds."""
    return [
        Spread(
            name,
            len(record["seeds"]["values"]),
            accuracy=record["seeds"]["test"]["accuracy"],
            f1_macro=record["seeds"]["test"]["f1_macro"],
            agreement=record["seeds"]["test"]["agreement"],
            pairwise_agreement=record["seeds"]["test"]["pairwise_agreement"],
        )
        for name, record in results["variants"].items()
        if "seeds" in record
    ]


@dataclass(frozen=True)
class Leakless:
    """Accuracy of one variant on all test rows and on those that did not leak."""

    name: str
    before: float
    before_interval: str
    after: float
    after_interval: str


def without_leaks(results: Results) -> list[Leakless]:
    """Each variant with and without the rows that leaked; empty where none did, or in older results."""
    kept = results.get("without_leaks") or {}
    return [
        Leakless(
            name,
            record["test"]["accuracy"],
            interval(record["test"]["accuracy_low"], record["test"]["accuracy_high"]),
            kept["accuracy"][name],
            interval(kept["accuracy_low"][name], kept["accuracy_high"][name]) if "accuracy_low" in kept else "",
        )
        for name, record in results["variants"].items()
        if name in kept.get("accuracy", {})
    ]


def spread_lines(results: Results) -> list[str]:
    """The spread of each variant in one line."""
    return [
        f"{clip(one.name, _NAME_WIDTH)}: {one.seeds} seeds, accuracy {percent(one.accuracy['mean'])} "
        f"± {percent(one.accuracy['sd'])} (standard deviation), all agree on {percent(one.agreement)} of the rows"
        for one in spreads(results)
    ]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return f"{', '.join(names[:_NAMED])}{f' and {more} more' if more > 0 else ''}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
