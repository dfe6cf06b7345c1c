"""Load an adapter that plain peft does not know with textlift itself, and print its logits.

Run as a program in a fresh process, with the path of a job in JSON, as `plain_check` is for what plain libraries load.
"""

import json
import sys
from pathlib import Path
from typing import Any

from textlift.export.loading import load_variant
from textlift.runtime import choose_runtime


def main(path: str) -> None:
    """Run every job of the file and print one JSON object: kind of check to logits."""
    jobs: list[dict[str, Any]] = json.loads(Path(path).read_text(encoding="utf-8"))
    logits = {}
    for job in jobs:
        predictor = load_variant(Path(job["folder"]), choose_runtime(device="cpu"), base_name=job["base"])
        logits[job["kind"]] = predictor.forward(predictor.tokenize(job["texts"])).logits.tolist()
    sys.stdout.write("\n" + json.dumps(logits) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
