"""From what a user typed to one resolved recipe. Loads nothing."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textlift.errors import RecipeError, UsageError, nearest
from textlift.methods.registry import METHODS, applicable_options, check_methods
from textlift.recipe import Recipe, apply_overrides, parse_recipe, read_recipe, recipe_names, recipe_path

MERGED = "merged"
BASELINES: tuple[str, ...] = Recipe.model_fields["baselines"].default
DEFAULT_METHOD: str = Recipe.model_fields["method"].default["name"]
DATA_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


@dataclass(frozen=True)
class Request:
    """The arguments of `textlift run`, as typed; None is "not given".

    Args:
        target: Recipe name or file, data file, folder or Hub data set.
        data: Local files or one folder in place of the recipe's data.
        validation: File of the validation rows.
        test: File of the test rows.
        model: Base model.
        method: In place of the recipe's own method.
        methods: Variants to train, by method or by name in the recipe.
        overrides: `key.path=value` entries.
        values: Recipe values by dotted key.
    """

    target: str
    data: Sequence[str] = ()
    validation: str | None = None
    test: str | None = None
    model: str | None = None
    method: str | None = None
    methods: Sequence[str] = ()
    overrides: Sequence[str] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


def resolve(request: Request) -> Recipe:
    """The recipe of a request, checked against the method table.

    Raises:
        InputNotFoundError: The target is nothing that is known.
        RecipeError: A value cannot be used; all complaints are told at once.
        UsageError: Arguments contradict each other.
    """
    values = _base_values(request)
    given = {key: value for key, value in request.values.items() if value is not None}
    if request.model is not None:
        given["model.name"] = request.model
        if values.get("model", {}).get("name") not in (None, request.model):
            given["model.revision"] = None
    changed = [*given, *(override.partition("=")[0].strip() for override in request.overrides)]
    if any(key.startswith("variants.") for key in changed):  # a variant more, not in place of those that are there
        values.setdefault("variants", _default_variants())
    for key, value in given.items():
        _set(values, key, value)
    if request.method is not None and request.methods:
        raise UsageError("--method names one method and --methods several; pass one of them.")
    if request.method is not None:
        values = _with_method(values, request.method)
    values = apply_overrides(values, request.overrides)
    if request.methods:
        parse_recipe(values, source=str(values.get("name", "recipe")))  # what is no section is told before it is used
        values = _with_methods(values, request.methods)
        _require_use(request.overrides, values["variants"])
    recipe = parse_recipe(values, source=str(values.get("name", "recipe")))
    check_methods(recipe)
    _require_mergeable(recipe)
    _require_reach(changed, recipe)
    return recipe


def _default_variants() -> dict[str, Any]:
    return {name: one.model_dump(exclude_unset=True) for name, one in Recipe().variants.items()}


def is_recipe(target: str) -> bool:
    """Whether a target names a recipe rather than data: a built-in name, or a YAML file."""
    return target in recipe_names() or Path(target).suffix.lower() in {".yaml", ".yml"}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key as sections: {"data.text": "tweet"} becomes {"data": {"text": "tweet"}}."""
    sections: dict[str, Any] = {}
    for key, value in values.items():
        _set(sections, key, value)
    return sections


def _base_values(request: Request) -> dict[str, Any]:
    files = {"validation": request.validation, "test": request.test}
    files = {split: path for split, path in files.items() if path is not None}
    if is_recipe(request.target):
        values = read_recipe(str(recipe_path(request.target))).model_dump(mode="json", exclude_unset=True)
        values.setdefault("name", Path(request.target).stem)
        if request.data:
            _replace_data(values, request.data)
        if files:
            _set(values, "data.files", {**(values.get("data", {}).get("files") or {}), **files})
        return values
    if request.data:
        raise UsageError(
            f"--data takes the place of a recipe's data; {request.target!r} is data itself. Leave one out."
        )
    _require_data_like(request.target)
    name = "".join(c if c.isalnum() or c in "_.+-" else "-" for c in Path(request.target).stem).strip("-._+")[:64]
    data = {"files": {"train": request.target, **files}} if files else {"source": request.target}
    return {"name": name or "run", "data": data}


def _require_data_like(target: str) -> None:
    path = Path(target)
    if _exists(path) or path.suffix.lower() in DATA_SUFFIXES or "/" in target or "\\" in target or ":" in target:
        return
    names = recipe_names()
    near = nearest(target, names)
    if near:
        from textlift.errors import InputNotFoundError

        raise InputNotFoundError(
            f"{target!r} must be a recipe, a file, a folder or a Hub data set; it is none here.{near}"
            f"\nBuilt-in recipes: {', '.join(names)}."
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long: told where it is read
        return True


def _replace_data(values: dict[str, Any], data: Sequence[str]) -> None:
    section = values.setdefault("data", {})
    for key in ("source", "files", "revision"):
        section.pop(key, None)
    if len(data) == 1:
        section["source"] = data[0]
        return
    section["files"] = {_split_of(path): path for path in data}
    if len(section["files"]) != len(data):
        raise UsageError(f"--data must name one file for each split; found {', '.join(data)}.")


def _split_of(path: str) -> str:
    from textlift.data.layout import SPLIT_WORDS

    words = "".join(c if c.isalpha() else " " for c in Path(path).stem.casefold()).split()
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    if len(found) != 1:
        raise UsageError(
            f"--data {path}: the name of the file must say train, validation or test; it does not."
            "\nRename it, or pass a folder with one file for each split."
        )
    return str(found.pop())


def variant_name(method: str, taken: Iterable[str] = ()) -> str:
    """What a variant of a method is called: as the method, unless a baseline or another variant is."""
    return f"{method}-tuned" if method in BASELINES or method in taken else method


def _with_method(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Another method in place of the recipe's own, with those of its options that the new one has.

    Of the variants that take the recipe's method, the one called after it is called after the new one; what was merged
    from them stays where the new method merges.
    """
    if name not in METHODS:
        raise RecipeError(f"--method must be one of {', '.join(METHODS)}; found {name!r}.{nearest(name, METHODS)}")
    before = dict(values.get("method") or {})
    old = str(before.pop("name", DEFAULT_METHOD))
    variants = values.get("variants") or {old: {}, MERGED: {"merge_of": old}}
    names = {key: key for key, variant in variants.items() if _takes_the_recipes_method(variant)}
    if old in names:
        names[old] = variant_name(name, set(variants) - {old})
    chosen: dict[str, Any] = {}
    for key, variant in variants.items():
        origin = variant.get("merge_of")
        if key in names:
            own = {"method": applicable_options(name, variant.get("method") or {})}
            chosen[names[key]] = _described({**variant, **own}, name, names[key])
        elif origin not in names:
            chosen[key] = variant
        elif METHODS[name].mergeable:
            chosen[key] = {**variant, "merge_of": names[origin]}
    return {**values, "method": {"name": name, **applicable_options(name, before)}, "variants": chosen}


def _takes_the_recipes_method(variant: Mapping[str, Any]) -> bool:
    return variant.get("merge_of") is None and "name" not in (variant.get("method") or {})


def _described(variant: Mapping[str, Any], method: str, name: str) -> dict[str, Any]:
    """The variant with a word on why it is not called as its method, where it is not."""
    if name == method or name != variant_name(method) or variant.get("description"):
        return dict(variant)
    return {**variant, "description": f"{METHODS[method].summary} Called {name}, because {method} is a baseline."}


def _with_methods(values: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Only the named variants: those of the recipe by their name, methods of the table, and `merged`."""
    known = dict(values.get("variants") or {})
    shared = dict(values.get("method") or {})
    own = {key: value for key, value in shared.items() if key != "name"}
    chosen: dict[str, Any] = {}
    for name in names:
        if name in known and known[name].get("merge_of") is None:
            chosen[name] = known[name]
        elif name in METHODS:
            method = {"name": name, **applicable_options(name, own)}
            chosen[variant_name(name)] = _described({"method": method}, name, variant_name(name))
        elif name != MERGED:
            names_known = [*known, *METHODS, MERGED]
            raise RecipeError(
                f"--methods must name variants of the recipe or methods ({', '.join(dict.fromkeys(names_known))}); "
                f"found {name!r}.{nearest(name, names_known)}"
            )
    if MERGED in names:
        origin = next((v for v in chosen if _mergeable(chosen[v], shared)), None)
        if origin is None:
            raise RecipeError(
                "--methods merged folds an adapter into the base; name one that makes it too: lora,merged."
            )
        chosen[MERGED] = {"merge_of": origin}
    return {**values, "variants": chosen}


def _require_use(overrides: Sequence[str], variants: Mapping[str, Any]) -> None:
    """Refuse a shared option that none of the chosen methods has: it would be lost without a word."""
    methods = [
        str((one.get("method") or {}).get("name", "")) for one in variants.values() if one.get("merge_of") is None
    ]
    if "" in methods:  # a variant of the recipe takes all of the recipe's method
        return
    known = [name for method in methods if method in METHODS for name in METHODS[method].options.model_fields]
    for override in overrides:
        key, _, option = override.partition("=")[0].strip().partition(".")
        if key == "method" and option != "name" and option not in known:
            raise RecipeError(
                f"--set {override}: must be an option of one of the methods {', '.join(methods)}; none has it."
                f"{nearest(option, known)}"
            )


def _require_reach(changed: Iterable[str], recipe: Recipe) -> None:
    """Refuse a typed value that every variant has one of its own for: it would change nothing, without a word."""
    trained = [one for one in recipe.settled_variants() if one.merge_of is None]
    for typed in _typed_keys(changed, recipe):
        section, key, *_ = [*typed.split("."), ""]
        if section == "training" and key:
            value, own = getattr(recipe.training, key), [getattr(one.training, key) for one in trained]
        elif section == "method" and key not in ("", "name"):
            value, own = recipe.method.get(key), [one.options.get(key) for one in trained]
        else:
            continue
        if value not in own:
            found = ", ".join(f"{one.name} has {json.dumps(its)}" for one, its in zip(trained, own, strict=True))
            raise RecipeError(
                f"{section}.{key} must reach a variant; {json.dumps(value)} reaches none: {found}."
                f"\nPass --set variants.{trained[-1].name}.{section}.{key}={json.dumps(value)}."
            )


def _typed_keys(changed: Iterable[str], recipe: Recipe) -> Iterator[str]:
    """What was typed, a section that was typed whole value by value."""
    whole: dict[str, Iterable[str]] = {"training": recipe.training.model_fields_set, "method": recipe.method}
    for key in changed:
        yield from (f"{key}.{part}" for part in sorted(whole[key])) if key in whole else [key]


def _require_mergeable(recipe: Recipe) -> None:
    """Refuse to fold in what cannot be folded in."""
    for variant in recipe.settled_variants():
        if variant.merge_of is not None and not METHODS[variant.method].mergeable:
            raise RecipeError(
                f"variants.{variant.name} must be folded from a method that merges; {variant.method} does not."
                f"\nLeave the variant out; --method {variant.method} does that by itself."
            )


def _mergeable(variant: Mapping[str, Any], shared: Mapping[str, Any]) -> bool:
    name = str((variant.get("method") or {}).get("name") or shared.get("name") or "lora")
    return name in METHODS and METHODS[name].mergeable


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
