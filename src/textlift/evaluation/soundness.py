"""What stands against trusting the scores of a run, and what to do next, from the findings of its checks as records.

Knows records, not rows or models.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

_HEAVY = 0.05  # share of the test rows from which on what is wrong with them is no small thing
_LIGHT = 0.005  # share up to which it is not worth a line of the first page
_MOST = 5  # things told


def soundness(checks: Sequence[Record]) -> dict[str, Any]:
    """How far the scores can be trusted, by what the checks found.

    Args:
        checks: Findings as records; those with "against_scores" count.

    Returns:
        "level" (sound, minor or doubtful), "summary" (a sentence), "against" (for each finding that counts its "code",
        "sentence" and "why", the gravest first) and "next" (what to do, at most three).
    """
    counted = [one for one in checks if one.get("against_scores") and _share(one) > _LIGHT]
    counted.sort(key=lambda one: -_weight(one))
    heavy = [one for one in counted if _weight(one) >= _HEAVY]
    level = "doubtful" if heavy else "minor" if counted else "sound"
    small = sum(bool(one.get("against_scores")) for one in checks) - len(counted)
    return {
        "level": level,
        "summary": _summary(level, len(counted), small),
        "against": [
            {"code": one["code"], "sentence": sentence(one), "why": one.get("why", "")} for one in counted[:_MOST]
        ],
        "next": list(dict.fromkeys(one["advice"] for one in counted if one.get("advice")))[:3],
    }


def _summary(level: str, count: int, small: int) -> str:
    found = f"The checks found {'one thing' if count == 1 else f'{count} things'} against"
    if level == "doubtful":
        return f"Do not take these scores at face value. {found} them."
    if level == "minor":
        return f"{found} these scores, {'' if count == 1 else 'each '}of little weight."
    if small:
        return "Nothing of weight stands against these scores; what was found touches at most 0.5 % of the test rows."
    return "The checks found nothing that stands against these scores."


def sentence(check: Record) -> str:
    """A finding in one short sentence."""
    if check.get("split") == "validation" and check.get("against_scores"):  # these rows serve as test
        check = {**check, "split": "test", "code": check["code"].replace("validation", "test")}
    for start, told in _SENTENCES.items():
        if check["code"].startswith(start):
            try:
                return told(check, check.get("details") or {})
            except KeyError:  # a record of an older version
                break
    return str(check["message"])


def _leak(check: Record, details: Mapping[str, float]) -> str:
    _, earlier, later = check["code"].split("_")
    other = details["other_label"]
    labels = f", {_of(other, check['count'])} of them with another label" if other else ""
    return f"{_percent(details['share'])} of the {later} rows are also in {earlier}{labels}."


def _near(check: Record, details: Mapping[str, float]) -> str:
    parts = check["code"].split("_")[2:]
    whose = f"one of {parts[0]}" if len(parts) == 2 else "another of their own split"
    return f"{_percent(details['share'])} of the {parts[-1]} rows are nearly {whose}."


def _shift(check: Record, details: Mapping[str, float]) -> str:
    return f"The surface of a text alone tells {check['split']} from train (AUC {details['auc']:.2f})."


def _prior(check: Record, details: Mapping[str, float]) -> str:
    moved = _percent(details["share_moved"])
    return f"Classes have other shares in {check['split']} than in train: {moved} of its rows would have to change."


def _shortcut(check: Record, details: Mapping[str, float]) -> str:
    rule = f"One rule that reads no word is right on {_percent(details['accuracy'])} of {check['split']}"
    there = details.get("accuracy_in_train")
    return f"{rule}." if there is None else f"{rule}, and on {_percent(there)} of train."


_SENTENCES: Mapping[str, Callable[[Record, Mapping[str, float]], str]] = {
    "leak_": _leak,
    "near_duplicates_": _near,
    "split_shift": _shift,
    "prior_shift": _prior,
    "shortcut": _shortcut,
    "conflicting_labels": lambda one, of: f"{_percent(of['share'])} of the texts of {one['split']} carry two labels.",
    "duplicate_text": lambda one, of: f"{_percent(of['share'])} of the {one['split']} rows repeat another.",
    "label_errors": lambda one, of: (
        f"About {of['seen'] - of['expected']:,.0f} labels of {one['split']} are likely wrong; "
        f"{one['count']:,} are listed."
    ),
}


def _share(check: Record) -> float:
    """Share of the test rows that a finding concerns; 1 where it concerns all."""
    return float((check.get("details") or {}).get("share", 1.0))


def _weight(check: Record) -> float:
    return _share(check) + (1.0 if check["severity"] == "error" else 0.0)


def _of(part: float, whole: int) -> str:
    return "all" if part == whole else f"{part:,.0f}"


def _percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"
