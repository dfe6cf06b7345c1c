"""The decision of a variant: what the recipe asks for, fitted on validation; labels of test only measure."""

from typing import Any

import numpy as np
import pytest

from decision_samples import drawn_logits
from textlift.data import Dataset, Rows
from textlift.errors import RecipeError
from textlift.evaluation.decisions import Decision
from textlift.recipe import DecisionSection, parse_recipe
from textlift.workflow.deciding import Ground, decide, inherited, require_labels, told_of_decision

NAMES = ("spam", "ham", "news")
EQUAL, MOVED = np.full(3, 1 / 3), np.asarray([0.7, 0.2, 0.1])


def ground(test_priors: np.ndarray = EQUAL, *, sharpness: float = 2.0, seed: int = 0) -> Ground:
    drawn = {
        "train": drawn_logits(1_000, EQUAL, seed=seed),
        "validation": drawn_logits(2_000, EQUAL, seed=seed + 1, sharpness=sharpness),
        "test": drawn_logits(2_000, test_priors, seed=seed + 2, sharpness=sharpness),
    }
    labels = {split: pair[0] for split, pair in drawn.items()}
    return Ground(labels, {split: drawn[split][1] for split in ("validation", "test")}, NAMES, ("0", "1", "2"))


def section(**values: Any) -> DecisionSection:
    return parse_recipe({"decision": values}).decision


def decided(some: Ground, *, has_prior_shift: bool = False, **values: Any) -> tuple[Decision, dict[str, Any]]:
    return decide(some, section(**values), has_prior_shift=has_prior_shift, seed=0)


def test_the_default_is_a_temperature_and_nothing_else() -> None:
    decision, record = decided(ground())
    assert decision == Decision(temperature=decision.temperature)
    assert decision.temperature == pytest.approx(2.0, rel=0.1)
    assert record["calibration"]["test"]["ece_after"] < record["calibration"]["test"]["ece_before"] / 2
    assert record["calibration"]["applied"]


def test_labels_of_test_decide_nothing() -> None:
    some = ground(MOVED)
    others = {**some.labels, "test": (some.labels["test"] + 1) % 3}
    asked = {"priors": "estimate", "thresholds": {"spam": {"precision": 0.9}}, "abstain": {"coverage": 0.8}}
    first, second = (
        decided(Ground(labels, some.logits, NAMES, some.label_values), has_prior_shift=True, **asked)[0]
        for labels in (some.labels, others)
    )
    assert first == second


def test_calibration_can_be_left_out_and_is_measured_all_the_same() -> None:
    decision, record = decided(ground(), calibrate=False)
    assert decision.is_identity
    assert record["calibration"]["temperature"] == pytest.approx(2.0, rel=0.1)
    assert not record["calibration"]["applied"]


def test_estimated_priors_gain_where_classes_moved() -> None:
    decision, record = decided(ground(MOVED), priors="estimate")
    assert decision.priors == pytest.approx(MOVED, abs=0.04)
    correction = record["prior_correction"]
    assert correction["is_noticeable"]
    assert correction["is_applied"]
    assert correction["used"]["low"] > 0
    assert record["decision"]["test"]["accuracy"] == correction["used"]["accuracy_after"]


def test_prior_correction_is_told_but_not_applied_unless_asked() -> None:
    decision, record = decided(ground(MOVED))
    assert decision.priors is None
    assert not record["prior_correction"]["is_applied"]
    assert record["prior_correction"]["estimated"]["difference"] > 0.02


def test_classes_that_did_not_move_are_not_noticed() -> None:
    assert not decided(ground())[1]["prior_correction"]["is_noticeable"]


def test_shares_of_test_itself_are_told_only_where_the_checks_found_others() -> None:
    assert "known" not in decided(ground(MOVED))[1]["prior_correction"]
    assert "known" in decided(ground(MOVED), has_prior_shift=True)[1]["prior_correction"]


def test_priors_of_the_recipe_are_taken_by_name_or_as_written() -> None:
    decision, _ = decided(ground(), priors={"spam": 0.7, "1": 0.2, "news": 0.1})
    assert decision.priors == pytest.approx((0.7, 0.2, 0.1))


def test_a_wanted_precision_holds_on_validation_and_about_so_on_test() -> None:
    some = ground()
    decision, record = decided(some, thresholds={"spam": {"precision": 0.9}})
    for split, least in (("validation", 0.9), ("test", 0.86)):
        chosen = decision.apply(some.logits[split]).chosen == 0
        assert (some.labels[split][chosen] == 0).mean() >= least
    assert record["decision"]["chosen"][0]["is_reached"]


def test_a_wanted_precision_under_other_priors_holds_where_classes_have_these() -> None:
    some = ground(MOVED)
    shares = dict(zip(NAMES, MOVED.tolist(), strict=True))
    decision, _ = decided(some, priors=shares, thresholds={"news": {"precision": 0.7}})
    chosen = decision.apply(some.logits["test"]).chosen == 2
    assert (some.labels["test"][chosen] == 2).mean() == pytest.approx(0.7, abs=0.1)


def test_costs_that_are_not_named_are_one_and_right_answers_free() -> None:
    decision, record = decided(ground(), costs={"spam": {"ham": 7}})
    assert decision.costs == ((0, 7, 1), (1, 0, 1), (1, 1, 0))
    assert record["decision"]["test"]["mean_cost"] > 0


def test_costs_make_it_cheaper_than_the_most_probable_class() -> None:
    some = ground()
    decision, record = decided(some, costs={"spam": {"ham": 9, "news": 9}})
    plain = np.asarray(decision.costs)[some.labels["test"], some.logits["test"].argmax(axis=1)].mean()
    assert record["decision"]["test"]["mean_cost"] < plain


def test_abstention_reaches_the_wanted_accuracy_on_validation() -> None:
    decision, record = decided(ground(), abstain={"accuracy": 0.9})
    assert decision.least_confidence is not None
    assert record["decision"]["validation"]["accuracy_answered"] >= 0.9
    assert record["decision"]["test"]["accuracy_answered"] == pytest.approx(0.9, abs=0.03)


def test_what_cannot_be_reached_is_told_as_a_warning() -> None:
    _, record = decided(ground(sharpness=0.01), abstain={"accuracy": 1.0})
    record["decision"]["chosen"][0] |= {"is_reached": False}
    assert any("warning: not reached" in line for line in told_of_decision(record, NAMES))


def test_lines_name_the_class_of_a_threshold() -> None:
    _, record = decided(ground(), thresholds={"ham": {"recall": 0.95}})
    assert any("recall 0.95 of ham on validation from" in line for line in told_of_decision(record, NAMES))


def test_a_merged_variant_keeps_the_decision_it_came_with() -> None:
    some = ground()
    decision, record = decided(some, abstain={"coverage": 0.8})
    kept = inherited(some, decision, calibration=record["calibration"])
    assert kept["decision"]["stored"] == record["decision"]["stored"]
    assert kept["decision"]["test"] == record["decision"]["test"]


# ---- labels of the recipe


def dataset() -> Dataset:
    rows = Rows(["a"], ["0"], [1], ["x.csv"])
    return Dataset("x", {"train": rows}, NAMES, ("0", "1", "2"), "text", "label", (), {})


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"thresholds": {"span": {"recall": 0.9}}}, "thresholds must name a label; found 'span'. Did you mean 'spam'?"),
        ({"costs": {"spam": {"hm": 2}}}, "decision.costs must name a label; found 'hm'. Did you mean 'ham'?"),
        ({"costs": {"x" * 500: {"ham": 2}}}, "decision.costs must name a label; found 'xxx"),
        ({"priors": {"spam": 0.5, "ham": 0.5}}, "decision.priors must give a share for every label; 'news' has none."),
        ({"priors": {"spam": 0.4, "0": 0.2, "ham": 0.2, "news": 0.2}}, "must name each label once"),
    ],
)  # fmt: skip
def test_labels_that_the_data_does_not_have_are_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError) as error:
        require_labels(section(**values), dataset())
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


def test_labels_of_the_data_are_taken() -> None:
    require_labels(section(thresholds={"spam": {"recall": 0.9}, "2": {"precision": 0.9}}), dataset())


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"priors": {"spam": 0.5, "ham": 0.4}}, "decision: priors must sum to 1; found 0.9"),
        ({"priors": "estimate", "calibrate": False}, "decision: priors need calibrated probabilities"),
        ({"thresholds": {"a": {"precision": 0.9, "recall": 0.9}}}, "precision or recall must be given, and not both"),
        ({"abstain": {}}, "decision.abstain: accuracy or coverage must be given"),
        ({"abstain": {"accuracy": 95}}, "decision.abstain.accuracy: must be less than or equal to 1; found 95"),
        ({"costs": {"a": {"b": 1}}, "thresholds": {"a": {"recall": 0.9}}}, "costs and thresholds exclude each other"),
        ({"priors": "guess"}, "decision.priors: must be 'none' or 'estimate' or a section; found 'guess'"),
    ],
)  # fmt: skip
def test_a_decision_section_that_makes_no_sense_is_refused_by_key(values: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError) as error:
        section(**values)
    assert told in str(error.value)
