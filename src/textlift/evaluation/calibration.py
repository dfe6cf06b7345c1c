"""Probabilities that can be taken at their word: temperature, how far they are off, and the shares of classes.

Knows label ids and logits. Temperature and priors are fitted on validation or taken from unlabelled rows; nothing here
ever asks for a label of test but `calibration_error` and `reliability`, which only measure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from textlift.errors import DataError
from textlift.evaluation.metrics import log_softmax, softmax

BINS = 15
_LOG_RANGE = 4.0  # of the temperature: from 1/55 to 55
_SMALL = 1e-12
_MOST_PRODUCTS = 1e9  # of the iteration that estimates shares of classes: seconds


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """The number that logits are divided by so that their log loss is least; it changes no argmax.

    The logarithm of the temperature has a normal prior around 0 of variance 1, that is half a squared unit beside a log
    loss that grows with each row: a few rows that are all right do not make a model certain. On the fitted rows the log
    loss is never worse than with temperature 1.

    Args:
        labels: True label ids of rows that did not train, shape (N,).
        logits: Shape (N, C).

    Raises:
        DataError: There is no row, or a logit is not finite.

    Source:
        Guo, Pleiss, Sun and Weinberger (2017), On Calibration of Modern Neural Networks, section 4.2.
    """
    from scipy.optimize import minimize_scalar

    _require_rows(labels, logits)
    exact, rows = logits.astype(np.float64), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = exact * np.exp(-log_temperature)
        return float(-log_softmax(scaled)[rows, labels].sum()) + 0.5 * log_temperature**2

    found = minimize_scalar(loss, bounds=(-_LOG_RANGE, _LOG_RANGE), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x)) if float(found.fun) < loss(0.0) else 1.0


def fit_bias_corrected(labels: np.ndarray, logits: np.ndarray) -> tuple[float, np.ndarray]:
    """A temperature, and a number to add to each logit after dividing by it, (C,), of the least log loss.

    It makes the mean probability of each class that of its share, without which shares of classes that are estimated
    elsewhere come out wrong where nothing has moved. It may change an argmax. Both have normal priors as in
    `fit_temperature`.

    Args:
        labels: True label ids of rows that did not train, shape (N,).
        logits: Shape (N, C).

    Raises:
        DataError: There is no row, or a logit is not finite.

    Source:
        Alexandari, Kundaje and Shrikumar (2020), Maximum Likelihood with Bias-Corrected Calibration is Hard-To-Beat at
        Label Shift Adaptation.
    """
    from scipy.optimize import minimize

    _require_rows(labels, logits)
    exact, rows = logits.astype(np.float64), np.arange(len(labels))

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = exact * np.exp(-values[0])
        logs = log_softmax(scaled + values[1:])
        slope = np.exp(logs)
        slope[rows, labels] -= 1  # (N, C)
        gradient = np.concatenate([[-float((slope * scaled).sum())], slope.sum(axis=0)]) + values
        return float(-logs[rows, labels].sum()) + 0.5 * float(values @ values), gradient

    start = np.zeros(1 + logits.shape[1])
    start[0] = np.log(fit_temperature(labels, logits))
    bounds = [(-_LOG_RANGE, _LOG_RANGE)] + [(None, None)] * logits.shape[1]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    best = found.x if float(found.fun) <= loss(start)[0] else start
    return float(np.exp(best[0])), np.asarray(best[1:])


@dataclass(frozen=True)
class Bin:
    """Rows of like confidence: bounds, how many, their mean confidence and the share of them that is right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float

    def to_dict(self) -> dict[str, float]:
        """As it stands in results.json."""
        return dict(vars(self))


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, *, bins: int = BINS, equal_mass: bool = False
) -> list[Bin]:
    """The bars of a reliability diagram: bins that hold a row, by the probability of the most probable class.

    Args:
        labels: True label ids, shape (N,).
        probabilities: Shape (N, C).
        bins: How many.
        equal_mass: Bins of equally many rows in place of equal width.

    Raises:
        DataError: There is no row.

    Source:
        Guo et al. (2017), section 2; equal mass: Nixon et al. (2019), Measuring Calibration in Deep Learning.
    """
    _require_rows(labels, probabilities)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    if equal_mass:
        parts = [part for part in np.array_split(np.argsort(confidence, kind="stable"), bins) if len(part)]
        bounds = [(float(confidence[part[0]]), float(confidence[part[-1]])) for part in parts]
    else:
        place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
        parts = [np.flatnonzero(place == number) for number in range(bins)]
        bounds = [(number / bins, (number + 1) / bins) for number in range(bins)]
    return [
        Bin(low, high, len(part), float(confidence[part].mean()), float(right[part].mean()))
        for (low, high), part in zip(bounds, parts, strict=True)
        if len(part)
    ]


def calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, *, bins: int = BINS, equal_mass: bool = False
) -> float:
    """Expected calibration error: the mean distance of confidence from accuracy over the bins, each by its rows.

    Raises:
        DataError: There is no row.

    Source:
        Naeini, Cooper and Hauskrecht (2015), Obtaining Well Calibrated Probabilities Using Bayesian Binning.
    """
    found = reliability(labels, probabilities, bins=bins, equal_mass=equal_mass)
    return sum(one.rows * abs(one.confidence - one.accuracy) for one in found) / len(labels)


def chance_error(probabilities: np.ndarray, *, draws: int = 20, seed: int = 0) -> float:
    """The calibration error that probabilities (N, C) have on so few rows even if all of them are right.

    That is the mean over draws of labels from the probabilities themselves; an error near it is no sign of a fault.

    Source:
        Broecker and Smith (2007), Increasing the Reliability of Reliability Diagrams (consistency resampling).
    """
    rng, sums = np.random.default_rng(seed), probabilities.cumsum(axis=1)
    last = probabilities.shape[1] - 1
    drawn = (np.minimum((sums <= rng.random((len(sums), 1))).sum(axis=1), last) for _ in range(draws))
    return float(np.mean([calibration_error(labels, probabilities) for labels in drawn]))


def calibration_record(
    labels: dict[str, np.ndarray], logits: dict[str, np.ndarray], *, temperature: float
) -> dict[str, Any]:
    """What results.json says of a temperature: errors before and after on each split, log loss, bins of test."""
    before = {split: softmax(values) for split, values in logits.items()}
    after = {split: softmax(values.astype(np.float64) / temperature) for split, values in logits.items()}
    record: dict[str, Any] = {"temperature": temperature, "bins": BINS}
    for split in logits:
        record[split] = {
            f"{name}_{when}": value
            for when, probabilities in (("before", before[split]), ("after", after[split]))
            for name, value in (
                ("ece", calibration_error(labels[split], probabilities)),
                ("ece_equal_mass", calibration_error(labels[split], probabilities, equal_mass=True)),
                ("log_loss", _log_loss(labels[split], probabilities)),
            )
        }
        record[split]["ece_by_chance"] = chance_error(after[split])
    record["reliability"] = {
        when: [one.to_dict() for one in reliability(labels["test"], shown["test"])]
        for when, shown in (("before", before), ("after", after))
    }
    return record


def applied_temperature(record: Mapping[str, Any]) -> float:
    """The temperature that a variant's probabilities are shown with, from its record; 1 where it has none."""
    calibration = record.get("calibration")
    return float(calibration["temperature"]) if calibration and calibration["applied"] else 1.0


def _log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _SMALL)).mean())


# ---- shares of classes


def class_shares(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """The share of each class among label ids (N,), shape (C,); a class without a row counts as half a row."""
    counts = np.maximum(np.bincount(labels, minlength=n_classes).astype(np.float64), 0.5)
    return np.asarray(counts / counts.sum())


def with_priors(probabilities: np.ndarray, trained: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) as they are where classes have other shares, texts within each class being alike.

    Args:
        probabilities: Calibrated.
        trained: Shares of classes that they were fitted to, shape (C,).
        wanted: Shares where they are used, shape (C,).

    Source:
        Saerens, Latinne and Decaestecker (2002), Adjusting the Outputs of a Classifier to New a Priori Probabilities.
    """
    weighted = probabilities * (wanted / trained)
    return np.asarray(weighted / np.maximum(weighted.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny))


@dataclass(frozen=True)
class PriorEstimate:
    """Shares of classes found from unlabelled rows, (C,), and whether chance would make them differ so from others.

    Args:
        priors: Estimated shares.
        effect: Cohen's w between them and those that the probabilities were fitted to.
        p_value: Of the likelihood-ratio test against those.
    """

    priors: np.ndarray
    effect: float
    p_value: float

    @property
    def is_noticeable(self) -> bool:
        """At least a medium effect (w of 0.3) that chance gives in under one of a thousand cases."""
        return self.effect >= 0.3 and self.p_value < 0.001


def estimate_priors(probabilities: np.ndarray, trained: np.ndarray) -> PriorEstimate:
    """Shares of classes among rows whose labels nobody knows, from what a classifier says of their texts.

    Expectation maximization: rows are given to classes by their probabilities, the shares are those of the rows given,
    and the probabilities follow the shares, until nothing moves. It holds where the texts of each class are as in
    training; where they are not, the shares can be anything.

    Args:
        probabilities: Calibrated with `fit_bias_corrected`, shape (N, C).
        trained: Shares of classes that they were fitted to, shape (C,).

    Raises:
        DataError: There is no row.

    Source:
        Saerens, Latinne and Decaestecker (2002), the iteration and the likelihood-ratio test.
    """
    from scipy.special import chdtrc

    if not probabilities.size:
        raise DataError("probabilities must have at least one row to estimate shares of classes from; found none.")
    likelihoods = probabilities.astype(np.float64) / trained  # (N, C), up to a factor for each row
    priors = trained.astype(np.float64)
    for _ in range(int(np.clip(_MOST_PRODUCTS / probabilities.size, 50, 2_000))):
        weighted = likelihoods * priors
        moved = np.asarray((weighted / np.maximum(weighted.sum(axis=1, keepdims=True), _SMALL)).mean(axis=0))
        distance = float(np.abs(moved - priors).max())
        priors = moved
        if distance < 1e-8:
            break
    gain = np.log(np.maximum(likelihoods @ priors, _SMALL)) - np.log(np.maximum(likelihoods @ trained, _SMALL))
    p_value = float(chdtrc(max(1, len(priors) - 1), max(0.0, 2 * float(gain.sum()))))
    effect = float(np.sqrt(np.square(priors - trained) @ (1 / trained)))
    return PriorEstimate(priors, effect, p_value)


def _require_rows(labels: np.ndarray, values: np.ndarray) -> None:
    if values.ndim != 2 or not values.size or labels.shape != values.shape[:1]:
        raise DataError(
            f"labels must have shape (N,) and logits or probabilities (N, C) with at least one row; got {labels.shape} "
            f"and {values.shape}."
        )
    if not bool(np.isfinite(values).all()):
        raise DataError("logits and probabilities must be finite numbers; found others.")
