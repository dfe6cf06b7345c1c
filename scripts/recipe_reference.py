"""Write docs/recipes.md from the recipe's sections and the method table; `--check` only compares.

python scripts/recipe_reference.py [--check]
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from textlift.methods.registry import METHODS
from textlift.recipe import (
    DataSection,
    DecisionSection,
    ModelSection,
    Recipe,
    RuntimeSection,
    TrainingSection,
    VariantSection,
)

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipes.md"
SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataSection,
    "model": ModelSection,
    "training": TrainingSection,
    "decision": DecisionSection,
    "runtime": RuntimeSection,
    "variants.NAME": VariantSection,
}
HEAD = """# Recipes

A recipe is one YAML file that describes one job; `textlift recipes NAME` prints a built-in one to edit, and
`textlift run my-recipe.yaml --set training.epochs=3` changes single values. Unknown keys and values out of range are
refused, all at once. A relative `data.source` is taken from the folder of the recipe. A variant takes the recipe's
`method` and `training` and replaces what it names itself: `--set variants.NAME.training.epochs=3` is for one of them,
and a value that would reach none is refused.

This page is made by `python scripts/recipe_reference.py`; a test holds that it is current.
"""


def page() -> str:
    """The whole page."""
    lines = [HEAD, *table("The recipe itself", Recipe, "", skip=set(SECTIONS) | {"format_version"})]
    for name, section in SECTIONS.items():
        lines += table(f"`{name}`", section, "")
    lines += ["## `method`", "", "`name` is one of the methods below; the other keys are its options.", ""]
    for method in METHODS.values():
        lines += [f"### `{method.name}`", "", f"{method.summary} Source: <{method.paper}>.", ""]
        lines += list(rows(method.options, "")) or ["No options.", ""]
    return "\n".join(lines).rstrip() + "\n"


def table(title: str, section: type[BaseModel], prefix: str, *, skip: set[str] | None = None) -> list[str]:
    """One section of the page."""
    return [f"## {title}", "", *rows(section, prefix, skip=skip or set())]


def rows(section: type[BaseModel], prefix: str, *, skip: set[str] | None = None) -> Iterator[str]:
    """A row for each key with a meaning: default and description."""
    told = [
        (name, field) for name, field in section.model_fields.items() if field.description and name not in (skip or ())
    ]
    if not told:
        return
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    for name, field in told:
        default = "must be given" if field.is_required() else shown(field.default)
        yield f"| `{prefix}{name}` | {default} | {str(field.description).replace('|', '&#124;')} |"
    yield ""


def shown(default: Any) -> str:
    """A default as it stands in a recipe."""
    if isinstance(default, dict) and any(isinstance(value, BaseModel) for value in default.values()):
        return ", ".join(f"`{name}`" for name in default)
    if default is None:
        return "null"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, tuple):
        return ", ".join(f"`{value}`" for value in default)
    if default == {"name": "lora"}:
        return "`{name: lora}`"
    return f"`{default}`" if default not in ({}, ()) else ""


def main() -> int:
    """Write the page, or with --check say whether it is current."""
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.read_text(encoding="utf-8") == page() else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
