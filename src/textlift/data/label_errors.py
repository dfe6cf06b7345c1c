"""Rows whose label is likely wrong, by probabilities of a model that was not fitted to the row.

A weak model is often wrong itself, so it is asked how often it expects its own doubt to be right: if labels follow its
probabilities p, the number of labels with a probability of at most t is the sum of all p that are at most t. Only what
is found beyond that number speaks for wrong labels. Knows probabilities, not where they come from.
"""

from collections.abc import Mapping

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


def label_error_findings(dataset: Dataset, probabilities: Mapping[str, Probabilities]) -> list[Finding]:
    """Likely label errors of each split that probabilities are given of, most doubtful first.

    Where nothing speaks for wrong labels, the least probable of train are listed as information, and of others none.
    Candidates are those of confident learning where the package cleanlab is installed (Northcutt, Jiang and Chuang
    2021), else all rows for which another class is more probable.

    Args:
        dataset: Prepared.
        probabilities: Of each class for each row, by split, shape (N, C), from a model that was not fitted to the row.
    """
    findings = []
    for split, given in probabilities.items():
        labels = dataset.label_ids(split)
        present = np.flatnonzero(np.bincount(labels, minlength=given.shape[1]) >= _LEAST_CLASS)
        looked = np.flatnonzero(np.isin(labels, present))  # (M,)
        if len(present) < 2:
            continue
        kept = np.maximum(given[np.ix_(looked, present)].astype(np.float64), 1e-12)
        kept /= kept.sum(axis=1, keepdims=True)
        numbers = np.searchsorted(present, labels[looked])
        found = _finding(dataset, split, looked, kept=kept, numbers=numbers, present=present)
        findings += [found] if found is not None else []
    return findings


def _finding(
    dataset: Dataset,
    split: str,
    looked: npt.NDArray[np.int64],
    *,
    kept: Probabilities,
    numbers: npt.NDArray[np.int64],
    present: npt.NDArray[np.int64],
) -> Finding | None:
    own = kept[np.arange(len(kept)), numbers]  # probability of the label of each row, (M,)
    promised, accuracy = float(kept.max(axis=1).mean()), float((kept.argmax(axis=1) == numbers).mean())
    if promised - accuracy > _MISCALIBRATED:
        message = (
            f"likely label errors of {split} were not looked for: the probe expects to be right in {percent(promised)} "
            f"of its rows and is in {percent(accuracy)}, so its probabilities do not hold there."
        )
        details = {"promised": promised, "accuracy": accuracy}
        return Finding("label_errors_not_sought", "info", message, split, 0, (), details, advice="Nothing was listed.")
    limit, n_seen, expected = _limit(kept, own)
    is_candidate, source = _candidates(kept, numbers)
    chosen = np.flatnonzero(is_candidate & (own <= (limit or _DOUBTFUL)))
    if not len(chosen) or (limit is None and split != "train"):
        return None
    chosen = chosen[np.argsort(own[chosen], kind="stable")]
    rows, likely = dataset.splits[split], kept[chosen].argmax(axis=1)
    doubt = f"{n_seen:,} labels of {split} have a probability of at most {limit or _DOUBTFUL:.2g}"
    if limit is not None:
        wrong = f"about {n_seen - expected:,.0f} of them are wrong"
        found = f"{doubt}, where {expected:,.0f} are to be expected: {wrong} ({len(chosen):,} listed, by {source})."
    else:
        found = f"no sign of wrong labels: {doubt}, {expected:,.0f} are to be expected; the least probable are listed."
    return rows_finding(
        "label_errors",
        "info" if limit is None else "warning",
        (split, rows, looked[chosen].tolist()),
        found=found,
        advice="Read the rows, most doubtful first, and correct what is wrong at its source.",
        details={"share": len(chosen) / len(rows), "accuracy": accuracy, "seen": n_seen, "expected": expected},
        columns={
            "likely_label": [dataset.label_names[present[label]] for label in likely.tolist()],
            "probability_of_label": [round(float(p), 4) for p in own[chosen]],
            "probability_of_likely_label": [round(float(p), 4) for p in kept[chosen, likely]],
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
    """Which rows could be wrong, shape (M,), and who says so."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return kept.argmax(axis=1) != numbers, "the probe"
    issues: npt.NDArray[np.bool_] = find_label_issues(numbers, kept, filter_by="both", n_jobs=1)
    return issues, "confident learning (cleanlab)"
