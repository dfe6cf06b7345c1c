"""textlift under kill -9, signals and full disks: every trial ends in the adapter of the run that nobody stopped."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reliability_trials.forks import Ended, Fork, count_file_events, die_at, sleep_a_while
from textlift import cli
from textlift.export import own_check, plain_check, proof

CLOCK = {"train_seconds", "useful_tokens_per_second", "peak_memory_bytes", "samples_per_second", "created", "command"}
EPOCHS = 8


@dataclass(frozen=True)
class Setting:
    """A tiny model, rows, and where trials may write."""

    base: Path
    rows: Path
    folder: Path

    def command(self, output: Path, *more: str, seed: int = 0, methods: str = "lora,merged") -> list[str]:
        """The run of every trial."""
        sets = [f"training.epochs={EPOCHS}", "training.batch_size=8", "training.patience=null"]
        words = ["run", str(self.rows), "--model", str(self.base), "--methods", methods, "--output", str(output)]
        return [*words, "--seed", str(seed), *(word for one in sets for word in ("--set", one)), *more]


@dataclass
class Tally:
    """How many trials went as they should, and what went wrong in the others."""

    name: str
    trials: int = 0
    good: int = 0
    failures: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def count(self, problem: str) -> None:
        """One more trial; an empty problem is a good end."""
        self.trials += 1
        self.good += not problem
        if problem:
            self.failures.append(problem)


def work(arguments: list[str]) -> Callable[[], None]:
    """The command line, with its proof in a forked process in place of a new one: the same code, sooner."""

    def done() -> None:
        proof._answers = _answers_in_a_fork
        sys.argv = ["textlift", *arguments]
        cli.main()

    return done


def _answers_in_a_fork(program: list[str], _variables: dict[str, str], *, with_what: str) -> dict[str, Any]:
    from textlift.errors import ModelError

    job = Path(program[-1])
    check = own_check if program[0] == "-m" else plain_check
    ended = Fork(lambda: check.main(str(job)), job.parent).wait()
    if ended.code:
        raise ModelError(f"what was saved must load with {with_what}: {ended.err[-300:]}")
    answers: dict[str, Any] = json.loads(ended.out.strip().splitlines()[-1])
    return answers


def outcome(output: Path) -> dict[str, str]:
    """Digests of what a run must give bit for bit: adapter, history, predictions, and results but for the clock's."""
    variant = output / "variants" / "lora"
    files = [
        variant / "adapter" / "adapter_model.safetensors",
        variant / "history.jsonl",
        variant / "predictions.jsonl",
    ]
    found = {path.name: _sha256(path.read_bytes()) for path in files}
    results = json.loads((output / "results.json").read_text())
    del results["environment"]["reasons"]
    found["results.json"] = _sha256(json.dumps(_clockless(results), sort_keys=True).encode())
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _clockless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clockless(inner) for key, inner in value.items() if key not in CLOCK}
    return [_clockless(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Unbroken:
    """What the run gives that nobody stops, its seconds, and how often it changes a file of the run."""

    outcome: dict[str, str]
    seconds: float
    events: int


def unbroken(setting: Setting) -> Unbroken:
    """The run that nobody stops; it stays there, for its size."""
    output, marks = setting.folder / "unbroken", setting.folder / "events.txt"
    descriptor = os.open(marks, os.O_RDWR | os.O_CREAT)

    def counted() -> None:
        count_file_events(output, lambda count: os.pwrite(descriptor, f"{count:8d}".encode(), 0) and None)
        work(setting.command(output))()

    ended = Fork(counted, setting.folder / "log").wait()
    if ended.code != 0:
        raise RuntimeError(ended.err)
    return Unbroken(outcome(output), ended.seconds, int(marks.read_text()))


def kills(setting: Setting, whole: Unbroken, trials: int, *, progress: Callable[[str], None]) -> Tally:
    """Kill -9, half of them at a random time, half at or just after a random change of a file; then --resume."""
    expected, seconds, events = whole.outcome, whole.seconds, whole.events
    tally = Tally(
        "kill -9, then --resume", facts={"seconds of the unbroken run": round(seconds, 2), "file events": events}
    )
    for trial in range(trials):
        source = random.Random(trial)
        output = setting.folder / f"kill-{trial}"
        if trial % 2:
            killed = _killed_while_saving(setting, output, source, events=events)
        else:
            fork = Fork(work(setting.command(output)), setting.folder / "log")
            sleep_a_while(seconds, source)
            fork.kill()
            killed = fork.wait()
        tally.count(_resumed(setting, output, expected) if killed.code in {0, -9, -14} else killed.err[-300:])
        tally.facts["ended by the kill"] = tally.facts.get("ended by the kill", 0) + (killed.code != 0)
        shutil.rmtree(output, ignore_errors=True)
        progress(f"kill {trial + 1}/{trials}: {tally.good} identical")
    return tally


def _killed_while_saving(setting: Setting, output: Path, source: random.Random, *, events: int) -> Ended:
    at, delay = source.randint(1, events), source.choice([0.0, source.uniform(0, 0.002)])

    def doomed() -> None:
        count_file_events(output, die_at(at, delay))
        work(setting.command(output))()

    return Fork(doomed, setting.folder / "log").wait()


def _resumed(setting: Setting, output: Path, expected: dict[str, str]) -> str:
    """What is wrong with the continued run; nothing where it equals the unbroken one."""
    ended = Fork(work(setting.command(output, "--resume")), setting.folder / "log").wait()
    if ended.code != 0:
        return f"{output.name}: --resume ended with {ended.code}: {ended.err[-400:]}"
    found = outcome(output)
    changed = [name for name, digest in expected.items() if found[name] != digest]
    return f"{output.name}: {', '.join(changed)} differ" if changed else ""


def signals(
    setting: Setting, whole: Unbroken, trials: int, *, number: signal.Signals, progress: Callable[[str], None]
) -> Tally:
    """SIGTERM or Ctrl-C at a random moment of the training: exit code, a checkpoint that verifies, the same adapter."""
    expected, seconds = whole.outcome, whole.seconds
    tally = Tally(number.name)
    trial = 0
    while tally.trials < trials and trial < 3 * trials:
        source = random.Random(1000 + trial)
        trial += 1
        output = setting.folder / f"{number.name}-{trial}"
        fork = Fork(work(setting.command(output)), setting.folder / "log")
        if _wait_for_training(fork, output):
            sleep_a_while(seconds / 3, source)
        fork.kill(number)
        ended = fork.wait()
        if ended.code == 0:  # the run was over before the signal came
            continue
        problem = "" if ended.code == 128 + number else f"ended with {ended.code}: {ended.err[-300:]}"
        tally.count(problem or _without_checkpoint(output) or _resumed(setting, output, expected))
        shutil.rmtree(output, ignore_errors=True)
        progress(f"{number.name} {tally.trials}/{trials}: {tally.good} as they should")
    return tally


def _wait_for_training(fork: Fork, output: Path) -> bool:
    while not list((output / "variants" / "lora").glob("checkpoints/step-*/manifest.json")):
        if fork.is_over():
            return False
        time.sleep(0.002)
    return True


def _without_checkpoint(output: Path) -> str:
    """What is wrong where neither a checkpoint verifies nor the variant is finished."""
    from textlift.training.checkpoint import _places, _problem

    if (output / "variants" / "lora" / "metrics.json").is_file():
        return ""
    places = _places(output / "variants" / "lora" / "checkpoints")
    return "" if any(not _problem(place) for place in places) else f"{output.name}: no checkpoint verifies"


def full_disks(setting: Setting, whole: Unbroken, trials: int, *, progress: Callable[[str], None]) -> Tally:
    """A small disk that fills up at a random point of the run: exit code 74, then room is made and it goes on."""
    expected = whole.outcome
    tally = Tally("disk full")
    disk = setting.folder / "disk"
    disk.mkdir(exist_ok=True)
    trial = 0
    needed = sum(path.stat().st_size for path in (setting.folder / "unbroken").rglob("*") if path.is_file())
    while tally.trials < trials and trial < 4 * trials:
        room = random.Random(2000 + trial).uniform(1.1e6, 1.6e6 + 2 * needed)
        trial += 1
        _mount(disk, room + 16e6)
        try:
            (disk / "ballast").write_bytes(bytes(16_000_000))
            ended = Fork(work(setting.command(disk / "run")), setting.folder / "log").wait()
            if ended.code == 0:  # it was large enough
                continue
            lines = ended.err[ended.err.find("error: ") :].splitlines()
            told = ended.code == 74 and 1 <= len(lines) <= 3 and "Traceback" not in ended.err
            (disk / "ballast").unlink()
            problem = "" if told else f"ended with {ended.code}: {ended.err[-600:]}"
            tally.count(problem or _resumed(setting, disk / "run", expected))
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        progress(f"disk full {tally.trials}/{trials}: {tally.good} as they should")
    return tally


def _mount(disk: Path, size: float) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(size)}", "tmpfs", str(disk)], check=True)
