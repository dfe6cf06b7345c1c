"""The one forward path: order of the answers, probabilities, features when asked for, and refused texts."""

import numpy as np
import pytest

from conftest import BaseFolder
from textlift.errors import DataError
from textlift.inference import ForwardResult
from tiny_models import LABEL_NAMES, TEXTS, fresh, logits_of


@pytest.mark.parametrize("name", ["bert", "gpt2", "embedder"])
def test_answers_come_in_the_order_of_the_texts(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = fresh(base_folder(name))
    answers = predictor.predict(TEXTS)
    assert [answer.text for answer in answers] == TEXTS
    alone = [predictor.predict([text])[0] for text in TEXTS]
    assert [answer.label for answer in answers] == [answer.label for answer in alone]


def test_probabilities_are_the_softmax_of_the_logits(base_folder: BaseFolder) -> None:
    predictor, _ = fresh(base_folder("bert"))
    probabilities = predictor.predict_proba(TEXTS)
    powers = np.exp(logits_of(predictor).astype(np.float64))
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-7)
    for answer, row in zip(predictor.predict(TEXTS), probabilities, strict=True):
        assert list(answer.probabilities) == list(LABEL_NAMES)
        assert answer.label == LABEL_NAMES[int(row.argmax())]
        assert answer.probability == pytest.approx(row.max())
        assert answer.to_dict() == {"text": answer.text, "label": answer.label, "probabilities": answer.probabilities}


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "embedder"])
def test_empty_and_odd_texts_get_an_answer(base_folder: BaseFolder, name: str) -> None:
    predictor, _ = fresh(base_folder(name))
    odd = ["", " ", "\n", "☃", "boat " * 500, "\x00", "the boat"]
    probabilities = predictor.predict_proba(odd)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities[-1], predictor.predict_proba(["the boat"])[0], atol=1e-6)
    np.testing.assert_allclose(probabilities[0], predictor.predict_proba([""])[0], atol=1e-6)


def test_a_single_string_is_one_text(base_folder: BaseFolder) -> None:
    predictor, _ = fresh(base_folder("bert"))
    assert len(predictor.predict("boat")) == 1
    assert predictor.predict_proba("boat").shape == (1, 3)


def test_no_text_gives_no_answer(base_folder: BaseFolder) -> None:
    predictor, _ = fresh(base_folder("bert"))
    assert predictor.predict([]) == []
    assert predictor.predict_proba([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], "texts must be strings; item 1 is NoneType"),
        ([3], "texts must be strings; item 0 is int"),
        (["a", "b", "half \ud800"], "texts must be Unicode; item 2 holds half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_refused_with_its_place(base_folder: BaseFolder, texts: list[str], message: str) -> None:
    predictor, _ = fresh(base_folder("bert"))
    with pytest.raises(DataError, match=message):
        predictor.predict(texts)
    with pytest.raises(DataError, match=message):
        predictor.predict_proba(texts)


def test_progress_counts_up_and_the_result_comes_last(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textlift.inference.INFERENCE_TOKENS", 60)
    predictor, _ = fresh(base_folder("bert"))
    *counts, result = predictor.forward_steps(predictor.tokenize(TEXTS))
    assert counts == sorted(set(counts))
    assert counts[-1] == len(TEXTS)
    assert len(counts) > 3
    assert isinstance(result, ForwardResult)
    assert result.features is None
    assert result.samples_per_second > 0


def test_features_are_hooked_only_when_asked_for(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor, _ = fresh(base_folder("bert"))
    monkeypatch.setattr(type(predictor.classifier), "captured_features", None)
    logits_of(predictor)


def test_features_of_a_text_that_ends_in_the_padding_token_are_those_the_logits_come_from(
    base_folder: BaseFolder,
) -> None:
    predictor, _ = fresh(base_folder("gpt2"))
    result = predictor.forward(predictor.tokenize(["the boat<end>", "we saw the boat"]), features=True)
    assert result.features is not None
    weight = predictor.classifier.final_linear().weight.numpy()
    np.testing.assert_allclose(result.features @ weight.T, result.logits, atol=1e-6)


def test_a_forward_leaves_the_classifier_in_evaluation_mode(base_folder: BaseFolder) -> None:
    predictor, _ = fresh(base_folder("bert"))
    predictor.classifier.train()
    first, second = logits_of(predictor), logits_of(predictor)
    assert np.array_equal(first, second)
    assert not predictor.classifier.training
