"""Checks of texts and rows: empty cells, repeats, conflicts, leaks between splits, rows grouped by label."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from textlift.data.alike import is_blank
from textlift.data.dataset import Dataset, Rows
from textlift.data.findings import Finding, Severity, partner_columns, percent, rows_finding
from textlift.recipe import DataSection

_MOST_CONFLICTS = 0.05  # share of texts with two labels from which on the labels cannot be trusted


def empty_findings(splits: Mapping[str, Rows], section: DataSection) -> list[Finding]:
    """Rows whose text or label is empty: white space, control and zero-width characters alone."""
    findings = []
    for split, rows in splits.items():
        texts = [place for place, text in enumerate(rows.texts) if is_blank(text)]
        blank = {label for label in set(rows.labels) if is_blank(label)}
        labels = [place for place, label in enumerate(rows.labels) if label in blank] if blank else []
        if texts:
            advice = "They are left out." if section.drop_empty else "Fill the texts in, or pass --drop-empty."
            severity: Severity = "warning" if section.drop_empty else "error"
            findings.append(
                rows_finding("empty_text", severity, (split, rows, texts), found="text is empty.", advice=advice)
            )
        if labels:
            advice = "Fill the labels in, or take the rows out."
            findings.append(
                rows_finding("empty_label", "error", (split, rows, labels), found="label is empty.", advice=advice)
            )
    return findings


def duplicate_findings(dataset: Dataset) -> list[Finding]:
    """Rows that repeat an earlier text of their split (case, white space and links aside)."""
    findings = []
    for split, groups in dataset.text_groups.items():
        rows = dataset.splits[split]
        _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
        again = np.ones(len(groups), dtype=bool)
        again[first] = False
        places = np.flatnonzero(again).tolist()
        if places:
            found = f"the text repeats an earlier one of {split} (case, white space and links aside)."
            advice = "Repeats weigh more than once; nothing was taken out."
            columns = partner_columns(rows, first[inverse[places]].tolist())
            where = (split, rows, places)
            findings.append(
                rows_finding(
                    "duplicate_text",
                    "warning",
                    where,
                    found=found,
                    advice=advice,
                    details={"share": len(places) / len(rows)},
                    columns=columns,
                )
            )
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
        details = {"texts": n_texts, "share": share}
        where = (split, rows, places)
        findings.append(
            rows_finding("conflicting_labels", severity, where, found=found, advice=advice, details=details)
        )
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
    details = {"same_label": same, "other_label": other, "share": share}
    severity: Severity = "warning" if section.allow_leak else "error"
    values, first = np.unique(groups[earlier], return_index=True)
    partners = first[np.searchsorted(values, groups[later][places])].tolist()
    finding = rows_finding(
        f"leak_{earlier}_{later}",
        severity,
        (later, rows, places),
        found=found,
        advice=advice,
        details=details,
        columns=partner_columns(dataset.splits[earlier], partners),
        tells_count=True,
    )
    return replace(finding, earlier=earlier)


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
