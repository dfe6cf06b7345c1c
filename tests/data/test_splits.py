from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import dataset, plain

from textlift.data import Dataset, find_problems, prepare_splits
from textlift.data.splits import MOST_TEST, MOST_VALIDATION, apportion
from textlift.errors import DataError
from textlift.recipe import DataSection

SECTION = DataSection(source="x")


def sizes(prepared: Dataset) -> dict[str, int]:
    return {split: len(rows) for split, rows in prepared.splits.items()}


def test_validation_and_test_are_cut_from_a_lone_train() -> None:
    prepared = prepare_splits(dataset(train=plain(100)), SECTION, seed=0)
    assert sizes(prepared) == {"train": 70, "validation": 10, "test": 20}
    assert prepared.prepared
    assert any("test rows are cut from train: 20 rows (20 % asked for)" in reason for reason in prepared.reasons)


def test_the_given_validation_serves_as_test_where_none_is_given() -> None:
    data = dataset(train=plain(100), validation=plain(30, word="other"))
    prepared = prepare_splits(data, SECTION, seed=0)
    assert sizes(prepared) == {"train": 90, "validation": 10, "test": 30}
    assert prepared.splits["test"].texts == data.splits["validation"].texts
    assert any("serve as test" in reason for reason in prepared.reasons)


def test_validation_is_cut_where_test_is_given() -> None:
    prepared = prepare_splits(dataset(train=plain(100), test=plain(10, word="other")), SECTION, seed=0)
    assert sizes(prepared) == {"train": 90, "validation": 10, "test": 10}


def test_given_splits_are_left_as_they_are() -> None:
    data = dataset(train=plain(10), validation=plain(4, word="v"), test=plain(4, word="t"))
    assert prepare_splits(data, SECTION, seed=0).splits == data.splits


def test_a_test_without_train_is_refused() -> None:
    with pytest.raises(DataError, match="training rows must be there; found 'test'"):
        prepare_splits(dataset(test=plain(10)), SECTION, seed=0)


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    data = dataset(train=plain(200, "abc"))
    first, again, other = (prepare_splits(data, SECTION, seed=seed).splits["test"] for seed in (1, 1, 2))
    assert first == again
    assert first.row_numbers != other.row_numbers


def test_cut_sizes_are_capped() -> None:
    prepared = prepare_splits(dataset(train=plain(60_000)), SECTION, seed=0)
    assert (len(prepared.splits["validation"]), len(prepared.splits["test"])) == (MOST_VALIDATION, MOST_TEST)


def test_a_class_too_small_to_split_stays_in_train_and_is_named() -> None:
    data = dataset(train=[*plain(60), ("small one", "tiny"), ("small two", "tiny")])
    prepared = prepare_splits(data, SECTION, seed=0)
    assert Counter(prepared.splits["train"].labels)["tiny"] == 2
    assert prepared.reasons[-1] == "Classes too small to split stand in train alone: 'tiny'."


def test_a_class_of_three_rows_gives_one_to_each_split() -> None:
    data = dataset(train=[*plain(60), *((f"small {i}", "tiny") for i in range(3))])
    splits = prepare_splits(data, SECTION, seed=0).splits
    assert [Counter(rows.labels)["tiny"] for rows in splits.values()] == [1, 1, 1]


def test_texts_that_are_alike_stay_on_one_side() -> None:
    pairs = [(f"Text  {i // 3} HTTPS://t.co/{i}" if i % 3 else f"text {i // 3}", "ab"[i // 3 % 2]) for i in range(300)]
    prepared = prepare_splits(dataset(train=pairs), SECTION, seed=3)
    groups = [set(numbers.tolist()) for numbers in prepared.text_groups.values()]
    assert len(groups[0] | groups[1] | groups[2]) == sum(map(len, groups))
    assert min(sizes(prepared).values()) >= 25


def test_texts_with_two_labels_stay_in_train() -> None:
    pairs = [*plain(60), *((f"same {i // 2}", "ab"[i % 2]) for i in range(20))]
    splits = prepare_splits(dataset(train=pairs), SECTION, seed=0).splits
    assert all(text.startswith("row") for split in ("validation", "test") for text in splits[split].texts)


def test_too_few_rows_to_cut_are_refused() -> None:
    with pytest.raises(DataError, match=r"validation and test must have rows.*\n.*data\.files\.validation=FILE"):
        prepare_splits(dataset(train=plain(3)), SECTION, seed=0)


def test_rows_with_empty_texts_are_left_out_when_asked_for_and_counted() -> None:
    section = DataSection(source="x", drop_empty=True)
    prepared = prepare_splits(dataset(train=[(" ", "a"), *plain(100)]), section, seed=0)
    assert sum(sizes(prepared).values()) == 100
    assert "Rows with an empty text that were left out: 1." in prepared.reasons


def test_a_limit_keeps_shares_classes_and_order() -> None:
    pairs = [*plain(900, "aaab"), *plain(5, "c", "rare")]
    data = dataset(train=pairs, validation=plain(50, word="v"), test=plain(8, word="t"))
    prepared = prepare_splits(data, DataSection(source="x", limit=20), seed=0)
    assert sizes(prepared) == {"train": 20, "validation": 20, "test": 8}
    assert Counter(prepared.splits["train"].labels) == {"a": 14, "b": 5, "c": 1}
    assert prepared.splits["train"].row_numbers == sorted(prepared.splits["train"].row_numbers)


def test_a_limit_below_the_number_of_classes_keeps_the_splits_to_the_classes_of_train() -> None:
    data = dataset(train=plain(40, "abcdefgh"), validation=plain(16, "hgfedcba", "v"), test=plain(16, "hgfedcba", "t"))
    splits = prepare_splits(data, DataSection(source="x", limit=3), seed=0).splits
    assert len(set(splits["train"].labels)) == 3
    assert set(splits["test"].labels) <= set(splits["train"].labels)


def test_a_cut_makes_no_leak_and_no_unseen_label() -> None:
    pairs = [(f"word {i % 50}", "abc"[i % 50 % 3]) for i in range(200)]
    prepared = prepare_splits(dataset(train=pairs), SECTION, seed=0)
    as_read = Dataset(**{**{f: getattr(prepared, f) for f in prepared.__dataclass_fields__}, "prepared": False})
    codes = {finding.code for finding in find_problems(as_read, SECTION)}
    assert not {code for code in codes if code.startswith(("leak", "unseen"))}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 300))
def test_shares_add_up_and_leave_no_class_out_where_there_is_room(counts: list[int], total: int) -> None:
    shares = apportion(counts, total, counts)
    assert sum(shares) == min(total, sum(counts))
    assert all(0 <= share <= count for share, count in zip(shares, counts, strict=True))
    if total >= sum(count > 0 for count in counts):
        assert all(share > 0 for share, count in zip(shares, counts, strict=True) if count)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("abc")), min_size=30, max_size=120), st.integers(0, 5))
def test_every_row_is_in_one_split(pairs: list[tuple[int, str]], seed: int) -> None:
    data = dataset(train=[(f"word {number}", label) for number, label in pairs])
    try:
        splits = prepare_splits(data, SECTION, seed=seed).splits
    except DataError:
        return
    numbers = sorted(number for rows in splits.values() for number in rows.row_numbers)
    assert numbers == list(range(1, len(pairs) + 1))
    assert all(set(rows.labels) <= set(splits["train"].labels) for rows in splits.values())
