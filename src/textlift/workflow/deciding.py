"""How the logits of a tuned variant become answers: fitted on validation as the recipe asks, and measured on test.

Labels of test are read to measure alone. Shares of classes may be estimated from what the model says of the texts of
test; nothing else is taken from them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from textlift.data import Dataset
from textlift.errors import RecipeError, nearest
from textlift.evaluation.calibration import (
    PriorEstimate,
    calibration_error,
    calibration_record,
    class_shares,
    estimate_priors,
    fit_bias_corrected,
    fit_temperature,
)
from textlift.evaluation.decisions import (
    Chosen,
    Decision,
    Row,
    confidence_for_accuracy,
    confidence_for_coverage,
    coverage_curve,
    outcome,
    threshold_for_precision,
    threshold_for_recall,
)
from textlift.evaluation.statistics import compare
from textlift.recipe import DecisionSection

_LEAST_SHARE = 1e-6  # of a class that an estimate finds nowhere; a share of 0 could never be moved again


@dataclass(frozen=True)
class Ground:
    """What a decision is made from.

    Args:
        labels: Label ids of train, validation and test, (N,) each.
        logits: Of validation and test, (N, C) each.
        label_names: In the order of label ids.
        label_values: The labels as written, in the same order.
    """

    labels: Mapping[str, np.ndarray]
    logits: Mapping[str, np.ndarray]
    label_names: Sequence[str]
    label_values: Sequence[str]

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.label_names)


def require_labels(section: DecisionSection, dataset: Dataset) -> None:
    """Refuse labels in the recipe's decision that the data does not have.

    Raises:
        RecipeError: There is one; all of them are told, each with the nearest name. Or priors leave a label out.
    """
    known = [*dataset.label_names, *dataset.label_values]
    priors = section.priors if isinstance(section.priors, dict) else {}
    named = [("priors", label) for label in priors]
    named += [("thresholds", label) for label in section.thresholds]
    named += [("costs", label) for true, row in section.costs.items() for label in (true, *row)]
    told = [
        f"decision.{key} must name a label; found {label[:60]!r}.{nearest(label, dataset.label_names)}"
        for key, label in dict.fromkeys(named)
        if label not in known
    ]
    for key, values in (("priors", priors), ("thresholds", section.thresholds), ("costs", section.costs)):
        if not told and len(_by_id(values, dataset.label_names, dataset.label_values)) < len(values):
            told += [f"decision.{key} must name each label once; one stands there by its name and as written."]
    if not told and priors:
        given = set(_by_id(priors, dataset.label_names, dataset.label_values))
        left = [name for at, name in enumerate(dataset.label_names) if at not in given]
        told += [f"decision.priors must give a share for every label; {left[0][:60]!r} has none."] if left else []
    if told:
        names = ", ".join(name[:40] for name in dataset.label_names[:12])
        more = ", ..." if len(dataset.label_names) > 12 else ""
        raise RecipeError(f"{' '.join(told[:4])}\nLabels: {names}{more}.")


def decide(
    ground: Ground, section: DecisionSection, *, has_prior_shift: bool, seed: int
) -> tuple[Decision, dict[str, Any]]:
    """The decision of a tuned variant, and what its record says: "calibration", "prior_correction", "decision".

    Args:
        ground: Labels and logits.
        section: Of the recipe.
        has_prior_shift: Whether the checks found that classes have other shares in test than in train.
        seed: Of bootstrap intervals.
    """
    fitted = fit_temperature(ground.labels["validation"], ground.logits["validation"])
    decision = Decision(temperature=fitted if section.calibrate else 1.0)
    unmoved = _bias_corrected(ground)
    estimate = estimate_priors(unmoved.probabilities(ground.logits["test"]), np.asarray(unmoved.trained_priors))
    priors = _priors(section, ground, estimate)
    correction = _correction_record(ground, unmoved, estimate, has_prior_shift=has_prior_shift, seed=seed)
    if priors is not None:
        decision = replace(unmoved, priors=_row(priors))
        correction |= {"is_applied": True, "used": _corrected(ground, unmoved, priors, seed=seed)}
    decision = replace(decision, costs=_costs(section, ground))
    chosen: list[dict[str, Any]] = []
    decision = _with_thresholds(decision, section, ground, told=chosen)
    decision = _with_abstention(decision, section, ground, told=chosen)
    record = {
        "calibration": {
            **calibration_record(_measured(ground.labels), dict(ground.logits), temperature=fitted),
            "applied": section.calibrate,
        },
        "prior_correction": correction,
        **measured_decision(ground, decision),
    }
    record["decision"]["chosen"] = chosen
    return decision, record


def inherited(ground: Ground, decision: Decision, *, calibration: Mapping[str, Any]) -> dict[str, Any]:
    """What the record of a merged variant says, which keeps the decision of the variant it was made from."""
    record = calibration_record(_measured(ground.labels), dict(ground.logits), temperature=calibration["temperature"])
    return {"calibration": {**record, "applied": calibration["applied"]}, **measured_decision(ground, decision)}


def measured_decision(ground: Ground, decision: Decision) -> dict[str, Any]:
    """What a decision gives on validation and test: "decision", and "coverage_curve" of test."""
    decided = {split: decision.apply(logits) for split, logits in ground.logits.items()}
    outcomes = {
        split: {
            **outcome(ground.labels[split], one, costs=decision.costs),
            "ece": calibration_error(ground.labels[split], one.probabilities),
        }
        for split, one in decided.items()
    }
    test = decided["test"]
    return {
        "decision": {"stored": decision.to_dict(), **outcomes},
        "coverage_curve": coverage_curve(test.chosen == ground.labels["test"], test.confidence),
    }


def told_of_decision(record: Mapping[str, Any], label_names: Sequence[str]) -> list[str]:
    """Lines for people while the run goes on."""
    calibration, decision = record["calibration"], record["decision"]
    test = calibration["test"]
    lines = [
        f"temperature {calibration['temperature']:.3f}: calibration error on test {test['ece_before']:.2%} became "
        f"{test['ece_after']:.2%}"
    ]
    for one in decision.get("chosen", ()):
        wanted = f"{one['kind']} {one['wanted']:g}" + (
            f" of {label_names[one['label_id']]}" if "label_id" in one else ""
        )
        found = "nothing to choose it from" if one["threshold"] is None else f"from {one['threshold']:.3f} on"
        short = "" if one["is_reached"] else f"; warning: not reached, {one['on_validation']:.3f} is the nearest"
        lines.append(f"decision: {wanted} on validation {found}{short}")
    coverage, right = decision["test"]["coverage"], decision["test"]["accuracy_answered"]
    if coverage < 1 and right is not None:
        lines.append(f"decision: answers {coverage:.1%} of test, {right:.2%} of them right")
    return lines


# ---- the parts of a decision


def _priors(section: DecisionSection, ground: Ground, estimate: PriorEstimate) -> np.ndarray | None:
    if section.priors == "none":
        return None
    if isinstance(section.priors, str):
        return _sharing(estimate.priors)
    given = _by_id(section.priors, ground.label_names, ground.label_values)
    return _sharing(np.asarray([given[label] for label in range(ground.n_classes)]))


def _sharing(values: np.ndarray) -> np.ndarray:
    kept = np.maximum(values, _LEAST_SHARE)
    return np.asarray(kept / kept.sum())


def _costs(section: DecisionSection, ground: Ground) -> tuple[Row, ...] | None:
    if not section.costs:
        return None
    costs = 1.0 - np.eye(ground.n_classes)
    for true, row in _by_id(section.costs, ground.label_names, ground.label_values).items():
        for predicted, cost in _by_id(row, ground.label_names, ground.label_values).items():
            costs[true, predicted] = cost
    return tuple(_row(row) for row in costs)


def _with_thresholds(
    decision: Decision, section: DecisionSection, ground: Ground, *, told: list[dict[str, Any]]
) -> Decision:
    if not section.thresholds:
        return decision
    labels = ground.labels["validation"]
    probabilities, weights = decision.probabilities(ground.logits["validation"]), _weights(decision, ground)
    thresholds: list[float | None] = [None] * ground.n_classes
    for label, wanted in _by_id(section.thresholds, ground.label_names, ground.label_values).items():
        kind, value = ("precision", wanted.precision) if wanted.precision is not None else ("recall", wanted.recall)
        choose: Callable[..., Chosen] = threshold_for_precision if kind == "precision" else threshold_for_recall
        one = choose(labels == label, probabilities[:, label], wanted=value, weights=weights)
        thresholds[label] = one.threshold
        told.append({"kind": kind, "label_id": label, "wanted": value, **_told(one)})
    return replace(decision, thresholds=tuple(thresholds) if any(one is not None for one in thresholds) else None)


def _with_abstention(
    decision: Decision, section: DecisionSection, ground: Ground, *, told: list[dict[str, Any]]
) -> Decision:
    if section.abstain is None:
        return decision
    decided, weights = decision.apply(ground.logits["validation"]), _weights(decision, ground)
    right = (decided.chosen == ground.labels["validation"])[decided.answered]
    confidence, kept = decided.confidence[decided.answered], weights[decided.answered]
    if section.abstain.accuracy is not None:
        kind, wanted = "accuracy", section.abstain.accuracy
        one = confidence_for_accuracy(right, confidence, wanted=wanted, weights=kept)
    else:
        kind, wanted = "coverage", section.abstain.coverage or 1.0
        one = confidence_for_coverage(confidence, wanted=wanted, weights=kept)
    told.append({"kind": kind, "wanted": wanted, **_told(one)})
    return replace(decision, least_confidence=one.threshold)


def _told(one: Chosen) -> dict[str, Any]:
    return {"threshold": one.threshold, "on_validation": one.value, "is_reached": one.is_reached}


def _weights(decision: Decision, ground: Ground) -> np.ndarray:
    """What each validation row counts, (N,), so that its classes have the shares that the decision is for."""
    labels = ground.labels["validation"]
    if decision.priors is None:
        return np.ones(len(labels))
    return np.asarray((np.asarray(decision.priors) / class_shares(labels, ground.n_classes))[labels])


def _bias_corrected(ground: Ground) -> Decision:
    """The calibration that shares of classes can be changed on: with a bias, and fitted to the shares of validation."""
    labels = ground.labels["validation"]
    temperature, bias = fit_bias_corrected(labels, ground.logits["validation"])
    return Decision(temperature, bias=_row(bias), trained_priors=_row(class_shares(labels, ground.n_classes)))


def _correction_record(
    ground: Ground, unmoved: Decision, estimate: PriorEstimate, *, has_prior_shift: bool, seed: int
) -> dict[str, Any]:
    """What prior correction would give with the estimated shares and, where the checks found others, with those.

    Those that the checks found come from labels of test: what they give shows how much there is to gain for someone who
    knows the shares, and is no score of the model.
    """
    record = {
        "train_priors": _row(class_shares(ground.labels["train"], ground.n_classes)),
        "effect": estimate.effect,
        "p_value": estimate.p_value,
        "is_noticeable": has_prior_shift or estimate.is_noticeable,
        "is_applied": False,
        "estimated": _corrected(ground, unmoved, _sharing(estimate.priors), seed=seed),
    }
    if has_prior_shift:
        record["known"] = _corrected(ground, unmoved, class_shares(ground.labels["test"], ground.n_classes), seed=seed)
    return record


def _corrected(ground: Ground, unmoved: Decision, priors: np.ndarray, *, seed: int) -> dict[str, Any]:
    """Accuracy on test without and with these shares of classes, and the paired difference."""
    labels, logits = ground.labels["test"], ground.logits["test"]
    decided = replace(unmoved, priors=_row(priors)).apply(logits)
    before, after = logits.argmax(axis=1), decided.chosen
    (paired,) = compare(
        "after", "before", labels, a_predictions=after, b_predictions=before, metrics=("accuracy",), seed=seed
    )
    return {
        "priors": _row(priors),
        "accuracy_before": float((before == labels).mean()),
        "accuracy_after": float((after == labels).mean()),
        "changed": int((before != after).sum()),
        "ece_after": calibration_error(labels, decided.probabilities),
        **{key: paired[key] for key in ("difference", "low", "high", "p_value", "n")},
    }


def _measured(labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {split: labels[split] for split in ("validation", "test")}


def _by_id(values: Mapping[str, Any], names: Sequence[str], written: Sequence[str]) -> dict[int, Any]:
    """Values by label id, from values by label name or label as written."""
    ids = {value: at for at, value in enumerate(written)} | {name: at for at, name in enumerate(names)}
    return {ids[label]: value for label, value in values.items()}


def _row(values: np.ndarray) -> Row:
    return tuple(float(value) for value in values)
