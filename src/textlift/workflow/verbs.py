"""The verbs around the main job: load, evaluate, predict, compare, export, check."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from textlift.data import (
    find_problems,
    length_findings,
    prepare_splits,
    read_dataset,
    read_texts,
    write_conflicts,
)
from textlift.data.batching import token_counts
from textlift.data.dataset import Dataset
from textlift.data.findings import Finding
from textlift.errors import (
    CannotCreateError,
    DataError,
    MissingExtraError,
    ModelError,
    UsageError,
    nearest,
    safe_for_terminal,
)
from textlift.evaluation.metrics import evaluate
from textlift.export.card import model_card
from textlift.export.loading import load_variant, merge
from textlift.export.proof import prove_saved
from textlift.export.saving import SavedSettings, read_settings, save_model, settings_of
from textlift.inference import Prediction, Predictor
from textlift.methods.registry import METHODS
from textlift.models.loading import choose_max_length, open_base
from textlift.progress import Progress
from textlift.recipe import DataSection, Recipe
from textlift.report.html import render_comparison_html
from textlift.report.table import comparison_markdown, comparison_text, html_fragment
from textlift.runs import RunDirectory, find_variant, open_run
from textlift.runtime import choose_runtime
from textlift.workflow.merging import require_low_cost, require_usable
from textlift.workflow.preparation import read_with_progress

EXPORTS = ("merged",)


def load(path: str | Path, *, device: str = "auto", base: str | None = None) -> Predictor:
    """The classifier of a run (its best variant), of RUN/variant, or of an exported folder.

    Args:
        path: Run directory, RUN/variant, or the folder of an adapter or model.
        device: auto, cpu, cuda, cuda:N or mps.
        base: Base model in place of the recorded one, such as a copy on this machine.

    Raises:
        InputNotFoundError: There is no such run or variant.
        ModelError: A file is damaged, or the base model is another one, or a merged variant was found to be too much
            worse than the quantized one it came from.
    """
    run, name, folder = find_variant(str(path))
    record = run.read("results.json")["variants"][name] if run is not None else {"kind": ""}
    is_merged = record["kind"] == "merged"
    if is_merged:
        require_usable(str(path), record, advice=f"textlift export {path} DIR --to merged --force")
    predictor = load_variant(folder, choose_runtime(device=device), base_name=base, full_precision=is_merged)
    return merge(predictor) if is_merged else predictor


def predict_file(predictor: Predictor, source: str, *, text: str | None, delimiter: str | None) -> list[Prediction]:
    """Predictions for the texts of a file, or of standard input for "-"."""
    return predictor.predict(read_texts(source, text_column=text, delimiter=delimiter))


def evaluate_file(path: str, section: DataSection, *, device: str = "auto") -> dict[str, Any]:
    """Scores of a saved variant on other labelled rows.

    Args:
        path: As `load`.
        section: The rows: all splits of the source together.
        device: As `load`.

    Returns:
        The scores of `evaluate`, with "variant", "rows" and "label_names".

    Raises:
        DataError: The rows cannot be used, or hold labels that the variant does not know.
    """
    predictor = load(path, device=device)
    settings = read_settings(find_variant(path)[2])
    rows = _all_rows(read_dataset(section))
    texts = [text for _, text, _ in rows]
    labels = _known_labels(rows, settings)
    logits = predictor.forward(predictor.tokenize(texts)).logits
    return {"variant": path, "label_names": list(predictor.label_names), **evaluate(labels, logits)}


@dataclass(frozen=True)
class Comparison:
    """Several runs in one table; shows itself in a notebook."""

    runs: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        return comparison_text(list(self.runs))

    def _repr_html_(self) -> str:
        return "".join(html_fragment(run) for run in self.runs)


def compare_runs(paths: Sequence[str], *, output: Path | None = None) -> Comparison:
    """Results of several finished runs; with output, report.html and results.md are written there.

    Raises:
        InputNotFoundError: One of them is not a finished run.
        CannotCreateError: The output folder holds something already.
    """
    comparison = Comparison(tuple(open_run(Path(path)).read("results.json") for path in paths))
    if output is not None:
        _require_free(output)
        runs = list(comparison.runs)
        output.mkdir(parents=True, exist_ok=True)
        (output / "report.html").write_text(render_comparison_html(runs), encoding="utf-8")
        (output / "results.md").write_text(comparison_markdown(runs), encoding="utf-8")
    return comparison


def export_variant(
    path: str,
    target: str,
    output: Path,
    *,
    overwrite: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Write a saved variant in another format and prove it in a fresh process.

    Args:
        path: As `load`.
        target: "merged": the adapter folded into the base, a plain Hugging Face folder (with mean pooling, a
            sentence-transformers folder).
        output: Folder to write.
        overwrite: Replace an export that is there.
        force: Write the merged model of a quantized variant though it is too much worse, or cannot be measured.
        progress: Told of what merging a quantized variant costs.

    Returns:
        One record for each way in which it was loaded back.

    Raises:
        UsageError: The format is not known.
        CannotCreateError: The output folder holds something already.
        ModelError: The adapter does not fold into the base; or, loaded back by plain libraries, what was written does
            not give the same logits.
    """
    if target not in EXPORTS:
        raise UsageError(f"--to must be one of {', '.join(EXPORTS)}; found {target!r}.{nearest(target, EXPORTS)}")
    run, name, folder = find_variant(path)
    settings = read_settings(folder)
    _require_mergeable(settings, path)
    if overwrite and (output / "textlift.json").is_file():
        shutil.rmtree(output)
    _require_free(output)
    predictor = load_variant(folder, choose_runtime(device="cpu"), full_precision=True)
    if settings.kind == "adapter":
        merge(predictor)
    if settings.quantization != "none" and not force:
        cost = require_low_cost(run, name, predictor, path=path)
        (progress or Progress(silent=True)).say(f"into the base in full precision: {cost}")
    base = open_base(settings.base_name, revision=settings.base_revision, pooling=settings.pooling)
    merged_settings = settings_of(base, predictor, kind="model", method="merged", label_values=settings.label_values)
    results = run.read("results.json") if run is not None else None
    record = results["variants"][name] if results is not None else None
    card = (
        model_card(record, merged_settings, name=results["name"], dataset=results["name"])
        if results is not None and record is not None
        else ""
    )
    save_model(predictor, output, settings=merged_settings, card=card)
    texts = [example["text"] for kind in ("right", "wrong") for example in results["examples"][kind]] if results else []
    return prove_saved(predictor, base, texts or ["a text", "another, longer text"], adapter=None, model=output)


@dataclass(frozen=True)
class CheckResult:
    """What `textlift check` found in labelled rows."""

    dataset: Dataset
    findings: tuple[Finding, ...]

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


def check_rows(recipe: Recipe, progress: Progress) -> CheckResult:
    """What is in the rows of a recipe and what is wrong with them; all checks, nothing is trained.

    Raises:
        DataError: The files cannot be read at all.
    """
    raw = read_with_progress(recipe.data, progress)
    findings = find_problems(raw, recipe.data)
    if any(finding.severity == "error" for finding in findings):
        return CheckResult(raw, tuple(findings))
    dataset = prepare_splits(raw, recipe.data, seed=recipe.seed)
    findings += find_problems(dataset, recipe.data)
    try:
        base = open_base(recipe.model.name, revision=recipe.model.revision, pooling=recipe.model.pooling)
    except (MissingExtraError, ModelError, ConnectionError, FileNotFoundError) as error:
        progress.say(f"the length of texts was not checked: {str(error).splitlines()[0]}")
        return CheckResult(dataset, tuple(findings))
    counts = {}
    for split, rows in dataset.splits.items():
        with progress.task(f"counting tokens of {split}", len(rows)) as task:
            counts[split] = token_counts(base.tokenizer, rows.texts, advance=task.reach)
    length, _ = choose_max_length(base, counts["train"].tolist(), recipe.model.max_length)
    findings += length_findings(counts, length, chosen_by_user=recipe.model.max_length != "auto")
    return CheckResult(dataset, tuple(findings))


def write_check(result: CheckResult, output: Path) -> None:
    """Write checks.json, and conflicts.csv where texts carry two labels, into an empty or new folder.

    Raises:
        CannotCreateError: The folder holds something already.
    """
    _require_free(output)
    output.mkdir(parents=True, exist_ok=True)
    RunDirectory(output).write("checks.json", result.to_dict())
    write_conflicts(output / "conflicts.csv", result.dataset)


def _labels(dataset: Dataset) -> Iterable[tuple[str, str]]:
    return zip(dataset.label_names, dataset.label_values, strict=True)


def _all_rows(dataset: Dataset) -> list[tuple[str, str, str]]:
    """Place, text and label as written of every row."""
    return [
        (f"{source}:{number}", text, label)
        for rows in dataset.splits.values()
        for text, label, number, source in zip(rows.texts, rows.labels, rows.row_numbers, rows.sources, strict=True)
    ]


def _known_labels(rows: Sequence[tuple[str, str, str]], settings: SavedSettings) -> np.ndarray:
    ids = {name: index for index, name in enumerate(settings.label_names)}
    ids |= {value: index for index, value in enumerate(settings.label_values)}
    unknown = [(place, label) for place, _, label in rows if label not in ids]
    if unknown:
        place, label = unknown[0]
        raise DataError(
            f"{place}: label must be one that the variant was trained on ({', '.join(settings.label_names[:8])}"
            f"{', ...' if len(settings.label_names) > 8 else ''}); found {label[:40]!r}. {len(unknown)} rows.\n"
            "Fix or leave out these rows."
        )
    return np.asarray([ids[label] for _, _, label in rows], dtype=np.int64)


def _require_mergeable(settings: SavedSettings, path: str) -> None:
    if settings.kind == "adapter" and settings.method in METHODS and not METHODS[settings.method].mergeable:
        merging = ", ".join(name for name, method in METHODS.items() if method.mergeable)
        raise ModelError(
            f"{path}: must be of a method that folds into the base model to be exported; {settings.method} does not: "
            f"its weights stand beside those of the base.\nUse it with textlift.load, or train one of {merging}."
        )


def _require_free(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CannotCreateError(
            f"output {output} must be empty; it holds something already.\nPass another folder, or --overwrite."
        )
