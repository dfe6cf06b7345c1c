"""What it is worth to cut a pass where padding costs more than a pass: prediction, and steps, of texts as they lie.

    python benchmarks/padding.py --data FILE.csv --text sentence --label label [--limit 2000] [--rounds 15]
        [--json OUT]

The embedded MiniLM with LoRA on query and value. Passes that are cut and passes that are not take turns, round by
round, on the first rows of the file: prediction of so many texts, and the gradients of one step of them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sides import Setting, first_rows, textlift_session

import textlift.inference
import textlift.training.session
from textlift.runtime import environment, quiet_libraries
from textlift.training.loop import gradients_of
from textlift.training.session import TrainingSession

SIZES, LARGEST_STEP = (16, 64, 256, 1024), 64
WAYS: dict[str, Callable[..., list[np.ndarray]]] = {
    "cut": textlift.inference.cut_where_padded,
    "whole": lambda part, *_, **__: [part],
}


def use_way(name: str) -> None:
    """Have passes cut, or not."""
    for module in (textlift.inference, textlift.training.session):
        vars(module)["cut_where_padded"] = WAYS[name]


def work(session: TrainingSession, rows: int) -> dict[str, Callable[[], object]]:
    """What is timed on so many rows, by name."""
    tokens, indices = first_rows(session.train.tokens, rows), np.arange(rows)

    def step() -> None:
        session.optimizer.zero_grad(set_to_none=True)
        batches = session.micro_batches(indices)
        gradients_of(session.classifier, batches, runtime=session.predictor.runtime, penalty=None)

    predict: dict[str, Callable[[], object]] = {"predict": lambda: session.predictor.forward(tokens)}
    return {**predict, "step": step} if rows <= LARGEST_STEP else predict


def ratios(job: Callable[[], object], rounds: int) -> list[float]:
    """Time of whole passes over that of cut ones, pair by pair; the first pair is not counted."""
    found = []
    for _ in range(rounds + 1):
        seconds = {}
        for name in WAYS:
            use_way(name)
            began = time.perf_counter()
            job()
            seconds[name] = time.perf_counter() - began
        found.append(seconds["whole"] / seconds["cut"])
    return found[1:]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Setting.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    quiet_libraries()
    session = textlift_session(Setting.read(options), 0)
    told: dict[str, dict[str, list[float]]] = {}
    print("| rows | work | passes cut, times as fast (least to most) |\n|---:|---|---:|")
    for rows in (size for size in SIZES if size <= len(session.train.tokens)):
        for name, job in work(session, rows).items():
            found = ratios(job, options.rounds)
            told.setdefault(str(rows), {})[name] = found
            middle = statistics.median(found)
            print(f"| {rows:,} | {name} | {middle:.2f} ({min(found):.2f} to {max(found):.2f}) |", flush=True)
    if options.json:
        record = {"ratios": told, "environment": environment(session.predictor.runtime)}
        options.json.write_text(json.dumps(record, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
