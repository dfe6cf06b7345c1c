"""What is lost, and what is silently wrong: kills, damage, signals, full disks, numbers that are not finite, bad input.

    python benchmarks/reliability.py [--share 1.0] [--json OUT] [--markdown OUT] [--only kills,damage,...]

One process imports everything once and forks the trials, each a run of a tiny BERT (tests/tiny_models.py) with LoRA and
a merged model on 120 rows, one thread. --share 0.1 makes a tenth of the trials. The full-disk trials mount a small
tmpfs and so need the right to; where that is missing they are left out and said to be. Beside them stands what
Hugging Face Trainer + PEFT do under the same kills and damages, resumed as their documentation shows.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from reliability_trials import damage, health, inputs, ours, peer  # noqa: E402 - the environment comes first
from reliability_trials.ours import Setting, Tally  # noqa: E402

TRIALS = {"kills": 200, "signals": 30, "disks": 30, "injections": 20, "healthy": 50, "peer": 40}
PARTS = ("kills", "damage", "signals", "disks", "injections", "healthy", "inputs", "peer")


def run(parts: list[str], folder: Path, *, share: float, progress: Callable[[str], None]) -> dict[str, list[Tally]]:
    """Tallies of ours and of the peer."""
    from cli_calls import rows
    from tiny_models import write_base

    data = folder / "rows.csv"
    data.write_text(rows(), encoding="utf-8")
    setting = Setting(write_base("bert", folder / "base"), data, folder)
    whole = ours.unbroken(setting)
    count = {name: max(1, round(number * share)) for name, number in TRIALS.items()}
    works: dict[str, Callable[[], list[Tally]]] = {
        "kills": lambda: [ours.kills(setting, whole, count["kills"], progress=progress)],
        "damage": lambda: [damage.damages(setting, progress)],
        "signals": lambda: [
            ours.signals(setting, whole, count["signals"], number=number, progress=progress)
            for number in (signal.SIGTERM, signal.SIGINT)
        ],
        "disks": lambda: (
            [ours.full_disks(setting, whole, count["disks"], progress=progress)] if os.geteuid() == 0 else []
        ),
        "injections": lambda: [health.injections(setting, count["injections"], progress)],
        "healthy": lambda: [health.healthy(setting, count["healthy"], progress)],
        "inputs": lambda: inputs.bad_inputs(setting, progress),
    }
    found: dict[str, list[Tally]] = {"textlift": [], "Trainer + PEFT": []}
    for part in parts:
        if part in works:
            found["textlift"] += works[part]()
    if "peer" in parts:
        found["Trainer + PEFT"] = [*peer.kills(setting, count["peer"], progress), peer.damages(setting, progress)]
        found["Trainer + PEFT"].append(peer.diverged(setting))
    return found


def table(found: dict[str, list[Tally]]) -> str:
    """The tallies as Markdown."""
    lines = ["| tool | trials | as they should | facts |", "|---|---|---:|---|"]
    for tool, tallies in found.items():
        for one in tallies:
            facts = ", ".join(f"{name}: {value}" for name, value in one.facts.items())
            lines.append(f"| {tool} | {one.name} | {one.good} of {one.trials} | {facts} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    began = time.monotonic()

    def progress(text: str) -> None:
        print(f"{time.monotonic() - began:7.0f} s  {text}", file=sys.stderr, flush=True)

    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="textlift-reliability-") as folder:
        found = run(arguments.only.split(","), Path(folder), share=arguments.share, progress=progress)
    print(table(found))
    failures = [failure for tallies in found.values() for one in tallies for failure in one.failures]
    for failure in failures:
        print(f"- {failure}", file=sys.stderr)
    if arguments.markdown:
        arguments.markdown.write_text(table(found), encoding="utf-8")
    if arguments.json:
        values = {tool: [vars(one) for one in tallies] for tool, tallies in found.items()}
        arguments.json.write_text(json.dumps(values, indent=2), encoding="utf-8")
    sys.exit(any(one.failures for one in found["textlift"]))


if __name__ == "__main__":
    main()
