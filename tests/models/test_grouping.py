"""Texts of unlike length in one pass on a CPU: the logits and gradients of padded batches, of hardly more tokens."""

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoConfig, AutoModelForSequenceClassification

from conftest import BaseFolder
from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.models import grouping
from textlift.models.attention import LONGEST, MOST_SCORES, Form
from textlift.models.compiled import compiled
from textlift.models.encoder_layer import LAYOUTS, PACKING
from textlift.models.families import FAMILIES
from textlift.models.grouping import Groups, attend_each, attend_each_back, groups_of
from textlift.models.packing import use_packing
from textlift.runtime import onednn_product
from textlift.training.loop import TrainStep, gradients_of
from tiny_encoders import DISTILBERT, FAST, KINDS, SMALL
from tiny_models import TEXTS, disturb, fresh, gradients_on, logits_of, session, wrapped

pytestmark = pytest.mark.skipif(onednn_product() is None, reason="torch is built without oneDNN")

HEADS, WIDTH = 3, 8
MIXED = np.asarray([3, 70, 1, 5, 17, 5, 16, 2, LONGEST, LONGEST + 1, 70, 69, 3])
ENCODERS = ["bert", "distilbert", "roberta", "embedder", "electra"]
GROUPED = {"lora", "rslora", "lora+", "pissa", "olora", "probe"}  # the rest change what a layer computes


def passes_of(predictor: Predictor) -> list[Groups | None]:
    """What the layers of later passes are told of their rows."""
    told: list[Groups | None] = []

    def tell(_: Any, __: Any, options: dict[str, Any]) -> None:
        told.append(options.get(PACKING))

    predictor.classifier.layers()[0].register_forward_pre_hook(tell, with_kwargs=True)
    return told


def mask_of(lengths: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((np.arange(lengths.max()) < lengths[:, None]).astype(np.int64))


def both_ways(predictor: Predictor) -> list[tuple[np.ndarray, np.ndarray, dict[str, torch.Tensor]]]:
    """Logits, features and gradients, padded and in groups."""
    found = []
    for groups in (False, True):
        predictor.classifier.groups = groups
        gradients = gradients_on(predictor, np.arange(len(TEXTS)))
        result = predictor.forward(predictor.tokenize(TEXTS), features=True)
        assert result.features is not None
        found.append((result.logits, result.features, gradients))
    return found


@pytest.mark.parametrize("name", ENCODERS)
def test_logits_features_and_gradients_are_those_of_padded_batches(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = wrapped(base_folder(name), "lora")
    disturb(predictor)
    predictor = dataclasses.replace(predictor, runtime=FAST)
    told = passes_of(predictor)
    (logits, features, gradients), (others, other_features, other_gradients) = both_ways(predictor)
    np.testing.assert_allclose(others, logits, atol=5e-6)
    np.testing.assert_allclose(other_features, features, atol=5e-6)
    assert gradients.keys() == other_gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(other_gradients[key], gradient, atol=1e-5, rtol=1e-3)
    padded, grouped = (sum(groups is not None for groups in some) for some in (told[:2], told[-2:]))
    assert (padded, grouped) == (0, 2)


def test_an_untuned_model_needs_one_pass_for_texts_of_all_lengths(base_folder: BaseFolder) -> None:
    predictor = dataclasses.replace(fresh(base_folder("bert"))[0], runtime=FAST)
    told = passes_of(predictor)
    logits_of(predictor)
    (groups,) = told
    assert groups is not None
    tokens = predictor.tokenize(TEXTS)
    own, padded = int(tokens.lengths.sum()), len(TEXTS) * int(tokens.lengths.max())
    assert own <= groups.tokens < 0.5 * (own + padded)


def test_a_training_in_groups_is_that_of_padded_batches(base_folder: BaseFolder) -> None:
    losses = []
    for groups in (False, True):
        predictor = dataclasses.replace(wrapped(base_folder("bert"), "lora")[0], runtime=FAST)
        training = session(predictor, batch_size=24, epochs=4, patience=None)
        told = passes_of(predictor)
        assert training.classifier.groups
        training.classifier.groups = groups
        losses.append([event.loss for event in training.run() if isinstance(event, TrainStep)])
        assert any(one is not None for one in told) == groups
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def _train_a_norm(predictor: Predictor) -> None:
    layer: Any = predictor.classifier.layers()[1]
    layer.output.LayerNorm.weight.requires_grad_()


def _compute_again(predictor: Predictor) -> None:
    assert predictor.classifier.recompute_layers() > 0


def _hook_inside(predictor: Predictor) -> None:
    layer: Any = predictor.classifier.layers()[1]
    layer.output.dense.register_forward_hook(lambda _, __, output: output * 2)


@pytest.mark.parametrize(
    "change", [_train_a_norm, _compute_again, _hook_inside], ids=lambda change: change.__name__[1:]
)
def test_layers_that_do_not_take_groups_get_padded_batches(base_folder: BaseFolder, change: Any) -> None:
    plain, predictor = fresh(base_folder("bert"))[0], dataclasses.replace(fresh(base_folder("bert"))[0], runtime=FAST)
    change(plain)
    change(predictor)
    told = passes_of(predictor)
    np.testing.assert_allclose(logits_of(predictor), logits_of(plain), atol=5e-6)
    assert told
    assert set(told) == {None}


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.name != "qlora"])
def test_every_method_gives_the_answers_of_padded_batches(base_folder: BaseFolder, method: str) -> None:
    plain, _ = wrapped(base_folder("bert"), method)
    expected = logits_of(disturb(plain))
    predictor, _ = wrapped(base_folder("bert"), method)
    predictor = dataclasses.replace(disturb(predictor), runtime=FAST)
    use_packing(predictor.classifier, FAST)  # as a training does once a method has wrapped it
    told = passes_of(predictor)
    np.testing.assert_allclose(logits_of(predictor), expected, atol=1e-5)
    assert (None not in told) == (method in GROUPED)


def test_dropout_of_the_base_pads_batches(base_folder: BaseFolder) -> None:
    predictor = dataclasses.replace(wrapped(base_folder("bert"), "lora")[0], runtime=FAST)
    training = session(predictor, base_dropout=True)
    told = passes_of(predictor)
    training.classifier.set_training(base_dropout=True)
    gradients_of(training.classifier, training.micro_batches(np.arange(24)), runtime=FAST, penalty=None)
    assert told
    assert set(told) == {None}


def test_compiled_layers_get_padded_batches(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda plain, **_: plain)
    predictor = dataclasses.replace(fresh(base_folder("bert"))[0], runtime=FAST)
    with compiled(predictor.classifier.layers()):
        assert not predictor.classifier.pads_less()
    assert predictor.classifier.pads_less()


def test_rows_in_groups_never_reach_a_layer_that_would_take_them_for_one_text(base_folder: BaseFolder) -> None:
    predictor = dataclasses.replace(fresh(base_folder("bert"))[0], runtime=FAST)
    layer: Any = predictor.classifier.layers()[1]
    layer.output.dense.register_forward_hook(lambda _, __, output: output)
    hidden = torch.zeros(1, int(MIXED.sum()), 32)
    with pytest.raises(RuntimeError, match="must go through layers that take them"):
        layer(hidden, None, **{PACKING: Groups(MIXED, 70, 4)})


@pytest.mark.parametrize("name", [*FAMILIES, "embedder", "electra"])
def test_only_encoders_whose_layers_are_whole_take_groups(base_folder: BaseFolder, name: str) -> None:
    predictor = dataclasses.replace(fresh(base_folder(name))[0], runtime=FAST)
    assert predictor.classifier.pads_less() == (name in ENCODERS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_is_of_a_model_that_hands_options_down_to_its_layers(kind: str) -> None:
    shape = DISTILBERT if kind == "distilbert" else SMALL
    config = AutoConfig.for_model(kind, vocab_size=50, embedding_size=24, pad_token_id=0, **shape)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    layers = [layer for layer in model.modules() if f"{type(layer).__module__}.{type(layer).__name__}" in LAYOUTS]
    told: list[object] = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, __, options: told.append(options.get(PACKING)), with_kwargs=True)
    model(input_ids=torch.ones(1, 4, dtype=torch.long), **{PACKING: "groups"})
    assert told == ["groups"] * 3


def test_a_model_that_keeps_options_to_itself_is_padded_and_told_once(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = logits_of(fresh(base_folder("bert"))[0])
    predictor = dataclasses.replace(fresh(base_folder("bert"))[0], runtime=FAST)
    encoder = predictor.classifier.model.bert.encoder
    plain = encoder.forward

    def forward(*args: Any, **options: Any) -> Any:
        return plain(*args, **{name: one for name, one in options.items() if name != PACKING})

    monkeypatch.setattr(encoder, "forward", forward)
    for _ in range(2):
        np.testing.assert_allclose(logits_of(predictor), expected, atol=5e-6)
    told = [record for record in caplog.records if "keeps options to itself" in record.getMessage()]
    assert len(told) == 1


def test_tokens_are_packed_and_come_back_to_their_places() -> None:
    hidden = torch.randn(len(MIXED), 70, 4)
    groups = Groups(MIXED, 70, HEADS)
    packed = groups.pack(hidden)
    assert packed.shape == (1, groups.tokens, 4)
    own = mask_of(MIXED)[..., None] > 0
    assert torch.equal(groups.unpack(packed) * own, hidden * own)
    firsts = groups.batch(groups.first(groups.rows(packed)))
    assert torch.equal(groups.unpack(firsts), hidden[:, :1])


def of_torch(states: list[torch.Tensor], lengths: np.ndarray, *, alone: bool) -> torch.Tensor:
    """Attention of each text to its own tokens, (B, L or 1, H E)."""
    split = [one.view(len(lengths), -1, HEADS, WIDTH).transpose(1, 2) for one in states]
    seen = (mask_of(lengths) > 0)[:, None, None]
    split[0] = split[0][:, :, :1] if alone else split[0]
    out = functional.scaled_dot_product_attention(*split, attn_mask=seen, scale=0.3)
    return out.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("alone", [False, True], ids=["all queries", "the first alone"])
def test_attention_of_groups_is_that_of_each_text_forward_and_back(alone: bool) -> None:
    shape = len(MIXED), 70, HEADS * WIDTH
    states = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    inputs = [one.clone().requires_grad_() for one in states]
    own = mask_of(MIXED)[..., None] > 0
    own = own[:, :1] if alone else own
    expected = of_torch(inputs, MIXED, alone=alone) * own
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9)) * own
    (expected * weights).sum().backward()

    groups = Groups(MIXED, 70, HEADS)
    assert {form.is_time_major for form in groups.forms} == {True, False}
    rows = [groups.rows(groups.pack(one)) for one in states]
    grad = groups.rows(groups.pack(weights)) if not alone else weights[groups.order, 0]
    rows[0] = groups.first(rows[0]) if alone else rows[0]
    settings: dict[str, Any] = {"form": groups, "mask": groups.masks(first_alone=alone), "scale": 0.3}
    found, kept = attend_each(*rows, **settings)
    gradients = attend_each_back(grad, (rows[0], rows[1], rows[2]), kept, **settings)
    torch.testing.assert_close(groups.unpack(groups.batch(found)) * own, expected.detach(), rtol=1e-4, atol=1e-5)
    for index, (gradient, one) in enumerate(zip(gradients, inputs, strict=True)):
        assert one.grad is not None
        of_input = one.grad[:, :1] if alone and index == 0 else one.grad
        torch.testing.assert_close(groups.unpack(groups.batch(gradient)), of_input, rtol=1e-4, atol=1e-5)


def test_first_rows_are_added_to_in_place() -> None:
    groups = Groups(MIXED, 70, HEADS)
    rows = torch.zeros(groups.tokens, 2)
    groups.add_to_first(rows, torch.ones(len(MIXED), 2))
    assert torch.equal(groups.first(rows), torch.ones(len(MIXED), 2))
    assert rows.sum() == 2 * len(MIXED)


def cost(lengths: np.ndarray, bounds: list[int]) -> int:
    return sum((end - start) * int(lengths[end - 1]) + grouping.PRICE_OF_GROUP for start, end in pairwise(bounds))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9))
def test_no_other_groups_cost_less(lengths: list[int]) -> None:
    ordered = np.sort(np.asarray(lengths))
    n = len(ordered)
    every = [[0, *(cut for cut in range(1, n) if bits >> cut & 1), n] for bits in range(0, 1 << n, 2)]
    assert cost(ordered, grouping._bounds(ordered, heads=1)) == min(cost(ordered, bounds) for bounds in every)


def test_groups_of_short_texts_are_as_small_as_their_attention_wants_them() -> None:
    groups = Groups(np.full(256, 40), 40, 12)
    assert all(form.is_time_major for form in groups.forms)
    assert [form.texts for form in groups.forms] == [64] * 4
    assert MOST_SCORES < 12 * 40**2 * 256


@pytest.mark.parametrize(
    "mask",
    [
        mask_of(np.full(30, 9)),
        mask_of(np.asarray([9] * 29 + [8])),
        mask_of(np.asarray([300])),
        mask_of(MIXED).flip(1),
        torch.cat([mask_of(MIXED), torch.zeros(1, 70, dtype=torch.long)]),
    ],
    ids=["one length", "hardly padded", "one text", "padded on the left", "a text without tokens"],
)
def test_batches_that_gain_nothing_or_are_of_another_kind_stay_padded(mask: torch.Tensor) -> None:
    assert groups_of(mask, HEADS) is None


def test_a_form_of_a_padded_batch_is_no_group() -> None:
    form = Form(2, 5, HEADS)
    rows = torch.zeros(10, 4)
    form.add_to_first(rows, torch.ones(2, 4))
    assert torch.equal(form.batch(rows)[:, 0], torch.ones(2, 4))
    assert rows.sum() == 8
