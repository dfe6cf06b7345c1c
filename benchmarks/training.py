"""Training throughput: textlift against Hugging Face Trainer + PEFT at their defaults, side by side in one process.

    python benchmarks/training.py --data FILE.csv --text sentence --label label [--model NAME] [--rounds 5]
        [--steps 60] [--max-length 128] [--batches 32,64,128] [--fast] [--json OUT]

Same model (embedded all-MiniLM-L6-v2 unless told, with native pooling), same rows, same LoRA (PEFT's default targets,
rank 8), batch 32, fp32, same threads. The peer pads dynamically (DataCollatorWithPadding), draws random batches
and keeps the dropout of the frozen base: all of that is its default. Tuned, it has buckets of length
(train_sampling_strategy="group_by_length"), no dropout in the base, and each of the batches. With --fast it is
textlift's fast path beside the tuned peer: a process keeps as many compiled kernels as its first training asks for.
The sides take turns. Counted are useful tokens (padding left out) per second between the first and the last step of a
turn, and the share of the matrix-product peak: useful tokens x 4 x linear weights / the mean of the peaks measured
right before and right after the turn.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sides import BATCH, Setting, textlift_session, train_peer

from textlift.runtime import choose_runtime, environment, onednn_product
from textlift.training.loop import TrainStep

WARM_UP_STEPS = 3


def textlift_round(setting: Setting, seed: int, **settings: Any) -> float:
    """Useful tokens per second of textlift."""
    session = textlift_session(setting, seed, **settings)
    useful, began = 0, 0.0
    for event in session.run():
        if not isinstance(event, TrainStep):
            continue
        if event.number > WARM_UP_STEPS:
            useful += event.useful_tokens
        if event.number == WARM_UP_STEPS:
            began = time.perf_counter()
        if event.number == setting.steps:
            return useful / (time.perf_counter() - began)
    raise RuntimeError("the session ended before its last step")


def trainer_round(setting: Setting, seed: int, *, tuned: bool = False, batch: int = BATCH) -> float:
    """Useful tokens per second of Trainer + PEFT at their defaults, or with buckets of length and no frozen dropout."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        """Useful tokens and times; the collator tells it what each step sees."""

        began = ended = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - their form
            if state.global_step == WARM_UP_STEPS:
                self.began = time.perf_counter()
            self.ended = time.perf_counter()

    seen: list[int] = []
    clock = Clock()
    train_peer(setting, seed, tuned=tuned, batch=batch, callbacks=[clock], seen=seen.append)
    return sum(seen[WARM_UP_STEPS : setting.steps]) / (clock.ended - clock.began)


def matrix_peak(seconds: float = 1.0) -> float:
    """Floating-point operations per second of the best matrix product here, now: torch's (MKL) or oneDNN's."""
    best = 0.0
    products: list[Callable[[Any, Any], Any]] = [torch.mm]
    onednn = onednn_product()
    if onednn is not None:
        products.append(lambda left, right: onednn(left, right, None, "none", [], ""))
    for size in (512, 1024, 2048):
        left, right = torch.randn(size, size), torch.randn(size, size)
        for product in products:
            product(left, right)
            began, runs = time.perf_counter(), 0
            while time.perf_counter() - began < seconds / 6:
                product(left, right)
                runs += 1
            best = max(best, runs * 2 * size**3 / (time.perf_counter() - began))
    return best


def pairs(speeds: dict[str, list[float]]) -> dict[str, list[float]]:
    """Each side of ours over each of the peer's, round by round."""
    return {
        f"{ours} / {peer}": [own / other for own, other in zip(speeds[ours], speeds[peer], strict=True)]
        for ours in speeds
        for peer in speeds
        if ours.startswith("textlift") and peer.startswith("Trainer")
    }


def sides_of(batches: list[int], *, fast: bool) -> dict[str, Callable[[Setting, int], float]]:
    """What takes turns: each gives useful tokens per second."""
    sides: dict[str, Callable[[Setting, int], float]] = {} if fast else {"Trainer + PEFT": trainer_round}
    told = {batch: "" if batch == BATCH else f", batch {batch}" for batch in batches}
    for batch in batches:
        sides[f"Trainer + PEFT, tuned{told[batch]}"] = partial(trainer_round, tuned=True, batch=batch)
    for batch in batches:
        sides[f"textlift{' --fast' * fast}{told[batch]}"] = partial(textlift_round, fast=fast, batch_size=batch)
    return sides


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Setting.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", default="32,64,128", help="of the tuned peer and of textlift")
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    runtime = choose_runtime(device="cpu", fast=options.fast)
    setting = Setting.read(options)
    sides = sides_of([int(batch) for batch in options.batches.split(",")], fast=options.fast)
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    peaks: list[list[float]] = []
    for number in range(options.rounds):
        peaks.append([matrix_peak()])
        for name, side in sides.items():
            speeds[name].append(side(setting, number))
            peaks[-1].append(matrix_peak())
        told = ", ".join(f"{name} {speeds[name][-1]:,.0f}" for name in sides)
        print(
            f"round {number + 1}: {told} useful tokens/s; "
            f"peak {min(peaks[-1]) / 1e9:.0f} to {max(peaks[-1]) / 1e9:.0f} GFLOP/s",
            flush=True,
        )
    weights = setting.linear_weights()
    shares = {
        name: [
            4 * weights * speed / statistics.mean(around[at : at + 2])
            for speed, around in zip(values, peaks, strict=True)
        ]
        for at, (name, values) in enumerate(speeds.items())
    }
    ratios = pairs(speeds)
    print("\n| side | useful tokens/s, median (min to max) | share of peak, median (min to max) |\n|---|---:|---:|")
    for name, values in speeds.items():
        share = shares[name]
        print(
            f"| {name} | {statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f}) | "
            f"{statistics.median(share):.0%} ({min(share):.0%} to {max(share):.0%}) |"
        )
    for name, some in ratios.items():
        middle = statistics.median(some)
        print(f"\n{name}, pair by pair: median {middle:.2f} ({min(some):.2f} to {max(some):.2f})")
    if options.json:
        record = {"speeds": speeds, "ratios": ratios, "shares": shares, "peaks": peaks, "linear_weights": weights}
        options.json.write_text(json.dumps({**record, "environment": environment(runtime)}, indent=2))


if __name__ == "__main__":
    main()
