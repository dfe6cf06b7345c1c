"""The run directory: where everything of one run lies, how it is claimed, written and read.

    RUN/
      run.json          format version, status, recipe fingerprint, command
      recipe.yaml       the resolved recipe; `textlift run RUN/recipe.yaml` does it again
      data.json         columns, reasons, label names, fingerprints of the files
      splits.csv        split, file and row number of every row
      checks.json       what the checks found; conflicts.csv where texts carry two labels
      results.json      everything measured; results.md and report.html show it
      variants/NAME/    metrics.json, predictions.jsonl, history.jsonl, adapter/ or model/, checkpoints/ while training

Writes whole files through a neighbour and a rename. Does not know what the values mean.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from textlift.errors import CannotCreateError, CheckpointError, InputNotFoundError, StorageError, nearest

FORMAT_VERSION = 1
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
        self.write_text(name, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write a text file whole or not at all.

        Raises:
            StorageError: The disk refuses.
        """
        path = self.path / name
        neighbour = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with neighbour.open("w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            neighbour.replace(path)
        except OSError as error:
            neighbour.unlink(missing_ok=True)
            raise StorageError(f"{path}: must be written whole; {error.strerror or error}.") from error

    def write_lines(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write JSON lines, whole or not at all."""
        self.write_text(name, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))

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
        """Record how the run stands: running, complete or failed."""
        self.write("run.json", {**self.read("run.json"), "status": status})


def require_claimable(path: Path, *, overwrite: bool, resume: bool) -> None:
    """Make sure, before any work, that a run can be written at a path; nothing is changed.

    Raises:
        CannotCreateError: Something is there already, or the place is not writable.
    """
    if path.exists() and not path.is_dir():
        raise CannotCreateError(f"output {path} must be a folder; it is a file.\nPass another --output.")
    filled = path.is_dir() and any(path.iterdir())
    is_run = (path / "run.json").is_file()
    if filled and not is_run:
        raise CannotCreateError(
            f"output {path} must be empty or a run of textlift; it holds other files.\nPass another --output."
        )
    if filled and not (overwrite or resume):
        raise CannotCreateError(
            f"output {path} must be empty; a run is there already.\nPass --resume to continue it, --overwrite to "
            "replace it, or another --output."
        )
    place = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not place.is_dir() or not _is_writable(place):
        raise CannotCreateError(f"output {path} must be writable; {place} is not.\nPass another --output.")


def recorded_kernel(path: Path) -> str | None:
    """The linear kernel of a run that is to be continued, or None where there is no run; rounding depends on it."""
    if not (path / "run.json").is_file():
        return None
    kernel: str | None = RunDirectory(path).read("run.json").get("linear_kernel")
    return kernel


def claim(
    path: Path, *, fingerprint: str, command: str, overwrite: bool, resume: bool, linear_kernel: str
) -> RunDirectory:
    """Create the run directory, or open it to be continued.

    Raises:
        CannotCreateError: As `require_claimable`.
        CheckpointError: The run to resume belongs to another recipe, base model or data.
        StorageError: The disk refuses.
    """
    require_claimable(path, overwrite=overwrite, resume=resume)
    run = RunDirectory(path)
    if resume and (path / "run.json").is_file():
        if run.read("run.json").get("fingerprint") != fingerprint:
            raise CheckpointError(
                f"{path}: the run to resume must have the same recipe, base model and data; something differs."
                "\nPass --overwrite to start anew, or another --output."
            )
        run.finish("running")
        return run
    if overwrite and (path / "run.json").is_file():
        shutil.rmtree(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotCreateError(f"output {path} must be writable; {error.strerror}.") from error
    values = {
        "format_version": FORMAT_VERSION,
        "status": "running",
        "fingerprint": fingerprint,
        "command": command,
        "linear_kernel": linear_kernel,
    }
    run.write("run.json", values)
    return run


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


def _is_writable(folder: Path) -> bool:
    probe = folder / f".textlift-{uuid.uuid4().hex[:8]}"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True


def _nearest_run(path: Path) -> str:
    parent = path.parent
    runs = [entry.name for entry in parent.iterdir() if (entry / "run.json").is_file()] if parent.is_dir() else []
    return nearest(path.name, runs)
