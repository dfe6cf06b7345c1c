"""results.json: records of all variants, comparisons of each pair, verdict, examples, environment."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np

from textlift.evaluation.calibration import applied_temperature
from textlift.evaluation.corrected import with_corrections
from textlift.evaluation.metrics import softmax
from textlift.evaluation.seeds import difference_over_seeds
from textlift.evaluation.soundness import soundness
from textlift.evaluation.statistics import accuracy_interval, compare
from textlift.evaluation.verdict import verdict
from textlift.runtime import environment
from textlift.workflow.measuring import Measured
from textlift.workflow.preparation import Job, split_digest

FORMAT_VERSION = 1
_EXAMPLES = 6
_EXAMPLE_CHARACTERS = 600


def assemble(
    job: Job, measured: Sequence[Measured], *, command: str, ledger: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The documented shape of results.json (docs/results-format.md)."""
    variants = {one.name: one.record for one in measured}
    pairs = [
        row
        for index, first in enumerate(measured)
        for second in measured[index + 1 :]
        for row in compare(
            second.name,
            first.name,
            job.labels["test"],
            a_predictions=second.logits["test"].argmax(axis=1),
            b_predictions=first.logits["test"].argmax(axis=1),
            seed=job.recipe.seed,
        )
    ]
    kinds = {name: str(record["kind"]) for name, record in variants.items()}
    comparisons = with_corrections([_over_seeds(row, job, measured) for row in pairs], kinds=kinds)
    best = best_variant(variants)
    checks = [finding.to_dict() for finding in job.findings]
    return {
        "format_version": FORMAT_VERSION,
        "name": job.recipe.name,
        "description": job.recipe.description,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "status": "complete",
        "task": _task(job),
        "model": _model(job, variants),
        "variants": variants,
        "best_variant": best,
        "comparisons": comparisons,
        "verdict": verdict(variants, comparisons),
        "checks": checks,
        "soundness": soundness(checks),
        "ledger": ledger,
        "without_leaks": without_leaks(job, measured),
        "examples": _examples(job, next((one for one in measured if one.name == best), None)),
        "recipe": job.recipe.model_dump(mode="json"),
        "environment": environment(job.runtime),
    }


def _over_seeds(row: Mapping[str, Any], job: Job, measured: Sequence[Measured]) -> dict[str, Any]:
    """A comparison of accuracies as one of their means where a side was trained from several seeds.

    What it was between the two that are saved stands in "of_saved".
    """
    right = {one.name: _right(one, job.labels["test"]) for one in measured if one.name in (row["a"], row["b"])}
    counts = {side: len(right[row[side]]) for side in ("a", "b")}
    if row["metric"] != "accuracy" or max(counts.values()) == 1:
        return dict(row)
    found = difference_over_seeds(right[row["a"]], right[row["b"]])
    saved = {key: row[key] for key in ("difference", "low", "high", "p_value")}
    values = {"difference": found.estimate, "low": found.low, "high": found.high, "p_value": None}
    return {**row, **values, "seeds": counts, "of_saved": saved}


def _right(one: Measured, labels: np.ndarray) -> np.ndarray:
    """Whether each seed is right on each test row, (S, N)."""
    every = (one.logits, *one.other_seeds)
    return np.stack([logits["test"].argmax(axis=1) == labels for logits in every])


def without_leaks(job: Job, measured: Sequence[Measured]) -> dict[str, Any] | None:
    """Accuracy of each variant on the test rows that are neither in an earlier split nor nearly; None where all are.

    Returns:
        "left_out" and "n" (test rows), and by variant "accuracy", "accuracy_low" and "accuracy_high" (95 %, bootstrap).
    """
    test, labels = job.dataset.splits["test"], job.labels["test"]
    leaked = {
        place
        for finding in job.findings
        if finding.listing is not None and finding.earlier is not None
        for _, rows in finding.listing.parts
        for place in zip(rows.sources, rows.row_numbers, strict=True)
    }
    kept = np.asarray([place not in leaked for place in zip(test.sources, test.row_numbers, strict=True)])
    if kept.all() or not kept.any():
        return None
    scores = {
        one.name: accuracy_interval((one.logits["test"].argmax(axis=1) == labels)[kept], seed=job.recipe.seed)
        for one in measured
    }
    return {
        "left_out": int((~kept).sum()),
        "n": int(kept.sum()),
        "accuracy": {name: score.estimate for name, score in scores.items()},
        "accuracy_low": {name: score.low for name, score in scores.items()},
        "accuracy_high": {name: score.high for name, score in scores.items()},
    }


def best_variant(variants: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The tuned variant with the highest validation accuracy, then the lowest log loss; None where none was tuned."""
    tuned = {name: record for name, record in variants.items() if record["kind"] == "tuned"}
    return max(
        tuned,
        key=lambda name: (tuned[name]["validation"]["accuracy"], -tuned[name]["validation"]["log_loss"]),
        default=None,
    )


def _task(job: Job) -> dict[str, Any]:
    dataset = job.dataset
    return {
        "label_names": list(dataset.label_names),
        "rows": {split: len(rows) for split, rows in dataset.splits.items()},
        "text_column": dataset.text_column,
        "label_column": dataset.label_column,
        "sources": list(dataset.fingerprints),
        "reasons": list(dataset.reasons),
        "test_fingerprint": split_digest(dataset, "test"),
    }


def _model(job: Job, variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    totals = [record["total_parameters"] for record in variants.values() if record["kind"] != "tuned"]
    return {
        "name": job.base.folder.name,
        "revision": job.base.folder.revision,
        "family": job.base.model_type,
        "pooling": job.base.pooling,
        "max_length": job.max_length,
        "total_parameters": max([*totals, *(record["total_parameters"] for record in variants.values())], default=0),
        "reasons": [*job.base.reasons, job.max_length_reason],
    }


def _examples(job: Job, best: Measured | None) -> dict[str, Any]:
    if best is None:
        return {"variant": None, "right": [], "wrong": [], "confident_wrong": []}
    labels, logits = job.labels["test"], best.logits["test"].astype(np.float64)
    predicted, top = logits.argmax(axis=1), softmax(logits / applied_temperature(best.record)).max(axis=1)
    order = np.random.default_rng(job.recipe.seed).permutation(len(labels))
    wrong = [int(i) for i in order if predicted[i] != labels[i]]
    picked = {
        "right": [int(i) for i in order if predicted[i] == labels[i]][:_EXAMPLES],
        "wrong": wrong[:_EXAMPLES],
        "confident_wrong": sorted(wrong, key=lambda i: -top[i])[:_EXAMPLES],
    }
    return {
        "variant": best.name,
        **{
            kind: [_example(job, i, predicted=int(predicted[i]), probability=float(top[i])) for i in rows]
            for kind, rows in picked.items()
        },
    }


def _example(job: Job, index: int, *, predicted: int, probability: float) -> dict[str, Any]:
    rows, names = job.dataset.splits["test"], job.dataset.label_names
    text = rows.texts[index]
    return {
        "text": text if len(text) <= _EXAMPLE_CHARACTERS else f"{text[:_EXAMPLE_CHARACTERS]} ...",
        "label": names[job.labels["test"][index]],
        "prediction": names[predicted],
        "probability": probability,
        "source": rows.sources[index],
        "row": rows.row_numbers[index],
    }
