"""Tables of scores for terminal, Markdown and notebook, from one run or from several.

Knows results.json as a plain dict; no model, no numbers library, no template.
"""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from textlift.escaping import escape_markdown, visible
from textlift.report.claims import chosen_by_test, openings, spread_lines
from textlift.report.wording import (
    MISSING,
    clip,
    decimal,
    display_width,
    duration,
    interval,
    percent,
    whole,
    wrap,
)

Results = Mapping[str, Any]
Variant = Mapping[str, Any]

TEXT_WIDTH = 100  # columns of a terminal table, at most
NAME_WIDTH = 60  # columns of a variant or label name in Markdown and HTML, at most


@dataclass(frozen=True)
class Column:
    """One column of the score table."""

    heading: str
    cell: Callable[[Variant], str]
    stacked: tuple[str, str] | None = None  # heading in a terminal, in two lines; None leaves the column out there


def _score(metric: str) -> Callable[[Variant], str]:
    return lambda variant: percent(variant["test"][metric])


def _accuracy(variant: Variant) -> str:
    scores = variant["test"]
    bounds = interval(scores["accuracy_low"], scores["accuracy_high"])
    return f"{percent(scores['accuracy'])} ({bounds})" if bounds else percent(scores["accuracy"])


def trained_share(variant: Variant) -> float | None:
    """Share of the parameters that were trained; None where there are none to count, as for majority."""
    return variant["trained_parameters"] / variant["total_parameters"] if variant["total_parameters"] else None


def _trained(variant: Variant) -> str:
    share = trained_share(variant)
    return whole(variant["trained_parameters"]) + (f" ({percent(share)})" if share is not None else "")


COLUMNS = (
    Column("Accuracy (95 % interval)", _accuracy, ("accuracy", "(95 % interval)")),
    Column("F1 weighted", _score("f1_weighted"), ("F1", "weighted")),
    Column("F1 macro", _score("f1_macro"), ("F1", "macro")),
    Column("Precision weighted", _score("precision_weighted")),
    Column("Recall weighted", _score("recall_weighted")),
    Column("Log loss", lambda variant: decimal(variant["test"]["log_loss"]), ("log", "loss")),
    Column("Trained parameters", _trained),
    Column("Trained", lambda variant: percent(trained_share(variant)), ("", "trained")),
    Column("Train time", lambda variant: duration(variant["train_seconds"]), ("train", "time")),
    Column("Samples/s", lambda variant: whole(variant["samples_per_second"]), ("samples", "per s")),
)
_WIDE = tuple(column for column in COLUMNS if column.heading != "Trained")  # there the count says the share too
_NARROW = tuple(column for column in COLUMNS if column.stacked)


def headline(results: Results) -> str:
    """Name of the variant that the report is about.

    The one that the examples were taken from; else the tuned variant, else any, with the highest validation accuracy.
    """
    variants = results["variants"]
    named = results["examples"]["variant"]
    if named in variants:
        return str(named)
    tuned = [name for name in variants if variants[name]["kind"] != "baseline"]
    return str(max(tuned or variants, key=lambda name: variants[name]["validation"]["accuracy"]))


def strongest_baseline(results: Results) -> str | None:
    """Name of the baseline with the highest test accuracy, the hardest to beat; None where there is no baseline."""
    variants = results["variants"]
    baselines = [name for name in variants if variants[name]["kind"] == "baseline"]
    return max(baselines, key=lambda name: float(variants[name]["test"]["accuracy"]), default=None)


def run_titles(runs: Sequence[Results]) -> list[str]:
    """A title per run: its name and base model, numbered where two would read the same."""
    titles: list[str] = []
    for results in runs:
        title = f"{clip(results['name'], NAME_WIDTH)} · {clip(results['model']['name'], NAME_WIDTH)}"
        seen = sum(other == title or other.startswith(f"{title} (") for other in titles)
        titles.append(f"{title} ({seen + 1})" if seen else title)
    return titles


def comparison_notes(runs: Sequence[Results]) -> list[str]:
    """Sentences on what keeps the runs from being compared row by row; empty where nothing does."""
    notes = []
    tasks = [results["task"] for results in runs]
    counts = {task["rows"]["test"] for task in tasks}
    fingerprints = {task["test_fingerprint"] for task in tasks if task.get("test_fingerprint")}
    if len(counts) > 1:
        listed = " / ".join(whole(task["rows"]["test"]) for task in tasks)
        notes.append(f"The runs were tested on different rows ({listed}): their scores cannot be compared directly.")
    elif len(fingerprints) > 1:
        notes.append("The runs have equally many test rows, but not the same ones: compare their scores with care.")
    if len({tuple(task["label_names"]) for task in tasks}) > 1:
        notes.append("The runs do not have the same label names.")
    return notes


# ---- Markdown


def _markdown_rows(headings: Sequence[str], rows: Iterable[Sequence[str]], *, n_text: int) -> str:
    rule = ["---"] * n_text + ["---:"] * (len(headings) - n_text)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))


def doubts(results: Results) -> list[str]:
    """What stands against trusting the scores, a summary first; empty for results that do not say."""
    told = results.get("soundness")
    if told is None:
        return []
    without, opened = leakless(results), openings(results)
    return [
        told["summary"],
        *(one["sentence"] for one in told["against"]),
        *([without] if without else []),
        *([opened.sentence] if opened is not None and opened.is_doubtful else []),
    ]


def leakless(results: Results) -> str | None:
    """What the accuracy of the variant of the report is on the test rows that are in no earlier split."""
    kept = results.get("without_leaks")
    best = headline(results)
    if not kept or best not in kept["accuracy"]:
        return None
    before = percent(results["variants"][best]["test"]["accuracy"])
    after = percent(kept["accuracy"][best])
    return f"Without the {whole(kept['left_out'])} test rows that leaked, {best} is right on {after}, not {before}."


def markdown_table(results: Results) -> str:
    """The verdict, what stands against it, and one row per variant, as Markdown."""
    rows = [
        [escape_markdown(clip(name, NAME_WIDTH)), *(column.cell(variant) for column in _WIDE)]
        for name, variant in results["variants"].items()
    ]
    headings = ["Variant", *(column.heading for column in _WIDE)]
    summary, *against = [escape_markdown(sentence) for sentence in doubts(results)] or [""]
    trust = [f"**Data:** {summary}"] if summary else []
    trust += ["\n".join(f"- {sentence}" for sentence in against)] if against else []
    verdict = f"**Verdict:** {escape_markdown(results['verdict'])}"
    spread = "\n".join(f"- {escape_markdown(line)}" for line in spread_lines(results))
    parts = [verdict, *trust, _markdown_rows(headings, rows, n_text=1), spread]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_markdown(runs: Sequence[Results]) -> str:
    """Verdicts, notes and one row per run and variant, as Markdown."""
    titles = [escape_markdown(title.strip()) for title in run_titles(runs)]
    verdicts = [
        f"- **{title}:** {escape_markdown(results['verdict'])}" for title, results in zip(titles, runs, strict=True)
    ]
    rows = [
        [title, escape_markdown(clip(name, NAME_WIDTH)), *(column.cell(variant) for column in _WIDE)]
        for title, results in zip(titles, runs, strict=True)
        for name, variant in results["variants"].items()
    ]
    headings = ["Run", "Variant", *(column.heading for column in _WIDE)]
    notes = [f"**Chosen by test:** {escape_markdown(one)}" for one in chosen_by_test(run_titles(runs), runs)]
    notes += [f"**Note:** {note}" for note in comparison_notes(runs)]
    return "\n\n".join(["\n".join(verdicts), *notes, _markdown_rows(headings, rows, n_text=2)]) + "\n"


# ---- terminal


def _lines(groups: Mapping[str, Results]) -> list[list[str]]:
    """Aligned rows of every group under one heading, as the lines of each; the first entry is the heading."""
    cells = [
        [[name, *(column.cell(variant) for column in _NARROW)] for name, variant in results["variants"].items()]
        for results in groups.values()
    ]
    stacks = [column.stacked or ("", "") for column in _NARROW]
    heads = [["", *(stack[0] for stack in stacks)], ["variant", *(stack[1] for stack in stacks)]]
    every = [*heads, *(row for group in cells for row in group)]
    widths = [max(len(row[column]) for row in every) for column in range(1, len(stacks) + 1)]
    room = TEXT_WIDTH - sum(widths) - 2 * len(widths)
    name_width = min(room, max(display_width(visible(row[0])) for row in every))

    def line(row: Sequence[str]) -> str:
        name = clip(row[0], name_width)
        padded = name + " " * (name_width - display_width(name))
        return "  ".join([padded, *(cell.rjust(width) for cell, width in zip(row[1:], widths, strict=True))]).rstrip()

    return [[line(row) for row in group] for group in (heads, *cells)]


def text_table(results: Results) -> str:
    """The verdict and an aligned table of at most 100 columns, safe to print in a terminal."""
    heading, rows = _lines({"": results})
    rule = "-" * max(display_width(line) for line in (*heading, *rows))
    summary, *against = doubts(results) or [""]
    trust = [wrap(summary, TEXT_WIDTH), *(wrap(f"- {sentence}", TEXT_WIDTH) for sentence in against)] if summary else []
    spread = [wrap(line, TEXT_WIDTH) for line in spread_lines(results)]
    return (
        "\n".join([wrap(results["verdict"], TEXT_WIDTH), *trust, "", *heading, rule, *rows, "", *spread]).rstrip()
        + "\n"
    )


def comparison_text(runs: Sequence[Results]) -> str:
    """Several runs under one heading, each with its title and verdict, then what keeps them from being compared."""
    titles = run_titles(runs)
    heading, *groups = _lines(dict(zip(titles, runs, strict=True)))
    rule = "-" * max(display_width(line) for group in (heading, *groups) for line in group)
    parts = [*heading, rule]
    for title, results, rows in zip(titles, runs, groups, strict=True):
        parts += [wrap(title, TEXT_WIDTH), *rows, wrap(results["verdict"], TEXT_WIDTH), ""]
    parts += [wrap(f"Chosen by test: {one}", TEXT_WIDTH) for one in chosen_by_test(titles, runs)]
    parts += [wrap(f"Note: {note}", TEXT_WIDTH) for note in comparison_notes(runs)]
    return "\n".join(parts).rstrip("\n") + "\n"


# ---- notebook

_FRAGMENT_COLUMNS = ("Accuracy (95 % interval)", "F1 macro", "Log loss", "Trained parameters", "Train time")


def html_fragment(results: Results) -> str:
    """The verdict and a small table as HTML for a notebook, without style sheet, script or link."""
    columns = [column for column in COLUMNS if column.heading in _FRAGMENT_COLUMNS]
    number = ' style="text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums"'
    headings = "".join(f"<th{number}>{html.escape(column.heading)}</th>" for column in columns)
    best = headline(results)
    rows = ""
    for name, variant in results["variants"].items():
        shown = html.escape(clip(name, NAME_WIDTH))
        shown = f"<strong>{shown}</strong>" if name == best else shown
        cells = "".join(f"<td{number}>{html.escape(column.cell(variant))}</td>" for column in columns)
        rows += f'<tr><th style="text-align:left" scope="row"><bdi>{shown}</bdi></th>{cells}</tr>'
    head = f'<tr><th style="text-align:left">Variant</th>{headings}</tr>'
    title = html.escape(clip(results["name"], NAME_WIDTH))
    rows_tested = whole(results["task"]["rows"]["test"])
    return (
        f"<div><p><strong>{html.escape(visible(results['verdict']))}</strong></p>"
        f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
        f"<p><small><bdi>{title}</bdi> · {rows_tested} test rows · {MISSING} not measured</small></p></div>"
    )
