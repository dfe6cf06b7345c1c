"""Temperature, calibration error and shares of classes, on rows whose truth is known because it was drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from decision_samples import drawn_logits
from textlift.errors import DataError
from textlift.evaluation.calibration import (
    applied_temperature,
    calibration_error,
    calibration_record,
    chance_error,
    class_shares,
    estimate_priors,
    fit_bias_corrected,
    fit_temperature,
    reliability,
    with_priors,
)
from textlift.evaluation.metrics import log_softmax, softmax

EQUAL = np.full(3, 1 / 3)

some_logits = st.integers(1, 12).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.int64, n, elements=st.integers(0, 2)),
        arrays.arrays(np.float64, (n, 3), elements=st.floats(-50, 50)),
    )
)


def log_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


@settings(max_examples=60, deadline=None)
@given(some_logits)
def test_a_temperature_is_never_worse_on_the_rows_that_it_was_fitted_on(rows: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = rows
    assert log_loss(labels, logits / fit_temperature(labels, logits)) <= log_loss(labels, logits) + 1e-9


@settings(max_examples=40, deadline=None)
@given(some_logits)
def test_a_bias_is_never_worse_on_the_rows_that_it_was_fitted_on(rows: tuple[np.ndarray, np.ndarray]) -> None:
    labels, logits = rows
    temperature, bias = fit_bias_corrected(labels, logits)
    assert log_loss(labels, logits / temperature + bias) <= log_loss(labels, logits) + 1e-9


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_how_much_too_sharp_logits_are(sharpness: float) -> None:
    labels, logits = drawn_logits(20_000, EQUAL, sharpness=sharpness)
    assert fit_temperature(labels, logits) == pytest.approx(sharpness, rel=0.05)


def test_a_few_rows_that_are_all_right_do_not_make_a_model_certain() -> None:
    labels = np.arange(12) % 3
    logits = 2.0 * np.eye(3)[labels]
    assert softmax(logits / fit_temperature(labels, logits)).max() < 0.999


@pytest.mark.parametrize("equal_mass", [False, True])
def test_probabilities_that_are_right_have_a_small_calibration_error(equal_mass: bool) -> None:
    labels, logits = drawn_logits(50_000, EQUAL)
    assert calibration_error(labels, softmax(logits), equal_mass=equal_mass) < 0.008


@pytest.mark.parametrize("equal_mass", [False, True])
def test_certainty_that_is_half_right_has_an_error_of_a_half(equal_mass: bool) -> None:
    labels, probabilities = np.asarray([0, 1] * 50), np.tile([1.0, 0.0], (100, 1))
    assert calibration_error(labels, probabilities, equal_mass=equal_mass) == pytest.approx(0.5)


def test_calibration_takes_most_of_the_error_of_other_rows_away() -> None:
    temperature = fit_temperature(*drawn_logits(2_000, EQUAL, sharpness=2.5))
    labels, logits = drawn_logits(5_000, EQUAL, seed=1, sharpness=2.5)
    before, after = (calibration_error(labels, softmax(logits / t)) for t in (1.0, temperature))
    assert after < before / 4


def test_the_bins_hold_every_row_once() -> None:
    labels, logits = drawn_logits(777, EQUAL)
    for equal_mass in (False, True):
        bins = reliability(labels, softmax(logits), equal_mass=equal_mass)
        assert sum(one.rows for one in bins) == 777
        assert all(one.low <= one.confidence <= one.high for one in bins)


def test_full_confidence_falls_into_the_last_bin() -> None:
    (only,) = reliability(np.asarray([0]), np.asarray([[1.0, 0.0]]))
    assert (only.high, only.rows, only.accuracy) == (1.0, 1, 1.0)


def test_the_error_by_chance_is_that_of_labels_drawn_from_the_probabilities() -> None:
    labels, logits = drawn_logits(1_000, EQUAL)
    probabilities = softmax(logits)
    assert chance_error(probabilities) == pytest.approx(calibration_error(labels, probabilities), abs=0.02)


def test_no_row_can_be_calibrated_on() -> None:
    with pytest.raises(DataError, match="at least one row"):
        fit_temperature(np.zeros(0, dtype=np.int64), np.zeros((0, 3)))


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="finite"):
        fit_temperature(np.asarray([0]), np.asarray([[np.nan, 1.0]]))


def test_a_record_says_what_became_of_each_split() -> None:
    validation, test = drawn_logits(500, EQUAL, sharpness=2.0), drawn_logits(500, EQUAL, seed=1, sharpness=2.0)
    labels, logits = ({"validation": v, "test": t} for v, t in zip(validation, test, strict=True))
    record = calibration_record(labels, logits, temperature=2.0)
    for split in ("validation", "test"):
        assert record[split]["ece_after"] < record[split]["ece_before"]
        assert record[split]["log_loss_after"] < record[split]["log_loss_before"]


@pytest.mark.parametrize(("record", "shown"), [({}, 1.0), ({"temperature": 2.0, "applied": True}, 2.0),
                                               ({"temperature": 2.0, "applied": False}, 1.0)])  # fmt: skip
def test_probabilities_are_shown_with_the_temperature_that_is_applied(record: dict, shown: float) -> None:
    assert applied_temperature({"calibration": record} if record else {}) == shown


# ---- shares of classes


MOVED = np.asarray([0.7, 0.2, 0.1])


def test_shares_are_recovered_from_rows_without_labels() -> None:
    _, logits = drawn_logits(8_000, MOVED)
    found = estimate_priors(softmax(logits), EQUAL)
    np.testing.assert_allclose(found.priors, MOVED, atol=0.02)
    assert found.is_noticeable


def test_shares_that_did_not_move_are_not_noticed() -> None:
    _, logits = drawn_logits(8_000, EQUAL)
    found = estimate_priors(softmax(logits), EQUAL)
    np.testing.assert_allclose(found.priors, EQUAL, atol=0.03)
    assert not found.is_noticeable


def test_logits_that_favour_a_class_need_the_bias_for_shares_to_be_estimated() -> None:
    tilt = np.asarray([1.0, 0.0, -1.0])
    labels, logits = drawn_logits(4_000, EQUAL)
    temperature, bias = fit_bias_corrected(labels, logits + tilt)
    _, others = drawn_logits(4_000, EQUAL, seed=1)
    plain = estimate_priors(softmax(others + tilt), EQUAL)
    corrected = estimate_priors(softmax((others + tilt) / temperature + bias), class_shares(labels, 3))
    assert plain.effect > 0.5
    assert corrected.effect < 0.1


def test_prior_correction_gains_where_shares_moved() -> None:
    labels, logits = drawn_logits(8_000, MOVED)
    probabilities = softmax(logits)
    corrected = with_priors(probabilities, EQUAL, estimate_priors(probabilities, EQUAL).priors)
    gain = (corrected.argmax(axis=1) == labels).mean() - (probabilities.argmax(axis=1) == labels).mean()
    assert gain > 0.02
    assert calibration_error(labels, corrected) < calibration_error(labels, probabilities)


def test_prior_correction_with_the_same_shares_changes_nothing() -> None:
    probabilities = softmax(drawn_logits(50, EQUAL)[1])
    np.testing.assert_allclose(with_priors(probabilities, MOVED, MOVED), probabilities)


def test_a_class_without_a_row_still_has_a_share() -> None:
    shares = class_shares(np.asarray([0, 0, 2]), 3)
    assert shares.sum() == pytest.approx(1)
    assert 0 < shares[1] < shares[2]
