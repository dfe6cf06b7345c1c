"""From logits to answers: each step by itself, their order, and what may stand in a decision."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from decision_samples import DECISIONS, drawn_logits
from textlift.errors import ModelError
from textlift.evaluation.calibration import calibration_error
from textlift.evaluation.decisions import (
    Decision,
    answers,
    confidence_for_accuracy,
    confidence_for_coverage,
    coverage_curve,
    evaluate_decided,
    outcome,
    threshold_for_precision,
    threshold_for_recall,
)
from textlift.evaluation.metrics import evaluate, softmax

LABELS, LOGITS = drawn_logits(2_000, np.asarray([0.5, 0.3, 0.2]), sharpness=1.5)


def logits_for(*probabilities: float) -> np.ndarray:
    return np.log(np.asarray([probabilities]))


def test_the_identity_is_the_softmax_and_its_most_probable_class() -> None:
    decided = Decision().apply(LOGITS)
    np.testing.assert_array_equal(decided.probabilities, softmax(LOGITS))
    np.testing.assert_array_equal(decided.chosen, LOGITS.argmax(axis=1))
    assert decided.answered.all()
    assert Decision().is_identity


@settings(max_examples=80, deadline=None)
@given(
    arrays.arrays(np.float32, (5, 4), elements=st.floats(-1e4, 1e4, width=32)),
    st.floats(0.01, 60),
)
def test_a_temperature_changes_no_answer(logits: np.ndarray, temperature: float) -> None:
    np.testing.assert_array_equal(Decision(temperature).apply(logits).chosen, logits.argmax(axis=1))


@pytest.mark.parametrize("name", DECISIONS)
def test_probabilities_of_every_decision_sum_to_one(name: str) -> None:
    np.testing.assert_allclose(DECISIONS[name].probabilities(LOGITS).sum(axis=1), 1)


@pytest.mark.parametrize("name", DECISIONS)
def test_every_decision_comes_back_from_json(name: str) -> None:
    written = json.dumps(DECISIONS[name].to_dict(), allow_nan=False)
    assert Decision.from_dict(json.loads(written)) == DECISIONS[name]


@pytest.mark.parametrize("name", DECISIONS)
def test_every_decision_takes_no_rows(name: str) -> None:
    assert DECISIONS[name].apply(np.zeros((0, 3))).probabilities.shape == (0, 3)


def test_priors_move_the_answer_to_the_more_frequent_class() -> None:
    decision = Decision(trained_priors=(0.5, 0.5), priors=(0.1, 0.9))
    decided = decision.apply(logits_for(0.6, 0.4))
    assert decided.chosen.tolist() == [1]
    assert decided.confidence[0] == pytest.approx(0.36 / 0.42)


def test_costs_choose_the_class_of_the_least_expected_cost() -> None:
    decision = Decision(costs=((0.0, 10.0), (1.0, 0.0)))  # to miss a row of class 0 costs ten times as much
    assert decision.apply(logits_for(0.2, 0.8)).chosen.tolist() == [0]
    assert decision.apply(logits_for(0.05, 0.95)).chosen.tolist() == [1]


def test_a_threshold_of_one_class_claims_the_rows_that_reach_it() -> None:
    decision = Decision(thresholds=(0.3, None, None))
    assert decision.apply(logits_for(0.35, 0.6, 0.05)).chosen.tolist() == [0]
    assert decision.apply(logits_for(0.25, 0.15, 0.6)).chosen.tolist() == [2]


def test_a_class_that_misses_its_threshold_is_not_chosen_though_it_is_most_probable() -> None:
    assert Decision(thresholds=(0.9, None, None)).apply(logits_for(0.8, 0.15, 0.05)).chosen.tolist() == [1]


def test_the_class_that_reaches_its_threshold_by_the_largest_factor_is_chosen() -> None:
    assert Decision(thresholds=(0.5, 0.1)).apply(logits_for(0.6, 0.4)).chosen.tolist() == [1]


def test_there_is_no_answer_where_no_class_reaches_its_threshold() -> None:
    decided = Decision(thresholds=(0.9, 0.9)).apply(logits_for(0.6, 0.4))
    assert decided.answered.tolist() == [False]
    assert decided.chosen.tolist() == [0]


def test_a_threshold_of_zero_is_always_reached() -> None:
    assert Decision(thresholds=(0.0, None)).apply(logits_for(0.01, 0.99)).chosen.tolist() == [0]


def test_rows_below_the_least_confidence_have_no_answer() -> None:
    logits = np.log(np.asarray([[0.9, 0.1], [0.6, 0.4]]))
    assert Decision(least_confidence=0.7).apply(logits).answered.tolist() == [True, False]


def test_abstention_looks_at_the_probability_after_the_priors() -> None:
    decision = Decision(trained_priors=(0.5, 0.5), priors=(0.9, 0.1), least_confidence=0.9)
    assert decision.apply(logits_for(0.6, 0.4)).answered.tolist() == [True]


def test_logits_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ModelError, match="must be for 2 classes; it is for 3"):
        DECISIONS["costs"].apply(np.zeros((1, 2)))


# ---- choosing


def test_a_threshold_gives_the_precision_that_was_wanted_and_no_less_recall_than_need_be() -> None:
    is_class, probability = LABELS == 2, softmax(LOGITS)[:, 2]
    chosen = threshold_for_precision(is_class, probability, wanted=0.8)
    assert chosen.threshold is not None
    assert is_class[probability >= chosen.threshold].mean() == pytest.approx(chosen.value)
    assert chosen.value >= 0.8
    lower = np.unique(probability[probability < chosen.threshold])
    assert all(is_class[probability >= level].mean() < 0.8 for level in lower)


def test_a_threshold_gives_the_recall_that_was_wanted() -> None:
    is_class, probability = LABELS == 2, softmax(LOGITS)[:, 2]
    chosen = threshold_for_recall(is_class, probability, wanted=0.9)
    assert (probability[is_class] >= chosen.threshold).mean() == pytest.approx(0.9, abs=0.01)


def test_a_precision_that_cannot_be_had_gives_the_nearest_and_says_so() -> None:
    is_class, probability = np.asarray([False, True, False]), np.asarray([0.9, 0.8, 0.1])
    chosen = threshold_for_precision(is_class, probability, wanted=0.9)
    assert (chosen.threshold, chosen.value, chosen.is_reached) == (0.8, 0.5, False)


@pytest.mark.parametrize("choose", [threshold_for_precision, threshold_for_recall])
def test_a_class_without_a_row_gets_no_threshold(choose: Any) -> None:
    chosen = choose(np.zeros(3, dtype=bool), np.asarray([0.1, 0.2, 0.3]), wanted=0.5)
    assert chosen.threshold is None
    assert not chosen.is_reached


def test_rows_of_equal_probability_go_together() -> None:
    is_class, probability = np.asarray([True, False, True, False]), np.asarray([0.9, 0.9, 0.5, 0.5])
    assert threshold_for_precision(is_class, probability, wanted=1.0).is_reached is False


def test_weights_count_rows_as_often_as_they_say() -> None:
    is_class, probability = np.asarray([True, False, True]), np.asarray([0.9, 0.8, 0.7])
    heavy = threshold_for_precision(is_class, probability, wanted=0.8, weights=np.asarray([1.0, 0.2, 1.0]))
    light = threshold_for_precision(is_class, probability, wanted=0.8)
    assert (heavy.threshold, light.threshold) == (0.7, 0.9)


def test_abstention_gives_the_accuracy_that_was_wanted_on_the_rows_it_was_chosen_on() -> None:
    decided = Decision().apply(LOGITS)
    right = decided.chosen == LABELS
    chosen = confidence_for_accuracy(right, decided.confidence, wanted=0.9)
    kept = Decision(least_confidence=chosen.threshold).apply(LOGITS)
    assert right[kept.answered].mean() >= 0.9
    assert 0.1 < kept.answered.mean() < 1


def test_abstention_answers_the_share_of_rows_that_was_wanted() -> None:
    confidence = Decision().apply(LOGITS).confidence
    chosen = confidence_for_coverage(confidence, wanted=0.7)
    assert (confidence >= chosen.threshold).mean() == pytest.approx(0.7, abs=0.001)


# ---- measuring


def test_the_curve_ends_at_the_accuracy_of_all_rows() -> None:
    decided = Decision().apply(LOGITS)
    right = decided.chosen == LABELS
    curve = coverage_curve(right, decided.confidence)
    assert len(curve["points"]) == 50
    assert curve["points"][-1]["coverage"] == 1
    assert curve["points"][-1]["accuracy"] == pytest.approx(right.mean())
    assert right.mean() < curve["area"] < 1


def test_the_curve_of_one_row_is_one_point() -> None:
    assert len(coverage_curve(np.asarray([True]), np.asarray([0.5]))["points"]) == 1


def test_an_outcome_tells_coverage_and_the_accuracy_of_answers() -> None:
    decided = Decision(least_confidence=0.7).apply(np.log(np.asarray([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])))
    told = outcome(np.asarray([0, 1, 0]), decided)
    assert told == {
        "n": 3,
        "coverage": pytest.approx(2 / 3),
        "accuracy_answered": 0.5,
        "accuracy": pytest.approx(1 / 3),
    }


def test_an_outcome_without_answers_has_no_accuracy_of_them() -> None:
    told = outcome(np.asarray([0]), Decision(least_confidence=1.0).apply(logits_for(0.6, 0.4)))
    assert (told["coverage"], told["accuracy_answered"]) == (0, None)


def test_an_outcome_with_costs_tells_their_mean() -> None:
    costs = ((0.0, 4.0), (1.0, 0.0))
    decided = Decision(costs=costs).apply(np.log(np.asarray([[0.9, 0.1], [0.1, 0.9]])))
    assert outcome(np.asarray([0, 0]), decided, costs=costs)["mean_cost"] == 2.0


def test_scores_of_the_identity_are_those_of_the_logits() -> None:
    decided, plain = evaluate_decided(LABELS, Decision().apply(LOGITS)), evaluate(LABELS, LOGITS)
    assert decided["confusion"] == plain["confusion"]
    assert decided["log_loss"] == pytest.approx(plain["log_loss"])


def test_scores_are_of_what_a_decision_chooses() -> None:
    decision = Decision(thresholds=(None, None, 0.05))
    scores = evaluate_decided(LABELS, decision.apply(LOGITS))
    assert scores["per_class"][2]["recall"] > evaluate(LABELS, LOGITS)["per_class"][2]["recall"]


def test_answers_tell_the_calibration_error() -> None:
    told = answers(LABELS, Decision(temperature=1.5).apply(LOGITS), costs=None)
    assert told["ece"] == calibration_error(LABELS, softmax(LOGITS / 1.5))
    assert set(told) == {"ece", "coverage", "accuracy_answered"}


# ---- what may stand in a decision


GOOD = DECISIONS["priors"].to_dict()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"temperature": 0}, "temperature must be a number above 0; found 0"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "hot"}, "temperature must be a number above 0; found 'hot'"),
        ({"bias": "none"}, "bias"),
        ({"bias": []}, "bias"),
        ({"priors": [0.5, 0.6, 0.1]}, "priors must be shares"),
        ({"priors": [1.0, 0.0, 0.0]}, "priors must be shares"),
        ({"priors": {"a": 1}}, "priors must be shares"),
        ({"trained_priors": None}, "priors must come with trained_priors"),
        ({"priors": [0.5, 0.5]}, "for one number of classes"),
        ({"costs": [[0, 1], [1, 0]]}, "for one number of classes"),
        ({"costs": [[0, 1, 2], [1, 0]]}, "costs must be a row of numbers for each class"),
        ({"costs": [[0, math.inf], [1, 0]]}, "costs"),
        ({"thresholds": [0.5, 1.5, None]}, "thresholds must be from 0 to 1"),
        ({"thresholds": []}, "thresholds"),
        ({"least_confidence": 2}, "least_confidence"),
        ({"costs": [[0, 1, 1]] * 3, "thresholds": [None, None, 0.5]}, "exclude each other"),
        ({"surprise": 1}, "'surprise' is unknown or missing"),
        ({"format_version": 2}, "format_version must be 1; found 2"),
        ({"bias": [[[[[[0.0]]]]]]}, "bias"),
    ],
)
def test_a_decision_that_somebody_else_wrote_is_refused_in_one_line(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError) as error:
        Decision.from_dict({**GOOD, **change})
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("values", [None, [], "decision", 3, {}])
def test_what_is_no_object_of_this_format_is_refused(values: object) -> None:
    with pytest.raises(ModelError, match="decision: "):
        Decision.from_dict(values)


def test_a_missing_key_is_told() -> None:
    with pytest.raises(ModelError, match="'bias' is unknown or missing"):
        Decision.from_dict({key: value for key, value in GOOD.items() if key != "bias"})
