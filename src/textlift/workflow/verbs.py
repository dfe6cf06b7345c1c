"""The verbs around the main job: load, evaluate, predict, compare, export."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textlift.data import read_dataset
from textlift.data.dataset import Dataset
from textlift.errors import CannotCreateError, DataError, ModelError, UsageError, nearest
from textlift.evaluation.decisions import Decision, answers, evaluate_decided
from textlift.export.card import model_card
from textlift.export.loading import load_variant, merge
from textlift.export.proof import prove_saved
from textlift.export.saving import SavedSettings, read_settings, save_model, settings_of
from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.models.loading import open_base
from textlift.progress import Progress
from textlift.recipe import DataSection
from textlift.report.html import render_comparison_html
from textlift.report.table import comparison_markdown, comparison_text, html_fragment
from textlift.runs import RunDirectory, find_variant, open_run
from textlift.runtime import choose_runtime
from textlift.workflow.ledger import open_rows, recipe_digest
from textlift.workflow.merging import require_low_cost, require_usable

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


def evaluate_file(
    path: str, section: DataSection, *, device: str = "auto", raw: bool = False, command: str = ""
) -> dict[str, Any]:
    """Scores of a saved variant on other labelled rows.

    Args:
        path: As `load`.
        section: The rows: all splits of the source together.
        device: As `load`.
        command: As typed, for the ledger of the run.
        raw: Without the stored decision.

    Returns:
        The scores of `evaluate` for the classes that the decision chooses, with "variant", "label_names", "ece" (see
        `calibration_error`), "coverage" and "accuracy_answered"; where its costs count, "mean_cost".

    Raises:
        DataError: The rows cannot be used, or hold labels that the variant does not know.
    """
    run, name, folder = find_variant(path)
    dataset = read_dataset(section)
    rows = _all_rows(dataset)
    labels = _known_labels(rows, read_settings(folder))
    predictor = load(path, device=device)  # takes seconds: what is wrong with the rows is told before
    if run is not None:
        _enter(run, str(name), dataset, command=command)
    texts = [text for _, text, _ in rows]
    decision = Decision() if raw else predictor.decision
    decided = decision.apply(predictor.forward(predictor.tokenize(texts)).logits)
    return {
        "variant": path,
        "label_names": list(predictor.label_names),
        **evaluate_decided(labels, decided),
        **answers(labels, decided, costs=decision.costs),
    }


def _enter(run: RunDirectory, name: str, dataset: Dataset, *, command: str) -> None:
    """Write into the ledger of a run that rows were opened; a run that may only be read keeps none."""
    if not os.access(run.path, os.W_OK):
        return
    digest = recipe_digest(run.read("results.json")["recipe"])
    for split in dataset.splits:
        open_rows(run, dataset, split=split, what=f"evaluate {name}", recipe=digest, command=command)


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
        require_free(output)
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
    require_free(output)
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


def require_free(output: Path) -> None:
    """Refuse an output that holds something already.

    Raises:
        CannotCreateError: It does.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise CannotCreateError(
            f"output {output} must be empty; it holds something already.\nPass another folder, or --overwrite."
        )
