"""The run directory: where everything of one run lies, how it is claimed, written and read.

    RUN/
      run.json          format version, status, command, process, environment, fingerprints of recipe, model and data
      recipe.yaml       the resolved recipe; `textlift run RUN/recipe.yaml` does it again
      data.json         columns, reasons, label names, fingerprints of the files
      splits.csv        split, file and row number of every row
      checks.json       what the checks found; conflicts.csv where texts carry two labels; findings/ with all rows of
                        each finding; probe-checks.json those that looked at frozen features
      features.safetensors  of the frozen base model, where a pass was made: rows like a given one are told by them
      error-book/       what the best variant gets wrong, as tables for people (docs/error-book.md)
      results.json      everything measured; results.md and report.html show it
      ledger.jsonl      every time the test rows were opened; stays where a run is replaced
      variants/NAME/    metrics.json, predictions.jsonl, history.jsonl, adapter/ or model/, checkpoints/ while training

Writes files whole or not at all. Does not know what the values mean, or who may write (claims.py).
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from textlift.errors import CheckpointError, InputNotFoundError, nearest
from textlift.escaping import json_text
from textlift.storage import storing, write_whole

FORMAT_VERSION = 1
LEDGER = "ledger.jsonl"
SAVED_FOLDERS = ("adapter", "model")


class RunDirectory:
    """One run on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def variant(self, name: str) -> Path:
        """Folder of a variant or baseline."""
        return self.path / "variants" / name

    def saved_folder(self, name: str) -> Path | None:
        """The adapter or model folder of a variant, or None where nothing was saved."""
        return next((self.variant(name) / kind for kind in SAVED_FOLDERS if (self.variant(name) / kind).is_dir()), None)

    def read(self, name: str) -> Any:
        """The value of a JSON file of the run.

        Raises:
            CheckpointError: It is missing or cannot be read.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: must be a file that textlift wrote; it cannot be read.") from error

    def write(self, name: str, value: object) -> None:
        """Write a JSON file whole or not at all.

        Raises:
            StorageError: The disk refuses.
        """
        self.write_text(name, json_text(value, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file whole or not at all.

        Raises:
            StorageError: The disk refuses.
        """
        path = self.path / name
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text.encode())

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write JSON lines, whole or not at all."""
        self.write_text(name, "".join(f"{json_text(row)}\n" for row in rows))

    def read_lines(self, name: str) -> Iterator[dict[str, Any]]:
        """The rows of a JSON lines file.

        Raises:
            CheckpointError: It is missing or cannot be read.
        """
        path = self.path / name
        try:
            with path.open(encoding="utf-8") as file:
                for line in file:
                    yield json.loads(line)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: must hold JSON lines that textlift wrote; it cannot be read.") from error

    def finish(self, status: str) -> None:
        """Record how the run stands: running or complete."""
        self.write("run.json", {**self.read("run.json"), "status": status})

    def forget_checkpoints(self, name: str) -> None:
        """Take the checkpoints of a variant away; it is measured and saved."""
        shutil.rmtree(self.variant(name) / "checkpoints", ignore_errors=True)


def open_run(path: Path) -> RunDirectory:
    """A finished run.

    Raises:
        InputNotFoundError: There is no run at the path.
        CheckpointError: It is of another format, or has not finished.
    """
    if not (path / "run.json").is_file():
        raise InputNotFoundError(f"{path}: must be a run directory; it has no run.json.{_nearest_run(path)}")
    run = RunDirectory(path)
    head = run.read("run.json")
    if head.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{path}: format_version must be {FORMAT_VERSION}; found {head.get('format_version')!r}.")
    if not (path / "results.json").is_file():
        raise CheckpointError(
            f"{path}: the run must have finished; its status is {head.get('status')!r}.\n"
            f"Continue it: textlift run ... --output {path} --resume"
        )
    return run


def find_variant(path: str) -> tuple[RunDirectory | None, str | None, Path]:
    """What RUN, RUN/variant, or the folder of an adapter or model stands for.

    Returns:
        The run and the variant's name (both None for a folder outside a run), and the folder to load.

    Raises:
        InputNotFoundError: There is no such run or variant, or nothing was saved of it.
    """
    folder = Path(path)
    if (folder / "textlift.json").is_file():
        return None, None, folder
    if (folder / "run.json").is_file():
        run, name = open_run(folder), None
    elif (folder.parent / "run.json").is_file():
        run, name = open_run(folder.parent), folder.name
    else:
        raise InputNotFoundError(
            f"{path}: must be a run directory, RUN/variant, or an exported folder; it is none.{_nearest_run(folder)}"
        )
    results = run.read("results.json")
    saved = [variant for variant in results["variants"] if source_of(run, results, variant) is not None]
    if name is None:
        name = results["best_variant"]
    if name not in saved:
        reason = "was not saved" if name in results["variants"] else "is not there"
        raise InputNotFoundError(
            f"{run.path}: variant {name!r} {reason}.{nearest(str(name), saved)}\nSaved: {', '.join(saved) or 'none'}."
        )
    found = source_of(run, results, name)
    assert found is not None
    return run, name, found


def source_of(run: RunDirectory, results: Mapping[str, Any], name: str) -> Path | None:
    """The folder that a variant is loaded from; a merged one is made from the adapter it came from."""
    origin = results["variants"][name].get("merged_from", name)
    return run.saved_folder(origin)


def _nearest_run(path: Path) -> str:
    parent = path.parent
    runs = [entry.name for entry in parent.iterdir() if (entry / "run.json").is_file()] if parent.is_dir() else []
    return nearest(path.name, runs)
