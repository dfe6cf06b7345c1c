"""Recipes by name or file, and `key=value` overrides."""

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from textlift.errors import InputNotFoundError, RecipeError, nearest
from textlift.recipe.parsing import parse_recipe
from textlift.recipe.sections import Recipe
from textlift.recipe.wording import shortened, shown


def read_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe by the name of a built-in one or by file, with `key.path=value` overrides.

    A relative data path in the file is taken from the folder of the file.

    Raises:
        InputNotFoundError: There is no such recipe.
        RecipeError: It cannot be used.
    """
    path = recipe_path(name)
    values = _read_yaml(path)
    data = values.get("data")
    if isinstance(data, dict):
        _anchor_paths(data, path)
    values.setdefault("name", path.stem)
    return parse_recipe(apply_overrides(values, overrides), source=path.name)


def recipe_names() -> list[str]:
    """Names of the built-in recipes, sorted."""
    return sorted(path.stem for path in _built_in_folder().glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe.

    Raises:
        InputNotFoundError: It is neither a file nor a built-in name.
    """
    built_in = _built_in_folder() / f"{name}.yaml"
    if name in recipe_names():
        return built_in
    path = Path(name)
    try:
        is_there = path.is_file()
    except OSError:  # a name that is too long for a file
        is_there = False
    if not is_there:
        raise InputNotFoundError(
            f"{shortened(name)}: must be a recipe file or the name of a built-in recipe; no such file."
            f"{nearest(name, recipe_names())}\nBuilt-in: {', '.join(recipe_names())}."
        )
    return path


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """The values with `a.b=value` entries set; a value is read as YAML (16, 1e-3, true, null, [a, b]).

    Raises:
        RecipeError: An override has no `=`, or leads through something that is not a section.
    """
    result: dict[str, Any] = _copy(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f"--set must look like method.rank=16; found {override!r}.")
        *parents, last = key.strip().split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise RecipeError(
                    f"--set {shortened(override)}: {shortened(parent)} must be a section; it holds {shown(node)}."
                )
        node[last] = _yaml_value(text, override)
    return result


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except _YAML_ERRORS as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}, column {where.column + 1}" if where else ""
        raise RecipeError(f"{path}: must be YAML in UTF-8; it cannot be read{line}.") from error
    except OSError as error:
        raise InputNotFoundError(f"{path}: must be a readable file; {error.strerror}.") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: must hold sections such as data: and model:; found {type(values).__name__}.")
    return values


def _yaml_value(text: str, override: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except _YAML_ERRORS as error:
        raise RecipeError(
            f"--set {shortened(override)}: the value must be YAML, such as 16, true or [a, b]."
        ) from error
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+", value)
    return float(value) if is_number else value  # YAML 1.1 reads 1e-3 as a word


# Besides its own, what PyYAML lets through: a date such as 2020-99-99, 5,000 digits, a tag's value, deep nesting.
_YAML_ERRORS = (yaml.YAMLError, ValueError, KeyError, AttributeError, RecursionError)


def _anchor_paths(data: dict[str, Any], recipe_file: Path) -> None:
    # A source checkout keeps the demo's rows in examples/; an installed package keeps them beside the recipes.
    folders = (recipe_file.parent, Path(__file__).parents[3] / "examples")
    files = data.get("files")
    for holder, keys in ((data, ["source"]), (files, list(files) if isinstance(files, dict) else [])):
        for key in keys:
            value = holder.get(key) if isinstance(holder, dict) else None
            if isinstance(value, str) and not Path(value).is_absolute():
                found = next((folder / value for folder in folders if (folder / value).exists()), None)
                if found is not None and isinstance(holder, dict):
                    holder[key] = str(found.resolve())


def _built_in_folder() -> Path:
    return Path(str(resources.files("textlift") / "recipes"))


def _copy(value: Any) -> Any:
    """The sections copied, so that they can be changed; lists are shared."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return value
