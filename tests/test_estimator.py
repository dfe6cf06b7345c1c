"""TextClassifier keeps scikit-learn's rules."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data
from tiny_models import SUBJECTS, texts_and_labels

import textlift
from textlift.errors import CannotCreateError, DataError, InputNotFoundError, ModelError, RecipeError
from textlift.estimator import TextClassifier
from textlift.recipe import ModelSection, Recipe

NAMES = np.array(sorted(SUBJECTS))
TEXTS, IDS = texts_and_labels(36)
LABELS = [str(name) for name in NAMES[IDS]]


@pytest.fixture
def tiny(base_folder: Any) -> TextClassifier:
    return TextClassifier(str(base_folder("embedder")), epochs=1, batch_size=8)


@pytest.fixture(scope="module")
def fitted(base_folder: Any) -> TextClassifier:
    """Fitted on the tiny texts; not to be changed."""
    return TextClassifier(str(base_folder("embedder")), epochs=1, batch_size=8).fit(TEXTS, LABELS)


class RowsAsTexts(TextClassifier):
    """TextClassifier behind rows of numbers: scikit-learn's checks run on nothing else.

    A number becomes a letter for its size; every check of labels, probabilities, state and repetition meets
    TextClassifier itself.
    """

    def fit(self, X, y):
        if y is not None:
            X, y = validate_data(self, X, y, dtype=np.float64)
        else:
            X = validate_data(self, X)
        return super().fit(_as_letters(X), y)

    def predict(self, X):
        return super().predict(self._letters(X))

    def predict_proba(self, X):
        return super().predict_proba(self._letters(X))

    def decision_function(self, X):
        return super().decision_function(self._letters(X))

    def _letters(self, X):
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        return _as_letters(validate_data(self, X, reset=False, dtype=np.float64))

    def _logits(self, X):
        return super()._logits(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.string = False
        return tags


def _as_letters(rows: np.ndarray) -> list[str]:
    places = np.clip(np.round(rows * 3) + 13, 0, 25).astype(int)
    return [" ".join(chr(ord("a") + place) for place in row[:20]) for row in places]


EXPECTED_FAILURES: dict[str, str] = {}


@parametrize_with_checks([RowsAsTexts(batch_size=16)], expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_scikit_learns_own_checks_pass(estimator: Any, check: Any, base_folder: Any) -> None:
    check(estimator.set_params(model=str(base_folder("embedder"))))
