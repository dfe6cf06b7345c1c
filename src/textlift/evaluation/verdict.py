"""The outcome of a run in a few sentences, from the records of results.json.

Chooses among tuned variants by validation only. Knows records and names, not arrays or models.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from textlift.evaluation.corrected import about

Records = Mapping[str, Mapping[str, Any]]


def verdict(variants: Records, comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Two to five short sentences: what the best tuned variant gains, and what to beware of.

    The best tuned variant is that of the highest validation accuracy, then the lower validation log loss, then the
    earlier one. It must hold against the baseline that is strongest on test, a choice that can only make its gain
    smaller; `majority` counts only where it is the sole baseline.

    Args:
        variants: Records by name, each with "kind" ("baseline", "tuned" or "merged") and "validation" and "test" as
            `evaluate` returns them; a merged one may have "merged_from", the name of the variant it was made from,
            and "changed_predictions", the number of test rows on which the two differ; any may have "warnings".
        comparisons: Rows of `compare`, in either direction. What is missing is not spoken of.
    """
    tuned = _of_kind(variants, "tuned")
    baselines = _of_kind(variants, "baseline")
    strongest = _best({name: one for name, one in baselines.items() if name != "majority"} or baselines, split="test")
    best = _best(tuned, split="validation")
    sentences = []
    if best is None:
        sentences += ["No tuned variant was measured."]
        sentences += [f"The strongest baseline on test is {strongest}."] if strongest else []
    else:
        if len(tuned) > 1:
            sentences.append(f"On validation {best} is the best of {_join(tuned)}.")
        sentences += _gains(best, _distinct(strongest, baselines), comparisons) or _alone(best, tuned[best])
        sentences += _spread(best, tuned[best])
        sentences += _prior_correction(best, tuned[best])
    sentences += [f"Warning: {told}" for name, one in variants.items() for told in _all_warnings(name, one)]
    sentences += [
        _merged(name, one) for name, one in _of_kind(variants, "merged").items() if "changed_predictions" in one
    ]
    return " ".join(sentences)


def one_class_warning(name: str, variant: Mapping[str, Any]) -> str | None:
    """A sentence where a tuned variant gives one answer to every row of a split with several classes, else None.

    That is what argmax over NaN logits does, too, so that a broken model would pass for a poor one.
    """
    if variant.get("kind") != "tuned" or not _predicts_one_class(variant):
        return None
    return f"{name} predicts a single class for every row; try a lower learning rate or more epochs."


def _of_kind(variants: Records, kind: str) -> dict[str, Mapping[str, Any]]:
    """The variants of one kind, in their order."""
    return {name: one for name, one in variants.items() if one.get("kind") == kind}


def _best(variants: Records, *, split: str) -> str | None:
    """Name of the variant that does best on a split; the first where none was measured there."""

    def rank(name: str) -> tuple[float, float]:
        scores = variants[name].get(split) or {}
        return scores.get("accuracy", -1.0), -scores.get("log_loss", float("inf"))

    return max(variants, key=rank, default=None)


def _distinct(strongest: str | None, baselines: Records) -> list[str]:
    """Baselines worth a sentence: the strongest one, and the untrained model."""
    return list(dict.fromkeys(name for name in (strongest, "untrained") if name in baselines and name is not None))


def _gains(best: str, baselines: Iterable[str], comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence on accuracy for each baseline that the variant was compared with."""
    return [
        _difference(best, baseline, row, sign=1 if row["a"] == best else -1)
        for baseline in baselines
        for row in comparisons
        if row["metric"] == "accuracy" and {row["a"], row["b"]} == {best, baseline}
    ]


def _difference(name: str, other: str, row: Mapping[str, Any], *, sign: int) -> str:
    """The sentence on one comparison, as seen from the first name."""
    low, high = sorted(sign * bound for bound in corrected_bounds(row))
    difference = sign * row["difference"]
    mean = f", mean of {max(row['seeds'].values())} seeds" if "seeds" in row else ""
    if low > 0:
        bounds = f"{_points(low)} to {_points(high)}{mean}"
        return f"{name} lifts accuracy over {other} by {_points(difference)} points ({bounds})."
    if high < 0:
        bounds = f"{_points(-high)} to {_points(-low)}{mean}"
        return f"{name} is worse than {other} by {_points(-difference)} points of accuracy ({bounds})."
    size = f" ({_count(row['n'], 'test row')})" if "n" in row else ""
    needed = f"; about {about(row['rows_needed'])} more test rows would be needed" if row.get("rows_needed") else ""
    return (
        f"No difference shown between {name} and {other} at this size{size}: "
        f"{_points(difference, signed=True)} points ({_points(low)} to {_points(high)}{mean}){needed}."
    )


def corrected_bounds(row: Mapping[str, Any]) -> tuple[float, float]:
    """The interval that decides on a word: corrected for all comparisons of the run where the record says it."""
    return row.get("low_corrected", row["low"]), row.get("high_corrected", row["high"])


def _spread(name: str, variant: Mapping[str, Any]) -> list[str]:
    """What several seeds gave, where they were trained."""
    if "seeds" not in variant:
        return []
    found = variant["seeds"]["test"]
    scores = found["accuracy"]
    return [
        f"Over {len(scores['values'])} seeds {name} is right on {_points(scores['mean'])} % (standard deviation "
        f"{_points(scores['sd'])}, {_points(scores['low'])} to {_points(scores['high'])}); all give the same answer on "
        f"{_points(found['agreement'])} % of the rows."
    ]


def _alone(name: str, variant: Mapping[str, Any]) -> list[str]:
    """The plain score of a variant that was compared with no baseline."""
    scores = variant.get("test") or {}
    if "accuracy" not in scores:
        return []
    size = f" of {_count(scores['n'], 'test row')}" if "n" in scores else ""
    return [f"{name} is right on {_points(scores['accuracy'])} %{size}; it was compared with no baseline."]


def _prior_correction(name: str, variant: Mapping[str, Any]) -> list[str]:
    """One sentence where classes have other shares in test than in training: what it costs, and what may be had."""
    record = variant.get("prior_correction")
    if not record or not record["is_noticeable"]:
        return []
    done = record.get("used") if record["is_applied"] else record["estimated"]
    verb = "takes" if record["is_applied"] else "would take"
    is_estimated = done["priors"] == record["estimated"]["priors"]
    source = "shares estimated from the texts of test" if is_estimated else "the shares of the recipe"
    bounds = f"{_points(done['low'], signed=True)} to {_points(done['high'], signed=True)}"
    known = record.get("known")
    limit = f"; with the true shares it would be {_points(known['accuracy_after'])} %" if known else ""
    return [
        f"Classes have other shares in test than in training: prior correction by {source} {verb} {name} from "
        f"{_points(done['accuracy_before'])} % to {_points(done['accuracy_after'])} % "
        f"({_points(done['difference'], signed=True)} points, {bounds}){limit}."
    ]


def _merged(name: str, variant: Mapping[str, Any]) -> str:
    """Whether folding the adapter into the base model changed any answer."""
    changed = variant["changed_predictions"]
    source = variant.get("merged_from")
    if not changed:
        return f"{name} gives the same answers{f' as {source}' if source else ''}."
    return f"{name} differs{f' from {source}' if source else ''} on {_count(changed, 'row')}."


def _all_warnings(name: str, variant: Mapping[str, Any]) -> list[str]:
    """Those of its record, and the one on a single class where the record was written without it."""
    told = one_class_warning(name, variant)
    return list(dict.fromkeys([*variant.get("warnings", ()), *([told] if told else [])]))


def _predicts_one_class(variant: Mapping[str, Any]) -> bool:
    """Whether all predictions on a split with several classes are the same."""
    for split in ("validation", "test"):
        confusion = (variant.get(split) or {}).get("confusion", [])
        n_true = sum(any(row) for row in confusion)
        n_predicted = sum(any(column) for column in zip(*confusion, strict=True))
        if n_true > 1 and n_predicted == 1:
            return True
    return False


def _points(share: float, *, signed: bool = False) -> str:
    """A share in percentage points: 0.0613 is "6.1"; two decimals where one would show nothing."""
    points = 100 * share
    rounded = round(points, 1 if abs(points) >= 0.1 else 2) + 0.0  # + 0.0 turns -0.0 into 0.0
    text = f"{rounded:.1f}" if abs(rounded) >= 0.1 or rounded == 0 else f"{rounded:.2f}"
    return f"+{text}" if signed and rounded > 0 else text


def _count(number: int, noun: str) -> str:
    """A number with its noun: "1 row", "2,000 rows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _join(names: Iterable[str]) -> str:
    """Names in a sentence: "full, head and lora"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
