"""The ledger of a run: every time its test rows were opened, by what, and how often other runs beside it opened them.

One line of JSON for each opening in `ledger.jsonl`, added at its end and never taken away, also not where a run is
replaced. A score that was looked at many times is a worse promise than one that was looked at once.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from textlift.data.dataset import Dataset
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


def recipe_digest(recipe: Mapping[str, Any]) -> str:
    """sha256 of all settings of a recipe, as results.json has them."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


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
    here = run.path.absolute()
    for other in _folders(here.parent):
        if other == here:
            continue
        theirs = [entry for entry in _entries(other) if entry.get("rows") == rows]
        if theirs:
            beside.append({"run": other.name, "openings": len(theirs)})
            recipes |= {entry.get("recipe") for entry in theirs}
            openings += len(theirs)
    return {"rows": rows, "openings": openings, "recipes": len(recipes), "entries": own[-_TOLD:], "beside": beside}


def _folders(place: Path) -> list[Path]:
    """What lies in a folder, in order; nothing of one that may not be listed."""
    try:
        return sorted(place.iterdir())[:_BESIDE]
    except OSError:
        return []


def _entries(run: Path) -> list[dict[str, Any]]:
    """The lines of a ledger; one that is not JSON, of a write that was cut off, is not an opening of known rows."""
    try:
        lines = (run / LEDGER).read_bytes().splitlines()
    except OSError:  # no run, or one of another user
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found += [entry] if isinstance(entry, dict) else []
    return found
