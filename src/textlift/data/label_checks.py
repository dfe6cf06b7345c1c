"""Checks of labels: single, small and rare classes, labels that look alike, classes that a split lacks."""

import unicodedata
from collections import Counter

from textlift.data.alike import is_blank
from textlift.data.dataset import Dataset
from textlift.data.findings import Finding, rows_finding
from textlift.data.problems import listed, quoted
from textlift.recipe import DataSection

_RARE = 10  # rows of a class in train below which little can be learnt of it
_TRUTH = {"true": "1", "false": "0"}


def class_size_findings(dataset: Dataset, section: DataSection) -> list[Finding]:
    """A single class, or classes with fewer rows over all splits than asked for."""
    sizes: Counter[str] = Counter()
    for rows in dataset.splits.values():
        sizes.update(rows.labels)
    sizes = Counter({label: size for label, size in sizes.items() if not is_blank(label)})
    if len(sizes) == 1:
        label = next(iter(sizes))
        message = (
            f"{dataset.name}: at least two classes must be there; all {sizes[label]:,} rows have the label "
            f"{quoted(label)} in column {quoted(dataset.label_column)}. Add rows of another, or choose with --label."
        )
        return [Finding("single_class", "error", message, None, 1)]
    small = sorted((size, label) for label, size in sizes.items() if size < section.min_per_class)
    if not small:
        return []
    told = ", ".join(f"{quoted(dataset.name_of(label), 40)} has {size}" for size, label in small[:8])
    more = f" and {len(small) - 8} more classes" if len(small) > 8 else ""
    message = (
        f"{dataset.name}: every class must have at least {section.min_per_class} rows; {told}{more}. "
        "Add rows, or pass --min-per-class 1."
    )
    return [Finding("small_class", "error", message, None, len(small))]


def unseen_findings(dataset: Dataset) -> list[Finding]:
    """Labels of validation or test that no training row has."""
    if "train" not in dataset.splits:
        return []
    known = set(dataset.splits["train"].labels)
    findings = []
    for split, rows in dataset.splits.items():
        unseen = {label for label in set(rows.labels) - known if not is_blank(label)}
        places = [place for place, label in enumerate(rows.labels) if label in unseen] if unseen else []
        if places:
            found = f"labels of {split} must be in train too; found {listed(sorted(unseen), 8)}."
            advice = "Correct the labels, add training rows, or take the rows out."
            findings.append(rows_finding("unseen_label", "error", (split, rows, places), found=found, advice=advice))
    return findings


def lookalike_findings(dataset: Dataset) -> list[Finding]:
    """Labels that differ in case, white space, Unicode form or number format alone, or mix 0/1 with true/false."""
    by_key: dict[str, list[str]] = {}
    for label in dataset.label_values:
        by_key.setdefault(_key(label), []).append(label)
    sizes = Counter(label for rows in dataset.splits.values() for label in rows.labels)
    findings = []
    for alike in by_key.values():
        if len(alike) > 1:
            kept = max(alike, key=lambda label: sizes[label])
            told = ", ".join(f"{quoted(label, 40)} ({sizes[label]:,} rows)" for label in alike)
            message = (
                f"labels look like one written in {len(alike)} ways: {told}. They count as different; "
                f"if they are one, write {quoted(kept, 40)} for all."
            )
            findings.append(Finding("lookalike_labels", "warning", message, None, len(alike)))
    folded = {label.casefold() for label in dataset.label_values}
    if not findings and folded & _TRUTH.keys() and folded & set(_TRUTH.values()):
        message = f"labels mix numbers and truth values: {listed(dataset.label_values)}. Write them in one way."
        findings.append(Finding("lookalike_labels", "warning", message, None, len(dataset.label_values)))
    return findings


def rare_findings(dataset: Dataset) -> list[Finding]:
    """Classes with few rows in train."""
    sizes = Counter(dataset.splits["train"].labels)
    rare = [label for label in dataset.label_values if 0 < sizes[label] < _RARE]
    if not rare:
        return []
    told = ", ".join(f"{quoted(dataset.name_of(label), 40)} ({sizes[label]})" for label in rare[:8])
    more = f" and {len(rare) - 8} more" if len(rare) > 8 else ""
    message = f"train: {len(rare)} of {len(dataset.label_values)} classes have under {_RARE} rows: {told}{more}."
    return [Finding("rare_class", "warning", f"{message} Little can be learnt of them.", "train", len(rare))]


def missing_class_findings(dataset: Dataset) -> list[Finding]:
    """Classes that only one split has, or that train lacks."""
    seen = {split: set(rows.labels) for split, rows in dataset.splits.items()}
    findings = []
    for split, labels_here in seen.items():
        elsewhere = {label for other, labels in seen.items() if other != split for label in labels}
        alone = [dataset.name_of(label) for label in dataset.label_values if label in labels_here - elsewhere]
        if alone and len(seen) > 1:
            message = f"{split}: only here stand rows of {listed(alone, 8)}; scores say nothing of these classes."
            findings.append(Finding("class_in_one_split", "warning", message, split, len(alone)))
    return findings


def _key(label: str) -> str:
    folded = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    folded = _TRUTH.get(folded, folded)
    try:
        return repr(float(folded)) if folded.isascii() and "_" not in folded else folded
    except ValueError:
        return folded
