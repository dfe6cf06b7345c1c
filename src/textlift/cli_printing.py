"""What commands print: made safe for a terminal."""

import json
from typing import Any

import typer

from textlift.errors import safe_for_terminal
from textlift.escaping import visible


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


def print_check(result: dict[str, Any]) -> None:
    """What `textlift check` found."""
    lines = [f"{visible(result['name'])}: text in {result['text_column']!r}, label in {result['label_column']!r}"]
    lines += [f"  {reason}" for reason in result["reasons"]]
    for split, labels in result["labels"].items():
        shown = ", ".join(f"{visible(name)} {count:,}" for name, count in list(labels.items())[:12])
        more = f", and {len(labels) - 12} more" if len(labels) > 12 else ""
        lines.append(f"{split}: {result['rows'][split]:,} rows: {shown}{more}")
    lines += [f"{one['severity']}: {' '.join(one['message'].split())}" for one in result["checks"]]
    lines += [] if result["checks"] else ["Nothing was found."]
    print_line("\n".join(lines))
