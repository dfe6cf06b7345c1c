"""One measured variant or baseline: its predictions on validation and test, its scores, its files in the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from textlift.evaluation.calibration import applied_temperature
from textlift.evaluation.metrics import evaluate, softmax
from textlift.inference import ForwardResult, Predictor
from textlift.progress import Progress
from textlift.runs import RunDirectory
from textlift.workflow.preparation import Job

MEASURED = ("validation", "test")
PROOF_TEXTS = 200


@dataclass(frozen=True)
class Measured:
    """Logits of a variant on validation and test, (N, C) each, and the record of results.json.

    other_seeds are the logits of the same variant trained from other seeds.
    """

    name: str
    logits: Mapping[str, np.ndarray]
    record: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    other_seeds: tuple[Mapping[str, np.ndarray], ...] = ()


def measure(
    job: Job,
    name: str,
    logits: Mapping[str, np.ndarray],
    *,
    kind: str,
    method: str,
    description: str,
    history: list[dict[str, Any]] | None = None,
    **facts: Any,
) -> Measured:
    """Scores of logits on validation and test, with whatever else is known of the variant."""
    scores = {split: evaluate(job.labels[split], logits[split], seed=job.recipe.seed) for split in MEASURED}
    record: dict[str, Any] = {
        "kind": kind,
        "method": method,
        "description": description,
        **scores,
        "trained_parameters": 0,
        "total_parameters": 0,
        "train_seconds": None,
        "useful_tokens_per_second": None,
        "peak_memory_bytes": None,
        "samples_per_second": None,
        **facts,
    }
    return Measured(name, logits, record, history or [])


def store(run: RunDirectory, job: Job, measured: Measured) -> None:
    """Write predictions and history, then the record: a variant with a record is finished."""
    folder = f"variants/{measured.name}"
    names = job.dataset.label_names
    rows = []
    for split in MEASURED:
        part, logits = job.dataset.splits[split], measured.logits[split]
        probabilities = softmax(logits.astype(np.float64) / applied_temperature(measured.record))
        for index, row in enumerate(probabilities):
            rows.append(
                {
                    "split": split,
                    "source": part.sources[index],
                    "row": part.row_numbers[index],
                    "label": names[job.labels[split][index]],
                    "prediction": names[int(logits[index].argmax())],
                    "probabilities": [round(float(value), 6) for value in row],
                    "logits": [float(f"{value:.9g}") for value in logits[index]],
                }
            )
    run.write_lines(f"{folder}/predictions.jsonl", rows)
    run.write_lines(f"{folder}/history.jsonl", measured.history)
    run.write(f"{folder}/metrics.json", measured.record)
    run.forget_checkpoints(measured.name)


def restore(run: RunDirectory, name: str) -> Measured | None:
    """A variant that an earlier, interrupted run finished, or None."""
    folder = f"variants/{name}"
    if not (run.path / folder / "metrics.json").is_file():
        return None
    logits: dict[str, list[list[float]]] = {split: [] for split in MEASURED}
    for row in run.read_lines(f"{folder}/predictions.jsonl"):
        logits[row["split"]].append(row["logits"])
    history = list(run.read_lines(f"{folder}/history.jsonl"))
    arrays = {split: np.asarray(rows, dtype=np.float32) for split, rows in logits.items()}
    return Measured(name, arrays, run.read(f"{folder}/metrics.json"), history)


def forward_split(
    predictor: Predictor,
    job: Job,
    split: str,
    *,
    progress: Progress,
    title: str,
    features: bool = False,
    rows: np.ndarray | None = None,
) -> ForwardResult:
    """One pass over a split, or over some of its rows, with progress."""
    tokens = job.tokens[split] if rows is None else job.tokens[split].take(rows)
    with progress.task(f"{title}: {split}", len(tokens)) as task:
        for step in predictor.forward_steps(tokens, features=features):
            if isinstance(step, ForwardResult):
                return step
            task.reach(step)
    raise AssertionError("forward_steps ends with a result")


def tell_proof(proof: list[dict[str, object]], progress: Progress) -> None:
    """How what was saved was loaded back, or why it was not."""
    for record in proof:
        progress.say(
            f"  loaded back in a fresh process ({record['loader']}): logits differ by at most "
            f"{record['largest_logit_difference']:.1g}"
        )
    if not proof:
        progress.say("  not loaded back: sentence-transformers is not installed (pip install 'textlift[sentence]')")


def proof_texts(job: Job) -> list[str]:
    """The texts with which what is saved is compared once it is loaded back."""
    return job.dataset.splits["validation"].texts[:PROOF_TEXTS]
