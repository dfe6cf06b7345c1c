"""Holm's correction of the comparisons of a run, and how many rows a difference wants."""

from typing import Any

import numpy as np
import pytest

from textlift.errors import UsageError
from textlift.evaluation.corrected import about, with_corrections
from textlift.evaluation.statistics import compare, paired_difference
from textlift.evaluation.verdict import verdict


def comparison(
    a: str, b: str, bounds: tuple[float, float, float], *, metric: str = "accuracy", n: int = 1_000
) -> dict[str, Any]:
    low, difference, high = bounds
    return {"a": a, "b": b, "metric": metric, "difference": difference, "low": low, "high": high, "n": n}


CLEAR = comparison("lora", "majority", (0.3, 0.32, 0.34))
CLOSE = comparison("lora", "tfidf", (0.001, 0.02, 0.039))  # excludes 0 alone, p about 0.04
NONE = comparison("tfidf", "probe", (-0.02, 0.005, 0.03))


def equal_models(rng: np.random.Generator, *, n: int, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Label ids (N,) of three classes, and predictions of models that are right equally often, mostly together."""
    labels = rng.integers(3, size=n)
    shared = rng.random(n) < 0.8
    answers = []
    for _ in range(count):
        right = np.where(rng.random(n) < 0.7, shared, rng.random(n) < 0.8)
        answers.append(np.where(right, labels, (labels + 1) % 3))
    return labels, answers


def compared(labels: np.ndarray, answers: list[np.ndarray], *, seed: int) -> list[dict[str, Any]]:
    rows = []
    for first in range(len(answers)):
        for second in range(first + 1, len(answers)):
            names = (f"model{first}", f"model{second}")
            pair = {"a_predictions": answers[first], "b_predictions": answers[second]}
            rows += compare(*names, labels, **pair, metrics=("accuracy",), n_resamples=1_000, seed=seed)
    return with_corrections(rows)


def test_what_the_exact_test_does_not_show_is_not_shown() -> None:
    (row,) = with_corrections([{**CLOSE, "p_value": 0.06}])
    assert (row["shows"], row["low_corrected"], row["p_corrected"]) == ("none", 0.0, 0.06)


def test_a_single_comparison_keeps_its_interval() -> None:
    (row,) = with_corrections([CLOSE])
    assert (row["low_corrected"], row["high_corrected"]) == pytest.approx((CLOSE["low"], CLOSE["high"]))
    assert row["shows"] == "difference"


def test_among_three_comparisons_a_close_one_no_longer_holds() -> None:
    rows = with_corrections([CLEAR, CLOSE, NONE])
    assert [row["shows"] for row in rows] == ["difference", "none", "none"]


def test_a_clear_comparison_does_not_count_against_the_next() -> None:
    two = with_corrections([CLOSE, CLEAR])
    assert [row["shows"] for row in two] == ["difference", "difference"]


def test_a_corrected_interval_excludes_zero_exactly_where_a_difference_is_shown() -> None:
    rng = np.random.default_rng(3)
    rows = []
    for number in range(200):
        middle, reach = rng.normal(0, 0.02), rng.uniform(0.005, 0.03)
        rows.append(comparison("a", f"b{number}", (middle - reach, middle, middle + reach)))
    for size in (1, 2, 5, 40, 200):
        for row in with_corrections(rows[:size]):
            excludes = not row["low_corrected"] <= 0 <= row["high_corrected"]
            assert excludes == (row["shows"] == "difference")


def test_corrected_p_values_are_those_of_holm() -> None:
    rows = with_corrections([CLEAR, CLOSE, NONE])
    raw = [with_corrections([row])[0]["p_corrected"] for row in (CLEAR, CLOSE, NONE)]
    expected = [3 * raw[0], 2 * raw[1], max(2 * raw[1], raw[2])]
    assert [row["p_corrected"] for row in rows] == pytest.approx(expected)


def test_metrics_are_families_of_their_own() -> None:
    other = comparison("lora", "tfidf", (-0.1, 0.01, 0.12), metric="f1_macro")
    assert with_corrections([CLOSE, other])[0]["shows"] == "difference"


def test_a_merged_model_is_no_new_hypothesis() -> None:
    again = comparison("merged", "tfidf", (-0.02, 0.01, 0.04))
    assert with_corrections([CLOSE, again], kinds={"merged": "merged", "tfidf": "baseline"})[0]["shows"] == "difference"


def test_a_merged_model_shows_what_the_model_shows_that_it_was_made_from() -> None:
    kinds = {"tfidf": "baseline", "lora": "tuned", "merged": "merged"}
    same = comparison("merged", "lora", (0.0, 0.0, 0.0))
    rows = with_corrections([CLOSE, {**CLOSE, "a": "merged"}, same], kinds=kinds)
    assert [row["shows"] for row in rows] == ["difference", "difference", "none"]


def test_comparisons_among_baselines_do_not_count_against_a_tuned_variant() -> None:
    kinds = {"tfidf": "baseline", "probe": "baseline", "lora": "tuned"}
    assert with_corrections([CLOSE, NONE])[0]["shows"] == "none"
    assert with_corrections([CLOSE, NONE], kinds=kinds)[0]["shows"] == "difference"


def test_the_order_of_the_comparisons_stays() -> None:
    assert [row["b"] for row in with_corrections([NONE, CLEAR, CLOSE])] == ["probe", "majority", "tfidf"]


def test_with_the_rows_that_are_needed_the_difference_is_mostly_shown() -> None:
    rng = np.random.default_rng(0)

    def draw(n: int) -> dict[str, Any]:
        labels = np.zeros(n, dtype=np.int64)
        kinds = rng.choice(3, p=[0.86, 0.09, 0.05], size=n)  # both right, only a, only b
        answers = {"a_predictions": (kinds == 2).astype(int), "b_predictions": (kinds == 1).astype(int)}
        return with_corrections(compare("a", "b", labels, **answers, metrics=("accuracy",), n_resamples=400))[0]

    small = comparison("a", "b", (-0.033, 0.04, 0.113), n=100)
    more = with_corrections([small])[0]["rows_needed"]
    shown = sum(draw(100 + more)["shows"] == "difference" for _ in range(300)) / 300
    assert shown == pytest.approx(0.8, abs=0.08)


def test_equal_predictions_would_never_be_told_apart() -> None:
    (row,) = with_corrections([comparison("merged", "lora", (0.0, 0.0, 0.0))])
    assert (row["shows"], row["p_corrected"], row["rows_needed"]) == ("none", 1.0, None)


def test_400_comparisons_of_equal_models_are_called_better_in_at_most_5_percent() -> None:
    rng = np.random.default_rng(11)
    better = 0
    for trial in range(400):
        labels, answers = equal_models(rng, n=400, count=2)
        rows = compared(labels, answers, seed=trial)
        scores = {"accuracy": 0.8, "log_loss": 0.5, "n": 400}
        variants = {
            "model0": {"kind": "tuned", "validation": scores, "test": scores},
            "model1": {"kind": "baseline", "validation": scores, "test": scores},
        }
        told = verdict(variants, rows)
        assert ("No difference" in told) != ("lifts" in told or "worse" in told)
        better += "No difference" not in told
    assert better / 400 <= 0.05


def test_runs_of_four_equal_models_show_any_difference_in_at_most_5_percent() -> None:
    rng = np.random.default_rng(12)
    wrong = 0
    for trial in range(200):
        labels, answers = equal_models(rng, n=400, count=4)
        wrong += any(row["shows"] == "difference" for row in compared(labels, answers, seed=trial))
    assert wrong / 200 <= 0.05


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(0.1, 0.1, 600), (0.1, 0.05, 1_000), (0.04, 0.03, 2_000)])
def test_intervals_of_a_difference_cover_it_at_94_to_96_percent(only_a: float, only_b: float, n: int) -> None:
    rng = np.random.default_rng(1)
    covered, trials = 0, 6_000
    for trial in range(trials):
        kinds = rng.choice(3, p=[1 - only_a - only_b, only_a, only_b], size=n)
        found = paired_difference(np.zeros(n), kinds == 2, kinds == 1, n_resamples=1_000, seed=trial)
        covered += found.low <= only_a - only_b <= found.high
    assert 0.94 <= covered / trials <= 0.96


@pytest.mark.parametrize(("number", "told"), [(7, "7"), (85, "85"), (4_312, "4,300"), (2_000_000, "over a million")])
def test_a_number_of_rows_is_told_in_two_digits(number: int, told: str) -> None:
    assert about(number) == told


def test_no_rows_cannot_be_told() -> None:
    with pytest.raises(UsageError):
        about(0)
