"""Recipes that cannot be used: every mistake of a file in one message, whatever stands in the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textlift.errors import RecipeError, TextliftError
from textlift.recipe import apply_overrides, parse_recipe, read_recipe


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(RecipeError) as caught:
        act()
    message = str(caught.value)
    assert message.count("\n") <= 2
    assert len(message) < 2500
    return message


def refused(values: Any) -> str:
    return refusal(lambda: parse_recipe(values))


def test_mistakes_of_all_sections_and_variants_are_told_at_once() -> None:
    message = refused(
        {
            "modle": {},
            "training": {"epochs": 0},
            "seed": -1,
            "variants": {
                "one": {"training": {"epoch": 3}},
                "two": {"training": {"batch_size": 0}},
                "three": {"merge_of": "on"},
            },
        }
    )
    assert message.startswith("recipe: 6 values cannot be used: ")
    for words in (
        "modle is not known. Did you mean 'model'?",
        "training.epochs: must be greater than or equal to 1; found 0",
        "seed: must be greater than or equal to 0; found -1",
        "variants.one.training.epoch is not known. Did you mean 'epochs'?",
        "variants.two.training.batch_size: must be greater than or equal to 1; found 0",
        "variants.three.merge_of must name a variant that is trained; found 'on'. Did you mean 'one'?",
    ):
        assert words in message


def test_from_the_seventh_mistake_on_the_keys_are_told() -> None:
    message = refused({f"key{number}": 1 for number in range(9)})
    assert message.startswith("recipe: 9 values cannot be used: key0 is not known; ")
    assert message.endswith("key5 is not known; and 3 more: key6, key7, key8.")


def test_a_value_of_two_kinds_is_one_mistake() -> None:
    message = refused({"model": {"max_length": "aut"}})
    assert message == (
        "recipe: 1 value cannot be used: model.max_length: must be a valid integer or 'auto'; found 'aut'. "
        "Did you mean 'auto'?"
    )


def test_every_variant_with_a_wrong_name_or_origin_is_told() -> None:
    message = refused({"variants": {"majority": {}, "a": {"merge_of": "b"}, "c": {"merge_of": "c"}}})
    assert [
        word for word in ("found majority", "variants.a.merge_of", "variants.c.merge_of") if word not in message
    ] == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1], "must hold sections such as data: and model:; found [1]"),
        (None, "must hold sections"),
        ({1: 2}, "must have texts as keys; found 1"),
        ({"data": {"label_names": {0: "sad"}}}, "data.label_names: must have texts as keys; found 0, quote it"),
        ({"data": {"files": {"trian": "a.csv"}}}, "data.files.trian: must be 'train', 'validation' or 'test'; found"),
        ({"method": {"name": "lora", "rank": float("nan")}}, "method.rank: must be a finite number; found nan"),
        ({"method": {"name": "lora", "rank": b"8"}}, "method.rank: must be a text, number, true, false, null, list"),
        ({"name": "a/b"}, "name: must be 1 to 64 letters, digits or any of _ . + -"),
        ({"seed": 10**5000}, "seed: must be"),
        ({"key\nwith\nmany\nlines": 1}, "is not known"),
        ({"interest": 1}, "interest is not known"),
        ({"training": {"float": 1}}, "training.float is not known"),
        ({"": None}, "1 value cannot be used:"),
        ({"model": 3}, "model: must be a section; found 3"),
        ({"variants": {"a": 3}}, "variants.a: must be a section; found 3"),
    ],
)
def test_values_of_no_recipe_are_refused(values: Any, said: str) -> None:
    assert said in refused(values)


def test_values_without_end_are_refused() -> None:
    loop: dict[str, Any] = {"name": "lora"}
    loop["options"] = loop
    assert "10,000 values at most, 16 deep" in refused({"method": loop})
    wide: list[Any] = ["lol"]
    for _ in range(12):  # two to the power of 40 values in a few lists
        wide = [wide] * 10
    assert "10,000 values at most, 16 deep" in refused({"method": {"name": "lora", "x": wide}})


@pytest.mark.parametrize(
    "text",
    [
        "name: " + "[" * 3000,
        "description: 2020-99-99",
        f"seed: {'1' * 5000}",
        "seed: !!int x",
        "seed: !!bool x",
        "a\0b: 1",
    ],
    ids=["nested deeply", "no date", "5,000 digits", "no integer", "no truth value", "NUL"],
)
def test_a_file_that_yaml_cannot_read_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    assert "must be YAML in UTF-8; it cannot be read" in refusal(lambda: read_recipe(str(path)))
    key, value = text.split(":", 1)
    assert "the value must be YAML" in refusal(lambda: apply_overrides({}, [f"{key}={value.strip()}\0"]))


def test_an_override_reads_numbers_but_no_words_as_numbers() -> None:
    values = apply_overrides({}, ["training.learning_rate=1e-3", "data.text=nan", "data.label=infinity"])
    assert values == {"training": {"learning_rate": 1e-3}, "data": {"text": "nan", "label": "infinity"}}


def test_a_name_too_long_for_a_file_is_no_recipe() -> None:
    with pytest.raises(TextliftError, match="no such file") as caught:
        read_recipe("a" * 5000)
    assert caught.value.exit_code == 66


def test_seeds_beyond_the_largest_number_that_can_be_drawn_from_are_refused() -> None:
    with pytest.raises(RecipeError, match="seed and seeds must stay below 4294967296"):
        parse_recipe({"seed": 2**32 - 2, "seeds": 3})
    assert list(parse_recipe({"seed": 2**32 - 2, "seeds": 2}).all_seeds) == [2**32 - 2, 2**32 - 1]
