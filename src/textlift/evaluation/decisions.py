"""From logits to an answer, or to none: temperature, shares of classes, costs or thresholds, abstention, in this order.

Knows label ids and logits; not label names, files or models. What is chosen here is chosen on validation rows.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from textlift.errors import ModelError
from textlift.evaluation.calibration import calibration_error, with_priors
from textlift.evaluation.metrics import evaluate, softmax

FORMAT_VERSION = 1
CURVE_POINTS = 50

Row = tuple[float, ...]


@dataclass(frozen=True)
class Decided:
    """What a decision makes of N rows.

    Args:
        probabilities: Calibrated and with the shares of classes asked for, shape (N, C).
        chosen: Label ids, shape (N,); of rows without an answer, what it would have been.
        confidence: Probability of the chosen class, shape (N,).
        answered: Whether there is an answer, bool, shape (N,).
    """

    probabilities: np.ndarray
    chosen: np.ndarray
    confidence: np.ndarray
    answered: np.ndarray


@dataclass(frozen=True)
class Decision:
    """How logits become answers; without any argument, the most probable class of their softmax.

    1. Logits are divided by the temperature, the bias is added, and they become probabilities.
    2. Where priors are given, probabilities are those for classes of these shares.
    3. With costs, the class of the least expected cost is chosen; with thresholds, of the classes that reach theirs the
       one that does so by the largest factor, else the most probable class without one; otherwise the most probable.
    4. There is no answer where the probability of the chosen class is below least_confidence, or where every class has
       a threshold and none reaches it.

    Args:
        temperature: Above 0.
        bias: Added to the logits after that, (C,).
        trained_priors: Shares of classes that the probabilities are fitted to, (C,); needed with priors.
        priors: Shares of classes where it is used, (C,).
        costs: Of choosing the column where the row is true, (C, C).
        thresholds: Least probability of each class, (C,); None for a class without one.
        least_confidence: From 0 to 1; None where every row is answered.

    Raises:
        ModelError: A value is out of range, or sizes do not fit.
    """

    temperature: float = 1.0
    bias: Row | None = None
    trained_priors: Row | None = None
    priors: Row | None = None
    costs: tuple[Row, ...] | None = None
    thresholds: tuple[float | None, ...] | None = None
    least_confidence: float | None = None

    def __post_init__(self) -> None:
        told = _complaint(self)
        if told:
            raise ModelError(f"decision: {told}.")

    @property
    def is_identity(self) -> bool:
        """Whether it gives the softmax of the logits and its most probable class."""
        return self == Decision()

    @property
    def n_classes(self) -> int | None:
        """C, where it says so."""
        sized = (self.bias, self.trained_priors, self.priors, self.costs, self.thresholds)
        return next((len(values) for values in sized if values is not None), None)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Steps 1 and 2: probability of each class, (N, C), float64."""
        if not len(logits):
            return np.zeros(logits.shape, dtype=np.float64)
        scaled = logits.astype(np.float64) / self.temperature
        calibrated = softmax(scaled if self.bias is None else scaled + np.asarray(self.bias))
        if self.priors is None or self.trained_priors is None:
            return calibrated
        return with_priors(calibrated, np.asarray(self.trained_priors), np.asarray(self.priors))

    def apply(self, logits: np.ndarray) -> Decided:
        """All steps, for logits (N, C).

        Raises:
            ModelError: The logits have another number of classes.
        """
        if self.n_classes not in {None, logits.shape[1]}:
            raise ModelError(f"decision: must be for {logits.shape[1]} classes; it is for {self.n_classes}.")
        probabilities = self.probabilities(logits)
        chosen, reached = self._choose(probabilities, logits)
        confidence = np.take_along_axis(probabilities, chosen[:, None], axis=1)[:, 0]
        answered = reached if self.least_confidence is None else reached & (confidence >= self.least_confidence)
        return Decided(probabilities, chosen, confidence, answered)

    def _choose(self, probabilities: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Label ids (N,), and whether a class could be chosen."""
        everywhere = np.ones(len(probabilities), dtype=bool)
        if self.costs is not None:
            return (probabilities @ np.asarray(self.costs)).argmin(axis=1), everywhere
        if self.thresholds is not None:
            return _choose_by_thresholds(probabilities, self.thresholds)
        # Rounding may make two probabilities equal that come from logits which are not.
        ranked = logits if self.priors is None and self.bias is None else probabilities
        return ranked.argmax(axis=1), everywhere

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it; lists are in the order of label ids."""
        return {"format_version": FORMAT_VERSION, **{one.name: _plain(getattr(self, one.name)) for one in fields(self)}}

    @classmethod
    def from_dict(cls, values: object) -> "Decision":
        """What `to_dict` gave; anybody may have written it.

        Raises:
            ModelError: It is of another format, has unknown or missing keys, or a value is out of range.
        """
        if not isinstance(values, Mapping):
            raise ModelError(f"decision: must be an object with temperature and more; found {type(values).__name__}.")
        if values.get("format_version") != FORMAT_VERSION:
            raise ModelError(
                f"decision: format_version must be {FORMAT_VERSION}; found {_shown(values.get('format_version'))}."
            )
        names = {one.name for one in fields(cls)}
        given = {name: value for name, value in values.items() if name != "format_version"}
        odd = sorted(str(name) for name in names ^ set(given))
        if odd:
            raise ModelError(
                f"decision: keys must be {', '.join(sorted(names))}; {_shown(odd[0])} is unknown or missing."
            )
        try:
            return cls(**{name: _frozen(value) for name, value in given.items()})
        except RecursionError:
            raise ModelError("decision: values must be numbers and lists; found lists in lists in lists.") from None


def _choose_by_thresholds(
    probabilities: np.ndarray, thresholds: tuple[float | None, ...]
) -> tuple[np.ndarray, np.ndarray]:
    has_one = np.asarray([value is not None for value in thresholds])
    least = np.asarray([math.inf if value is None else max(value, 1e-300) for value in thresholds])
    factors = probabilities / least  # 0 for classes without a threshold
    claimed = factors.max(axis=1) >= 1
    others = np.where(has_one, -1.0, probabilities)
    fallback = probabilities if has_one.all() else others
    chosen = np.where(claimed, factors.argmax(axis=1), fallback.argmax(axis=1))
    return chosen, claimed if has_one.all() else np.ones(len(probabilities), dtype=bool)


# ---- choosing on validation


@dataclass(frozen=True)
class Chosen:
    """A threshold, what it gives on the rows that it was chosen on, and whether that is what was wanted.

    threshold is None where no row is of the class, so that nothing can be chosen.
    """

    threshold: float | None
    value: float
    is_reached: bool


def threshold_for_precision(
    is_class: np.ndarray, probability: np.ndarray, *, wanted: float, weights: np.ndarray | None = None
) -> Chosen:
    """The least threshold from which on at least a wanted share of the rows that reach it is of the class.

    Where no threshold gives it, the one that comes nearest.

    Args:
        is_class: Whether a row is of the class, bool, (N,).
        probability: Of the class, (N,).
        wanted: From 0 to 1.
        weights: What each row counts, (N,); 1 where None.
    """
    return _longest(is_class, probability, wanted=wanted, weights=weights)


def threshold_for_recall(
    is_class: np.ndarray, probability: np.ndarray, *, wanted: float, weights: np.ndarray | None = None
) -> Chosen:
    """The highest threshold that at least a wanted share of the rows of the class reaches."""
    counted = np.ones(len(probability)) if weights is None else weights
    total = float(counted[is_class].sum())
    if not total:
        return Chosen(None, 0.0, False)
    order = np.argsort(-probability, kind="stable")
    found = np.cumsum(np.where(is_class[order], counted[order], 0.0)) / total
    at = min(int(np.searchsorted(found, wanted - 1e-12)), len(order) - 1)
    threshold = float(probability[order[at]])
    return Chosen(threshold, float(counted[is_class & (probability >= threshold)].sum()) / total, True)


def confidence_for_accuracy(
    is_right: np.ndarray, confidence: np.ndarray, *, wanted: float, weights: np.ndarray | None = None
) -> Chosen:
    """The least confidence from which on at least a wanted share of answers is right; else the nearest."""
    return _longest(is_right, confidence, wanted=wanted, weights=weights)


def confidence_for_coverage(confidence: np.ndarray, *, wanted: float, weights: np.ndarray | None = None) -> Chosen:
    """The highest confidence that at least a wanted share of rows reaches."""
    counted = np.ones(len(confidence)) if weights is None else weights
    everyone = np.ones(len(confidence), dtype=bool)
    return threshold_for_recall(everyone, confidence, wanted=wanted, weights=counted)


def _longest(is_good: np.ndarray, score: np.ndarray, *, wanted: float, weights: np.ndarray | None) -> Chosen:
    """The least score from which on the share of good rows is as wanted; where none is, the score of the best share."""
    if not is_good.any():
        return Chosen(None, 0.0, False)
    counted = np.ones(len(score)) if weights is None else weights
    order = np.argsort(-score, kind="stable")
    shares = np.cumsum(np.where(is_good[order], counted[order], 0.0)) / np.cumsum(counted[order])
    is_end = np.append(score[order][1:] != score[order][:-1], True)  # rows of one score go together
    enough = np.flatnonzero(is_end & (shares >= wanted - 1e-12))
    if len(enough):
        at = int(enough[-1])
    else:
        ends = np.flatnonzero(is_end)
        at = int(ends[len(ends) - 1 - int(shares[ends][::-1].argmax())])
    return Chosen(float(score[order[at]]), float(shares[at]), bool(len(enough)))


# ---- measuring


def evaluate_decided(labels: np.ndarray, decided: Decided) -> dict[str, Any]:
    """The scores of `evaluate` for what a decision chose, whether or not it answers; log loss of its probabilities."""
    logs = np.log(np.maximum(decided.probabilities, 1e-300))
    return evaluate(labels, logs, chosen=decided.chosen)


def answers(labels: np.ndarray, decided: Decided, *, costs: tuple[Row, ...] | None) -> dict[str, Any]:
    """What `evaluate` does not say of a decision: "ece", "coverage", "accuracy_answered" and "mean_cost"."""
    told = outcome(labels, decided, costs=costs)
    return {
        "ece": calibration_error(labels, decided.probabilities),
        **{key: value for key, value in told.items() if key not in {"n", "accuracy"}},
    }


def outcome(labels: np.ndarray, decided: Decided, *, costs: tuple[Row, ...] | None = None) -> dict[str, Any]:
    """What a decision gives on labelled rows (N,).

    Returns:
        "n"; "coverage" (share of rows with an answer); "accuracy_answered" (of those; None where there is none);
        "accuracy" (of all rows, each with the class that was chosen); with costs, "mean_cost" over answered rows.
    """
    right, answered = decided.chosen == labels, decided.answered
    record: dict[str, Any] = {
        "n": len(labels),
        "coverage": float(answered.mean()),
        "accuracy_answered": float(right[answered].mean()) if answered.any() else None,
        "accuracy": float(right.mean()),
    }
    if costs is not None:
        paid = np.asarray(costs)[labels, decided.chosen]
        record["mean_cost"] = float(paid[answered].mean()) if answered.any() else None
    return record


def coverage_curve(is_right: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
    """Accuracy of the most confident share of rows, for shares up to all.

    Returns:
        "points", up to 50 of "coverage", "accuracy" and "confidence" (the least of the share); "area", the mean
        accuracy over all shares: 1 where every row is right, the accuracy where confidence tells nothing.

    Source:
        El-Yaniv and Wiener (2010), On the Foundations of Noise-free Selective Classification.
    """
    order = np.argsort(-confidence, kind="stable")
    accuracies = np.cumsum(is_right[order]) / np.arange(1, len(order) + 1)
    places = np.unique(np.ceil(np.linspace(0, 1, CURVE_POINTS + 1)[1:] * len(order)).astype(int)) - 1
    points = [
        {
            "coverage": (place + 1) / len(order),
            "accuracy": float(accuracies[place]),
            "confidence": float(confidence[order[place]]),
        }
        for place in places.tolist()
    ]
    return {"area": float(accuracies.mean()), "points": points}


# ---- what may stand in a decision


def _complaint(decision: Decision) -> str:
    """What is wrong with the values of a decision, in words; empty where nothing is."""
    costs, thresholds, least = decision.costs, decision.thresholds, decision.least_confidence
    shares = "shares of at least two classes, above 0, that sum to 1"
    rules: tuple[tuple[str, bool, str], ...] = (
        ("temperature", _is_number(decision.temperature, low=1e-6, high=1e6), "a number above 0"),
        ("bias", decision.bias is None or _is_row(decision.bias), "a number for each class, or null"),
        ("trained_priors", decision.trained_priors is None or _are_shares(decision.trained_priors), shares),
        ("priors", decision.priors is None or _are_shares(decision.priors), shares),
        ("costs", costs is None or _is_square(costs), "a row of numbers for each class, one for each class"),
        ("thresholds", thresholds is None or _are_thresholds(thresholds), "from 0 to 1, or null, for each class"),
        ("least_confidence", least is None or _is_number(least, low=0, high=1), "a number from 0 to 1, or null"),
    )
    for name, holds, rule in rules:
        if not holds:
            return f"{name} must be {rule}; found {_shown(getattr(decision, name))}"
    return _contradiction(decision)


def _contradiction(decision: Decision) -> str:
    """What does not go together in values that are right each by itself."""
    if decision.costs is not None and decision.thresholds is not None:
        return "costs and thresholds exclude each other; found both"
    if decision.priors is not None and decision.trained_priors is None:
        return "priors must come with trained_priors; found none"
    lists = (decision.bias, decision.trained_priors, decision.priors, decision.costs, decision.thresholds)
    sizes = {len(one) for one in lists if one is not None}
    return "" if len(sizes) < 2 else f"all lists must be for one number of classes; found {sorted(sizes)}"


def _is_number(value: object, *, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _are_shares(values: object) -> bool:
    if not isinstance(values, tuple) or len(values) < 2:
        return False
    return all(_is_number(value, low=1e-12, high=1) for value in values) and abs(sum(values) - 1) < 1e-6


def _are_thresholds(values: object) -> bool:
    if not isinstance(values, tuple) or not values:
        return False
    return all(value is None or _is_number(value, low=0, high=1) for value in values)


def _is_row(values: object) -> bool:
    return isinstance(values, tuple) and len(values) > 0 and all(_is_number(v, low=-1e9, high=1e9) for v in values)


def _is_square(rows: object) -> bool:
    if not isinstance(rows, tuple) or len(rows) < 2:
        return False
    return all(_is_row(row) and len(row) == len(rows) for row in rows)


def _frozen(value: object) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _plain(value: object) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _shown(value: object) -> str:
    return f"{reprlib.repr(value):.60}"
