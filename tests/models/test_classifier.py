"""Head start values, training mode, captured features and padding of the classifier."""

import numpy as np
import pytest
import torch
from torch import nn

from conftest import BaseFolder
from textlift.data.batching import collate
from textlift.models.classifier import mean_pool, padding_shift
from tiny_models import EVERY_BASE, TEXTS, fresh, logits_of, wrapped


@pytest.mark.parametrize("name", EVERY_BASE)
def test_padding_changes_no_logit(base_folder: BaseFolder, name: str) -> None:
    predictor, base = fresh(base_folder(name))
    tokens = predictor.tokenize(TEXTS)
    for index in (int(np.argmin(tokens.lengths)), int(np.argmax(tokens.lengths))):
        ids = torch.from_numpy(tokens[index].astype(np.int64))[None]
        assert padding_shift(predictor.classifier, ids, pad_token_id=base.tokenizer.pad_token_id, padding=9) < 1e-5


@pytest.mark.parametrize("name", EVERY_BASE)
def test_the_company_of_a_text_changes_no_logit(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = fresh(base_folder(name))
    together = logits_of(predictor)
    alone = np.concatenate([logits_of(predictor, [text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_model_that_reads_its_padding_is_found_out(base_folder: BaseFolder) -> None:
    predictor, base = fresh(base_folder("bert"))
    ids = collate(predictor.tokenize(TEXTS[:1]), np.array([0]), pad_token_id=0)["input_ids"]

    class Careless(nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return predictor.classifier(input_ids, torch.ones_like(attention_mask))

    assert padding_shift(Careless(), ids, pad_token_id=base.tokenizer.pad_token_id) > 1e-3  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "modernbert", "embedder", "albert"])
def test_a_fresh_build_depends_on_the_seed_alone(base_folder: BaseFolder, name: str) -> None:
    torch.manual_seed(99)
    first = fresh(base_folder(name), seed=5)[0]
    torch.rand(7)
    second, other = fresh(base_folder(name), seed=5)[0], fresh(base_folder(name), seed=6)[0]
    weights = second.classifier.state_dict()
    assert all(torch.equal(weight, weights[key]) for key, weight in first.classifier.state_dict().items())
    assert not torch.equal(first.classifier.final_linear().weight, other.classifier.final_linear().weight)


def test_draw_head_draws_the_same_again_and_leaves_the_rest(base_folder: BaseFolder) -> None:
    classifier = fresh(base_folder("roberta"), seed=1)[0].classifier
    before = {key: weight.clone() for key, weight in classifier.state_dict().items()}
    classifier.draw_head(2)
    changed = {key for key, weight in classifier.state_dict().items() if not torch.equal(weight, before[key])}
    assert changed == {"model.classifier.out_proj.weight"}
    classifier.draw_head(1)
    assert all(torch.equal(weight, before[key]) for key, weight in classifier.state_dict().items())


def test_a_drawn_head_has_the_spread_of_the_configuration_and_no_bias(base_folder: BaseFolder) -> None:
    final = fresh(base_folder("bert"))[0].classifier.final_linear()
    assert float(final.weight.std()) == pytest.approx(0.1, rel=0.25)  # initializer_range of the tiny model
    assert not final.bias.any()


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "embedder"])
def test_a_chosen_head_is_what_answers_before_and_after_wrapping(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = fresh(base_folder(name))
    features = predictor.forward(predictor.tokenize(TEXTS), features=True).features
    assert features is not None
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(3, 32))
    bias = None if predictor.classifier.final_linear().bias is None else generator.normal(size=3)
    expected = features @ weight.T + (0.0 if bias is None else bias)
    predictor.classifier.set_head(weight, bias)
    np.testing.assert_allclose(logits_of(predictor), expected, atol=1e-4)
    adapted, _ = wrapped(base_folder(name), "lora")
    adapted.classifier.set_head(weight, bias)
    np.testing.assert_allclose(logits_of(adapted), expected, atol=1e-4)


def test_a_head_of_another_form_is_refused(base_folder: BaseFolder) -> None:
    classifier = fresh(base_folder("gpt2"))[0].classifier
    with pytest.raises(ValueError, match=r"weight \(3, 32\) and bias False; found \(1, 32\), False"):
        classifier.set_head(np.zeros((1, 32)), None)
    with pytest.raises(ValueError, match="bias False; found"):
        classifier.set_head(np.zeros((3, 32)), np.zeros(3))


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "embedder"])
def test_only_the_dropout_of_the_adapter_is_on_while_training(base_folder: BaseFolder, name: str) -> None:
    classifier = wrapped(base_folder(name), "lora", dropout=0.3)[0].classifier
    classifier.set_training(base_dropout=False)
    active = {key for key, module in classifier.named_modules() if isinstance(module, nn.Dropout) and module.training}
    assert active
    assert all("lora_dropout" in key for key in active)
    classifier.set_training(base_dropout=True)
    assert all(module.training for module in classifier.modules())
    classifier.eval()
    assert not any(module.training for module in classifier.modules())
    classifier.set_training(base_dropout=True)
    assert all(module.training for module in classifier.modules())


def test_an_adapter_put_on_between_two_steps_trains_with_its_dropout(base_folder: BaseFolder) -> None:
    bare, _ = fresh(base_folder("bert"))
    bare.classifier.set_training(base_dropout=False)
    bare.classifier.model = wrapped(base_folder("bert"), "lora", dropout=0.3)[0].classifier.model.eval()
    bare.classifier.set_training(base_dropout=False)
    assert any("lora_dropout" in key and module.training for key, module in bare.classifier.named_modules())


def test_features_are_captured_only_while_asked_for(base_folder: BaseFolder) -> None:
    predictor, _ = fresh(base_folder("bert"))
    final = predictor.classifier.final_linear()
    with predictor.classifier.captured_features() as captured:
        logits_of(predictor)
    assert len(captured) == 1
    assert not final._forward_pre_hooks
    logits_of(predictor)
    assert len(captured) == 1


def test_mean_pooling_counts_no_padding() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    assert mean_pool(hidden, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 3.0]]
