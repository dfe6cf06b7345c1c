"""What is wrong with the rows, found before any model is loaded. Repairs nothing."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from textlift.data.dataset import Dataset
from textlift.data.findings import Finding, Severity
from textlift.data.label_checks import (
    class_size_findings,
    lookalike_findings,
    missing_class_findings,
    rare_findings,
    unseen_findings,
)
from textlift.data.near import near_findings
from textlift.data.splits import without_empty
from textlift.data.text_checks import (
    conflict_findings,
    duplicate_findings,
    empty_findings,
    grouping_findings,
    leak_findings,
    percent,
)
from textlift.recipe import DataSection

_MOST_CUT = 0.5  # share of rows cut from which on a limit that nobody chose is refused


def find_problems(dataset: Dataset, section: DataSection) -> list[Finding]:
    """What checks find, errors first.

    Of a data set as read: everything about its files. Of a prepared one: what holds of the final splits alone, classes
    that are rare in train or stand in one split only, and near duplicates that a cut has parted.
    """
    if dataset.prepared:
        findings = [*rare_findings(dataset), *missing_class_findings(dataset), *near_findings(dataset)]
    else:
        kept = without_empty(dataset)
        findings = [
            *empty_findings(dataset.splits, section),
            *class_size_findings(kept, section),
            *unseen_findings(kept),
            *leak_findings(kept, section),
            *conflict_findings(kept, section),
            *lookalike_findings(kept),
            *duplicate_findings(kept),
            *near_findings(kept),
            *grouping_findings(kept),
        ]
    rank = {"error": 0, "warning": 1, "info": 2}
    return sorted(findings, key=lambda finding: rank[finding.severity])


def length_findings(
    token_counts: Mapping[str, npt.NDArray[np.int64]], max_length: int, *, chosen_by_user: bool
) -> list[Finding]:
    """What a limit on the tokens of a text cuts, for each split.

    Args:
        token_counts: Tokens of each text uncut, by split, each of shape (N,).
        max_length: Tokens that the model sees of a text.
        chosen_by_user: Whether a person set the limit; one that nobody chose may not cut most of the rows.
    """
    findings = []
    for split, counts in token_counts.items():
        cut = counts > max_length
        n_cut = int(cut.sum())
        if not n_cut:
            continue
        row_share = n_cut / len(counts)
        token_share = float((counts[cut] - max_length).sum() / counts.sum())
        refused = row_share > _MOST_CUT and not chosen_by_user
        severity: Severity = "error" if refused else "warning" if row_share > 0.01 else "info"
        message = (
            f"{split}: {n_cut:,} of {len(counts):,} rows ({percent(row_share)}) have over {max_length} tokens, the "
            f"longest {int(counts.max()):,}; {percent(token_share)} of all tokens are cut off."
        )
        if refused:
            message += " Choose a limit with --set model.max_length=N, or a model that reads more."
        details = {"row_share": row_share, "token_share": token_share, "longest": int(counts.max())}
        findings.append(Finding("long_texts", severity, message, split, n_cut, (), details))
    return findings
