"""What is wrong with the rows, as one table of checks. Repairs nothing.

A check is one function; beside it stands why its findings matter and whether they stand against trusting the scores.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from textlift.data.dataset import Dataset
from textlift.data.debris import debris_findings
from textlift.data.findings import RANK, Finding, Severity, percent
from textlift.data.label_checks import (
    class_size_findings,
    lookalike_findings,
    missing_class_findings,
    rare_findings,
    unseen_findings,
)
from textlift.data.label_errors import label_error_findings
from textlift.data.languages import language_findings, script_findings
from textlift.data.near import near_findings
from textlift.data.shifts import prior_findings, shift_findings, shortcut_findings
from textlift.data.splits import without_empty
from textlift.data.tells import giveaway_findings, length_by_class_findings
from textlift.data.text_checks import (
    conflict_findings,
    duplicate_findings,
    empty_findings,
    grouping_findings,
    leak_findings,
)
from textlift.recipe import DataSection

_MOST_CUT = 0.5  # share of rows cut from which on a limit that nobody chose is refused

Stage = Literal["files", "splits", "tokens", "probe"]


@dataclass(frozen=True)
class Lengths:
    """Tokens of each text uncut, by split, and the limit on them."""

    token_counts: Mapping[str, npt.NDArray[np.int64]]
    max_length: int
    chosen_by_user: bool


@dataclass(frozen=True)
class Evidence:
    """What checks look at; the last two are there where a model was asked."""

    dataset: Dataset
    section: DataSection
    lengths: Lengths | None = None
    probabilities: Mapping[str, npt.NDArray[np.floating]] = field(default_factory=dict)  # by split, (N, C)


@dataclass(frozen=True)
class Check:
    """One check: when it is made, what it finds, why that matters."""

    name: str
    stages: tuple[Stage, ...]  # files: rows as read; splits: as training uses them
    find: Callable[[Evidence], list[Finding]]
    why: str
    advice: str = ""  # what to do; where it is empty each finding says it
    against_scores: Literal["never", "measured", "always"] = "never"  # measured: of rows that are scored
    sees_empty: bool = False  # whether rows without text are looked at


CHECKS: tuple[Check, ...] = (
    Check(
        "empty",
        ("files",),
        lambda seen: empty_findings(seen.dataset.splits, seen.section),
        "A row without text or label teaches nothing, and its score is chance.",
        sees_empty=True,
    ),
    Check(
        "class_size",
        ("files",),
        lambda seen: class_size_findings(seen.dataset, seen.section),
        "A class of a few rows can be neither learnt nor measured.",
    ),
    Check(
        "unseen_label",
        ("files",),
        lambda seen: unseen_findings(seen.dataset),
        "What training never saw cannot be predicted: all of these rows will be wrong.",
    ),
    Check(
        "leak",
        ("files",),
        lambda seen: leak_findings(seen.dataset, seen.section),
        "A model that knows a row by heart is right on it (or, where the label differs, wrong) whatever it has learnt.",
        "Take the rows out of train: check --fix DIR does that in a copy.",
        against_scores="measured",
    ),
    Check(
        "conflicts",
        ("files",),
        lambda seen: conflict_findings(seen.dataset, seen.section),
        "At least one of two labels of one text is wrong, so no model can be right on all of these rows.",
        "Settle the labels of the rows in conflicts.csv.",
        against_scores="measured",
    ),
    Check(
        "lookalike_labels",
        ("files",),
        lambda seen: lookalike_findings(seen.dataset),
        "One class counted as two is learnt from half its rows, and right answers are scored as wrong.",
        "Write each label in one way.",
        against_scores="always",
    ),
    Check(
        "duplicates",
        ("files",),
        lambda seen: duplicate_findings(seen.dataset),
        "A repeated row counts several times, and makes the intervals of scores narrower than the rows allow.",
        "Take repeats out: check --fix DIR does that in a copy, of train.",
        against_scores="measured",
    ),
    Check(
        "near_duplicates",
        ("files", "splits"),
        lambda seen: near_findings(seen.dataset),
        "What is nearly a training text tests memory, not what was learnt of the class.",
        "Read the rows; check --fix DIR takes those of train that are nearly a test row out in a copy.",
        against_scores="measured",
    ),
    Check(
        "grouping",
        ("files",),
        lambda seen: grouping_findings(seen.dataset),
        "A cut that does not shuffle would give splits that lack whole classes.",
        "Nothing needs to be done here; shuffle before other tools cut the file.",
    ),
    Check(
        "prior_shift",
        ("files",),
        lambda seen: prior_findings(seen.dataset),
        "A model learns how common each class is; where that differs its errors go one way, and so do the scores.",
        "Read the scores of each class (F1 macro), or make the shares alike.",
        against_scores="measured",
    ),
    Check(
        "split_shift",
        ("files",),
        lambda seen: shift_findings(seen.dataset),
        "Scores on rows that look unlike those of train measure the difference as much as what was learnt.",
        "Prepare both splits in the same way, or cut test from rows like those the model will meet.",
        against_scores="measured",
    ),
    Check(
        "shortcut",
        ("files",),
        lambda seen: shortcut_findings(seen.dataset),
        "A model, or a person, can be right by this rule without understanding a text.",
        "Take out what the rule looks at, in every split, and measure again.",
        against_scores="measured",
    ),
    Check(
        "debris",
        ("files",),
        lambda seen: debris_findings(seen.dataset),
        "What no person wrote costs tokens and misleads.",
    ),
    Check(
        "scripts",
        ("files",),
        lambda seen: script_findings(seen.dataset),
        "A base model reads scripts that it was not trained on as noise.",
        "Take a base model of several languages, or take these rows out.",
    ),
    Check(
        "languages",
        ("files",),
        lambda seen: language_findings(seen.dataset),
        "A base model of one language knows little of others.",
        "Take a base model of several languages, or take these rows out.",
    ),
    Check(
        "length_by_class",
        ("files",),
        lambda seen: length_by_class_findings(seen.dataset),
        "A model may learn the length in place of the words, and a limit on tokens cuts some classes more than others.",
        "Look whether texts that are met later differ in length in the same way.",
    ),
    Check(
        "giveaway_column",
        ("files",),
        lambda seen: giveaway_findings(seen.dataset),
        "Put into the text it would make every score perfect and the model useless.",
        "Keep it out of the text.",
    ),
    Check(
        "rare_class",
        ("splits",),
        lambda seen: rare_findings(seen.dataset),
        "The score of a class is as good as the number of its rows.",
        "Add rows of these classes, or join classes.",
    ),
    Check(
        "class_in_one_split",
        ("splits",),
        lambda seen: missing_class_findings(seen.dataset),
        "A class that only one split has is learnt and not measured, or measured and not learnt.",
        "Give every split rows of every class.",
        against_scores="always",
    ),
    Check(
        "long_texts",
        ("tokens",),
        lambda seen: _of_lengths(seen.lengths),
        "What is cut off the model never sees.",
        "Raise --set model.max_length, or take a model that reads more.",
    ),
    Check(
        "label_errors",
        ("probe",),
        lambda seen: label_error_findings(seen.dataset, seen.probabilities),
        "A wrong label teaches the wrong thing; on a test row it scores a right answer as wrong.",
        against_scores="measured",
    ),
)


def find_problems(dataset: Dataset, section: DataSection) -> list[Finding]:
    """What checks find that ask no model, errors first.

    Of a data set as read: everything about its files. Of a prepared one: what holds of the final splits alone, classes
    that are rare in train or stand in one split only, and near duplicates that a cut has parted.
    """
    return found_at("splits" if dataset.prepared else "files", Evidence(dataset, section))


def found_at(stage: Stage, evidence: Evidence) -> list[Finding]:
    """What the checks of one stage find, errors first, each with why it matters and what to do."""
    kept = replace(evidence, dataset=without_empty(evidence.dataset)) if stage == "files" else evidence
    findings = [
        _explained(finding, check, evidence.dataset)
        for check in CHECKS
        if stage in check.stages
        for finding in check.find(evidence if check.sees_empty else kept)
    ]
    return sorted(findings, key=lambda finding: RANK[finding.severity])


def _explained(finding: Finding, check: Check, dataset: Dataset) -> Finding:
    scored = "test" if dataset.prepared or "test" in dataset.splits else "validation"
    is_against = check.against_scores == "always" or (check.against_scores == "measured" and finding.split == scored)
    return replace(
        finding,
        why=finding.why or check.why,
        advice=check.advice or finding.advice,
        against_scores=is_against and finding.severity != "info",
    )


def _of_lengths(lengths: Lengths | None) -> list[Finding]:
    if lengths is None:
        return []
    return length_findings(lengths.token_counts, lengths.max_length, chosen_by_user=lengths.chosen_by_user)


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
