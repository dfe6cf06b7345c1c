"""What a training takes: peak memory above the loaded model beside Trainer + PEFT, as foretold; and start-up times.

    python benchmarks/footprint.py --data FILE.csv --text sentence --label label [--model NAME] [--rounds 3]

Every trial is a process of its own, with the same model, rows, LoRA (PEFT's default targets), batch of 32, fp32 and
threads. Counted is the largest resident memory while training less that of the loaded model with its adapter, as Linux
tells it (VmHWM, reset by /proc/self/clear_refs). Foretold is what `textlift plan` says before training, as a share of
the measured peak of the whole process. Beside it: seconds of `textlift --help` and of `textlift predict` of one text
from a cold start, with the model of --run, if one is named.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sides import Setting, textlift_session, train_peer

from textlift.memory import PeakMemory, give_back_memory, resident_memory
from textlift.runtime import choose_runtime

MEGABYTE = 1 << 20
SIDES = ("textlift", "textlift --fast", "Trainer + PEFT", "Trainer + PEFT, tuned")


def of_textlift(setting: Setting, *, fast: bool) -> dict[str, int]:
    """Bytes of a training of ours."""
    from textlift.training.rehearsal import rehearse

    choose_runtime(device="cpu", fast=fast)  # the first choice in a process tells how many kernels are kept
    session = textlift_session(setting, 0, fast=fast)
    give_back_memory()
    loaded = resident_memory("cpu") or 0
    foretold = rehearse(session).peak_memory_bytes or 0
    peak = PeakMemory("cpu")
    for _ in session.run():
        pass
    return {"loaded": loaded, "peak": peak.bytes() or 0, "foretold": foretold}


def of_peer(setting: Setting, *, tuned: bool) -> dict[str, int]:
    """Bytes of Trainer + PEFT."""
    marks: list[tuple[int, PeakMemory]] = []

    def begin() -> None:
        peak = PeakMemory("cpu")  # gives back first what was freed
        marks.append((resident_memory("cpu") or 0, peak))

    train_peer(setting, 0, tuned=tuned, before=begin)
    loaded, peak = marks[0]
    return {"loaded": loaded, "peak": peak.bytes() or 0}


def trial(side: str, arguments: list[str]) -> dict[str, int]:
    """One process."""
    command = [sys.executable, __file__, *arguments, "--side", side]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def seconds(command: list[str], *, text: str = "") -> float:
    """Of a command from its start to its end."""
    began = time.perf_counter()
    subprocess.run(command, input=text, check=True, capture_output=True, text=True)
    return time.perf_counter() - began


def start_up(run: Path | None, rounds: int) -> dict[str, float]:
    """Median seconds of commands."""
    textlift = [sys.executable, "-m", "textlift"]
    commands: dict[str, tuple[list[str], str]] = {"textlift --help": ([*textlift, "--help"], "")}
    if run is not None:
        with tempfile.NamedTemporaryFile("w", suffix=".csv", delete=False) as file:
            file.write("text\none text\n")
        commands["textlift predict, one text"] = ([*textlift, "predict", str(run), file.name], "")
    return {
        name: statistics.median(seconds(command, text=text) for _ in range(rounds))
        for name, (command, text) in commands.items()
    }


def table(found: dict[str, list[dict[str, int]]]) -> str:
    """Medians in megabytes, and ours as a share of each."""
    above = {
        side: statistics.median(one["peak"] - one["loaded"] for one in trials) / MEGABYTE
        for side, trials in found.items()
    }
    lines = ["| side | MB above the loaded model | textlift over it |", "|---|---:|---:|"]
    lines += [f"| {side} | {value:,.0f} | {above['textlift'] / value:.2f} |" for side, value in above.items()]
    for side, trials in found.items():
        if side.startswith("textlift"):
            shares = ", ".join(f"{one['foretold'] / one['peak']:.3f}" for one in trials)
            lines.append(f"\n{side}, foretold / measured peak of the process: {shares}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Setting.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", type=Path, help="a run whose variant predicts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=SIDES)
    options = parser.parse_args()
    if options.side:
        setting = Setting.read(options)
        is_ours, is_fast = options.side.startswith("textlift"), options.side.endswith("--fast")
        made = of_textlift(setting, fast=is_fast) if is_ours else of_peer(setting, tuned="tuned" in options.side)
        print(json.dumps(made))
        return
    passed = [argument for argument in sys.argv[1:] if argument]
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for number in range(options.rounds):
        for side in SIDES:
            found[side].append(trial(side, passed))
        told = ", ".join(f"{side} {(found[side][-1]['peak'] - found[side][-1]['loaded']) >> 20}" for side in SIDES)
        print(f"round {number + 1}: {told} MB", flush=True)
    times = start_up(options.run, options.rounds)
    print(table(found))
    print("\n".join(f"{name}: {value:.2f} s" for name, value in times.items()))
    if options.json:
        options.json.write_text(json.dumps({"memory": found, "seconds": times}, indent=2))


if __name__ == "__main__":
    main()
