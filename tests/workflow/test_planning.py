"""What `--method` and `--methods` make of a recipe, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest

from textlift.errors import RecipeError, UsageError
from textlift.methods.registry import METHODS
from textlift.recipe import Recipe
from textlift.workflow.planning import Request, resolve, variant_name


def planned(*overrides: str, target: str = "rows.csv", **request: Any) -> Recipe:
    return resolve(Request(target, overrides=overrides, **request))


def methods_of(recipe: Recipe) -> dict[str, str]:
    return {one.name: one.method for one in recipe.settled_variants() if one.merge_of is None}


def recipe_file(folder: Path, text: str) -> str:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return str(folder / "mine.yaml")


def test_a_method_takes_the_place_of_lora_with_its_merged_model() -> None:
    recipe = planned(method="ia3")
    assert methods_of(recipe) == {"ia3": "ia3"}
    assert recipe.variants["merged"].merge_of == "ia3"


def test_a_method_that_does_not_merge_leaves_the_merged_model_out() -> None:
    assert list(planned(method="bitfit").variants) == ["bitfit"]


def test_naming_the_recipes_own_method_changes_nothing() -> None:
    assert planned(method="lora").variants == planned().variants


def test_options_go_to_the_method_that_is_named() -> None:
    recipe = planned("method.virtual_tokens=8", method="prompt-tuning")
    (variant,) = recipe.settled_variants()
    assert variant.options == {"virtual_tokens": 8}


def test_an_option_that_the_named_method_lacks_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"method.rank is not known"):
        planned("method.rank=8", method="bitfit")


def test_options_of_the_recipe_are_kept_where_the_named_method_has_them(tmp_path: Path) -> None:
    target = recipe_file(tmp_path, "data: {source: rows.csv}\nmethod: {name: lora, rank: 4, alpha: 8.0}\n")
    assert planned(target=target, method="dora").settled_variants()[0].options == {"rank": 4, "alpha": 8.0}
    assert planned(target=target, method="bitfit").settled_variants()[0].options == {}


def test_only_variants_that_take_the_recipes_method_change(tmp_path: Path) -> None:
    target = recipe_file(
        tmp_path,
        "data: {source: rows.csv}\n"
        "variants:\n  as-published: {method: {name: lora, rank: 4}}\n  lora: {method: {rank: 2}}\n  short: {training: "
        "{epochs: 1}}\n  folded: {merge_of: lora}\n  old: {merge_of: as-published}\n",
    )
    recipe = planned(target=target, method="vera")
    assert methods_of(recipe) == {"as-published": "lora", "vera": "vera", "short": "vera"}
    assert recipe.variants["folded"].merge_of == "vera"
    assert recipe.variants["old"].merge_of == "as-published"
    assert list(planned(target=target, method="full").variants) == ["as-published", "full", "short", "old"]


def test_a_method_called_as_a_baseline_makes_a_variant_of_another_name_and_says_why() -> None:
    for recipe in (planned(method="probe"), planned(methods=["probe"])):
        assert methods_of(recipe) == {"probe-tuned": "probe"}
        assert recipe.variants["probe-tuned"].description.endswith("Called probe-tuned, because probe is a baseline.")
        assert "probe" in recipe.baselines


def test_a_name_that_another_variant_has_is_not_taken() -> None:
    assert variant_name("full", ["full"]) == "full-tuned"


def test_an_unknown_method_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"--method must be one of lora, .*found 'lroa'. Did you mean 'lora'\?"):
        planned(method="lroa")


def test_one_method_and_several_are_not_passed_together() -> None:
    with pytest.raises(UsageError, match="--method names one method and --methods several"):
        planned(method="lora", methods=["full"])


def test_several_methods_share_the_options_that_they_have() -> None:
    recipe = planned("method.rank=4", "method.dropout=0.1", methods=["lora", "vera", "bitfit"])
    options = {one.name: one.options for one in recipe.settled_variants()}
    assert options == {"lora": {"rank": 4, "dropout": 0.1}, "vera": {"rank": 4, "dropout": 0.1}, "bitfit": {}}


def test_a_shared_option_that_no_method_has_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"--set method.rank=4: .* methods full, bitfit; none has it"):
        planned("method.rank=4", methods=["full", "bitfit"])


def test_folding_in_what_does_not_fold_is_refused_with_what_to_do() -> None:
    with pytest.raises(RecipeError, match=r"variants.merged must be folded .* full does not(.|\n)*--method full"):
        planned("method.name=full")


@pytest.mark.parametrize("method", [name for name in METHODS if name != "fusion"])
def test_every_method_can_be_named(method: str) -> None:
    assert list(methods_of(planned(method=method)).values()) == [method]


def test_changing_one_variant_keeps_the_others() -> None:
    recipe = planned("variants.weighted.training.class_weights=balanced")
    assert list(recipe.variants) == ["lora", "merged", "weighted"]
    assert recipe.settled_variants()[2].training.class_weights == "balanced"


_OWN = (
    "data: {source: rows.csv}\nmethod: {name: lora, rank: 4}\nvariants:\n"
    "  published: {method: {rank: 8}, training: {epochs: 1}}\n  mine: {method: {rank: 2}, training: {epochs: 3}}\n"
)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.epochs=20", r"training.epochs .* 20 reaches none: published has 1, mine has 3"),
        ("method.rank=16", r"method.rank .* 16 reaches none: published has 8, mine has 2"),
    ],
)
def test_a_typed_value_that_every_variant_has_its_own_for_is_refused(tmp_path: Path, override: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told) as refused:
        planned(override, target=recipe_file(tmp_path, _OWN))
    assert f"--set variants.mine.{override}." in str(refused.value)


def test_a_flag_that_every_variant_has_its_own_word_on_is_refused(tmp_path: Path) -> None:
    target = recipe_file(tmp_path, "data: {source: rows.csv}\nvariants: {slow: {training: {fast: false}}}\n")
    with pytest.raises(RecipeError, match=r"training\.fast must reach a variant; true reaches none"):
        planned(target=target, values={"training.fast": True})


def test_a_typed_value_that_reaches_some_variants_leaves_the_others_theirs(tmp_path: Path) -> None:
    target = recipe_file(tmp_path, f"{_OWN}  free: {{method: {{rank: 2}}}}\n")
    recipe = planned("training.epochs=20", target=target)
    assert [one.training.epochs for one in recipe.settled_variants()] == [1, 3, 20]


def test_what_is_typed_for_a_variant_itself_reaches_it(tmp_path: Path) -> None:
    recipe = planned("variants.mine.training.epochs=20", target=recipe_file(tmp_path, _OWN))
    assert recipe.settled_variants()[1].training.epochs == 20


@pytest.mark.parametrize("override", ["training={epochs: 3}", "method={name: lora, rank: 2}", "method.name=lora"])
def test_a_section_that_is_typed_whole_may_reach_every_variant(override: str) -> None:
    assert planned(override).settled_variants()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training={epochs: 20, batch_size: 8}", r"training\.epochs must reach a variant; 20 reaches none"),
        ("method={name: lora, rank: 16}", r"method\.rank must reach a variant; 16 reaches none"),
    ],
)
def test_each_value_of_a_section_typed_whole_must_reach_a_variant(tmp_path: Path, override: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        planned(override, target=recipe_file(tmp_path, _OWN))
