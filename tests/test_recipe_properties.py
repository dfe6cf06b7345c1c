"""Whatever stands in a recipe: it is read and written back the same, or refused in at most three lines."""

from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from textlift.errors import RecipeError
from textlift.recipe import Recipe, apply_overrides, parse_recipe, recipe_yaml

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
TEXTS = st.text(max_size=12)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.dates(), st.binary(max_size=3))
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXTS)


def nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8
    )


SECTIONS = {name: list(getattr(field.annotation, "model_fields", {})) for name, field in Recipe.model_fields.items()}
NAMES = sorted({*SECTIONS, *(key for keys in SECTIONS.values() for key in keys), "merge_of", "quantization"})
# Known keys in their places, with any value, so that more than the first door is tried.
ANY_RECIPE = st.fixed_dictionaries(
    {},
    optional={
        name: nested(SCALARS, st.sampled_from(keys or NAMES) | TEXTS | st.integers()) for name, keys in SECTIONS.items()
    },
)
OPTIONS = st.dictionaries(TEXTS, nested(PLAIN, TEXTS), max_size=3)
VARIANT = st.fixed_dictionaries(
    {},
    optional={
        "description": TEXTS,
        "method": OPTIONS,
        "training": st.fixed_dictionaries({}, optional={"epochs": st.integers(1, 1000), "max_steps": st.none()}),
        "quantization": st.sampled_from([None, "none", "8bit", "4bit"]),
    },
)
GOOD_RECIPE = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", fullmatch=True),
        "description": TEXTS,
        "data": st.fixed_dictionaries(
            {}, optional={"source": TEXTS, "label_names": st.dictionaries(TEXTS, TEXTS, max_size=3), "text": TEXTS}
        ),
        "method": OPTIONS,
        "training": st.fixed_dictionaries(
            {}, optional={"learning_rate": st.floats(0, 1, exclude_min=True), "warmup_ratio": st.floats(0, 0.9)}
        ),
        "baselines": st.lists(st.sampled_from(["majority", "tfidf", "untrained", "probe"])),
        "variants": st.dictionaries(st.from_regex(r"v[A-Za-z0-9_.+-]{0,9}", fullmatch=True), VARIANT, max_size=3),
        "seed": st.integers(0, 2**32 - 1),
    },
)


def made(make: Callable[[], Recipe]) -> Recipe | None:
    try:
        return make()
    except RecipeError as error:
        n_lines = len(str(error).splitlines())
    assert 1 <= n_lines <= 3
    return None


def same_when_written(recipe: Recipe) -> bool:
    return parse_recipe(yaml.safe_load(recipe_yaml(recipe))) == recipe


@QUICK
@given(values=ANY_RECIPE | nested(SCALARS, TEXTS))
def test_any_values_are_a_recipe_or_refused(values: Any) -> None:
    recipe = made(lambda: parse_recipe(values))
    assert recipe is None or same_when_written(recipe)


@QUICK
@given(values=GOOD_RECIPE)
def test_a_recipe_is_read_back_as_written(values: dict[str, Any]) -> None:
    assert same_when_written(parse_recipe(values))


@QUICK
@given(key=st.sampled_from(NAMES) | TEXTS, inner=st.sampled_from(NAMES) | TEXTS, value=TEXTS)
def test_any_override_is_read_or_refused(key: str, inner: str, value: str) -> None:
    recipe = made(lambda: parse_recipe(apply_overrides({}, [f"{key}.{inner}={value}", f"{key}={value}"])))
    assert recipe is None or same_when_written(recipe)
