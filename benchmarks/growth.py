"""What grows with rows and with tokens: seconds of each part of a job, with the embedded model.

    python benchmarks/growth.py --data FOLDER --text COLUMN --label COLUMN [--rows 1000,2000,4000,8000]
        [--tokens 16,32,64,128,256,512] [--json OUT]

Rows: one epoch of LoRA with textlift's defaults on the first so many rows; reading, checking and tokenizing, the pass
of the frozen model over train, the fit of the probe, and the steps, each in seconds. Tokens: forward and backward of a
step of 4,096 tokens in texts of one length, for every length; made of random token ids, so that nothing is padded.
The sizes take turns over the rounds; medians are told.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from sides import Setting, textlift_session

from textlift.data.batching import TokenizedTexts
from textlift.progress import Progress
from textlift.runtime import environment
from textlift.training.loop import gradients_of
from textlift.workflow.baselines import FrozenPass
from textlift.workflow.planning import Request, resolve
from textlift.workflow.preparation import prepare
from textlift.workflow.variants import start_tuning

STEP_TOKENS = 4096
STEPS = 3


def of_rows(options: argparse.Namespace, rows: int) -> dict[str, float]:
    """Seconds of each part of a job on so many training rows."""
    columns = {"data.text": options.text, "data.label": options.label}
    values = {"data.limit": rows, "data.allow_leak": True, "training.epochs": 1, **columns}
    quiet = Progress(silent=True)
    began = time.perf_counter()
    job = prepare(resolve(Request(options.data, model="embedded", values=values)), quiet)
    prepared = time.perf_counter()
    frozen = FrozenPass(job, quiet)
    passed = frozen.result.splits["train"].seconds
    fitting = time.perf_counter()
    _ = frozen.probe
    fitted = time.perf_counter()
    variant = next(one for one in job.recipe.settled_variants() if one.merge_of is None)
    session = start_tuning(job, variant, frozen, progress=quiet).session
    for _ in session.run():
        pass
    found = {"prepare": prepared - began, "frozen pass": passed, "probe": fitted - fitting}
    return {**found, "steps": session.progress.seconds, "rows": len(job.tokens["train"])}


def of_tokens(options: argparse.Namespace, lengths: list[int], rounds: int) -> dict[int, list[float]]:
    """Seconds of one step of as many tokens, for each length of its texts."""
    arguments = ["--data", options.data, "--text", options.text, "--label", options.label, "--limit", "200"]
    parser = argparse.ArgumentParser()
    Setting.add_arguments(parser)
    session = textlift_session(Setting.read(parser.parse_args(arguments)), 0)
    found: dict[int, list[float]] = {length: [] for length in lengths}
    for number in range(rounds + 1):
        for length in lengths:
            taken = _step(session, length)
            found[length] += [taken] if number else []  # the first is to warm up
    return found


def _step(session: Any, length: int) -> float:
    count = max(1, STEP_TOKENS // length)
    ids = np.random.default_rng(0).integers(1000, 20_000, size=count * length).astype(np.int32)
    tokens = TokenizedTexts(ids, np.arange(count + 1) * length, np.full(count, length))
    labels = np.zeros(count, dtype=np.int64)
    session.train = type(session.train)(tokens, labels)
    session.classifier.set_training(base_dropout=False)
    batches = session.micro_batches(np.arange(count))
    began = time.perf_counter()
    for _ in range(STEPS):
        gradients_of(session.classifier, batches, runtime=session.predictor.runtime, penalty=None)
        session.optimizer.zero_grad(set_to_none=True)
    return (time.perf_counter() - began) / STEPS


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("--rows", default="1000,2000,4000,8000")
    parser.add_argument("--tokens", default="16,32,64,128,256,512")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    counts = [int(count) for count in options.rows.split(",")]
    by_rows: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    for _ in range(options.rounds):
        for count in counts:
            by_rows[count].append(of_rows(options, count))
    parts = ("prepare", "frozen pass", "probe", "steps")
    print(f"| training rows | {' | '.join(f'{part}, s' for part in parts)} | all, ms a row |\n|---:|{'---:|' * 5}")
    for trials in by_rows.values():
        middle = {part: statistics.median(trial[part] for trial in trials) for part in parts}
        rows = trials[0]["rows"]
        cells = " | ".join(f"{middle[part]:.1f}" for part in parts)
        print(f"| {rows:,} | {cells} | {1000 * sum(middle.values()) / rows:.1f} |", flush=True)
    by_tokens = of_tokens(options, [int(length) for length in options.tokens.split(",")], options.rounds)
    first = statistics.median(next(iter(by_tokens.values())))
    print("\n| tokens of a text | a step of 4,096 tokens, s | over the first |\n|---:|---:|---:|")
    for length, values in by_tokens.items():
        middle_seconds = statistics.median(values)
        print(f"| {length} | {middle_seconds:.2f} | {middle_seconds / first:.2f} |")
    if options.json:
        from textlift.runtime import choose_runtime

        record = {"rows": by_rows, "tokens": by_tokens, "environment": environment(choose_runtime(device="cpu"))}
        options.json.write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
