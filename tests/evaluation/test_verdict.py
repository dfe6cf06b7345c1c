from typing import Any

import pytest

from textlift.evaluation.verdict import one_class_warning, verdict


def variant(
    kind: str, accuracy: float, *, log_loss: float = 0.5, on_test: float | None = None, **more: Any
) -> dict[str, Any]:
    """A record in which the test score tells the opposite of the validation score, unless it is given."""
    return {
        "kind": kind,
        "validation": {"accuracy": accuracy, "log_loss": log_loss},
        "test": {"accuracy": 1 - accuracy if on_test is None else on_test, "n": 2_000},
        **more,
    }


def comparison(a: str, b: str, bounds: tuple[float, float, float], *, metric: str = "accuracy") -> dict[str, Any]:
    low, difference, high = bounds
    return {"a": a, "b": b, "metric": metric, "difference": difference, "low": low, "high": high, "n": 2_000}


BASELINES = {
    "majority": variant("baseline", 0.95, on_test=0.95),
    "tfidf": variant("baseline", 0.86, on_test=0.86),
    "untrained": variant("baseline", 0.15, on_test=0.15),
}
LORA = {"lora": variant("tuned", 0.92)}
LIFT = comparison("lora", "tfidf", (0.048, 0.061, 0.074))


def test_a_gain_is_told_in_points_with_its_interval() -> None:
    assert verdict(BASELINES | LORA, [LIFT]) == "lora lifts accuracy over tfidf by 6.1 points (4.8 to 7.4)."


def test_a_comparison_the_other_way_round_reads_the_same() -> None:
    turned = comparison("tfidf", "lora", (-0.074, -0.061, -0.048))
    assert verdict(BASELINES | LORA, [turned]) == verdict(BASELINES | LORA, [LIFT])


def test_a_loss_is_told_as_a_loss() -> None:
    rows = [comparison("lora", "tfidf", (-0.05, -0.04, -0.025))]
    assert verdict(BASELINES | LORA, rows) == "lora is worse than tfidf by 4.0 points of accuracy (2.5 to 5.0)."


def test_an_interval_around_zero_shows_no_difference() -> None:
    rows = [comparison("lora", "tfidf", (-0.009, 0.004, 0.016))]
    assert verdict(BASELINES | LORA, rows) == (
        "No difference shown between lora and tfidf at this size (2,000 test rows): +0.4 points (-0.9 to 1.6)."
    )


def test_an_interval_that_touches_zero_shows_no_difference() -> None:
    assert verdict(BASELINES | LORA, [comparison("lora", "tfidf", (0.0, 0.004, 0.008))]).startswith("No difference")


def test_bounds_that_round_to_zero_get_a_second_decimal() -> None:
    rows = [comparison("lora", "tfidf", (0.0003, 0.002, 0.004))]
    assert verdict(BASELINES | LORA, rows) == "lora lifts accuracy over tfidf by 0.2 points (0.03 to 0.4)."


def test_the_untrained_model_gets_its_own_sentence() -> None:
    rows = [comparison("lora", "untrained", (0.7, 0.75, 0.8)), LIFT]
    assert verdict(BASELINES | LORA, rows) == (
        "lora lifts accuracy over tfidf by 6.1 points (4.8 to 7.4). "
        "lora lifts accuracy over untrained by 75.0 points (70.0 to 80.0)."
    )


def test_the_best_variant_is_chosen_on_validation_never_on_test() -> None:
    variants = BASELINES | {"full": variant("tuned", 0.90)} | LORA
    assert verdict(variants, [LIFT]).startswith("On validation lora is the best of full and lora.")


def test_the_gain_is_told_over_the_baseline_that_is_strongest_on_test() -> None:
    baselines = BASELINES | {"probe": variant("baseline", 0.88, on_test=0.80)}
    rows = [comparison("lora", "probe", (0.09, 0.12, 0.14)), LIFT]
    assert verdict(baselines | LORA, rows) == "lora lifts accuracy over tfidf by 6.1 points (4.8 to 7.4)."


def test_the_lower_validation_log_loss_breaks_a_tie() -> None:
    variants = {"a": variant("tuned", 0.9, log_loss=0.4), "b": variant("tuned", 0.9, log_loss=0.3)}
    assert verdict(variants, []).startswith("On validation b is the best of a and b.")


def test_a_merged_variant_is_no_candidate() -> None:
    assert verdict(LORA | {"merged": variant("merged", 0.99)}, []).startswith("lora ")


def test_the_majority_is_the_measure_where_it_is_the_sole_baseline() -> None:
    variants = {"majority": BASELINES["majority"]} | LORA
    rows = [comparison("lora", "majority", (0.1, 0.2, 0.3))]
    assert verdict(variants, rows) == "lora lifts accuracy over majority by 20.0 points (10.0 to 30.0)."


def test_other_metrics_are_not_told() -> None:
    rows = [comparison("lora", "tfidf", (0.1, 0.2, 0.3), metric="f1_macro"), LIFT]
    assert verdict(BASELINES | LORA, rows) == verdict(BASELINES | LORA, [LIFT])


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (0, "merged gives the same answers as lora."),
        (1, "merged differs from lora on 1 row."),
        (1_234, "merged differs from lora on 1,234 rows."),
    ],
)
def test_the_merged_variant_is_told_by_its_answers(changed: int, sentence: str) -> None:
    merged = variant("merged", 0.92, merged_from="lora", changed_predictions=changed)
    assert verdict(LORA | {"merged": merged}, []).endswith(sentence)


def test_a_merged_variant_that_was_not_compared_is_passed_over() -> None:
    assert "merged" not in verdict(LORA | {"merged": variant("merged", 0.92)}, [])


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_variant_that_predicts_one_class_is_warned_of(split: str) -> None:
    collapsed = variant("tuned", 0.5)
    collapsed[split]["confusion"] = [[0, 7], [0, 3]]
    assert verdict({"lora": collapsed}, []).endswith(
        "Warning: lora predicts a single class for every row; try a lower learning rate or more epochs."
    )


def test_the_warning_on_one_class_names_the_variant() -> None:
    collapsed = variant("tuned", 0.5)
    collapsed["validation"]["confusion"] = [[7, 0, 0], [3, 0, 0], [1, 0, 0]]
    assert one_class_warning("qlora", collapsed) == (
        "qlora predicts a single class for every row; try a lower learning rate or more epochs."
    )


def test_two_classes_among_the_answers_are_no_reason_to_warn() -> None:
    right = variant("tuned", 0.5)
    right["validation"]["confusion"] = [[6, 1, 0], [3, 0, 0], [1, 0, 0]]
    assert one_class_warning("qlora", right) is None


def test_a_baseline_that_predicts_one_class_does_what_it_should() -> None:
    majority = variant("baseline", 0.5)
    majority["test"]["confusion"] = [[7, 0], [3, 0]]
    assert one_class_warning("majority", majority) is None


def test_warnings_of_a_record_are_told_once_and_before_the_merged_variant() -> None:
    collapsed = variant("tuned", 0.5)
    collapsed["validation"]["confusion"] = [[0, 7], [0, 3]]
    collapsed["warnings"] = [one_class_warning("qlora", collapsed)]
    merged = variant("merged", 0.92, merged_from="qlora", changed_predictions=0, warnings=["merged is worse."])
    assert verdict({"qlora": collapsed, "merged": merged}, []).split(" no baseline. ")[1] == (
        "Warning: qlora predicts a single class for every row; try a lower learning rate or more epochs. "
        "Warning: merged is worse. merged gives the same answers as qlora."
    )


def test_one_class_in_the_labels_is_no_reason_to_warn() -> None:
    right = variant("tuned", 0.5)
    right["test"]["confusion"] = [[0, 0], [0, 3]]
    assert "Warning" not in verdict({"lora": right}, [])


def test_without_a_baseline_the_plain_accuracy_is_told() -> None:
    assert verdict({"lora": variant("tuned", 0.08)}, []) == (
        "lora is right on 92.0 % of 2,000 test rows; it was compared with no baseline."
    )


def test_without_a_tuned_variant_the_strongest_baseline_is_named() -> None:
    assert verdict(BASELINES, []) == "No tuned variant was measured. The strongest baseline on test is tfidf."


def test_without_any_variant_it_says_so() -> None:
    assert verdict({}, []) == "No tuned variant was measured."
