import json
import math
import warnings

import numpy as np
import pytest

from textlift.errors import DataError
from textlift.evaluation import metrics
from textlift.evaluation.metrics import METRICS, count_confusion, evaluate, softmax


def random_case(seed: int, *, n_classes: int, n_used: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits in which only the first n_used classes are true, and any class may be predicted."""
    rng = np.random.default_rng(seed)
    return rng.integers(n_used, size=n), rng.normal(size=(n, n_classes)) * 2


CASES = [
    random_case(0, n_classes=2, n_used=2),
    random_case(1, n_classes=2, n_used=1),
    random_case(2, n_classes=6, n_used=6),
    random_case(3, n_classes=6, n_used=3),
    random_case(4, n_classes=20, n_used=20, n=25),
    random_case(5, n_classes=20, n_used=15, n=5),
]


def sklearn_score(name: str, labels: np.ndarray, predictions: np.ndarray) -> float:
    import sklearn.metrics

    if name == "accuracy":
        return float(sklearn.metrics.accuracy_score(labels, predictions))
    kind, average = name.rsplit("_", 1)
    score = getattr(sklearn.metrics, f"{kind}_score")
    return float(score(labels, predictions, average=average, zero_division=0))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("labels", "logits"), CASES)
def test_every_score_equals_scikit_learn(name: str, labels: np.ndarray, logits: np.ndarray) -> None:
    expected = sklearn_score(name, labels, logits.argmax(axis=1))
    assert evaluate(labels, logits, n_resamples=2)[name] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("labels", "logits"), CASES)
def test_log_loss_equals_scikit_learn(labels: np.ndarray, logits: np.ndarray) -> None:
    from sklearn.metrics import log_loss

    expected = log_loss(labels, softmax(logits), labels=range(logits.shape[1]))
    assert evaluate(labels, logits, n_resamples=2)["log_loss"] == pytest.approx(expected)


@pytest.mark.parametrize(("labels", "logits"), CASES)
def test_per_class_scores_equal_scikit_learn(labels: np.ndarray, logits: np.ndarray) -> None:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        labels, logits.argmax(axis=1), labels=range(logits.shape[1]), zero_division=0
    )
    records = evaluate(labels, logits, n_resamples=2)["per_class"]
    for name, expected in zip(("precision", "recall", "f1", "support"), columns, strict=True):
        assert [record[name] for record in records] == pytest.approx(expected.tolist())


@pytest.mark.parametrize("name", METRICS)
def test_a_stack_of_confusion_matrices_is_scored_one_by_one(name: str) -> None:
    stack = np.stack([count_confusion(labels, logits.argmax(axis=1), 6) for labels, logits in CASES[2:4]])
    each = [METRICS[name](confusion[None])[0] for confusion in stack]
    assert METRICS[name](stack) == pytest.approx(each)


def test_the_confusion_matrix_has_true_rows_and_predicted_columns() -> None:
    logits = np.eye(3)[[1, 1, 2]]
    assert evaluate(np.array([0, 1, 2]), logits, n_resamples=2)["confusion"] == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_the_result_is_plain_json() -> None:
    result = evaluate(*CASES[2], n_resamples=10)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_every_score_lies_within_its_interval() -> None:
    result = evaluate(*random_case(6, n_classes=4, n_used=4, n=400), n_resamples=500)
    for name in (*METRICS, "log_loss"):
        assert result[f"{name}_low"] < result[name] < result[f"{name}_high"]


def test_the_same_seed_gives_the_same_intervals() -> None:
    assert evaluate(*CASES[2], n_resamples=50, seed=3) == evaluate(*CASES[2], n_resamples=50, seed=3)


def test_an_interval_does_not_depend_on_the_size_of_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate(*CASES[2], n_resamples=50)
    monkeypatch.setattr(metrics, "VALUES_PER_CHUNK", 100)
    chunked = evaluate(*CASES[2], n_resamples=50)
    for name in (*METRICS, "log_loss"):
        bounds = (f"{name}_low", f"{name}_high")
        assert [chunked[bound] for bound in bounds] == pytest.approx([whole[bound] for bound in bounds])


def test_the_accuracy_interval_is_as_wide_as_the_normal_approximation() -> None:
    labels = np.zeros(1_000, dtype=int)
    predictions = (np.arange(1_000) >= 800).astype(int)  # 80 % right
    result = evaluate(labels, np.eye(2)[predictions], n_resamples=4_000)
    width = result["accuracy_high"] - result["accuracy_low"]
    assert width == pytest.approx(2 * 1.96 * math.sqrt(0.8 * 0.2 / 1_000), rel=0.05)


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "log_loss"])
def test_95_percent_intervals_cover_the_true_score_about_as_often(name: str) -> None:
    rng = np.random.default_rng(0)
    n_population, n_samples, n_trials = 100_000, 300, 200
    labels = rng.integers(3, size=n_population)
    logits = np.eye(3)[labels] * 1.5 + rng.normal(size=(n_population, 3))
    truth = evaluate(labels, logits, n_resamples=2)[name]
    covered = 0
    for _ in range(n_trials):
        rows = rng.integers(n_population, size=n_samples)
        result = evaluate(labels[rows], logits[rows], n_resamples=200)
        covered += result[f"{name}_low"] <= truth <= result[f"{name}_high"]
    assert 0.90 <= covered / n_trials <= 0.99


def test_huge_logits_give_a_finite_log_loss() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = evaluate(np.array([0, 1]), np.array([[1e4, -1e4], [1e4, -1e4]], dtype=np.float32), n_resamples=2)
    assert result["log_loss"] == pytest.approx(1e4)


def test_probabilities_sum_to_one() -> None:
    assert softmax(np.array([[1e4, 0.0], [0.0, 0.0]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_logits_that_are_not_finite_are_refused_with_the_number_of_rows() -> None:
    logits = np.zeros((1_500, 2))
    logits[:1_200, 1] = np.nan
    logits[1_300] = np.inf
    with pytest.raises(DataError, match=r"finite numbers; 1,201 of 1,500 rows hold NaN or infinity\. Train with"):
        evaluate(np.zeros(1_500, dtype=int), logits)


@pytest.mark.parametrize("shape", [(0, 2), (3, 2), (2,)])
def test_logits_that_do_not_fit_the_labels_are_refused(shape: tuple[int, ...]) -> None:
    labels = np.zeros(0 if shape[0] == 0 else 2, dtype=int)
    with pytest.raises(DataError, match=r"labels must have shape \(N,\)"):
        evaluate(labels, np.zeros(shape))


def test_a_label_without_a_column_is_refused() -> None:
    with pytest.raises(DataError, match="between 0 and 1, one per column of logits; got 0 to 2"):
        evaluate(np.array([0, 2]), np.zeros((2, 2)))
