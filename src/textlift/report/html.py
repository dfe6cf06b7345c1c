"""The report as one self-contained page: no script, no URL opened, dark and light.

Knows the shape of results.json and of the histories as plain dicts. Every string that the template prints is made
visible and escaped on its way out, whoever wrote it.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from textlift.errors import row_list
from textlift.escaping import visible
from textlift.evaluation.corrected import about
from textlift.evaluation.verdict import corrected_bounds
from textlift.report import claims, error_book, frontier, plots, table, wording
from textlift.report.decisions import decision_panel
from textlift.report.table import Results

Histories = Mapping[str, Sequence[Mapping[str, Any]]]

MAX_CLASS_BARS = 30
MAX_STRIP = 0.1  # share: majority is often 60 points away, which would flatten what matters
MAX_TEXT_WIDTH = 600  # columns of an example text

_SEVERITIES = {"error": 0, "warning": 1, "info": 2}
_LOWER_IS_BETTER = {"log_loss"}


@dataclass(frozen=True)
class Matrix:
    """The confusion of one variant: a grid, or for many classes the pairs confused most often."""

    variant: str
    accuracy: float
    is_open: bool
    plot: Markup
    pairs: list[plots.Confusion]


@dataclass(frozen=True)
class Difference:
    """One paired comparison with what it shows in words."""

    a: str
    b: str
    metric: str
    difference: float
    low: float
    high: float
    p_value: float | None
    meaning: str
    strip: Markup
    is_of_headline: bool


@dataclass(frozen=True)
class Costs:
    """Score against cost of the variants of one run, or of several tested on the same rows, named by number."""

    runs: list[str]
    panels: list[frontier.Panel]
    note: str


def render_html(results: Results, histories: Histories) -> str:
    """The report of one run as a complete HTML page.

    Args:
        results: What results.json holds.
        histories: Per trained variant its training steps and validations; may be empty.
    """
    best = table.headline(results)
    context = {
        "results": results,
        "best": best,
        "baseline": table.strongest_baseline(results),
        "lift": _lift(results, best),
        "trained_share": table.trained_share(results["variants"][best]),
        "score_plots": _score_plots(results["variants"], key="scores"),
        "costs": _costs([("", results)], key="costs"),
        "differences": _differences(results, best),
        "curves": _curves(histories, best),
        "matrices": _matrices(results, best),
        "classes": _classes(results, best),
        "decision": decision_panel(results["variants"][best], results["task"]["label_names"]),
        "checks": sorted(results["checks"], key=lambda finding: _SEVERITIES.get(finding["severity"], 3)),
        "soundness": results.get("soundness"),
        "leakless": table.leakless(results),
        "without_leaks": claims.without_leaks(results),
        "openings": claims.openings(results),
        "spreads": claims.spreads(results),
        "examples": _examples(results["examples"]),
        "book": error_book.view(results),
        "recipe_yaml": _yaml(results["recipe"]),
        "usage": _usage(best),
    }
    return _environment().get_template("template.html.j2").render(context)


def render_comparison_html(runs: Sequence[Results]) -> str:
    """Several runs as one complete HTML page: verdicts, bars by run, one table, and what keeps them apart."""
    titles = table.run_titles(runs)
    compared = [
        {
            "title": title,
            "results": results,
            "best": table.headline(results),
            "plot": _score_plots(results["variants"], key=f"run-{number}")[0],
        }
        for number, (title, results) in enumerate(zip(titles, runs, strict=True), start=1)
    ]
    context = {
        "runs": compared,
        "notes": table.comparison_notes(runs),
        "warnings": claims.chosen_by_test(titles, runs),
        "costs": _costs_by_test(titles, runs),
    }
    return _environment().get_template("comparison.html.j2").render(context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("textlift", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    for function in (
        wording.percent, wording.interval, wording.points, wording.difference, wording.whole, wording.decimal,
        wording.p_value, wording.duration, wording.memory, wording.moment, wording.clip, table.trained_share,
        row_list, plots.curve_key,
    ):  # fmt: skip
        environment.filters[function.__name__] = function
    environment.globals.update(metric_names=wording.METRIC_NAMES, missing=wording.MISSING)
    return environment


# ---- what each section shows


def _lift(results: Results, best: str) -> Mapping[str, Any] | None:
    """The accuracy comparison of best with the strongest baseline, as best minus baseline."""
    baseline = table.strongest_baseline(results)
    for comparison in results["comparisons"]:
        if comparison["metric"] == "accuracy" and {comparison["a"], comparison["b"]} == {best, baseline}:
            turned = comparison if comparison["a"] == best else _swapped(comparison)
            low, high = corrected_bounds(turned)
            return {**turned, "low": low, "high": high}
    return None


def _swapped(comparison: Mapping[str, Any]) -> dict[str, Any]:
    low, high = corrected_bounds(comparison)
    return {
        **comparison,
        "a": comparison["b"],
        "b": comparison["a"],
        "difference": -comparison["difference"],
        "low": -comparison["high"],
        "high": -comparison["low"],
        "low_corrected": -high,
        "high_corrected": -low,
    }


def _score_plots(variants: Mapping[str, Any], *, key: str) -> list[Markup]:
    return [
        plots.score_bars(
            [
                plots.Bar(
                    name,
                    variant["test"][metric],
                    low=variant["test"][f"{metric}_low"],
                    high=variant["test"][f"{metric}_high"],
                    tone=variant["kind"],
                )
                for name, variant in variants.items()
            ],
            key=f"{key}-{metric.replace('_', '-')}",
            title=f"{wording.METRIC_NAMES[metric]} on the test rows",
        )
        for metric in ("accuracy", "f1_macro")
    ]


def _costs(runs: Sequence[tuple[str, Results]], *, key: str) -> Costs | None:
    """Score against cost of all tuned variants of the runs, which were tested on the same rows; None below two."""
    named: dict[str, Mapping[str, Any]] = {}
    for number, (_, results) in enumerate(runs, start=1):
        for name, record in frontier.tuned(results["variants"]).items():
            named[f"{name} {number}" if len(runs) > 1 else name] = record
    panels = frontier.frontier_panels(named, key=key)
    if not panels:
        return None
    legend = [title for title, _ in runs] if len(runs) > 1 else []
    return Costs(legend, panels, frontier.budget_note(named))


def _costs_by_test(titles: Sequence[str], runs: Sequence[Results]) -> list[Costs]:
    """One picture for the runs that were tested on the same rows; scores on others do not belong beside them."""
    groups: dict[str, list[tuple[str, Results]]] = {}
    for number, (title, results) in enumerate(zip(titles, runs, strict=True)):
        rows = results["task"].get("test_fingerprint") or f"unknown {number}"
        groups.setdefault(rows, []).append((title, results))
    drawn = [_costs(group, key=f"costs-{number}") for number, group in enumerate(groups.values(), start=1)]
    return [costs for costs in drawn if costs is not None]


def _differences(results: Results, best: str) -> list[Difference]:
    """Every paired comparison, turned so that the variant of the report stands first."""
    turned = [dict(_swapped(item) if item["b"] == best else item) for item in results["comparisons"]]
    extents: dict[str, float] = {}
    for item in turned:
        item["low"], item["high"] = corrected_bounds(item)
        reach = max(abs(item["low"]), abs(item["high"]), abs(item["difference"]))
        limit = math.inf if item["metric"] == "log_loss" else MAX_STRIP
        extents[item["metric"]] = min(max(extents.get(item["metric"], 0.0), reach), limit)
    return [
        Difference(
            item["a"],
            item["b"],
            metric=item["metric"],
            difference=item["difference"],
            low=item["low"],
            high=item["high"],
            p_value=item.get("p_corrected", item["p_value"]),
            meaning=_meaning(item),
            strip=plots.difference_strip(
                item["difference"], item["low"], high=item["high"], extent=extents[item["metric"]]
            ),
            is_of_headline=best in (item["a"], item["b"]),
        )
        for item in turned
    ]


def _meaning(comparison: Mapping[str, Any]) -> str:
    if comparison["low"] <= 0 <= comparison["high"]:
        needed = comparison.get("rows_needed")
        return f"no difference shown{f'; about {about(needed)} more rows would be needed' if needed else ''}"
    a_is_better = (comparison["difference"] > 0) != (comparison["metric"] in _LOWER_IS_BETTER)
    return f"{wording.clip(comparison['a' if a_is_better else 'b'], 40)} is better"


def _curves(histories: Histories, best: str) -> dict[str, Any]:
    """The two plots of learning and the legend that both share, the variant of the report first."""
    names = sorted((name for name, history in histories.items() if history), key=lambda name: name != best)
    losses = {
        name: [(entry["step"], entry["train_loss"]) for entry in histories[name] if "train_loss" in entry]
        for name in names
    }
    accuracies = {
        name: [(entry["step"], entry["validation"]["accuracy"]) for entry in histories[name] if "validation" in entry]
        for name in names
    }
    kept = [accuracies[name][-1] for name in names[:1] if histories[name][-1].get("is_kept")]
    return {
        "names": names,
        "is_refit": any(histories[name][-1].get("is_refit") for name in names),
        "loss": plots.learning_curves(losses, key="curve-loss", title="Training loss per step"),
        "accuracy": plots.learning_curves(
            accuracies,
            key="curve-accuracy",
            title="Validation accuracy per step",
            as_percent=True,
            marked=names[0] if names else None,
            kept=kept[0] if kept else None,
        ),
    }


def _matrices(results: Results, best: str) -> list[Matrix]:
    labels = results["task"]["label_names"]
    variants = results["variants"]
    matrices = []
    for number, name in enumerate(sorted(variants, key=lambda name: name != best), start=1):
        counts = variants[name]["test"]["confusion"]
        is_grid = len(labels) <= plots.MAX_MATRIX_CLASSES
        title = f"Confusion matrix of {wording.clip(name, table.NAME_WIDTH)} on the test rows"
        grid = plots.confusion_matrix(counts, labels, key=f"matrix-{number}", title=title) if is_grid else Markup()
        pairs = [] if is_grid else plots.most_confused(counts, labels)
        accuracy = variants[name]["test"]["accuracy"]
        matrices.append(Matrix(name, accuracy, is_open=name == best, plot=grid, pairs=pairs))
    return matrices


def _classes(results: Results, best: str) -> dict[str, Any]:
    """Per-class F1: the bars (the weakest classes where there are many) and the rows of the complete table."""
    labels = results["task"]["label_names"]
    baseline = table.strongest_baseline(results)
    against = None if baseline in (None, best) else results["variants"][baseline]["test"]["per_class"]
    before = {row["label_id"]: row["f1"] for row in against or ()}
    rows = results["variants"][best]["test"]["per_class"]
    shown = rows if len(rows) <= MAX_CLASS_BARS else sorted(rows, key=lambda row: row["f1"])[:MAX_CLASS_BARS]
    bars = [plots.ClassBar(labels[row["label_id"]], row["f1"], before.get(row["label_id"])) for row in shown]
    return {
        "plots": [
            plots.class_bars(half, key=f"classes-{number}", title="F1 of each class on the test rows")
            for number, half in enumerate(_halves(bars), start=1)
        ],
        "rows": [{"label": labels[row["label_id"]], **row} for row in rows],
        "n_shown": len(shown),
        "has_baseline": against is not None,
    }


def _halves(bars: list[plots.ClassBar]) -> list[list[plots.ClassBar]]:
    middle = (len(bars) + 1) // 2
    return [half for half in (bars[:middle], bars[middle:]) if half]


def _examples(examples: Mapping[str, Any]) -> list[dict[str, Any]]:
    groups = (
        ("confident_wrong", "Most confident and wrong"),
        ("wrong", "Wrong"),
        ("right", "Right"),
    )
    return [
        {"heading": heading, "rows": [{**row, "text": _text(row["text"])} for row in examples[group]]}
        for group, heading in groups
    ]


def _text(text: str) -> str:
    return wording.clip(" ↵ ".join(text.strip().splitlines()), MAX_TEXT_WIDTH)


def _yaml(recipe: Mapping[str, Any]) -> Markup:
    written = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=100)
    return escape(visible(written, keep="\n"))


def _usage(variant: str) -> dict[str, str]:
    """The commands and the snippet that use a variant; RUN stands for the folder of the run."""
    place = f"RUN/{variant}"
    return {
        "predict": f"textlift predict {shlex.quote(place)} texts.csv",
        "load": f"model = textlift.load({place!r})",
    }
