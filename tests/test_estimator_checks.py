"""TextClassifier passes scikit-learn's own checks of estimators, as far as they apply to text."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import SkipTestWarning
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from textlift.estimator import TextClassifier


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other made these tiny fits twenty times slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class RowsAsTexts(TextClassifier):
    """TextClassifier behind rows of numbers, the only input that scikit-learn's checks know.

    A number becomes a letter for its size. Checks of labels, probabilities, parameters, state, copies and repetition
    meet TextClassifier itself; those of numbers as input meet `validate_data` here.
    """

    def fit(self, X, y):
        X, y = (validate_data(self, X), None) if y is None else validate_data(self, X, y, dtype=np.float64)
        return super().fit(_letters(X), y)

    def predict(self, X):
        return super().predict(self._known_rows(X))

    def predict_proba(self, X):
        return super().predict_proba(self._known_rows(X))

    def _known_rows(self, X):
        check_is_fitted(self)
        return _letters(validate_data(self, X, reset=False, dtype=np.float64))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.string = False
        return tags


def _letters(rows: np.ndarray) -> list[str]:
    places = np.clip(np.round(rows * 3) + 13, 0, 25).astype(int)
    return [" ".join(chr(ord("a") + place) for place in row[:20]) for row in places]


@parametrize_with_checks([RowsAsTexts()])
def test_scikit_learns_checks_pass_behind_rows_of_numbers(estimator: Any, check: Any, base_folder: Any) -> None:
    check(estimator.set_params(model=str(base_folder("embedder"))))


def test_scikit_learns_checks_of_the_text_estimator_itself_pass() -> None:
    with pytest.warns(SkipTestWarning, match="requires input"):  # it leaves out every check that fits rows of numbers
        check_estimator(TextClassifier())
