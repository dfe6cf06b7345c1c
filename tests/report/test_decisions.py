"""The section on calibration and decisions: its plots, its sentences, and what is stored."""

import copy
from typing import Any

import pytest
from pages import Structure
from sample import EMOTIONS, decision_records, make_histories, make_results

from textlift.evaluation.verdict import verdict
from textlift.report.decisions import coverage_plot, decision_panel, reliability_plot
from textlift.report.html import render_html


def record(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(decision_records(6)), **changes}


def sentences(shown: dict[str, Any]) -> str:
    panel = decision_panel(shown, EMOTIONS)
    assert panel is not None
    return " ".join(panel.sentences)


def test_the_report_has_a_section_on_calibration() -> None:
    page = Structure(render_html(make_results(), make_histories(steps=60)))
    text = " ".join(page.text.split())
    assert ("id", "decision") in page.values
    assert "calibration error 6.2 %" in text
    assert "calibration error 1.9 %" in text
    assert "Perfect probabilities would show an error of about 1.6 %" in text


def test_a_run_of_an_earlier_version_has_no_such_section() -> None:
    results = make_results()
    for variant in results["variants"].values():
        for key in ("calibration", "decision", "prior_correction", "coverage_curve"):
            variant.pop(key, None)
    page = Structure(render_html(results, {}))
    assert ("id", "decision") not in page.values
    assert ("href", "#decision") not in page.values


def test_a_reliability_plot_describes_its_bins_for_those_who_do_not_see_it() -> None:
    bins = [{"low": 0.6, "high": 2 / 3, "rows": 30, "confidence": 0.64, "accuracy": 0.5},
            {"low": 14 / 15, "high": 1.0, "rows": 90, "confidence": 0.98, "accuracy": 0.9}]  # fmt: skip
    plot = reliability_plot(bins, key="r", title="Reliability")
    assert "confidence 64.0 %, accuracy 50.0 %, 25.0 % of rows" in plot
    assert plot.count('class="bar tuned"') == 2


def test_a_coverage_plot_begins_at_a_round_accuracy_below_the_lowest() -> None:
    plot = coverage_plot([{"coverage": 0.5, "accuracy": 0.99}, {"coverage": 1.0, "accuracy": 0.83}], key="c", title="C")
    assert ">80 %<" in plot
    assert ">95 %<" in plot


def test_no_curve_is_no_plot() -> None:
    assert coverage_plot([], key="c", title="C") == ""


def test_the_prior_correction_says_that_no_label_of_test_is_used() -> None:
    told = sentences(record())
    assert "from what the model says of the texts of test, without their labels" in told
    assert "would give 94.2 % in place of 93.1 %: +1.1 points (+0.4 to +1.8)" in told
    assert "takes them from its labels and is no score of the model" in told
    assert "--set decision.priors=estimate" in told


def test_equal_shares_of_classes_take_one_sentence() -> None:
    calm = record()
    calm["prior_correction"]["is_noticeable"] = False
    assert "give no sign of other shares" in sentences(calm)
    assert "would give" not in sentences(calm)


def test_coverage_and_accuracy_of_answers_are_told_where_it_abstains() -> None:
    assert "91.0 % of test rows are answered, 96.0 % rightly" in sentences(record())


def test_what_was_not_reached_on_validation_is_told() -> None:
    panel = decision_panel(record(), EMOTIONS)
    assert panel is not None
    stored = dict(panel.stored)
    assert stored["precision 90.0 % of sadness"] == "from a probability of 0.700 on"
    assert stored["accuracy 99.0 %"].endswith("not reached on validation, 97.0 % is the nearest")


# ---- the verdict


def told(correction: dict[str, Any]) -> str:
    results = make_results()
    variants = copy.deepcopy(results["variants"])
    for one in variants.values():
        one.pop("prior_correction", None)
    variants["lora"]["prior_correction"] = {**record()["prior_correction"], **correction}
    return verdict(variants, results["comparisons"])


def test_the_verdict_tells_what_other_shares_of_classes_cost() -> None:
    sentence = (
        "Classes have other shares in test than in training: prior correction by shares estimated from the texts of "
        "test would take lora from 93.1 % to 94.2 % (+1.1 points, +0.4 to +1.8); with the true shares it would be "
        "94.2 %."
    )
    assert sentence in told({})


def test_the_verdict_says_where_the_correction_is_applied() -> None:
    used = {**record()["prior_correction"]["estimated"], "priors": [1.0]}
    assert "prior correction by the shares of the recipe takes lora" in told({"is_applied": True, "used": used})


@pytest.mark.parametrize("correction", [{"is_noticeable": False}])
def test_the_verdict_is_silent_where_shares_are_alike(correction: dict[str, Any]) -> None:
    assert "prior correction" not in told(correction)
