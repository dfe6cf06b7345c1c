"""What less padding is worth on a CPU: prediction, and steps, of texts as they lie.

    python benchmarks/padding.py --data FILE.csv --text sentence --label label [--limit 2000] [--rounds 15]
        [--json OUT]

The embedded MiniLM with LoRA on query and value. Three ways take turns, round by round, on the first rows of the file:
every pass padded to its longest text (padded), passes cut where padding costs more than a pass (cut, which models have
whose layers do not take groups), and texts of like length in groups within one pass (groups). Timed are the prediction
of so many texts, and the gradients of one step of them.
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
WAYS = ("padded", "cut", "groups")
_CUT = textlift.inference.cut_where_padded


def use_way(session: TrainingSession, name: str) -> None:
    """Have passes padded, cut or in groups."""
    session.classifier.groups = name == "groups"
    for module in (textlift.inference, textlift.training.session):
        vars(module)["cut_where_padded"] = _uncut if name == "padded" else _CUT


def _uncut(part: np.ndarray, *_: object, **__: object) -> list[np.ndarray]:
    return [part]


def work(session: TrainingSession, rows: int) -> dict[str, Callable[[], object]]:
    """What is timed on so many rows, by name."""
    tokens, indices = first_rows(session.train.tokens, rows), np.arange(rows)

    def step() -> None:
        session.optimizer.zero_grad(set_to_none=True)
        batches = session.micro_batches(indices)
        gradients_of(session.classifier, batches, runtime=session.predictor.runtime, penalty=None)

    predict: dict[str, Callable[[], object]] = {"predict": lambda: session.predictor.forward(tokens)}
    return {**predict, "step": step} if rows <= LARGEST_STEP else predict


def ratios(session: TrainingSession, job: Callable[[], object], rounds: int) -> dict[str, list[float]]:
    """Time of padded passes over that of the other ways, round by round; the first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in WAYS[1:]}
    for _ in range(rounds + 1):
        seconds = {}
        for name in WAYS:
            use_way(session, name)
            began = time.perf_counter()
            job()
            seconds[name] = time.perf_counter() - began
        for name, ratio in found.items():
            ratio.append(seconds["padded"] / seconds[name])
    return {name: ratio[1:] for name, ratio in found.items()}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Setting.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    quiet_libraries()
    session = textlift_session(Setting.read(options), 0)
    told: dict[str, dict[str, dict[str, list[float]]]] = {}
    print("| rows | work | cut: times as fast as padded (least to most) | groups |\n|---:|---|---:|---:|")
    for rows in (size for size in SIZES if size <= len(session.train.tokens)):
        for name, job in work(session, rows).items():
            found = ratios(session, job, options.rounds)
            told.setdefault(str(rows), {})[name] = found
            cells = [f"{statistics.median(one):.2f} ({min(one):.2f} to {max(one):.2f})" for one in found.values()]
            print(f"| {rows:,} | {name} | {' | '.join(cells)} |", flush=True)
    if options.json:
        record = {"ratios": told, "environment": environment(session.predictor.runtime)}
        options.json.write_text(json.dumps(record, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
