"""Labels in order and the names that people see for them."""

import math
from collections.abc import Mapping, Sequence

from textlift.data.alike import is_blank
from textlift.data.dataset import Rows
from textlift.data.problems import listed, quoted
from textlift.errors import DataError, RecipeError


def without_unlabelled(splits: Mapping[str, Rows], reasons: list[str]) -> dict[str, Rows]:
    """The splits but for a validation or test whose labels are withheld: all empty, or all -1 where train has no -1."""
    known = set(splits["train"].labels) if "train" in splits else set()
    kept = {}
    for split, rows in splits.items():
        values = set(rows.labels)
        is_withheld = values <= {"", "-1"} and not values & known
        if split != "train" and known and is_withheld and len(splits) > 1:
            what = "-1" if values == {"-1"} else "empty"
            reasons.append(f"The {split} rows were left out: they carry no labels (all are {what}).")
        else:
            kept[split] = rows
    return kept


def name_labels(
    splits: Mapping[str, Rows], given: Mapping[str, str] | None, class_names: Sequence[str], *, reasons: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Label values in order, and their names in the same order.

    Numbers are ordered as numbers, other labels as strings; labels that a mapping names keep its order.

    Args:
        splits: The rows.
        given: Name of each label as written, from the recipe.
        class_names: Names of the labels 0, 1, 2, ... from the file or its card; may be empty.
        reasons: Where the choice is told.

    Raises:
        DataError: A label has no name in the given mapping.
        RecipeError: Two labels of the given mapping have one name.
    """
    found = {label for rows in splits.values() for label in set(rows.labels) if not is_blank(label)}
    values = tuple(sorted(found, key=_order))
    if given is not None:
        return _given_names(values, given, reasons)
    by_id = {str(number): name for number, name in enumerate(class_names)}
    if by_id and found <= by_id.keys() and len(set(class_names)) == len(class_names):
        reasons.append(f"Label names come from the data set's own list: {listed([by_id[value] for value in values])}.")
        return values, tuple(by_id[value] for value in values)
    return values, values


def _given_names(
    values: Sequence[str], given: Mapping[str, str], reasons: list[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    unnamed = [value for value in values if value not in given]
    if unnamed:
        raise DataError(
            f"data.label_names must name every label; found {listed(unnamed)} without a name. "
            "Add them, or leave the mapping out."
        )
    ordered = tuple(value for value in given if value in set(values))
    names = tuple(given[value] for value in ordered)
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise RecipeError(f"data.label_names must give every label its own name; found {quoted(doubled[0])} twice.")
    reasons.append("Label names are those of the recipe.")
    return ordered, names


def _order(label: str) -> tuple[bool, float, str]:
    try:
        number = float(label) if label.isascii() and "_" not in label else math.nan
    except ValueError:
        number = math.nan
    is_number = math.isfinite(number)
    return not is_number, number if is_number else 0.0, label
