"""Slices: a bad one is found, chance alone seldom makes one."""

import numpy as np
import pytest
from scipy.stats import fisher_exact

from textlift.data.traits import MOST_WORDS, classes, quarters, traits
from textlift.evaluation.slices import LEAST_ROWS, compare_slices, exact_bounds, holm


def random_parts(rng: np.random.Generator, *, n: int, count: int) -> dict[tuple[str, str], np.ndarray]:
    return {("part", str(number)): rng.random(n) < rng.uniform(0.03, 0.5) for number in range(count)}


def test_a_slice_that_is_planted_is_found_first_and_alone() -> None:
    rng = np.random.default_rng(0)
    parts = random_parts(rng, n=1000, count=50)
    bad = rng.random(1000) < 0.08
    right = rng.random(1000) < np.where(bad, 0.6, 0.92)
    found = compare_slices(right, {**parts, ("planted", "bad"): bad})
    assert [one.title for one in found if one.is_below] == ["planted bad"]
    assert found[0].low < 0.6 < found[0].high
    assert found[0].rest_accuracy == pytest.approx(right[~bad].mean())


def test_without_a_bad_slice_one_is_named_in_at_most_a_twentieth_of_the_trials() -> None:
    alarms = 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        right = rng.random(600) < 0.85
        alarms += any(one.is_below for one in compare_slices(right, random_parts(rng, n=600, count=60)))
    assert alarms <= 10


def test_words_of_texts_without_a_bad_one_are_seldom_called_bad() -> None:
    vocabulary = [f"word{number}" for number in range(80)]
    alarms = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        texts = [" ".join(rng.choice(vocabulary, size=int(rng.integers(2, 12)))) for _ in range(400)]
        right = rng.random(400) < 0.8
        parts = traits(texts, token_lengths=np.array([len(text.split()) for text in texts]))
        alarms += any(one.is_below for one in compare_slices(right, parts))
    assert alarms <= 6  # 3 are to be expected at most; 7 would be beyond chance at 1 in 20


def test_a_p_value_is_that_of_fishers_exact_test() -> None:
    right = np.arange(100) % 3 > 0
    part = np.arange(100) < 40
    (one,) = compare_slices(right, {("part", "first"): part})
    table = [[(right & part).sum(), (~right & part).sum()], [(right & ~part).sum(), (~right & ~part).sum()]]
    assert one.p_value == pytest.approx(fisher_exact(table, alternative="less").pvalue)


def test_small_parts_and_parts_that_leave_a_small_rest_are_not_tried() -> None:
    right = np.zeros(100, dtype=bool)
    rows = np.arange(100)
    parts = {("part", "small"): rows < LEAST_ROWS - 1, ("part", "nearly all"): rows > LEAST_ROWS - 2}
    assert compare_slices(right, parts) == []


def test_two_rows_make_no_slice() -> None:
    parts = traits(["", "x"], token_lengths=np.array([2, 3]))
    assert compare_slices(np.array([True, False]), parts) == []


def test_parts_of_the_same_rows_count_once() -> None:
    rows = np.arange(100) < 30
    assert len(compare_slices(np.arange(100) > 10, {("word", "a"): rows, ("word", "b"): rows.copy()})) == 1


def test_a_part_of_nearly_the_same_rows_says_which_one_is_clearer() -> None:
    rows = np.arange(400)
    found = compare_slices(rows >= 60, {("word", "a"): rows < 70, ("word", "b"): (rows < 70) & (rows > 4)})
    assert [one.same_as for one in found] == ["", found[0].title]


def test_holm_multiplies_the_smallest_by_their_number_and_never_falls() -> None:
    assert holm(np.array([0.01, 0.04, 0.03])).tolist() == pytest.approx([0.03, 0.06, 0.06])


def test_exact_bounds_reach_to_the_ends_where_all_or_none_are_right() -> None:
    low, high = exact_bounds(np.array([0, 10]), np.array([10, 10]))
    assert (low[0], high[1]) == (0, 1)
    assert high[0] == pytest.approx(1 - 0.025**0.1)


def test_quarters_cover_every_row_once() -> None:
    for values in (np.arange(50), np.zeros(9, dtype=int), np.array([1, 1, 1, 5])):
        assert np.sum(list(quarters(values, "tokens").values()), axis=0).tolist() == [1] * len(values)


def test_a_class_that_is_never_predicted_is_no_part() -> None:
    assert list(classes(np.array([0, 0, 2]), ("a", "b", "c"), kind="predicted")) == [
        ("predicted", "a"),
        ("predicted", "c"),
    ]


def test_words_tried_are_bounded_whatever_the_texts() -> None:
    texts = [" ".join(f"w{number}" for number in range(row, row + 500)) for row in range(60)]
    parts = traits(texts, token_lengths=np.full(60, 9))
    assert sum(kind == "word" for kind, _ in parts) <= MOST_WORDS


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("see https://t.co/x", "a link"),
        ("@you there", "a mention"),
        ("so #happy", "a hashtag"),
        ("room 5", "a digit"),
        ("i don't", "a negation"),
    ],
)
def test_what_can_be_seen_of_a_text_is_a_part(text: str, what: str) -> None:
    parts = traits([text, "plain words"], token_lengths=np.array([3, 3]))
    assert parts["with", what].tolist() == [True, False]
