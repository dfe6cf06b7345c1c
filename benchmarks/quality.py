"""Time to quality: seconds until validation is as good as Trainer + PEFT leave it, with the embedded model.

    python benchmarks/quality.py RECIPE --data FOLDER [--settings ours|published] [--epochs 2] [--rounds 1] [--limit N]
        [--side brisk epochs=1 fast=true] ... [--sides-alone]

First the peer trains to its end and is measured on the validation rows: with our settings (all linear layers, learning
rate 1e-3, buckets of length, no dropout in the base), which is the yardstick, or as the job was published (PEFT's
default layers, 2e-5, random batches, dropout). Then textlift trains with its defaults on the same rows, its clock
running from the first look at the base model (features, probe and all measurements included), until a measurement on
the same validation rows is as good; a side that measures in bf16 (fast=true) must then be as good in fp32, too, or
trains on; that check is not counted. Reading and tokenizing are in neither time. With each --side it then trains once
more with those training values in place of its defaults; with --sides-alone the turn with the defaults is left out. A
side that never gets there counts as an endless share.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import yaml
from sides import Setting, train_peer

from textlift.evaluation.metrics import quick_scores
from textlift.progress import Progress
from textlift.recipe import TrainingSection, Variant
from textlift.runtime import environment
from textlift.training.session import Measurement, TrainingSession
from textlift.workflow.baselines import FrozenPass
from textlift.workflow.planning import Request, resolve
from textlift.workflow.preparation import Job, prepare
from textlift.workflow.variants import start_tuning

SETTINGS: dict[str, dict[str, Any]] = {
    "ours": {"learning_rate": 1e-3, "warmup_steps": 0.06},
    "published": {"learning_rate": 2e-5, "weight_decay": 0.01},
}


def peer_seconds(job: Job, *, settings: str, epochs: int, seed: int) -> tuple[float, float]:
    """Seconds of the peer's training, its own measurements left out, and the accuracy that it ends with."""
    setting = Setting(
        job.base, job.tokens["train"], job.labels["train"], job.dataset.label_names, steps=-1, max_length=job.max_length
    )
    linear = ["query", "key", "value", "dense"]  # of every layer, the pooler's left out by peft's task type
    began = 0.0

    def begin() -> None:
        nonlocal began
        began = time.perf_counter()

    trainer = train_peer(
        setting,
        seed,
        tuned=settings == "ours",
        before=begin,
        evaluated=(job.tokens["validation"], job.labels["validation"]),
        targets=linear if settings == "ours" else None,
        arguments={**SETTINGS[settings], "num_train_epochs": epochs},
    )
    seconds = time.perf_counter() - began
    return seconds, float(trainer.evaluate()["eval_accuracy"])


def our_seconds(job: Job, *, target: float, training: TrainingSection) -> tuple[float | None, float]:
    """Seconds until validation reaches the target, and the accuracy there; None and the best where it never does."""
    variant = Variant(name="lora", training=training)
    progress = Progress()
    began = time.perf_counter()
    frozen = FrozenPass(job, progress, is_whole=False, is_fast=training.fast)
    session = start_tuning(job, variant, frozen, progress=progress).session
    while reaches(session, target):
        seconds = time.perf_counter() - began
        exact = exact_accuracy(session) if session.is_fast else session.progress.best_accuracy
        if exact >= target:
            return seconds, exact
        began = time.perf_counter() - seconds  # the check is not counted
    return None, session.progress.best_accuracy


def reaches(session: TrainingSession, target: float) -> bool:
    """Train until a measurement is as good as the target; False where training ends before."""
    return any(isinstance(event, Measurement) and event.accuracy >= target for event in session.run())


def exact_accuracy(session: TrainingSession) -> float:
    """On the validation rows, in fp32."""
    logits = session.predictor.forward(session.validation.tokens).logits
    return quick_scores(session.validation.labels, logits)[0]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--data", required=True)
    parser.add_argument("--settings", choices=tuple(SETTINGS), default="ours")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--side", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"))
    parser.add_argument("--sides-alone", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.sides_alone and not options.side:
        parser.error("--sides-alone must have a --side")
    limit = {} if options.limit is None else {"data.limit": options.limit}
    sides = {} if options.sides_alone else {"textlift": TrainingSection()}
    for name, *items in options.side:
        values = {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in items)}
        sides[name] = TrainingSection.model_validate(values)
    rows: list[dict[str, Any]] = []
    for seed in range(options.rounds):
        values = {"seed": seed, "training.fast": any(side.fast for side in sides.values()), **limit}
        recipe = resolve(Request(options.recipe, data=[options.data], model="embedded", values=values))
        job = prepare(recipe, Progress())
        theirs, target = peer_seconds(job, settings=options.settings, epochs=options.epochs, seed=seed)
        row: dict[str, Any] = {"peer": theirs, "target": target}
        told = []
        for name, training in sides.items():
            ours, reached = our_seconds(job, target=target, training=training)
            row[name], row[f"{name} reached"] = ours, reached
            share = f"{ours:.0f} s, a share of {ours / theirs:.2f}" if ours else f"never; {reached:.1%} at best"
            told.append(f"{name}: {share}")
        rows.append(row)
        print(f"round {seed + 1}: the peer ends at {target:.1%} after {theirs:.0f} s; {'; '.join(told)}", flush=True)
    for name in sides:
        shares = [row[name] / row["peer"] if row[name] else math.inf for row in rows]
        spread = f"{statistics.median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})"
        print(f"{options.recipe}, {options.settings}, {name}: median share {spread}")
    if options.json:
        options.json.write_text(json.dumps({"rounds": rows, "environment": environment(job.runtime)}, indent=2))


if __name__ == "__main__":
    main()
