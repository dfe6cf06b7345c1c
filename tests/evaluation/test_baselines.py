import logging
import warnings

import numpy as np
import pytest

from textlift.errors import DataError
from textlift.evaluation.baselines import LOWEST, fit_linear_head, majority, tfidf
from textlift.evaluation.metrics import evaluate, softmax

TEXTS = ["good warm sunny day", "sunny and good", "cold dark night", "dark cold rain", "train to work", "work by train"]
LABELS = np.array([0, 0, 1, 1, 3, 3])


def clusters(n_classes: int, *, n: int = 300, shift: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features around one centre per class, with columns of very different size, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    centres = rng.normal(size=(n_classes, 12)) * 3
    features = (centres[labels] + rng.normal(size=(n, 12))) * np.logspace(-2, 2, 12) + shift
    return features.astype(np.float32), labels


def test_majority_gives_the_log_shares_of_train_to_every_row() -> None:
    scores = majority(np.array([0, 0, 0, 1]), 2, 3)
    assert np.exp(scores) == pytest.approx(np.array(3 * [[0.75, 0.25]]))


def test_majority_gives_an_absent_class_a_low_finite_score() -> None:
    assert majority(np.array([0, 2]), 3, 1)[0, 1] == LOWEST


def test_majority_without_training_rows_is_refused() -> None:
    with pytest.raises(DataError, match="at least one training row"):
        majority(np.array([], dtype=int), 3, 1)


def test_tfidf_finds_the_class_of_texts_alike() -> None:
    scores = tfidf(TEXTS, LABELS, {"test": ["a sunny day", "cold rain", "my work"]}, n_classes=4)
    assert scores["test"].argmax(axis=1).tolist() == [0, 1, 3]


def test_tfidf_gives_log_probabilities_in_the_columns_of_all_classes() -> None:
    scores = tfidf(TEXTS, LABELS, {"test": TEXTS}, n_classes=5)["test"]
    assert np.exp(scores).sum(axis=1) == pytest.approx(np.ones(6))
    assert (scores[:, [2, 4]] == LOWEST).all()


def test_tfidf_equals_the_scikit_learn_pipeline_for_two_classes() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10))
    expected = pipeline.fit(TEXTS, LABELS > 0).predict_log_proba(TEXTS)
    scores = tfidf(TEXTS, (LABELS > 0).astype(int), {"test": TEXTS}, n_classes=2)["test"]
    assert scores == pytest.approx(expected, abs=1e-6)


def test_tfidf_scores_each_split_and_leaves_an_empty_one_empty() -> None:
    scores = tfidf(TEXTS, LABELS, {"validation": TEXTS[:2], "test": []}, n_classes=4)
    assert {name: rows.shape for name, rows in scores.items()} == {"validation": (2, 4), "test": (0, 4)}


def test_tfidf_falls_back_to_the_majority_where_no_text_holds_a_word(caplog: pytest.LogCaptureFixture) -> None:
    scores = tfidf(["!", "?", ""], np.array([0, 1, 1]), {"test": ["..."]}, n_classes=2)["test"]
    assert np.exp(scores) == pytest.approx(np.array([[1 / 3, 2 / 3]]))
    assert "no training text holds a word" in caplog.text


def test_tfidf_ignores_words_of_a_single_row_in_a_large_set() -> None:
    texts = 1_000 * ["warm day", "cold night"] + ["warm day unique"]
    scores = tfidf(texts, np.array(1_000 * [0, 1] + [0]), {"test": ["cold night unique", "cold night"]}, n_classes=2)
    assert scores["test"][0] == pytest.approx(scores["test"][1])


def test_tfidf_keeps_words_of_a_single_row_where_a_large_set_has_no_other() -> None:
    texts = [f"word{number}" for number in range(2_000)]
    scores = tfidf(texts, np.arange(2_000) % 2, {"test": texts[:2]}, n_classes=2)
    assert scores["test"].argmax(axis=1).tolist() == [0, 1]


def test_tfidf_needs_two_classes() -> None:
    with pytest.raises(DataError, match="tfidf needs training rows of at least two classes; got 1"):
        tfidf(["one", "two"], np.array([1, 1]), {}, n_classes=2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_the_head_separates_clusters_by_raw_features(bias: bool, n_classes: int, shift: float) -> None:
    features, labels = clusters(n_classes, shift=shift)
    head = fit_linear_head(features, labels, n_classes, bias=bias)
    logits = features @ head.weight.T + (0 if head.bias is None else head.bias)
    assert (logits.argmax(axis=1) == labels).mean() > 0.97
    assert head.converged


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_head_equals_scikit_learn_on_standardised_features(n_classes: int) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = clusters(n_classes)
    expected = make_pipeline(StandardScaler(), LogisticRegression()).fit(features, labels).predict_proba(features)
    head = fit_linear_head(features, labels, n_classes, bias=True)
    assert softmax(features @ head.weight.T + head.bias) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_the_head_is_float32_with_one_row_per_class(bias: bool) -> None:
    head = fit_linear_head(*clusters(2), 2, bias=bias)
    assert (head.weight.dtype, head.weight.shape) == (np.float32, (2, 12))
    assert head.bias.shape == (2,) if bias else head.bias is None


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_the_head_never_predicts_an_absent_class(bias: bool, shift: float) -> None:
    features, labels = clusters(3, shift=shift)
    head = fit_linear_head(features, labels * 2, 6, bias=bias)  # classes 1, 3 and 5 are absent
    logits = features @ head.weight.T + (0 if head.bias is None else head.bias)
    assert np.isfinite(logits).all()
    assert set(logits.argmax(axis=1)) == {0, 2, 4}


@pytest.mark.parametrize("bias", [True, False])
def test_the_head_bears_constant_columns(bias: bool) -> None:
    features, labels = clusters(3)
    features[:, 0], features[:, 1] = 0.0, 7.0
    assert np.isfinite(fit_linear_head(features, labels, 3, bias=bias).weight).all()


def test_a_fit_that_was_cut_short_is_told_and_warns_nobody(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textlift.evaluation.baselines.HEAD_ITERATIONS", 1)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        head = fit_linear_head(*clusters(5), 5, bias=True)
    assert not head.converged
    assert "did not converge" in caplog.text


def test_the_head_gives_the_scores_that_evaluate_reads() -> None:
    features, labels = clusters(3)
    head = fit_linear_head(features, labels, 3, bias=True)
    assert evaluate(labels, features @ head.weight.T + head.bias, n_resamples=2)["accuracy"] > 0.97


def test_features_that_are_not_finite_are_refused() -> None:
    features, labels = clusters(2)
    features[3, 4] = np.nan
    with pytest.raises(DataError, match="1 of 300 rows hold NaN or infinity"):
        fit_linear_head(features, labels, 2, bias=True)


def test_features_without_their_labels_are_refused() -> None:
    with pytest.raises(DataError, match=r"got \(3, 2\) and \(2,\)"):
        fit_linear_head(np.zeros((3, 2)), np.zeros(2, dtype=int), 2, bias=True)


def test_a_head_for_one_class_is_refused() -> None:
    with pytest.raises(DataError, match="The probe needs training rows of at least two classes; got 1"):
        fit_linear_head(np.zeros((3, 2)), np.zeros(3, dtype=int), 2, bias=True)
