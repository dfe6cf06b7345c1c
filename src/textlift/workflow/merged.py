"""Merged variants of a run: a saved adapter folded into a freshly loaded base, measured and proved again."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from textlift.evaluation.decisions import Decision
from textlift.export.loading import attach_adapter, merge
from textlift.export.proof import prove_saved
from textlift.export.saving import save_model, settings_of
from textlift.inference import Predictor
from textlift.progress import Progress
from textlift.recipe import Variant
from textlift.runs import RunDirectory
from textlift.training.tuning import count_parameters
from textlift.workflow.deciding import inherited
from textlift.workflow.measuring import MEASURED, Measured, forward_split, measure, proof_texts, tell_proof
from textlift.workflow.merging import cost_warning, merge_cost
from textlift.workflow.preparation import Job
from textlift.workflow.variants import ground_of

MERGED_METHOD = "merged"


def merged(job: Job, variant: Variant, *, run: RunDirectory, origin: Measured, progress: Progress) -> Measured:
    """Fold a saved adapter into a freshly loaded base, measure it again, and tell the largest logit difference.

    The base is in full precision, whatever the adapter was trained on; see `merging`.

    Raises:
        ModelError: The merged folder, loaded by plain libraries, does not give the merged logits.
    """
    progress.say(f"variant {variant.name}: the adapter of {origin.name} folded into the base")
    predictor = merged_predictor(job, run.variant(origin.name) / "adapter")
    passes = {split: forward_split(predictor, job, split, progress=progress, title=variant.name) for split in MEASURED}
    logits = {split: done.logits for split, done in passes.items()}
    largest = max(float(np.abs(logits[split] - origin.logits[split]).max()) for split in MEASURED)
    changed = int((logits["test"].argmax(axis=1) != origin.logits["test"].argmax(axis=1)).sum())
    progress.say(f"  largest logit difference to {origin.name}: {largest:.2g}; {changed} predictions on test differ")
    facts = _cost_of_merging(job, variant, origin=origin, logits=logits, progress=progress)
    if "decision" in origin.record:  # not in one that an earlier version of textlift tuned
        decision = Decision.from_dict(origin.record["decision"]["stored"])
        facts |= inherited(ground_of(job, logits), decision, calibration=origin.record["calibration"])
    folder = run.path / ".merged-proof"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed in between
    try:
        settings = settings_of(
            job.base, predictor, kind="model", method=MERGED_METHOD, label_values=job.dataset.label_values
        )
        save_model(predictor, folder, settings=settings, card="")
        proof = prove_saved(predictor, job.base, proof_texts(job), adapter=None, model=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tell_proof(proof, progress)
    return measure(
        job,
        variant.name,
        logits,
        kind="merged",
        method=MERGED_METHOD,
        description=variant.description or f"The adapter of {origin.name} folded into the base weights.",
        total_parameters=count_parameters(predictor.classifier).total,
        samples_per_second=passes["test"].samples_per_second,
        largest_logit_difference=largest,
        changed_predictions=changed,
        merged_from=origin.name,
        proof=proof,
        **facts,
    )


def _cost_of_merging(
    job: Job, variant: Variant, *, origin: Measured, logits: Mapping[str, np.ndarray], progress: Progress
) -> dict[str, Any]:
    """What the record of a merged variant says where its origin was trained on a quantized base; else nothing."""
    if origin.record.get("settings", {}).get("quantization", "none") == "none":
        return {}
    cost = merge_cost(job.labels["validation"], origin.logits["validation"], logits["validation"])
    progress.say(f"  into the base in full precision: {cost}")
    warning = cost_warning(variant.name, origin.name, cost, force=variant.force)
    if warning:
        progress.say(f"  warning: {warning}")
    return {"merge_cost": cost.to_dict(), "forced": variant.force, "warnings": [warning] if warning else []}


def merged_predictor(job: Job, adapter: Path) -> Predictor:
    """A fresh base in full precision with the adapter of a folder folded in."""
    predictor = job.fresh_predictor("none")
    predictor.classifier.to("cpu")  # folding is exact in fp32 on the CPU, whatever the device
    attach_adapter(predictor.classifier, adapter)
    merge(predictor)
    predictor.classifier.to(job.runtime.device)
    return predictor
