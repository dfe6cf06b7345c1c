"""Words that carried a prediction, by a classifier whose logits are known."""

from collections.abc import Sequence

import numpy as np
import pytest

from textlift.evaluation.occlusion import MOST_PARTS, explain, log_odds, words_of


def logits_of(texts: Sequence[str]) -> np.ndarray:
    """Two classes: the second by the number of "good", the first by that of "bad"."""
    return np.array([[text.count("bad"), 2.0 * text.count("good")] for text in texts])


def test_the_planted_word_carries_all_of_the_prediction() -> None:
    (found,) = explain(["a very good film"], logits_of)
    assert found.predicted == 1
    assert dict(zip(found.parts, found.weights, strict=True)) == pytest.approx(
        {"a ": 0, "very ": 0, "good ": 2, "film": 0}
    )


def test_a_word_that_speaks_against_the_prediction_has_a_negative_weight() -> None:
    (found,) = explain(["good but bad"], logits_of)
    assert found.weights == pytest.approx((2.0, 0.0, -1.0))


def test_the_parts_are_the_text() -> None:
    text = "  two\n lines,\tthree   words  "
    assert "".join(words_of(text)) == text
    assert len(words_of(text)) == 4


def test_scripts_without_spaces_are_read_by_character() -> None:
    assert words_of("我很高兴 today") == ["我", "很", "高", "兴 ", "today"]


def test_a_long_text_is_read_in_groups_of_words() -> None:
    text = " ".join(["x"] * 200 + ["good"] + ["y"] * 300)
    (found,) = explain([text], logits_of)
    assert len(found.parts) == MOST_PARTS // 2
    assert "good" in found.parts[int(np.argmax(found.weights))]
    assert "".join(found.parts) == text


def test_of_a_text_that_is_cut_only_what_is_read_is_explained() -> None:
    (found,) = explain(["a b c d e f g"], logits_of, is_read_whole=lambda text: len(text.split()) <= 3)
    assert (found.parts, found.unread) == (("a ", "b ", "c "), 4)


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_a_text_without_words_has_a_prediction_and_no_weights(text: str) -> None:
    (found,) = explain([text], logits_of)
    assert (found.parts, found.weights, found.log_odds) == ((), (), 0.0)


def test_texts_are_asked_for_once_and_come_back_in_order() -> None:
    calls: list[int] = []

    def counted(texts: Sequence[str]) -> np.ndarray:
        calls.append(len(texts))
        return logits_of(texts)

    found = explain(["good one", "", "bad day here"], counted)
    assert calls == [3 + 1 + 4]
    assert [one.predicted for one in found] == [1, 0, 0]


def test_no_texts_are_explained_by_nothing() -> None:
    assert explain([], logits_of) == []


def test_log_odds_are_finite_where_a_probability_is_one() -> None:
    assert log_odds(np.array([[500.0, 0.0, 0.0]]), 0) == pytest.approx([500 - np.log(2)])
