"""Plain values to a recipe and back: whatever cannot be used is told at once."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from textlift.errors import RecipeError
from textlift.recipe.sections import Recipe, TrainingSection, misnamed
from textlift.recipe.wording import in_one_line, shortened, shown, told_by_key

_MOST_VALUES, _MOST_DEPTH = 10_000, 16  # far beyond any recipe; YAML aliases make small files of endless values


def parse_recipe(values: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
    """A recipe from plain values.

    Raises:
        RecipeError: Keys are unknown or values out of range; all complaints are told at once.
    """
    told: dict[str, str] = {}
    plain = plain_values(values, "", told)
    if not isinstance(plain, dict):
        raise RecipeError(f"{source}: must hold sections such as data: and model:; found {shown(values)}.")
    try:
        recipe = Recipe.model_validate(plain)
    except ValidationError as error:
        if all(item["loc"] for item in error.errors()):  # else it is about names of variants, told below
            told = {**told_by_key(error, Recipe), **told}
    told |= _told_of_variants(plain)
    if told:
        raise RecipeError(in_one_line(told, source))
    return recipe


def recipe_yaml(recipe: Recipe) -> str:
    """The recipe as YAML that `read_recipe` reads back to an equal one."""
    values = recipe.model_dump(mode="json")
    # Line ends of Unicode are written as they are and read as spaces, unless all but ASCII is escaped; others turn
    # the text around on a terminal.
    is_plain = not re.search(r"\\u(?:0085|061c|200[bef]|202[89a-e]|206[0-9a-f]|feff)", json.dumps(values))
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=is_plain, width=110)
    return text


def plain_values(
    value: Any, key: str, told: dict[str, str], *, left: Iterator[int] | None = None, depth: int = 0
) -> Any:
    """A copy in dicts, lists, texts, finite numbers, booleans and None; whatever else stands in it is told."""
    left = iter(range(_MOST_VALUES)) if left is None else left
    if depth > _MOST_DEPTH or next(left, None) is None:
        told.setdefault("", f"a recipe must hold {_MOST_VALUES:,} values at most, {_MOST_DEPTH} deep; found more")
    elif isinstance(value, Mapping):
        wrong = [name for name in value if not isinstance(name, str)]
        if wrong:
            told[key] = f"{shortened(key or 'keys')}: must have texts as keys; found {shown(wrong[0])}, quote it"
        keys = {name: f"{key}.{name}" if depth else name for name in value if isinstance(name, str)}
        return {name: plain_values(value[name], keys[name], told, left=left, depth=depth + 1) for name in keys}
    elif isinstance(value, (list, tuple)):
        return [plain_values(item, f"{key}.{at}", told, left=left, depth=depth + 1) for at, item in enumerate(value)]
    elif isinstance(value, float) and not math.isfinite(value):
        told[key] = f"{shortened(key)}: must be a finite number; found {value!r}"
    elif value is not None and not isinstance(value, (str, int, float)):
        found = f"found {shown(value)}"
        told[key] = f"{shortened(key)}: must be a text, number, true, false, null, list or section; {found}"
    return value


def _told_of_variants(values: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong in the variants that the shape of a recipe does not say."""
    variants, baselines = values.get("variants"), values.get("baselines", list(Recipe().baselines))
    listed = variants.items() if isinstance(variants, dict) else ()
    sections = {name: one for name, one in listed if isinstance(one, dict)}
    told: dict[str, str] = {}
    for name, section in sections.items():
        try:
            TrainingSection.model_validate(section.get("training") or {})
        except ValidationError as error:
            told |= told_by_key(error, TrainingSection, f"variants.{name}.training.")
    origins = {name: one.get("merge_of") for name, one in sections.items()}
    named = baselines if isinstance(baselines, list) else ()
    for number, sentence in enumerate(misnamed(origins, [str(one) for one in named])):
        told[f"variants ({number})"] = sentence
    return told
