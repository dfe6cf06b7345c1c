"""Options of the methods, the layers that names stand for, and default learning rates."""

import pytest
from pydantic import ValidationError

from conftest import BaseFolder
from textlift.errors import RecipeError
from textlift.methods.base import Method, peak_learning_rate
from textlift.methods.low_rank import LoraOptions, chosen_layers
from textlift.methods.registry import METHODS, applicable_options, check_methods, method_of
from textlift.recipe import Recipe, Variant
from textlift.training.tuning import parts_of
from tiny_models import fresh, wrapped


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_every_record_is_complete(method: Method) -> None:
    assert method.summary.endswith(".")
    assert method.paper.startswith("https://")
    assert 0 < method.learning_rate < 1
    assert all(field.description for field in method.options.model_fields.values())
    if not any(field.is_required() for field in method.options.model_fields.values()):
        method.options()


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_unknown_options_are_refused(method: Method) -> None:
    with pytest.raises(ValidationError):
        method.options(no_such_option=1)


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"rank": 1025},
        {"rank": "8"},
        {"alpha": 0.0},
        {"dropout": 1.0},
        {"target_modules": ()},
        {"bias": "all"},
    ],
)
def test_lora_options_out_of_range_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LoraOptions(**options)


def test_names_choose_layers_by_their_last_parts(base_folder: BaseFolder) -> None:
    parts = parts_of(fresh(base_folder("bert"))[0].classifier)
    chosen = chosen_layers(parts, ("query", "output.dense"))
    assert all(layer.endswith((".query", "output.dense")) for layer in chosen)
    assert len(chosen) == 2 * 3  # query, attention.output.dense and output.dense of two layers
    assert chosen_layers(parts, "all-linear") == list(parts.linear_layers)


def test_a_name_that_fits_no_layer_is_refused_with_those_there_are(base_folder: BaseFolder) -> None:
    parts = parts_of(fresh(base_folder("gpt2"))[0].classifier)
    with pytest.raises(RecipeError, match=r"'q_proj', 'attn' fit none.\nIt has c_attn, c_fc, c_proj"):
        chosen_layers(parts, ("q_proj", "attn", "c_attn"))


def test_lora_only_bias_trains_the_biases_of_adapted_layers(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora", bias="lora_only", target_modules=("query",))
    biases = [key for key, p in predictor.classifier.named_parameters() if p.requires_grad and key.endswith("bias")]
    assert sum(".query." in key for key in biases) == 2
    assert all(".query." in key or ".modules_to_save." in key for key in biases)


def test_the_head_is_never_adapted_although_its_layers_are_linear(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("distilbert"), "lora")
    assert not any("classifier" in key and ".lora_" in key for key, _ in predictor.classifier.named_parameters())


def test_wider_models_get_smaller_learning_rates() -> None:
    lora = METHODS["lora"]
    assert peak_learning_rate(lora, hidden_size=384)[0] == lora.learning_rate
    assert peak_learning_rate(lora, hidden_size=64)[0] == lora.learning_rate
    rate, reason = peak_learning_rate(lora, hidden_size=768)
    assert rate == pytest.approx(lora.learning_rate / 2)
    assert reason == "learning_rate 0.0005: default of lora at a hidden size of 768"
    rate, reason = peak_learning_rate(lora, hidden_size=768, factor=2)
    assert rate == lora.learning_rate
    assert reason == "learning_rate 0.001: default of lora at a hidden size of 768, times 2 for few, or fuller, steps"


def test_an_unknown_method_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"method must be one of lora, .*; found 'lroa' Did you mean 'lora'"):
        method_of(Variant(name="a", method="lroa"))


def test_all_complaints_of_all_variants_are_told_at_once() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "job",
            "data": {"source": "rows.csv"},
            "variants": {"a": {"method": {"name": "lora", "rank": 0}}, "b": {"method": {"name": "full", "rank": 4}}},
        }
    )
    with pytest.raises(RecipeError) as caught:
        check_methods(recipe)
    assert "rank" in str(caught.value)
    assert str(caught.value).count("method.rank") == 2


def test_applicable_options_are_those_the_method_has() -> None:
    assert applicable_options("lora", {"rank": 4, "other": 1}) == {"rank": 4}
    assert applicable_options("full", {"rank": 4}) == {}
