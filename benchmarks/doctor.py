"""What `textlift check` costs on made-up rows: seconds, CPU seconds and peak memory of a fresh process.

    python benchmarks/doctor.py                        # 200,000 rows of train, 20,000 of test
    python benchmarks/doctor.py --rows 1000000 --words 20

The rows hold what the checks look for: repeats, near repeats, leaks, links, markup. The base model is one that is not
there, so that no token is counted: only the checks that need no model are timed. Memory is the largest resident set of
the child as the system counts it (`resource.getrusage`).
"""

import argparse
import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000, help="rows of train; test has a tenth of them")
    parser.add_argument("--words", type=int, default=20, help="words of a text, on average")
    parser.add_argument("--json", action="store_true", help="print one JSON value")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        texts = write_rows(Path(folder), n_rows=options.rows, n_words=options.words)
        measured = {"rows": len(texts), "characters": sum(map(len, texts)), **check(Path(folder))}
    if options.json:
        print(json.dumps(measured, indent=2))
        return
    print(f"{measured['rows']:,} rows, {measured['characters']:,} characters")
    print(f"  {measured['seconds']:.1f} s, {measured['cpu_seconds']:.1f} s of CPU")
    print(f"  {measured['peak_memory_bytes'] / 2**20:,.0f} MiB at the most")
    print(f"  found: {', '.join(measured['found'])}")


def write_rows(folder: Path, *, n_rows: int, n_words: int) -> list[str]:
    """Write train.csv and test.csv; returns all texts."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(50_000)]
    train = [" ".join(draw.choices(words, k=max(3, int(draw.gauss(n_words, n_words / 3))))) for _ in range(n_rows)]
    for place in range(0, n_rows, 50):
        train[place] = f"{train[place - 1]} and more https://x.org/{place}"
    for place in range(7, n_rows, 100):
        train[place] = f"{train[place]}<br />caf\u00c3\u00a9 &amp; bar @someone 12.5"
    test = [draw.choice(train) if draw.random() < 0.01 else f"new {draw.choice(train)}" for _ in range(n_rows // 10)]
    for name, texts in (("train", train), ("test", test)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "source"])
            writer.writerows((text, draw.choice("abcd"), draw.choice(("web", "mail"))) for text in texts)
    return train + test


CHILD = """
import json, sys, textlift
found = textlift.check(sys.argv[1], settings={"data.allow_leak": True, "model.name": "./no-model"})
print(json.dumps(sorted({one.code for one in found.findings})))
"""


def check(folder: Path) -> dict[str, Any]:
    """Check a folder in a process of its own."""
    began = time.perf_counter()
    child = subprocess.run([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, check=True)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "found": json.loads(child.stdout),
    }


if __name__ == "__main__":
    main()
