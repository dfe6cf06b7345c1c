import numpy as np

from textlift.evaluation.out_of_fold import out_of_fold


def rows(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, n)
    return draw.normal(size=(n, 8)).astype(np.float32) + 3 * labels[:, None], labels


def test_rows_that_can_be_told_get_their_label() -> None:
    features, labels = rows(200)
    probabilities = out_of_fold(features, labels, 3, groups=np.arange(200), bias=True, c=1.0)
    assert probabilities.shape == (200, 3)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.97


def test_labels_of_chance_are_not_learnt_by_heart() -> None:
    features, _ = rows(200)
    labels = np.random.default_rng(1).integers(0, 2, 200)
    probabilities = out_of_fold(features, labels, 2, groups=np.arange(200), bias=True, c=1.0)
    assert (probabilities.argmax(axis=1) == labels).mean() < 0.65


def test_rows_of_one_group_do_not_tell_of_each_other() -> None:
    _, labels = rows(60)
    features = np.random.default_rng(2).normal(size=(60, 200)).astype(np.float32)
    twice, groups = np.repeat(features, 2, axis=0), np.repeat(np.arange(60), 2)
    right = out_of_fold(twice, np.repeat(labels, 2), 2, groups=groups, bias=True, c=100.0).argmax(axis=1)
    alone = out_of_fold(twice, np.repeat(labels, 2), 2, groups=np.arange(120), bias=True, c=100.0).argmax(axis=1)
    assert (right == np.repeat(labels, 2)).mean() + 0.1 < (alone == np.repeat(labels, 2)).mean()
