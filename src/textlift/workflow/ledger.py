"""The ledger of a run: every time its test rows were opened, by what, and how often other runs beside it opened them.

One line of JSON for each opening in `ledger.jsonl`, added at its end and never taken away, also not where a run is
replaced. A score that was looked at many times is a worse promise than one that was looked at once.
"""

import hashlib
import json
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from textlift.data.dataset import Dataset
from textlift.recipe import Recipe
from textlift.runs import LEDGER, RunDirectory
from textlift.storage import storing
from textlift.workflow.preparation import split_digest

_TOLD = 20  # entries that results.json repeats
_BESIDE = 500  # folders that are looked at


def open_rows(run: RunDirectory, dataset: Dataset, *, split: str, what: str, recipe: str, command: str) -> None:
    """Add a line to the ledger of a run, before labelled rows are scored.

    Args:
        run: Its ledger.
        dataset: Holds the rows.
        split: Those that are opened.
        what: run, resume or evaluate.
        recipe: Digest of what is measured on them.
        command: As typed.

    Raises:
        StorageError: The disk refuses.
    """
    entry = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "what": what,
        "rows": split_digest(dataset, split),
        "n": len(dataset.splits[split]),
        "recipe": recipe,
        "command": command,
    }
    path = run.path / LEDGER
    with storing(path), path.open("ab") as file:
        file.write(f"{json.dumps(entry)}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def recipe_digest(recipe: Recipe) -> str:
    """sha256 of all settings of a recipe."""
    return hashlib.sha256(json.dumps(recipe.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


def summary(run: RunDirectory, rows: str) -> dict[str, Any]:
    """How often the test rows were opened, by this run and by those in the same folder.

    Args:
        run: Whose report it is for.
        rows: Digest of the test rows.

    Returns:
        "rows"; "openings" and "recipes" (different ones) in all; "entries", the last of this run; "beside", the
        names of the other runs in the same folder that opened the same rows, each with its "openings".
    """
    own = [entry for entry in _entries(run.path) if entry.get("rows") == rows]
    beside, recipes, openings = [], {entry.get("recipe") for entry in own}, len(own)
    folder = run.path.absolute().parent
    for other in sorted(folder.iterdir())[:_BESIDE]:
        if other == run.path.absolute() or not (other / LEDGER).is_file():
            continue
        theirs = [entry for entry in _entries(other) if entry.get("rows") == rows]
        if theirs:
            beside.append({"run": other.name, "openings": len(theirs)})
            recipes |= {entry.get("recipe") for entry in theirs}
            openings += len(theirs)
    return {"rows": rows, "openings": openings, "recipes": len(recipes), "entries": own[-_TOLD:], "beside": beside}


def _entries(run: Path) -> list[dict[str, Any]]:
    """The lines of a ledger; one that is not JSON, of a write that was cut off, is not an opening of known rows."""
    try:
        lines = (run / LEDGER).read_bytes().splitlines()
    except OSError:  # another user's run
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found += [entry] if isinstance(entry, dict) else []
    return found
