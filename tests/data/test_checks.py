import json

import numpy as np
import pytest
from samples import dataset, plain

from textlift.data import Dataset, Finding, find_problems, length_findings, prepare_splits, raise_errors
from textlift.errors import DataError
from textlift.recipe import DataSection

SECTION = DataSection(source="x")


def found(data: Dataset, code: str, **options: object) -> list[Finding]:
    return [f for f in find_problems(data, DataSection(source="x", **options)) if f.code == code]


def test_sound_rows_give_no_finding() -> None:
    assert find_problems(dataset(train=plain(100, "abba")), SECTION) == []


def test_empty_texts_are_a_warning_when_they_are_to_be_left_out() -> None:
    (finding,) = found(dataset(train=[("\u200b", "a"), *plain(20)]), "empty_text", drop_empty=True)
    assert (finding.severity, finding.count, finding.rows) == ("warning", 1, (1,))


def test_rows_left_out_do_not_count_for_their_class() -> None:
    (finding,) = found(dataset(train=[("", "c"), ("x", "c"), *plain(20)]), "small_class", drop_empty=True)
    assert "'c' has 1" in finding.message


def test_repeats_are_counted_with_case_white_space_and_links_aside() -> None:
    pairs = [("Hello  World https://t.co/a", "a"), ("hello world", "a"), ("hello www.x.org world", "a"), *plain(20)]
    (finding,) = found(dataset(train=pairs), "duplicate_text")
    assert (finding.severity, finding.count, finding.rows) == ("warning", 2, (2, 3))


def test_texts_that_are_nothing_but_links_are_told_apart() -> None:
    pairs = [("https://t.co/a", "a"), ("https://t.co/b", "b"), *plain(20)]
    assert found(dataset(train=pairs), "duplicate_text") == []


@pytest.mark.parametrize(("n_rows", "severity"), [(100, "warning"), (10, "error")])
def test_conflicting_labels_are_an_error_from_5_percent_on(n_rows: int, severity: str) -> None:
    (finding,) = found(dataset(train=[("same", "a"), ("Same", "b"), *plain(n_rows)]), "conflicting_labels")
    assert (finding.severity, finding.count, finding.details["texts"]) == (severity, 2, 1)


def test_conflicts_may_be_allowed() -> None:
    data = dataset(train=[("same", "a"), ("same", "b"), *plain(10)])
    assert found(data, "conflicting_labels", allow_conflicts=True)[0].severity == "warning"


def test_a_leak_is_an_error_that_counts_same_and_other_labels_apart() -> None:
    data = dataset(train=plain(20), test=[("ROW 0 of 20", "a"), ("row 1 of 20 https://x.y", "a"), *plain(8, word="t")])
    (finding,) = found(data, "leak_train_test")
    assert (finding.severity, finding.split, finding.count, finding.rows) == ("error", "test", 2, (1, 2))
    assert finding.details == {"same_label": 1, "other_label": 1, "share": 0.2}
    assert "2 of 10 rows (20.0 %), 1 with the same label and 1 with another" in finding.message


def test_a_leak_may_be_allowed_and_is_told_still() -> None:
    data = dataset(train=plain(20), test=plain(20))
    assert found(data, "leak_train_test", allow_leak=True)[0].severity == "warning"


def test_a_leak_into_the_validation_that_serves_as_test_says_so() -> None:
    data = dataset(train=plain(20), validation=[*plain(1, word="row"), ("row 0 of 20", "a")])
    assert "these rows serve as test" in found(data, "leak_train_validation")[0].message


def test_leaks_from_validation_to_test_are_found() -> None:
    data = dataset(train=plain(20), validation=plain(4, word="v"), test=plain(4, word="v"))
    assert [finding.count for finding in found(data, "leak_validation_test")] == [4]


def test_a_single_class_is_an_error() -> None:
    (finding,) = found(dataset(train=plain(10, "a")), "single_class")
    assert finding.severity == "error"


def test_a_small_class_is_allowed_when_asked_for() -> None:
    assert found(dataset(train=[("x", "c"), *plain(20)]), "small_class", min_per_class=1) == []


def test_labels_that_train_lacks_are_an_error() -> None:
    data = dataset(train=plain(20), test=[*plain(4, word="t"), ("x", "c"), ("y", "c")])
    (finding,) = found(data, "unseen_label")
    assert (finding.severity, finding.rows) == ("error", (5, 6))
    assert finding.message.startswith("test.csv:5: labels of test must be in train too; found 'c'. 2 rows (5, 6).")


def test_rows_grouped_by_label_are_told() -> None:
    (finding,) = found(dataset(train=[*plain(50, "a"), *plain(50, "b", "x")]), "grouped_by_label")
    assert (finding.severity, finding.details["runs"], finding.details["expected_runs"]) == ("info", 2, 51)


def test_rare_classes_of_the_final_train_are_told() -> None:
    prepared = prepare_splits(dataset(train=[*plain(100), *plain(6, "c", "x")]), SECTION, seed=0)
    (finding,) = [f for f in find_problems(prepared, SECTION) if f.code == "rare_class"]
    assert "'c' (4)" in finding.message


def test_a_class_that_only_train_has_is_told() -> None:
    prepared = prepare_splits(dataset(train=[*plain(100), *plain(2, "c", "x")]), SECTION, seed=0)
    (finding,) = [f for f in find_problems(prepared, SECTION) if f.code == "class_in_one_split"]
    assert (finding.split, finding.severity) == ("train", "warning")
    assert "'c'" in finding.message


def test_near_duplicates_between_splits_are_counted() -> None:
    words = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    data = dataset(train=[(words, "a"), *plain(20)], test=[(f"{words} sixteen", "a"), *plain(4, word="t")])
    (finding,) = found(data, "near_duplicates_train_test")
    assert (finding.severity, finding.count, finding.rows) == ("warning", 1, (1,))


def test_near_duplicates_parted_by_our_own_cut_are_counted() -> None:
    story = " ".join(f"w{i}" for i in range(30))
    prepared = prepare_splits(dataset(train=[(f"{story} {i}", "ab"[i % 2]) for i in range(50)]), SECTION, seed=0)
    codes = {finding.code: finding.count for finding in find_problems(prepared, SECTION)}
    assert codes["near_duplicates_train_test"] == 10


def test_errors_come_first_and_are_raised_in_three_lines() -> None:
    data = dataset(train=[("", "a"), ("x", ""), ("y", "c"), *plain(20)], test=[*plain(20), ("z", "d"), ("", "a")])
    findings = find_problems(data, SECTION)
    severities = [finding.severity for finding in findings]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    with pytest.raises(DataError) as caught:
        raise_errors(findings)
    assert str(caught.value).count("\n") == 2
    for finding in findings:
        assert (finding.message in str(caught.value)) == (finding.severity == "error")


def test_warnings_raise_nothing() -> None:
    raise_errors([Finding("x", "warning", "told")])


def test_a_finding_turns_into_plain_values() -> None:
    finding = find_problems(dataset(train=[("", "a"), *plain(20)]), SECTION)[0]
    assert json.loads(json.dumps(finding.to_dict()))["rows"] == [1]


@pytest.mark.parametrize(("chosen", "severity"), [(False, "error"), (True, "warning")])
def test_a_limit_that_cuts_most_rows_must_be_chosen(chosen: bool, severity: str) -> None:
    counts = {"train": np.array([10, 10, 4, 16])}
    (finding,) = length_findings(counts, 8, chosen_by_user=chosen)
    assert (finding.severity, finding.count, finding.split) == (severity, 3, "train")
    assert finding.details == {"row_share": 0.75, "token_share": 12 / 40, "longest": 16}


def test_a_limit_that_cuts_nothing_is_not_told() -> None:
    assert length_findings({"train": np.array([1, 2])}, 2, chosen_by_user=False) == []


def test_a_limit_that_cuts_few_rows_is_information() -> None:
    (finding,) = length_findings({"test": np.array([9, *[1] * 200])}, 8, chosen_by_user=False)
    assert finding.severity == "info"


def test_label_ids_follow_the_order_of_the_values() -> None:
    assert dataset(train=[("x", "b"), ("y", "a")]).label_ids("train").tolist() == [1, 0]


def test_a_label_without_an_id_is_told_with_its_row() -> None:
    with pytest.raises(DataError, match=r"train.csv:2: label must be one of the 1 labels"):
        dataset(train=[("x", "b"), ("y", " ")]).label_ids("train")
