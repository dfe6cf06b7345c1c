"""What commands print: made safe for a terminal."""

import json
from typing import Any

import typer

from textlift.errors import safe_for_terminal
from textlift.escaping import visible

_STRONGEST = 10  # words that are told of a text
_SHOWN = 100  # characters of a text on a line


def tell_error(message: str) -> None:
    """Foreign text on stderr, three lines at most."""
    lines = safe_for_terminal(message).splitlines()
    typer.echo("\n".join(lines[:3]), err=True)


def print_line(text: str) -> None:
    """Foreign text on stdout, lines kept."""
    typer.echo(safe_for_terminal(text))


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=True))


def print_scores(scores: dict[str, Any], title: str) -> None:
    """What `textlift evaluate` measured."""
    lines = [title]
    for name in ("accuracy", "f1_weighted", "f1_macro", "precision_weighted", "recall_weighted", "log_loss"):
        lines.append(f"  {name:<20} {scores[name]:.4f}  ({scores[f'{name}_low']:.4f} to {scores[f'{name}_high']:.4f})")
    lines.append(f"  {'calibration error':<20} {scores['ece']:.4f}")
    if scores["coverage"] < 1:
        right = scores["accuracy_answered"]
        shown = "" if right is None else f", {right:.4f} of them right"
        lines.append(f"  {'answered':<20} {scores['coverage']:.4f}{shown}")
    if "mean_cost" in scores and scores["mean_cost"] is not None:
        lines.append(f"  {'mean cost':<20} {scores['mean_cost']:.4f}")
    print_line("\n".join(lines))


def print_check(result: dict[str, Any]) -> None:
    """What `textlift check` found; each finding with why it matters and where its rows stand."""
    lines = [f"{visible(result['name'])}: text in {result['text_column']!r}, label in {result['label_column']!r}"]
    lines += [f"  {reason}" for reason in result["reasons"]]
    for split, labels in result["labels"].items():
        shown = ", ".join(f"{visible(name)} {count:,}" for name, count in list(labels.items())[:12])
        more = f", and {len(labels) - 12} more" if len(labels) > 12 else ""
        lines.append(f"{split}: {result['rows'][split]:,} rows: {shown}{more}")
    for one in result["checks"]:
        lines.append(f"{one['severity']}: {' '.join(one['message'].split())}")
        lines += [f"  why: {one['why']}"] if one["why"] else []
        lines += [f"  to do: {one['advice']}"] if one["advice"] and one["advice"] not in one["message"] else []
        lines += [f"  rows: {one['file']}"] if one["file"] else []
    lines += [] if result["checks"] else ["Nothing was found."]
    lines += ["--output DIR lists the rows of each finding."] if _has_unlisted_rows(result) else []
    lines += _fixed_lines(result["fixed"]) if "fixed" in result else []
    print_line("\n".join(lines))


def print_explained(told: list[dict[str, Any]]) -> None:
    """What `textlift explain` found: of each text the strongest words and the nearest training rows."""
    for one in told:
        strongest = sorted(one["words"]["parts"], key=lambda part: -abs(part[1]))[:_STRONGEST]
        lines = [
            f"{visible(one['prediction'])} {one['probability']:.1%}, log odds {one['words']['log_odds']:+.2f}: "
            f"{visible(one['text'][:_SHOWN])}",
            *(f"  {weight:+8.2f}  {visible(part.strip()[:_SHOWN])}" for part, weight in strongest),
        ]
        lines += [f"  {one['words']['unread']:,} more words are not read"] if one["words"]["unread"] else []
        for row in one["nearest"]:
            place = f"{visible(row['source'])}:{row['row']}"
            text = visible(row["text"][:_SHOWN])
            lines.append(f"  near in train ({row['similarity']:.2f}): {visible(row['label'])} | {text} | {place}")
        lines += [f"  {visible(one['note'])}"] if one["note"] else []
        print_line("\n".join(lines))


def _fixed_lines(fixed: dict[str, Any]) -> list[str]:
    """What `textlift check --fix` changed in its copy."""
    rows = ", ".join(f"{split} {count:,}" for split, count in fixed["rows"].items())
    lines = ["", f"cleaned copy in {fixed['folder']}: {rows} rows; log/changes.csv tells every change"]
    lines += [f"  {count:,} rows {what}" for what, count in fixed["changes"].items()]
    left = [one for one in fixed["checks"] if one["severity"] != "info"]
    lines.append(f"checked again: {len(left)} findings are left" if left else "checked again: nothing is left")
    lines += [f"  {one['severity']}: {' '.join(one['message'].split())}" for one in left]
    return lines


def _has_unlisted_rows(result: dict[str, Any]) -> bool:
    return any(one["rows"] and not one["file"] for one in result["checks"])
