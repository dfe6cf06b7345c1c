"""Which method works where: facts that the models bear out, refusals that hold, advice that works."""

from typing import get_args

import pytest

from conftest import BaseFolder
from method_pairs import OUTSIDE, family, refused
from textlift.errors import RecipeError
from textlift.methods.base import Need
from textlift.methods.registry import METHODS
from textlift.models.families import FAMILIES, discover_family
from textlift.training.capability import NEEDS, PRECISIONS, capability, precision_of, require_capability
from tiny_models import fresh, wrapped

FACTS = ("is_decoder", "has_biases", "takes_past", "fan_in_fan_out")
PREFIX = METHODS["prefix-tuning"]


@pytest.mark.parametrize(
    ("name", "pooling"),
    [*((name, "native") for name in (*FAMILIES, *OUTSIDE)), *((name, "mean") for name in ("bert", "gpt2", "opt"))],
)
def test_the_facts_of_a_family_are_those_of_its_modules(base_folder: BaseFolder, name: str, pooling: str) -> None:
    model = fresh(base_folder(name), pooling=pooling)[0].classifier.model
    found = discover_family(model, name, model.base_model_prefix)
    assert {fact: getattr(found, fact) for fact in FACTS} == {fact: getattr(family(name), fact) for fact in FACTS}
    assert not found.is_tested


def test_every_need_can_be_told() -> None:
    assert set(NEEDS) == set(get_args(Need))


@pytest.mark.parametrize(("name", "method"), refused())
def test_every_pair_that_cannot_work_is_refused_with_what_does(base_folder: BaseFolder, name: str, method: str) -> None:
    with pytest.raises(RecipeError, match=r"method (.|\n)*(nearest that works|Use lora)") as caught:
        wrapped(base_folder(name), method)
    assert len(str(caught.value).splitlines()) <= 3


def test_the_nearest_works() -> None:
    asked = [(method, one, precision) for method in METHODS for one in FAMILIES for precision in PRECISIONS]
    wrong = []
    for method, one, precision in asked:
        found = capability(METHODS[method], one, precision)
        in_precision = found.nearest in PRECISIONS and capability(METHODS[method], one, found.nearest).works
        by_method = found.nearest in METHODS and capability(METHODS[found.nearest], one, precision).works
        if not found.works and not (in_precision or by_method):
            wrong.append((method, one, precision, found))
    assert wrong == []


def test_what_the_family_lacks_is_told_with_the_closest_method_of_the_table() -> None:
    found = capability(PREFIX, "distilbert")
    assert not found.works
    assert found.reason == "distilbert has no place for keys and values of others (past_key_values)"
    assert found.nearest == "p-tuning"


def test_a_precision_that_fails_is_told_with_the_next_finer_one() -> None:
    found = capability(METHODS["full"], "bert", "4-bit")
    assert found.reason == "full does not train on a base whose weights are held in 4 bits"
    assert found.nearest == "bf16"


def test_a_method_for_quantized_bases_is_refused_in_full_precision() -> None:
    assert capability(METHODS["qlora"], "bert", "4-bit").works
    assert capability(METHODS["qlora"], "bert", "bf16").nearest == "8-bit"


def test_a_family_that_lacks_something_gets_a_method_that_works_in_the_same_precision() -> None:
    nearest = capability(METHODS["bitfit"], "llama", "4-bit").nearest
    assert METHODS[nearest].quantized_base


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_arithmetic_of_the_forward_pass_decides_nothing(precision: str) -> None:
    for method in METHODS.values():
        answers = {capability(method, one, precision).works for one in ("bert", "gpt2")}  # type: ignore[arg-type]
        assert answers == {capability(method, one).works for one in ("bert", "gpt2")}


def test_an_architecture_outside_the_table_is_allowed_and_said_to_be_untested() -> None:
    by_name, found = capability(PREFIX, "electra"), capability(PREFIX, OUTSIDE["electra"])
    assert by_name == found
    assert found.works
    assert found.reason.startswith("not tested: electra is not among bert, distilbert,")


def test_an_architecture_outside_the_table_is_refused_once_its_modules_tell() -> None:
    assert capability(PREFIX, "albert").works
    assert not capability(PREFIX, OUTSIDE["albert"]).works


def test_a_refusal_tells_reason_and_advice_in_two_lines() -> None:
    with pytest.raises(RecipeError) as caught:
        require_capability(METHODS["full"], "bert", precision_of("8bit"))
    assert str(caught.value).splitlines() == [
        "method full must fit the base model; full does not train on a base whose weights are held in 8 bits.",
        "The nearest that works: --set model.quantization=none. `textlift methods` shows every pair.",
    ]
    assert caught.value.exit_code == 78
