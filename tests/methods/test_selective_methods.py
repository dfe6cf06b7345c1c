"""Which weights of the base model the whole-model methods train, and where they are refused."""

import pytest
from pydantic import ValidationError

from conftest import BaseFolder
from textlift.errors import RecipeError
from textlift.methods.registry import METHODS
from textlift.training.tuning import parts_of
from tiny_models import fresh, logits_of, session, wrapped


def trained(base_folder: BaseFolder, name: str, method: str, **options: object) -> set[str]:
    predictor, _ = wrapped(base_folder(name), method, **options)
    return {key for key, p in predictor.classifier.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("bert", ("model.bert.encoder.layer.1.", "model.bert.pooler.", "model.classifier.")),
        ("embedder", ("model.encoder.layer.1.", "head.")),
        ("deberta-v2", ("model.deberta.encoder.layer.1.", "model.pooler.", "model.classifier.")),
        ("modernbert", ("model.model.layers.1.", "model.model.final_norm.", "model.head.", "model.classifier.")),
        ("gpt2", ("model.transformer.h.1.", "model.transformer.ln_f.", "model.score.")),
        ("llama", ("model.model.layers.1.", "model.model.norm.", "model.score.")),
        ("opt", ("model.model.decoder.layers.1.", "model.model.decoder.final_layer_norm.", "model.score.")),
        ("gpt_neox", ("model.gpt_neox.layers.1.", "model.gpt_neox.final_layer_norm.", "model.score.")),
    ],
)
def test_the_last_layer_trains_with_the_norm_after_it_and_the_head(
    base_folder: BaseFolder, name: str, places: tuple[str, ...]
) -> None:
    keys = trained(base_folder, name, "last-layers", layers=1)
    assert all(key.startswith(places) for key in keys)
    assert all(any(key.startswith(place) for key in keys) for place in places)


def test_all_layers_are_the_whole_model_but_its_embeddings(base_folder: BaseFolder) -> None:
    left = trained(base_folder, "bert", "full") - trained(base_folder, "bert", "last-layers", layers=2)
    assert left
    assert all(".embeddings." in key for key in left)


def test_more_layers_than_there_are_are_refused(base_folder: BaseFolder) -> None:
    with pytest.raises(RecipeError, match=r"method.layers must be at most 2, all that the base model has; found 3"):
        wrapped(base_folder("gpt2"), "last-layers", layers=3)


def test_layers_that_share_their_weights_are_refused(base_folder: BaseFolder) -> None:
    with pytest.raises(RecipeError, match=r"weights of their own; the 2 of AlbertForSequenceClassification share 1"):
        wrapped(base_folder("albert"), "last-layers", layers=1)


@pytest.mark.parametrize("layers", [0, -1, 1.0, "2"])
def test_layers_must_be_a_positive_number(layers: object) -> None:
    with pytest.raises(ValidationError):
        METHODS["last-layers"].options(layers=layers)


def test_bitfit_trains_the_biases_of_norms_and_embeddings_too(base_folder: BaseFolder) -> None:
    keys = trained(base_folder, "embedder", "bitfit")
    assert "model.embeddings.LayerNorm.bias" in keys
    assert "model.encoder.layer.0.attention.self.query.bias" in keys
    assert "model.encoder.layer.1.output.LayerNorm.bias" in keys
    assert {key for key in keys if not key.endswith(".bias")} == {"head.weight"}


def test_bitfit_trains_the_few_biases_of_qwen2(base_folder: BaseFolder) -> None:
    biases = {key.rsplit(".", 2)[1] for key in trained(base_folder, "qwen2", "bitfit") if "score" not in key}
    assert biases == {"q_proj", "k_proj", "v_proj"}


@pytest.mark.parametrize("name", ["modernbert", "llama", "qwen3"])
def test_bitfit_is_refused_where_there_is_no_bias(base_folder: BaseFolder, name: str) -> None:
    parts = parts_of(fresh(base_folder(name))[0].classifier)
    with pytest.raises(
        RecipeError, match=r"method bitfit trains biases, so the base model must have some; .* has none"
    ):
        METHODS["bitfit"].wrap(parts, METHODS["bitfit"].options())


def test_a_probe_learns_from_features_that_stay_as_they_are(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("embedder"), "probe")
    tokens = predictor.tokenize(["the old boat", "a bird"])
    before, logits = predictor.forward(tokens, features=True).features, logits_of(predictor)
    for _ in session(predictor, epochs=2, patience=None).run():
        pass
    assert (predictor.forward(tokens, features=True).features == before).all()
    assert abs(logits_of(predictor) - logits).max() > 1e-3
