"""Rows whose label is likely wrong, by probabilities of a model that was not fitted to the row.

A weak model is often wrong itself, so it is asked how often it expects its own doubt to be right: if labels follow its
probabilities p, the number of labels with a probability of at most t is the sum of all p that are at most t. Only what
is found beyond that number speaks for wrong labels. Knows probabilities, not where they come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from textlift.data.dataset import Dataset
from textlift.data.findings import Finding, percent, rows_finding

Probabilities = npt.NDArray[np.floating]

_LIMITS = np.geomspace(0.001, 0.2, 40)  # of a label's probability
_EXCESS, _CERTAIN = 2.0, 3.0  # times as many labels as expected; standard errors above
_DOUBTFUL = 0.05  # probability of a label up to which it is listed where nothing speaks for wrong ones
_MISCALIBRATED = 0.1  # how far the share of right answers may lie below what the probabilities promise
_LEAST_CLASS = 5  # rows of a class that is looked at


@dataclass(frozen=True)
class Doubted:
    """Rows of which the label is least probable, most doubtful first, and whether that speaks for wrong labels."""

    rows: npt.NDArray[np.int64]  # (K,) places in the split
    likely: npt.NDArray[np.int64]  # (K,) label ids
    of_label: Probabilities  # (K,) probability of the label
    of_likely: Probabilities  # (K,) probability of the likely label
    limit: float | None  # largest probability of a label up to which labels are wrong; None where nothing says so
    seen: int  # labels up to the limit, or up to what is listed
    expected: float  # labels to be expected there
    source: str  # who named the candidates, "" for the probabilities themselves
    promised: float  # share of rows that the probabilities expect to be right
    accuracy: float

    @property
    def is_miscalibrated(self) -> bool:
        """Whether the probabilities promise more than they keep; then nothing is listed."""
        return self.promised - self.accuracy > _MISCALIBRATED


def label_error_findings(dataset: Dataset, probabilities: Mapping[str, Probabilities]) -> list[Finding]:
    """Likely label errors of each split that probabilities are given of, most doubtful first.

    Where nothing speaks for wrong labels, the least probable of train are listed as information, and of others none.

    Args:
        dataset: Prepared.
        probabilities: Of each class for each row, by split, shape (N, C), from a model that was not fitted to the row.
    """
    doubts = {split: doubted(dataset.label_ids(split), given) for split, given in probabilities.items()}
    findings = [_finding(dataset, split, found) for split, found in doubts.items() if found is not None]
    return [finding for finding in findings if finding is not None]


def doubted(labels: npt.NDArray[np.int64], given: Probabilities) -> Doubted | None:
    """The labels that are likely wrong, or the least probable ones; None where fewer than two classes can be looked at.

    Candidates are those of confident learning where the package cleanlab is installed (Northcutt, Jiang and Chuang
    2021), else all rows for which another class is more probable.

    Args:
        labels: Label ids as given, shape (N,).
        given: Probability of each class, shape (N, C), from a model that was not fitted to the row.
    """
    present = np.flatnonzero(np.bincount(labels, minlength=given.shape[1]) >= _LEAST_CLASS)
    looked = np.flatnonzero(np.isin(labels, present))  # (M,)
    if len(present) < 2:
        return None
    kept = np.maximum(given[np.ix_(looked, present)].astype(np.float64), 1e-12)
    kept /= kept.sum(axis=1, keepdims=True)
    numbers = np.searchsorted(present, labels[looked])
    own = kept[np.arange(len(kept)), numbers]  # probability of the label of each row, (M,)
    promised, accuracy = float(kept.max(axis=1).mean()), float((kept.argmax(axis=1) == numbers).mean())
    limit, n_seen, expected = _limit(kept, own)
    is_candidate, source = _candidates(kept, numbers)
    chosen = np.flatnonzero(is_candidate & (own <= (limit or _DOUBTFUL)))
    if promised - accuracy > _MISCALIBRATED:
        chosen = chosen[:0]
    chosen = chosen[np.argsort(own[chosen], kind="stable")]
    likely = kept[chosen].argmax(axis=1)
    return Doubted(
        looked[chosen],
        present[likely],
        of_label=own[chosen],
        of_likely=kept[chosen, likely],
        limit=limit,
        seen=n_seen,
        expected=expected,
        source=source,
        promised=promised,
        accuracy=accuracy,
    )


def told_doubt(split: str, found: Doubted, *, judge: str) -> str:
    """One sentence on what the probabilities of a judge say of the labels of a split."""
    if found.is_miscalibrated:
        return (
            f"likely label errors of {split} were not looked for: the {judge} expects to be right in "
            f"{percent(found.promised)} of its rows and is in {percent(found.accuracy)}, so its probabilities do not "
            "hold there."
        )
    doubt = f"{found.seen:,} labels of {split} have a probability of at most {found.limit or _DOUBTFUL:.2g}"
    if found.limit is None:
        expected = f"{found.expected:,.0f} are to be expected"
        return f"no more labels in doubt than chance gives: {doubt}, {expected}; the least probable are listed."
    wrong = f"about {found.seen - found.expected:,.0f} of them are wrong"
    by = found.source or f"the {judge}"
    return f"{doubt}, where {found.expected:,.0f} are to be expected: {wrong} ({len(found.rows):,} listed, by {by})."


def _finding(dataset: Dataset, split: str, found: Doubted) -> Finding | None:
    told = told_doubt(split, found, judge="probe")
    if found.is_miscalibrated:
        details = {"promised": found.promised, "accuracy": found.accuracy}
        return Finding("label_errors_not_sought", "info", told, split, 0, (), details, advice="Nothing was listed.")
    if not len(found.rows) or (found.limit is None and split != "train"):
        return None
    rows = dataset.splits[split]
    return rows_finding(
        "label_errors",
        "info" if found.limit is None else "warning",
        (split, rows, found.rows.tolist()),
        found=told,
        advice="Read the rows, most doubtful first, and correct what is wrong at its source.",
        details={
            "share": len(found.rows) / len(rows),
            "accuracy": found.accuracy,
            "seen": found.seen,
            "expected": found.expected,
        },
        columns={
            "likely_label": [dataset.label_names[label] for label in found.likely.tolist()],
            "probability_of_label": [round(float(p), 4) for p in found.of_label],
            "probability_of_likely_label": [round(float(p), 4) for p in found.of_likely],
        },
        tells_count=True,
    )


def _limit(kept: Probabilities, own: Probabilities) -> tuple[float | None, int, float]:
    """The largest limit up to which there are twice the labels to be expected, clearly; their number, the expected.

    Without such a limit None, and the numbers at the limit of what is listed.
    """
    for limit in _LIMITS[::-1].tolist():
        seen, expected = int((own <= limit).sum()), float(kept[kept <= limit].sum())
        if seen >= _EXCESS * expected and seen - expected >= _CERTAIN * np.sqrt(expected + 1):
            return limit, seen, expected
    return None, int((own <= _DOUBTFUL).sum()), float(kept[kept <= _DOUBTFUL].sum())


def _candidates(kept: Probabilities, numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], str]:
    """Which rows could be wrong, shape (M,), and who says so: "" for the probabilities themselves."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return kept.argmax(axis=1) != numbers, ""
    issues: npt.NDArray[np.bool_] = find_label_issues(numbers, kept, filter_by="both", n_jobs=1)
    return issues, "confident learning (cleanlab)"
