"""The main job on one page: rows, checks, baselines, variants, comparison, report."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from textlift.claims import claim, recorded, require_claimable
from textlift.data import Finding, write_conflicts, write_listings
from textlift.errors import CannotCreateError
from textlift.escaping import csv_cell
from textlift.progress import Progress
from textlift.recipe import Recipe, recipe_yaml
from textlift.report.html import render_html
from textlift.report.table import html_fragment, markdown_table, text_table
from textlift.runs import RunDirectory
from textlift.runtime import differences, environment
from textlift.workflow.baselines import FrozenPass, measure_baselines
from textlift.workflow.checking import probe_findings
from textlift.workflow.error_book import error_book
from textlift.workflow.features import keep_features
from textlift.workflow.ledger import open_rows, recipe_digest, summary
from textlift.workflow.measuring import Measured, restore, store
from textlift.workflow.merged import merged
from textlift.workflow.preparation import Job, prepare, shortened, sources_of, split_digest
from textlift.workflow.results import assemble
from textlift.workflow.seeds import with_seeds
from textlift.workflow.variants import tune

PROBE_CHECKS = "probe-checks.json"


@dataclass(frozen=True)
class RunResult:
    """A finished run: where it lies and what was measured. Shows itself as a table in a notebook."""

    directory: Path
    results: dict[str, Any] = field(repr=False)

    @property
    def verdict(self) -> str:
        """What was gained, in words."""
        return str(self.results["verdict"])

    @property
    def best_variant(self) -> str | None:
        """The tuned variant that did best on validation."""
        name: str | None = self.results["best_variant"]
        return name

    @property
    def report(self) -> Path:
        """The report to open in a browser."""
        return self.directory / "report.html"

    def score(self, variant: str, metric: str = "accuracy", *, split: str = "test") -> float:
        """One score of one variant."""
        return float(self.results["variants"][variant][split][metric])

    def _repr_html_(self) -> str:
        return html_fragment(self.results)

    def __str__(self) -> str:
        return text_table(self.results)


def run_recipe(
    recipe: Recipe,
    *,
    output: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> RunResult:
    """Do everything that a recipe asks, and write a run directory.

    Args:
        recipe: Resolved.
        output: Run directory; runs/NAME when not given.
        overwrite: Replace a run that is there.
        resume: Continue a run that was interrupted; what it finished is kept.
        progress: Where lines and bars go; stderr when not given.
        command: As typed, for the record.

    Raises:
        TextliftError: See `textlift.errors`; the output is untouched where rows or recipe cannot be used.
    """
    progress = progress or Progress()
    path = output or Path("runs") / recipe.name
    require_claimable(path, overwrite=overwrite, resume=resume)
    _require_sources_elsewhere(recipe, path)
    job = prepare(recipe, progress, linear_kernel=recorded(path, "linear_kernel") if resume else None)
    machine = environment(job.runtime)
    with claim(
        path, fingerprint=job.fingerprint, command=command, overwrite=overwrite, resume=resume, environment=machine
    ) as (run, before):
        for one in differences(before, machine) if before else ():
            progress.say(f"  continued with {one}: the last digits may differ")
        job = _write_inputs(run, job)
        what, digest = "run" if before is None else "resume", recipe_digest(recipe.model_dump(mode="json"))
        open_rows(run, job.dataset, split="test", what=what, recipe=digest, command=command)
        frozen = frozen_pass(job, progress)
        measured = list(_measure_baselines(run, job, frozen, progress=progress))
        job = _with_probe_findings(run, job, frozen, progress=progress)
        measured += _measure_variants(run, job, frozen, progress=progress, done=measured)
        opened = summary(run, split_digest(job.dataset, "test"))
        results = assemble(job, measured, command=command, ledger=opened)
        results["error_book"] = error_book(run, job, measured, progress=progress)
        write_report(run, results, {one.name: one.history for one in measured})
        run.finish("complete")
    return RunResult(path, results)


def frozen_pass(job: Job, progress: Progress) -> FrozenPass:
    """Whole and exact where a baseline is measured on it; else only to start heads, as their variants train."""
    is_whole = bool({"untrained", "probe"} & set(job.recipe.baselines))
    trained = [variant for variant in job.recipe.settled_variants() if variant.merge_of is None]
    is_fast = not is_whole and all(variant.training.fast for variant in trained)
    return FrozenPass(job, progress, is_whole=is_whole, is_fast=is_fast)


def _require_sources_elsewhere(recipe: Recipe, output: Path) -> None:
    """Refuse to write a run over an adapter that one of its variants starts from."""
    inside = [place for place in sources_of(recipe) if place.is_relative_to(output.resolve())]
    if inside:
        raise CannotCreateError(
            f"output {output} must not hold an adapter that this run starts from; it holds {inside[0]}."
            "\nPass another --output."
        )


def write_report(run: RunDirectory, results: dict[str, Any], histories: dict[str, list[dict[str, Any]]]) -> None:
    """Write the results as Markdown and HTML, then as JSON: a run with results.json has finished."""
    run.write_text("results.md", markdown_table(results))
    run.write_text("report.html", render_html(results, histories))
    run.write("results.json", results)


def _measure_baselines(run: RunDirectory, job: Job, frozen: FrozenPass, *, progress: Progress) -> Iterator[Measured]:
    done: dict[str, Measured] = {}
    for name in job.recipe.baselines:
        earlier = restore(run, name)
        if earlier is not None:
            done[name] = earlier
    missing = [name for name in job.recipe.baselines if name not in done]
    for one in measure_baselines(job, frozen, progress, names=missing):
        keep_features(run, job, frozen)
        store(run, job, one)
        done[one.name] = one
    yield from (done[name] for name in job.recipe.baselines)


def _with_probe_findings(run: RunDirectory, job: Job, frozen: FrozenPass, *, progress: Progress) -> Job:
    """The job with what the checks find that look at frozen features; an earlier, interrupted run may have looked."""
    if "probe" not in job.recipe.baselines:
        return job
    if (run.path / PROBE_CHECKS).is_file():
        found = [Finding.from_dict(values) for values in run.read(PROBE_CHECKS)]
    else:
        found = write_listings(run.path, probe_findings(job, frozen))
        for finding in found:
            progress.say(f"  {finding.severity}: {shortened(finding.message)}")
        run.write(PROBE_CHECKS, [finding.to_dict() for finding in found])
    job = replace(job, findings=(*job.findings, *found))
    run.write("checks.json", [finding.to_dict() for finding in job.findings])
    return job


def _measure_variants(
    run: RunDirectory, job: Job, frozen: FrozenPass, *, progress: Progress, done: list[Measured]
) -> Iterator[Measured]:
    known = {one.name: one for one in done}
    for variant in sorted(job.recipe.settled_variants(), key=lambda one: one.merge_of is not None):
        earlier = restore(run, variant.name)
        if earlier is not None:
            one = earlier
        elif variant.merge_of is None:
            one = tune(job, variant, run=run, frozen=frozen, progress=progress)
        else:
            one = merged(job, variant, run=run, origin=known[variant.merge_of], progress=progress)
        if earlier is None:
            keep_features(run, job, frozen)
            store(run, job, one)
        if variant.merge_of is None:
            one = with_seeds(job, variant, one, run=run, frozen=frozen, progress=progress)
        known[variant.name] = one
        yield one


def _write_inputs(run: RunDirectory, job: Job) -> Job:
    """Write what the run starts from; returns the job with the files of its findings."""
    job = replace(job, findings=tuple(write_listings(run.path, job.findings)))
    dataset = job.dataset
    run.write_text("recipe.yaml", recipe_yaml(job.recipe))
    run.write("checks.json", [finding.to_dict() for finding in job.findings])
    run.write(
        "data.json",
        {
            "name": dataset.name,
            "text_column": dataset.text_column,
            "label_column": dataset.label_column,
            "label_names": list(dataset.label_names),
            "label_values": list(dataset.label_values),
            "reasons": list(dataset.reasons),
            "files": dataset.fingerprints,
        },
    )
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["split", "source", "row"])
    for split, rows in dataset.splits.items():
        places = zip(rows.sources, rows.row_numbers, strict=True)
        writer.writerows((split, csv_cell(source), row) for source, row in places)
    run.write_text("splits.csv", lines.getvalue())
    write_conflicts(run.path / "conflicts.csv", dataset)
    return job
