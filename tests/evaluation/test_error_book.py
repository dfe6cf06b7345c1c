"""Mistakes, changes, nearest rows and calibration as numbers."""

import numpy as np
import pytest

from textlift.evaluation import error_book
from textlift.evaluation.error_book import changed, confident_mistakes, nearest_rows, unit_rows

LABELS = np.array([0, 1, 1, 0])
BEFORE = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
AFTER = np.array([[0.3, 0.7], [0.1, 0.9], [0.8, 0.2], [0.95, 0.05]])


def test_mistakes_come_most_confident_first() -> None:
    assert confident_mistakes(LABELS, AFTER).tolist() == [2, 0]


def test_rows_that_became_right_and_wrong_are_told_apart() -> None:
    change = changed(LABELS, BEFORE, AFTER)
    assert (change.became_right.tolist(), change.became_wrong.tolist()) == ([3, 1], [2, 0])


@pytest.mark.parametrize("chunk", [1, 64, 4_000_000])
@pytest.mark.parametrize("precision", [np.float16, np.float32])
def test_nearest_rows_equal_brute_force(chunk: int, precision: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_book, "_CHUNK_VALUES", chunk)
    rng = np.random.default_rng(0)
    queries = unit_rows(rng.normal(size=(7, 12)))
    pool = unit_rows(rng.normal(size=(53, 12))).astype(precision)
    places, similar = nearest_rows(queries, pool, k=3)
    every = queries @ pool.astype(np.float32).T
    assert places.tolist() == np.argsort(-every, axis=1, kind="stable")[:, :3].tolist()
    assert similar == pytest.approx(np.sort(every, axis=1)[:, ::-1][:, :3], abs=1e-6)


def test_a_pool_smaller_than_asked_gives_all_of_it() -> None:
    places, _ = nearest_rows(np.eye(2), np.eye(2), k=3)
    assert places.tolist() == [[0, 1], [1, 0]]


def test_of_equally_near_rows_the_earlier_comes_first() -> None:
    assert nearest_rows(np.ones((1, 1)), np.ones((9, 1)), k=3)[0].tolist() == [[0, 1, 2]]


def test_a_row_without_direction_is_near_to_nothing() -> None:
    assert unit_rows(np.array([[0.0, 0.0], [3.0, 4.0]])) == pytest.approx(np.array([[0, 0], [0.6, 0.8]]))
