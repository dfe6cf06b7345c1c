from typing import Any

import pytest

from textlift.evaluation.soundness import soundness


def record(code: str, *, against: bool = True, severity: str = "warning", **details: float) -> dict[str, Any]:
    return {
        "code": code,
        "severity": severity,
        "message": f"what {code} says.",
        "split": "test",
        "count": 10,
        "details": details,
        "why": "why.",
        "advice": f"advice of {code}",
        "against_scores": against,
    }


def test_nothing_found_is_sound() -> None:
    told = soundness([record("links", against=False)])
    assert (told["level"], told["against"], told["next"]) == ("sound", [], [])
    assert told["summary"] == "The checks found nothing that stands against these scores."


def test_what_touches_few_rows_is_said_to_be_of_no_weight() -> None:
    told = soundness([record("leak_train_test", share=0.004, other_label=0)])
    assert told["level"] == "sound"
    assert "Nothing of weight" in told["summary"]


def test_small_things_are_minor() -> None:
    told = soundness([record("duplicate_text", share=0.013)])
    assert told["level"] == "minor"
    assert told["summary"] == "The checks found one thing against these scores, of little weight."
    assert told["against"][0]["sentence"] == "1.3 % of the test rows repeat another."


def test_small_things_are_minor_each_of_them() -> None:
    told = soundness([record("duplicate_text", share=0.013), record("leak_train_test", share=0.02, other_label=0)])
    assert told["summary"] == "The checks found 2 things against these scores, each of little weight."


def test_the_gravest_comes_first_with_what_to_do() -> None:
    told = soundness(
        [
            record("duplicate_text", share=0.013),
            record("leak_train_test", share=0.165, other_label=3),
            record("prior_shift", effect=0.5, share_moved=0.23),
        ]
    )
    assert told["level"] == "doubtful"
    assert told["summary"] == "Do not take these scores at face value. The checks found 3 things against them."
    assert [one["code"] for one in told["against"]] == ["prior_shift", "leak_train_test", "duplicate_text"]
    assert told["next"] == ["advice of prior_shift", "advice of leak_train_test", "advice of duplicate_text"]


@pytest.mark.parametrize(
    ("code", "details", "sentence"),
    [
        (
            "leak_train_test",
            {"share": 0.165, "other_label": 3},
            "16.5 % of the test rows are also in train, 3 of them with another label.",
        ),
        (
            "leak_train_test",
            {"share": 0.01, "other_label": 10},
            "1.0 % of the test rows are also in train, all of them with another label.",
        ),
        ("near_duplicates_train_test", {"share": 0.03}, "3.0 % of the test rows are nearly one of train."),
        ("near_duplicates_test", {"share": 0.03}, "3.0 % of the test rows are nearly another of their own split."),
        ("split_shift", {"auc": 0.97}, "The surface of a text alone tells test from train (AUC 0.97)."),
        (
            "shortcut",
            {"accuracy": 0.925, "accuracy_in_train": 0.267},
            "One rule that reads no word is right on 92.5 % of test, and on 26.7 % of train.",
        ),
        (
            "label_errors",
            {"share": 0.02, "seen": 12, "expected": 4.3},
            "About 8 labels of test are likely wrong; 10 are listed.",
        ),
        ("leak_train_test", {}, "what leak_train_test says."),
        ("class_in_one_split", {}, "what class_in_one_split says."),
    ],
)
def test_each_finding_is_told_in_one_sentence(code: str, details: dict[str, float], sentence: str) -> None:
    assert soundness([record(code, **details)])["against"][0]["sentence"] == sentence


def test_validation_rows_that_serve_as_test_are_called_test() -> None:
    leak = {**record("leak_train_validation", share=0.165, other_label=10), "split": "validation"}
    assert soundness([leak])["against"][0]["sentence"].startswith("16.5 % of the test rows are also in train, all")
