"""What gives a label away without the words: the length of a text, or a column beside it."""

from collections import Counter

import numpy as np
import numpy.typing as npt

from textlift.data.dataset import Dataset
from textlift.data.findings import Finding, Severity, percent
from textlift.data.problems import quoted
from textlift.data.text_checks import label_numbers

_LARGE, _MOSTLY = 0.14, 0.5  # share of the variance of ranks: told, and a warning
_LEAST_ROWS = 100
_TOLD, _BETTER = 0.95, 0.8  # share of rows whose label a column tells, and of what the commonest label leaves open


def length_by_class_findings(dataset: Dataset) -> list[Finding]:
    """Training rows whose number of words depends on the class.

    Source: epsilon squared of Kruskal and Wallis's test (Tomczak and Tomczak 2014), read by Cohen's bounds of eta
    squared (1988): 0.14 is large.
    """
    rows = dataset.splits.get("train")
    if rows is None or len(rows) < _LEAST_ROWS:
        return []
    words = np.fromiter((len(text.split()) for text in rows.texts), dtype=np.int64, count=len(rows))
    numbers = label_numbers(rows.labels)
    names = list(dict.fromkeys(rows.labels))
    if len(names) < 2 or words.min() == words.max():
        return []
    effect = _epsilon_squared(words, numbers)
    if effect < _LARGE:
        return []
    medians = {c: float(np.median(words[numbers == c])) for c in range(len(names))}
    shortest, longest = min(medians, key=lambda c: medians[c]), max(medians, key=lambda c: medians[c])
    told = " and ".join(f"{medians[c]:g} of {quoted(dataset.name_of(names[c]), 30)}" for c in (shortest, longest))
    message = f"train: the length of a text depends on its class: median words {told} (epsilon squared {effect:.2f})."
    severity: Severity = "warning" if effect >= _MOSTLY else "info"
    return [Finding("length_by_class", severity, message, "train", len(names), (), {"epsilon_squared": effect})]


def _epsilon_squared(values: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]) -> float:
    """Share of the variance of ranks that lies between the groups, less what chance puts there."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    sizes = np.bincount(groups)
    means = np.bincount(groups, weights=ranks) / sizes
    between = float(sizes @ np.square(means - ranks.mean()))
    eta_squared = between / float(np.square(ranks - ranks.mean()).sum())
    n, k = len(values), len(sizes)
    return max(0.0, (eta_squared * (n - 1) - (k - 1)) / (n - k)) if n > k else 0.0


def giveaway_findings(dataset: Dataset) -> list[Finding]:
    """Columns beside text and label that tell the label: of each row it is guessed from the other rows of its value."""
    findings = []
    for column, counts in dataset.beside.items():
        n = sum(counts.values())
        sizes: Counter[str] = Counter()
        for (_, label), count in counts.items():
            sizes[label] += count
        commonest = sizes.most_common(1)[0][1] / n
        told = _told_by(counts) / n
        if len(sizes) < 2 or n < _LEAST_ROWS or told < _TOLD or (told - commonest) < _BETTER * (1 - commonest):
            continue
        message = (
            f"column {quoted(column)} gives the label away: it tells that of {percent(told)} of the rows, where the "
            f"commonest label is that of {percent(commonest)}. It was left out."
        )
        details = {"told": told, "commonest": commonest}
        findings.append(Finding("giveaway_column", "info", message, None, 1, (), details))
    return findings


def _told_by(counts: Counter[tuple[str, str]]) -> int:
    """Rows whose label is the commonest of the other rows of their value."""
    by_value: dict[str, Counter[str]] = {}
    for (value, label), count in counts.items():
        by_value.setdefault(value, Counter())[label] += count
    right = 0
    for labels in by_value.values():
        (label, most), *others = labels.most_common(2)
        second = others[0][1] if others else 0
        right += most if most - 1 > second else 0
    return right
