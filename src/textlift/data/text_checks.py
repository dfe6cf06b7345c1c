"""Checks of texts and rows: empty cells, repeats, conflicts, leaks between splits, rows grouped by label."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from textlift.data.alike import is_blank
from textlift.data.dataset import Dataset, Rows
from textlift.data.findings import Finding, Severity
from textlift.data.problems import located
from textlift.recipe import DataSection

_MOST_ROWS = 20
_MOST_CONFLICTS = 0.05  # share of texts with two labels from which on the labels cannot be trusted


def at_rows(rows: Rows, places: Sequence[int], *, found: str, advice: str) -> tuple[str, tuple[int, ...]]:
    """The message of a finding at these places of a split, and the numbers of its first rows."""
    first = rows.sources[places[0]]
    numbers = tuple(rows.row_numbers[place] for place in places[:_MOST_ROWS])
    here = [rows.row_numbers[place] for place in places[:_MOST_ROWS] if rows.sources[place] == first]
    return located(first, found, advice, rows=here, count=len(places)), numbers


def empty_findings(splits: Mapping[str, Rows], section: DataSection) -> list[Finding]:
    """Rows whose text or label is empty: white space, control and zero-width characters alone."""
    findings = []
    for split, rows in splits.items():
        texts = [place for place, text in enumerate(rows.texts) if is_blank(text)]
        blank = {label for label in set(rows.labels) if is_blank(label)}
        labels = [place for place, label in enumerate(rows.labels) if label in blank] if blank else []
        if texts:
            advice = "They are left out." if section.drop_empty else "Fill the texts in, or pass --drop-empty."
            message, numbers = at_rows(rows, texts, found="text is empty.", advice=advice)
            severity: Severity = "warning" if section.drop_empty else "error"
            findings.append(Finding("empty_text", severity, message, split, len(texts), numbers))
        if labels:
            advice = "Fill the labels in, or take the rows out."
            message, numbers = at_rows(rows, labels, found="label is empty.", advice=advice)
            findings.append(Finding("empty_label", "error", message, split, len(labels), numbers))
    return findings


def duplicate_findings(dataset: Dataset) -> list[Finding]:
    """Rows that repeat an earlier text of their split (case, white space and links aside)."""
    findings = []
    for split, groups in dataset.text_groups.items():
        first = np.unique(groups, return_index=True)[1]
        again = np.ones(len(groups), dtype=bool)
        again[first] = False
        places = np.flatnonzero(again).tolist()
        if places:
            found = f"the text repeats an earlier one of {split} (case, white space and links aside)."
            advice = "Repeats weigh more than once; nothing was taken out."
            message, numbers = at_rows(dataset.splits[split], places, found=found, advice=advice)
            findings.append(Finding("duplicate_text", "warning", message, split, len(places), numbers))
    return findings


def conflict_findings(dataset: Dataset, section: DataSection) -> list[Finding]:
    """Texts that carry two labels within a split; too many of them are an error."""
    findings = []
    for split, groups in dataset.text_groups.items():
        rows = dataset.splits[split]
        conflicting = two_labels(groups, label_numbers(rows.labels))
        places = np.flatnonzero(conflicting).tolist()
        if not places:
            continue
        n_texts, n_all = len(np.unique(groups[conflicting])), len(np.unique(groups))
        share = n_texts / n_all
        too_many = share > _MOST_CONFLICTS
        found = f"the same text stands with two labels: {n_texts:,} of {n_all:,} texts of {split} ({percent(share)})."
        advice = "A run and check --output DIR list them in conflicts.csv."
        if too_many and not section.allow_conflicts:
            advice = "Settle the labels, or pass --allow-conflicts (--set data.allow_conflicts=true)."
        severity: Severity = "error" if too_many and not section.allow_conflicts else "warning"
        message, numbers = at_rows(rows, places, found=found, advice=advice)
        details = {"texts": n_texts, "share": share}
        findings.append(Finding("conflicting_labels", severity, message, split, len(places), numbers, details))
    return findings


def leak_findings(dataset: Dataset, section: DataSection) -> list[Finding]:
    """Rows of a later split whose text is also in an earlier one (case, white space and links aside)."""
    pairs = (("train", "test"), ("train", "validation"), ("validation", "test"))
    findings = []
    for earlier, later in pairs:
        if earlier in dataset.splits and later in dataset.splits:
            found = _leak(dataset, section, earlier=earlier, later=later)
            findings += [found] if found else []
    return findings


def _leak(dataset: Dataset, section: DataSection, *, earlier: str, later: str) -> Finding | None:
    groups = dataset.text_groups
    leaked = np.isin(groups[later], groups[earlier])
    places = np.flatnonzero(leaked).tolist()
    if not places:
        return None
    rows = dataset.splits[later]
    known = set(zip(groups[earlier].tolist(), dataset.splits[earlier].labels, strict=True))
    same = sum((int(groups[later][place]), rows.labels[place]) in known for place in places)
    other = len(places) - same
    share = len(places) / len(rows)
    serves = " (these rows serve as test)" if later == "validation" and "test" not in dataset.splits else ""
    found = (
        f"a text of {later} must not be in {earlier} too; found {len(places):,} of {len(rows):,} rows "
        f"({percent(share)}), {same:,} with the same label and {other:,} with another{serves}."
    )
    advice = (
        "Scores are flattered by them." if section.allow_leak else f"Take them out of {earlier}, or pass --allow-leak."
    )
    first = rows.sources[places[0]]
    here = tuple(rows.row_numbers[place] for place in places[:_MOST_ROWS])
    message = located(first, found, advice, rows=here)
    details = {"same_label": same, "other_label": other, "share": share}
    severity: Severity = "warning" if section.allow_leak else "error"
    return Finding(f"leak_{earlier}_{later}", severity, message, later, len(places), here, details)


def grouping_findings(dataset: Dataset) -> list[Finding]:
    """Splits whose rows are sorted or grouped by label: far fewer runs of one label than chance would give.

    Source: expected number of runs of a random order, 1 + (n^2 - sum of n_c^2) / n (Wald and Wolfowitz 1940, for two
    labels; the same counting holds for more).
    """
    findings = []
    for split, rows in dataset.splits.items():
        numbers = label_numbers(rows.labels)
        if len(numbers) < 20:
            continue
        runs = 1 + int(np.count_nonzero(np.diff(numbers)))
        sizes = np.bincount(numbers).astype(float)
        expected = 1 + (len(numbers) ** 2 - float(np.square(sizes).sum())) / len(numbers)
        if runs < expected / 2:
            message = (
                f"{split}: rows are grouped by label ({runs:,} runs of one label, about {expected:,.0f} in a random "
                "order). Cuts are stratified and training shuffles, so nothing needs to be done."
            )
            details = {"runs": runs, "expected_runs": expected}
            findings.append(Finding("grouped_by_label", "info", message, split, len(rows), (), details))
    return findings


def two_labels(groups: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the text of each row carries more than one label, shape (N,)."""
    pairs = np.unique(np.stack([groups, labels], axis=1), axis=0)  # (P, 2), each text with each of its labels once
    texts, n_labels = np.unique(pairs[:, 0], return_counts=True)
    result: npt.NDArray[np.bool_] = np.isin(groups, texts[n_labels > 1])
    return result


def label_numbers(labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """A number for each label as written, shape (N,)."""
    numbers: dict[str, int] = {}
    return np.fromiter((numbers.setdefault(label, len(numbers)) for label in labels), dtype=np.int64, count=len(labels))


def percent(share: float) -> str:
    """A share as a percentage that is never shown as none: "0.6 %", "< 0.1 %"."""
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"
