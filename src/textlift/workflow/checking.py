"""`textlift check`: what is wrong with labelled rows, told, listed in files, and on request put right in a copy."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from textlift.data import (
    Dataset,
    Evidence,
    Finding,
    cleaned,
    find_problems,
    found_at,
    prepare_splits,
    read_dataset,
    relabelled,
    write_cleaned,
    write_conflicts,
    write_listings,
)
from textlift.data.batching import token_counts
from textlift.data.checks import Lengths
from textlift.data.cleaning import LOG
from textlift.errors import MissingExtraError, ModelError, StorageError, safe_for_terminal
from textlift.evaluation.metrics import softmax
from textlift.evaluation.out_of_fold import out_of_fold
from textlift.models.loading import choose_max_length, open_base
from textlift.progress import Progress
from textlift.recipe import DataSection, Recipe
from textlift.runs import RunDirectory
from textlift.runtime import choose_runtime
from textlift.workflow.baselines import FrozenPass
from textlift.workflow.preparation import Job, build_job, read_with_progress
from textlift.workflow.verbs import require_free


@dataclass(frozen=True)
class CheckResult:
    """What `textlift check` found in labelled rows."""

    dataset: Dataset  # as training would use it; as read, where an error stands in the way
    findings: tuple[Finding, ...]
    raw: Dataset = field(repr=False)  # as read

    @property
    def has_errors(self) -> bool:
        """Whether a run with these rows would stop."""
        return any(finding.severity == "error" for finding in self.findings)

    def _repr_html_(self) -> str:
        found = "".join(
            f"<li><b>{one.severity}</b> {escape(safe_for_terminal(one.message))}</li>" for one in self.findings
        )
        return f"<p>{escape(safe_for_terminal(self.dataset.name))}</p><ul>{found or '<li>Nothing was found.</li>'}</ul>"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.dataset.name,
            "rows": {split: len(rows) for split, rows in self.dataset.splits.items()},
            "text_column": self.dataset.text_column,
            "label_column": self.dataset.label_column,
            "labels": {
                split: {name: rows.labels.count(value) for name, value in _labels(self.dataset)}
                for split, rows in self.dataset.splits.items()
            },
            "reasons": list(self.dataset.reasons),
            "checks": [finding.to_dict() for finding in self.findings],
        }


@dataclass(frozen=True)
class FixResult:
    """What `textlift check --fix` changed in the copy, and what is still found there."""

    folder: Path
    rows: dict[str, int]  # of the copy, by split
    changes: dict[str, int]  # rows by what was done: "left out: text has two labels"
    findings: tuple[Finding, ...]  # of the copy, read again

    @property
    def has_errors(self) -> bool:
        """Whether a run with the copy would stop."""
        return any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        checks = [finding.to_dict() for finding in self.findings]
        return {"folder": str(self.folder), "rows": self.rows, "changes": self.changes, "checks": checks}


def check_rows(recipe: Recipe, progress: Progress, *, with_model: bool = False) -> CheckResult:
    """What is in the rows of a recipe and what is wrong with them; all checks, nothing is trained.

    Args:
        recipe: Resolved.
        progress: Told of what takes time.
        with_model: Pass all rows through the frozen base model, for the checks that look at its features.

    Raises:
        DataError: The files cannot be read at all.
    """
    raw = read_with_progress(recipe.data, progress)
    findings = find_problems(raw, recipe.data)
    if any(finding.severity == "error" for finding in findings):
        if with_model:
            progress.say("the base model was not asked: errors of the rows come first")
        return CheckResult(raw, tuple(findings), raw)
    dataset = prepare_splits(raw, recipe.data, seed=recipe.seed)
    findings += find_problems(dataset, recipe.data)
    findings += _by_model(recipe, dataset, progress) if with_model else _too_long(recipe, dataset, progress)
    return CheckResult(dataset, tuple(findings), raw)


def probe_findings(job: Job, frozen: FrozenPass) -> list[Finding]:
    """What the checks find that look at the features of the frozen base model; no pass is made but the probe's.

    Rows that are alike fall into one fold; validation and test are judged by the probe itself, which did not see them.
    """
    _, c = frozen.probe
    probabilities = {
        "train": out_of_fold(
            frozen.features("train"),
            job.labels["train"],
            job.n_classes,
            groups=job.dataset.text_groups["train"],
            bias=frozen.result.head_has_bias,
            c=c,
            seed=job.recipe.seed,
        ),
        **{split: softmax(frozen.probe_logits(split)) for split in ("validation", "test")},
    }
    return found_at("probe", Evidence(job.dataset, job.recipe.data, probabilities=probabilities))


def write_check(result: CheckResult, output: Path) -> CheckResult:
    """Write checks.json, the rows of every finding, and conflicts.csv, into an empty or new folder.

    Returns:
        The result with the names of the files in its findings.

    Raises:
        CannotCreateError: The folder holds something already.
    """
    require_free(output)
    output.mkdir(parents=True, exist_ok=True)
    result = replace(result, findings=tuple(write_listings(output, result.findings)))
    RunDirectory(output).write("checks.json", result.to_dict())
    write_conflicts(output / "conflicts.csv", result.dataset)
    return result


def write_fixed(result: CheckResult, section: DataSection, output: Path, *, relabel: Path | None = None) -> FixResult:
    """Write a cleaned copy of the rows as read into an empty or new folder, read it back and check it again.

    Args:
        result: What was found in the rows.
        section: How they were read.
        output: The folder.
        relabel: A listing whose filled new_label is taken first, such as likely-wrong-labels.csv of a run.

    Raises:
        InputNotFoundError, DataError: The listing is not there, or does not fit the rows; nothing is written.
        CannotCreateError: The folder holds something already.
        StorageError: What was written does not read back as the same rows.
    """
    require_free(output)
    raw, corrected = (result.raw, []) if relabel is None else relabelled(result.raw, relabel)
    dataset, changes = cleaned(raw)
    changes = [*corrected, *changes]
    output.mkdir(parents=True, exist_ok=True)
    (output / LOG).mkdir()
    write_cleaned(output, dataset, changes)
    names = {"source": str(output), "text": dataset.text_column, "label": dataset.label_column}
    settled: dict[str, object] = {
        "files": {},
        "revision": None,
        "split_column": None,
        "delimiter": None,
        "encoding": "utf-8",
    }
    again = section.model_copy(update={**names, **settled})
    copy = read_dataset(again)
    for split, rows in dataset.splits.items():
        if copy.splits[split].texts != rows.texts or copy.splits[split].labels != rows.labels:
            raise StorageError(f"{output}: the {split} rows must read back as they were written; they do not.")
    findings = write_listings(output / LOG, find_problems(copy, again))
    counts = Counter(f"{change.action}: {change.reason}" for change in changes)
    rows_left = {split: len(rows) for split, rows in copy.splits.items()}
    fixed = FixResult(output, rows_left, dict(counts), tuple(findings))
    RunDirectory(output / LOG).write("fix.json", {**fixed.to_dict(), "folder": output.name})
    return fixed


def _by_model(recipe: Recipe, dataset: Dataset, progress: Progress) -> list[Finding]:
    runtime = choose_runtime(
        device=recipe.runtime.device,
        precision=recipe.runtime.precision,
        threads=recipe.runtime.threads,
        linear_kernel=recipe.runtime.linear_kernel,
    )
    job = build_job(recipe, dataset, [], runtime=runtime, progress=progress)
    return [*job.findings, *probe_findings(job, FrozenPass(job, progress))]


def _too_long(recipe: Recipe, dataset: Dataset, progress: Progress) -> list[Finding]:
    try:
        base = open_base(recipe.model.name, revision=recipe.model.revision, pooling=recipe.model.pooling)
    except (MissingExtraError, ModelError, ConnectionError, FileNotFoundError) as error:
        progress.say(f"the length of texts was not checked: {str(error).splitlines()[0]}")
        return []
    counts = {}
    for split, rows in dataset.splits.items():
        with progress.task(f"counting tokens of {split}", len(rows)) as task:
            counts[split] = token_counts(base.tokenizer, rows.texts, advance=task.reach)
    length, _ = choose_max_length(base, counts["train"].tolist(), recipe.model.max_length)
    lengths = Lengths(counts, length, recipe.model.max_length != "auto")
    return found_at("tokens", Evidence(dataset, recipe.data, lengths))


def _labels(dataset: Dataset) -> Iterable[tuple[str, str]]:
    return zip(dataset.label_names, dataset.label_values, strict=True)
