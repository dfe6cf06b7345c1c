"""Who may write a run directory: one process at a time, and never over what is there unless asked.

A lock of the system is held while a run is written; it goes with the process, however that ends. What is replaced is
first moved aside in one step, so that a kill in between leaves no mixture of two runs.
"""

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from textlift.errors import CannotCreateError, CheckpointError, UnavailableError
from textlift.runs import FORMAT_VERSION, LEDGER, RunDirectory
from textlift.storage import storing

HEAD = "run.json"
_LOCK, _ASIDE, _UNFINISHED = ".lock", ".replaced-", f".{HEAD}."


def require_claimable(path: Path, *, overwrite: bool, resume: bool) -> None:
    """Make sure, before any work, that a run can be written at a path; nothing is changed.

    Raises:
        UnavailableError: Another process is writing a run there.
        CannotCreateError: Something is there already, or the place is not writable.
    """
    if path.exists() and not path.is_dir():
        raise CannotCreateError(f"output {path} must be a folder; it is a file.\nPass another --output.")
    if (path / _LOCK).is_file():
        with _locked(path):
            pass
    _require_vacant(path, overwrite=overwrite, resume=resume)
    place = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not place.is_dir() or not _is_writable(place):
        raise CannotCreateError(f"output {path} must be writable; {place} is not.\nPass another --output.")


def recorded(path: Path, name: str) -> Any:
    """A value of the environment in which a run began that is to be continued; None where there is no run."""
    if not (path / HEAD).is_file():
        return None
    return RunDirectory(path).read(HEAD).get("environment", {}).get(name)


@contextmanager
def claim(
    path: Path,
    *,
    fingerprint: Mapping[str, str],
    command: str,
    overwrite: bool,
    resume: bool,
    environment: Mapping[str, Any],
) -> Iterator[tuple[RunDirectory, dict[str, Any] | None]]:
    """Hold a run directory for this process: a new one, one that is replaced, or one that is continued.

    Args:
        path: Of the run.
        fingerprint: sha256 of each thing that must be equal for the run to be continued, by its name in messages.
        command: As typed.
        overwrite: Replace a run that is there.
        resume: Continue a run that is there.
        environment: Versions and threads of this process.

    Yields:
        The run, and the environment in which it began where it is continued.

    Raises:
        UnavailableError: Another process is writing a run there.
        CannotCreateError: As `require_claimable`.
        CheckpointError: The run to resume belongs to another recipe, base model or data.
        StorageError: The disk refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotCreateError(f"output {path} must be writable; {error.strerror}.") from error
    with _locked(path):
        _require_vacant(path, overwrite=overwrite, resume=resume)
        run = RunDirectory(path)
        process = {"pid": os.getpid(), "started": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        if resume and (path / HEAD).is_file():
            head = run.read(HEAD)
            _require_same(path, head.get("fingerprint"), fingerprint)
            run.write(HEAD, {**head, "status": "running", "process": process})
            yield run, head.get("environment") or {}
            return
        with storing(path):
            _move_aside(path)
        values = {
            "format_version": FORMAT_VERSION,
            "status": "running",
            "command": command,
            "process": process,
            "environment": dict(environment),
            "fingerprint": dict(fingerprint),
        }
        run.write(HEAD, values)
        yield run, None


def _require_vacant(path: Path, *, overwrite: bool, resume: bool) -> None:
    names = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    filled = [name for name in names if name != _LOCK and not name.startswith(_UNFINISHED)]
    is_run = HEAD in filled or LEDGER in filled or any(name.startswith(_ASIDE) for name in filled)
    if filled and not is_run:
        raise CannotCreateError(
            f"output {path} must be empty or a run of textlift; it holds other files.\nPass another --output."
        )
    if (path / LEDGER).exists() and not (path / LEDGER).is_file():
        raise CannotCreateError(f"output {path} must hold its {LEDGER} as a file; it is none.\nPass another --output.")
    if filled and not (overwrite or resume):
        raise CannotCreateError(
            f"output {path} must be empty; a run is there already.\nPass --resume to continue it, --overwrite to "
            "replace it, or another --output."
        )


def _require_same(path: Path, found: Any, wanted: Mapping[str, str]) -> None:
    held = found if isinstance(found, dict) else {}
    changed = [name for name in wanted if held.get(name) != wanted[name]]
    if changed:
        raise CheckpointError(
            f"{path}: the run to resume must have the same {', '.join(wanted)}; not the same: {', '.join(changed)}."
            "\nPass --overwrite to start anew, or another --output."
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """The lock of a run directory.

    Raises:
        UnavailableError: Another process holds it.
    """
    lock = FileLock(path / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        process = RunDirectory(path).read(HEAD).get("process", {}) if (path / HEAD).is_file() else {}
        told = f"process {process['pid']}, since {process['started']}," if process else "another process"
        raise UnavailableError(
            f"output {path} must be written by one process at a time; {told} is writing it."
            "\nWait for it, stop it, or pass another --output."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise CannotCreateError(f"output {path} must be on a disk that locks files; {error}.") from error
    try:
        yield
    finally:
        lock.release()


def _move_aside(path: Path) -> None:
    """Take away all that a run left but its ledger; its head goes first: what remains is never taken for a run."""
    aside = path / f"{_ASIDE}{uuid.uuid4().hex[:8]}"
    entries = sorted(path.iterdir(), key=lambda entry: entry.name != HEAD)
    for entry in entries:
        if entry.name in (_LOCK, LEDGER):
            continue
        if entry.name.startswith(_ASIDE):
            shutil.rmtree(entry, ignore_errors=True)
            continue
        aside.mkdir(exist_ok=True)
        entry.rename(aside / entry.name)
    shutil.rmtree(aside, ignore_errors=True)


def _is_writable(folder: Path) -> bool:
    probe = folder / f".textlift-{uuid.uuid4().hex[:8]}"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
