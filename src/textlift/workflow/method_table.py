"""The method table for people: what each method is, its options, and where it works. Loads no model.

One function gives the records; terminal, JSON and docs/methods.md are made of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from textlift.errors import UsageError, nearest
from textlift.methods.base import Method
from textlift.methods.registry import METHODS
from textlift.models.families import FAMILIES
from textlift.report.wording import wrap
from textlift.training.capability import PRECISIONS, capability

_WIDTH = 100  # columns of a terminal
_KEY = "yes: in full precision and with model.quantization; fp32 or 4-bit: in that alone; no: refused."

Record = Mapping[str, Any]


def method_records(name: str | None = None) -> list[dict[str, Any]]:
    """What is known of every method, or of one: facts, options, and for each family and precision whether it works.

    Raises:
        UsageError: There is no method of this name.
    """
    if name is not None and name not in METHODS:
        raise UsageError(f"the method must be one of {', '.join(METHODS)}; found {name!r}.{nearest(name, METHODS)}")
    return [_record(method) for method in METHODS.values() if name in (None, method.name)]


def _record(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "summary": method.summary,
        "paper": method.paper,
        "merges": method.mergeable,
        "saved_as": "model" if not method.saves_adapter else "adapter" if method.loads_with_peft else "own adapter",
        "learning_rate": method.learning_rate,
        "learning_rates": list(method.learning_rates),
        "options": _options(method),
        "works_on": {
            family: {precision: vars(capability(method, family, precision)) for precision in PRECISIONS}
            for family in FAMILIES
        },
    }


def _options(method: Method) -> list[dict[str, Any]]:
    schema = method.options.model_json_schema()
    needed = schema.get("required", ())
    return [
        {
            "name": name,
            "range": told_range(field),
            "default": "must be given" if name in needed else field["default"],
            "meaning": field["description"],
        }
        for name, field in schema.get("properties", {}).items()
    ]


def told_range(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words, of its JSON schema: "1 to 64", "above 0", "0 to below 1", "none or lora_only"."""
    if "anyOf" in schema:
        return " or ".join(told_range(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(str(value) for value in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    if kind in {"integer", "number"}:
        return _told_bounds(schema)
    return {"array": "names", "null": "null", "boolean": "true or false"}.get(str(kind), "text")


def _told_bounds(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "", "exclusiveMinimum": "above ", "maximum": "to ", "exclusiveMaximum": "to below "}
    told = [f"{word}{_number(schema[key])}" for key, word in words.items() if key in schema]
    if not told:
        return "a number"
    if len(told) == 1 and "minimum" in schema:
        return f"from {told[0]}"
    return " ".join(told).removeprefix("to ")


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def mark(answers: Mapping[str, Record]) -> str:
    """One cell of the matrix, of the answers for each precision: yes, fp32, 4-bit or no."""
    full, quantized = answers["fp32"]["works"], answers["4-bit"]["works"]
    return {(True, True): "yes", (True, False): "fp32", (False, True): "4-bit", (False, False): "no"}[full, quantized]


# ---- terminal


def methods_text(records: Sequence[Record]) -> str:
    """Every method with its facts, then the matrix of methods and families, in at most 100 columns."""
    width = max(len(record["name"]) for record in records) + 2
    lines = []
    for record in records:
        merges = "merges" if record["merges"] else "does not merge"
        lines.append(f"{record['name']:<{width}}{_SAVED[record['saved_as']]}, {merges}; {record['paper']}")
        lines.append(f"{'':<{width}}{record['summary']}")
    widths = {family: max(len(family), 5) + 2 for family in FAMILIES}
    head = "".join(f"{family:<{widths[family]}}" for family in FAMILIES)
    lines += ["", _KEY, "", f"{'':<{width}}{head}".rstrip()]
    for record in records:
        cells = "".join(f"{mark(record['works_on'][family]):<{widths[family]}}" for family in FAMILIES)
        lines.append(f"{record['name']:<{width}}{cells}".rstrip())
    return "\n".join(lines)


_SAVED = {"adapter": "adapter of peft", "own adapter": "adapter of textlift", "model": "whole model"}


def method_text(record: Record) -> str:
    """One method: its facts, where it works and why not elsewhere, its options with range, default and meaning."""
    low, high = record["learning_rates"]
    facts = {
        "paper": record["paper"],
        "saved as": _SAVED[record["saved_as"]],
        "merges": "yes" if record["merges"] else "no",
        "learning rate": f"{record['learning_rate']:g} at a hidden size of 384, less in wider models; "
        f"usual {low:g} to {high:g}",
        "works on": ", ".join(_told_family(record, family) for family in FAMILIES),
    }
    lines = [f"{record['name']}: {record['summary']}", ""]
    rows = [*facts.items(), *(("", reason) for reason in refusals(record))]
    lines += [*_aligned(rows), ""]
    if not record["options"]:
        return "\n".join([*lines, "No options."])
    options = [(one["name"], one["range"], _told_default(one["default"]), one["meaning"]) for one in record["options"]]
    return "\n".join([*lines, *_aligned([("option", "range", "default", "meaning"), *options])])


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns side by side, the last one broken into lines of its own where it would pass the terminal."""
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        before = "".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))
        first, *more = wrap(row[-1], _WIDTH - len(before)).split("\n")
        lines += [before + first, *(" " * len(before) + line for line in more)]
    return lines


def _told_family(record: Record, family: str) -> str:
    shown = mark(record["works_on"][family])
    return family if shown == "yes" else f"{family} ({shown})"


def refusals(record: Record) -> list[str]:
    """Why a method is refused on families in every precision, and the nearest that works there, a sentence each."""
    families: dict[tuple[str, str], list[str]] = {}
    for family, answers in record["works_on"].items():
        if mark(answers) == "no":
            answer = answers["fp32"]
            reason = answer["reason"].removeprefix(f"{family} has ")
            families.setdefault((reason, answer["nearest"]), []).append(family)
    return [f"{', '.join(names)}: {reason}; nearest {nearest}" for (reason, nearest), names in families.items()]


def _told_default(value: object) -> str:
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


# ---- Markdown


def methods_markdown(records: Sequence[Record]) -> str:
    """The table of methods, the matrix and the reasons, as Markdown."""
    lines = ["| method | what it trains | saved as | merges | paper |", "|---|---|---|---|---|"]
    for record in records:
        merges = "yes" if record["merges"] else "no"
        saved, paper = _SAVED[record["saved_as"]], f"<{record['paper']}>"
        lines.append(f"| `{record['name']}` | {record['summary']} | {saved} | {merges} | {paper} |")
    lines += ["", f"{_KEY}", "", f"| method | {' | '.join(FAMILIES)} |", "|---|" + "---|" * len(FAMILIES)]
    for record in records:
        cells = " | ".join(mark(record["works_on"][family]) for family in FAMILIES)
        lines.append(f"| `{record['name']}` | {cells} |")
    lines += ["", "Why a pair is refused, and the nearest that works:", ""]
    lines += [f"- `{record['name']}` on {reason}." for record in records for reason in refusals(record)]
    return "\n".join(lines)
