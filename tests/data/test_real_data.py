"""The five real sets of ../shared/data give the counts that its README.md and docs/data-doctor.md state."""

from pathlib import Path

import pytest

from textlift.data import Dataset, Finding, find_problems, read_dataset
from textlift.recipe import DataSection

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

# What splits that were cut by chance must not give.
SPLITS_DIFFER = {"split_shift", "shortcut", "prior_shift", "surface_tells_label", "other_language", "other_script"}

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data of ../shared is not on this machine")


def check(name: str) -> tuple[Dataset, dict[tuple[str, str | None], Finding]]:
    section = DataSection(source=str(SHARED / name))
    dataset = read_dataset(section)
    return dataset, {(finding.code, finding.split): finding for finding in find_problems(dataset, section)}


def test_emotion_has_its_leaks_under_other_labels() -> None:
    dataset, findings = check("emotion")
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {
        "train": 16_000, "validation": 2_000, "test": 2_000,
    }  # fmt: skip
    leaks = [
        findings[f"leak_{pair}", pair.split("_")[1]] for pair in ("train_validation", "train_test", "validation_test")
    ]
    assert [(leak.count, leak.details["same_label"]) for leak in leaks] == [(5, 0), (11, 0), (3, 0)]
    assert findings["duplicate_text", "train"].count == 31
    assert findings["conflicting_labels", "train"].details["texts"] == 30
    assert findings["html_remnants", None].count == 204
    assert SPLITS_DIFFER.isdisjoint(code for code, _ in findings)


def test_financial_news_repeats_its_validation_in_train_and_is_grouped() -> None:
    dataset, findings = check("financial-news-topic")
    leak = findings["leak_train_validation", "validation"]
    assert (leak.count, leak.details["other_label"]) == (678, 10)
    assert findings["grouped_by_label", "train"].details["runs"] == 30
    assert findings["duplicate_text", "train"].count == 1638  # 1,639 with two rows that are nothing but a link
    assert dataset.label_values == tuple(map(str, range(20)))
    assert round(leak.details["share"], 3) == 0.165
    assert findings["html_entities", None].details["train_share"] == 518 / 16_990
    assert round(findings["links", None].details["train_share"], 2) == 0.89
    assert SPLITS_DIFFER.isdisjoint(code for code, _ in findings)


def test_hate_speech_has_one_empty_tweet_and_leaves_categories_out() -> None:
    dataset, findings = check("hate-speech")
    assert findings["empty_text", "train"].rows == (5656,)
    assert (findings["duplicate_text", "train"].count, findings["duplicate_text", "test"].count) == (93, 13)
    assert "Columns left out: 'categories'." in dataset.reasons
    assert not any(code.startswith("leak") for code, _ in findings)


def test_hate_speech_has_a_test_that_does_not_look_like_its_train() -> None:
    _, findings = check("hate-speech")
    shortcut = findings["shortcut", "test"]
    assert "`#` or `@`" in shortcut.message
    assert (round(shortcut.details["accuracy"], 3), round(shortcut.details["accuracy_in_train"], 2)) == (0.925, 0.27)
    assert findings["split_shift", "test"].details["auc"] > 0.95
    assert round(findings["prior_shift", "test"].details["effect"], 2) == 0.53
    assert "'categories'" in findings["giveaway_column", None].message
    assert findings["misread_utf8", None].count == 167  # 166 by Latin-1, one by code page 1252
    assert findings["html_entities", None].count == 25


def test_sst2_has_few_conflicts_and_no_leak() -> None:
    dataset, findings = check("sst2")
    assert len(dataset.splits["train"]) == 67_349
    assert dataset.text_column == "sentence"
    assert findings["duplicate_text", "train"].count == 371
    assert findings["conflicting_labels", "train"].count == 10
    assert not any(code.startswith("leak") for code, _ in findings)
    assert findings["split_shift", "validation"].details["auc"] > 0.9  # phrases in train, sentences in validation


def test_imdb_is_sorted_by_label_and_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textlift.data.near._MOST_CHARACTERS", 0)  # seconds that this test does not need
    _, findings = check("imdb")
    leak = findings["leak_train_test", "test"]
    assert (leak.count, leak.details["same_label"]) == (123, 123)
    assert (findings["duplicate_text", "train"].count, findings["duplicate_text", "test"].count) == (96, 199)
    assert findings["grouped_by_label", "train"].details["runs"] == 2
    assert round(findings["html_tags", None].details["train_share"], 3) == 0.587
    assert findings["control_characters", None].count == 1_140
    assert SPLITS_DIFFER.isdisjoint(code for code, _ in findings)
