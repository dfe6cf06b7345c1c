"""A training session on disk: safetensors for tensors, JSON for the rest, a manifest written last.

    checkpoints/step-00000120/
      trained.safetensors     weights that train
      best.safetensors        those of the best measurement
      optimizer.safetensors   moments, random states of torch, state of the method
      state.json              step, history, best so far, schedule, random states of Python and NumPy
      manifest.json           size and sha256 of each file, what job it belongs to, versions, its own sha256

Each is a new folder and never written again. Its files are written and synced first, then the manifest beside and
renamed, then the folder synced: a folder without a manifest is one that was not finished. The newest whose manifest
verifies counts; older ones go only once a newer one was read back. No pickle, no links, no file times.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from textlift.digests import file_sha256
from textlift.errors import CheckpointError
from textlift.runtime import differences
from textlift.storage import require_free, storing, sync, write_whole
from textlift.training import random_state
from textlift.training.session import TrainingSession
from textlift.training.state import Progress

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
_TRAINED, _BEST, _OPTIMIZER, _STATE = (
    "trained.safetensors",
    "best.safetensors",
    "optimizer.safetensors",
    "state.json",
)
_KEPT = 2


@dataclass(frozen=True)
class Restored:
    """Where a session continues: its step (0 where there is no checkpoint), and a sentence for each oddity met."""

    step: int
    told: tuple[str, ...] = ()


def save_checkpoint(
    session: TrainingSession, folder: Path, *, job: Mapping[str, str], environment: Mapping[str, Any]
) -> Path:
    """Write the whole state of a session below folder, as a new folder named by its step.

    Args:
        session: Between two steps.
        folder: Holds the checkpoints of one variant.
        job: Digests of recipe, base model, adapters and data; a session of another job refuses the checkpoint.
        environment: Versions and threads; where others continue the training, that is told.

    Raises:
        StorageError: It cannot be written, or there is no room; the checkpoints before it are kept.
        CheckpointError: Read back, it is not what was written.
    """
    tensors, plain = _state_of(session)
    with storing(f"checkpoint {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        size = sum(tensor.nbytes for file in tensors.values() for tensor in file.values())
        require_free(folder, size + len(plain), what=f"checkpoint {folder}")
        place = _free_place(folder, session.progress.step)
        place.mkdir()
        for name, content in tensors.items():
            save_file(content, place / name)
            sync(place / name)
        write_whole(place / _STATE, plain)
        written = sorted(path for path in place.iterdir())
        files = {path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for path in written}
        values = {
            "format_version": FORMAT_VERSION,
            "step": session.progress.step,
            "job": dict(job),
            "environment": dict(environment),
            "files": files,
        }
        sealed = json.dumps({**values, "sha256": _digest(values)}, indent=1)
        write_whole(place / MANIFEST, sealed.encode())
        sync(folder)
    problem = _problem(place)
    if problem:
        raise CheckpointError(f"checkpoint {place}: must be read back as it was written; {problem}.")
    _forget_older(folder, place)
    return place


def restore_latest(
    session: TrainingSession, folder: Path, *, job: Mapping[str, str], environment: Mapping[str, Any]
) -> Restored:
    """Put the newest checkpoint that verifies into the session.

    Raises:
        CheckpointError: The checkpoint belongs to another recipe, base model or data, or does not fit the session.
    """
    told: list[str] = []
    places = _places(folder)
    for place in reversed(places):
        problem = _problem(place)
        if problem:
            instead = "training starts at the beginning" if place == places[0] else "the one before it is taken"
            told.append(f"checkpoint {place.name} is not used ({problem}); {instead}")
            continue
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        _require_same_job(place, manifest["job"], job)
        told += [f"{one}: the last digits may differ" for one in differences(manifest["environment"], environment)]
        _restore(session, place)
        return Restored(session.progress.step, tuple(told))
    return Restored(0, tuple(told))


def _require_same_job(place: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Refuse to continue what belongs to another recipe, base model or data.

    Raises:
        CheckpointError: It does; what differs is named.
    """
    changed = [name for name in wanted if found.get(name) != wanted[name]]
    if changed:
        raise CheckpointError(
            f"{place}: must come from the same {', '.join(wanted)}; not the same: {', '.join(changed)}."
            "\nPass --overwrite to start anew, or another --output."
        )


def _state_of(session: TrainingSession) -> tuple[dict[str, dict[str, torch.Tensor]], bytes]:
    """Tensors by file and name, and the plain rest as JSON."""
    optimizer = session.optimizer.state_dict()
    tensors, random_states = random_state.take(session.predictor.runtime.device)
    for index, entries in optimizer["state"].items():
        tensors |= {f"state.{index}.{key}": value for key, value in entries.items()}
    tensors |= {f"method.{name}": tensor for name, tensor in session.hooks.state().items()}
    state = {
        "progress": dataclasses.asdict(session.progress),
        "optimizer": {"param_groups": optimizer["param_groups"]},
        "schedule": session.schedule.state_dict(),
        "random": random_states,
    }
    files = {_TRAINED: session.trained_weights(), _BEST: session.best, _OPTIMIZER: tensors}
    return {name: _contiguous(content) for name, content in files.items()}, json.dumps(state).encode()


def _restore(session: TrainingSession, place: Path) -> None:
    state = json.loads((place / _STATE).read_text(encoding="utf-8"))
    stored, best = load_file(place / _TRAINED), load_file(place / _BEST)
    tensors = load_file(place / _OPTIMIZER)
    weights = session.trained_weights()
    shapes = [{name: tensor.shape for name, tensor in some.items()} for some in (weights, stored)]
    if shapes[0] != shapes[1]:
        odd = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))[0][0]
        raise CheckpointError(
            f"{place}: must hold the weights that this method trains; {odd} is not the same there."
            "\nPass --overwrite to start anew, or another --output."
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(stored[name])
    session.best = best
    moments: dict[int, dict[str, torch.Tensor]] = {}
    of_method = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "state":
            index, _, key = rest.partition(".")
            moments.setdefault(int(index), {})[key] = tensor
        elif kind == "method":
            of_method[rest] = tensor
    session.optimizer.load_state_dict({"state": moments, "param_groups": state["optimizer"]["param_groups"]})
    session.schedule.load_state_dict(state["schedule"])
    session.hooks.restore(of_method)
    session.progress = Progress(**state["progress"])
    random_state.put_back(tensors, state["random"], device=session.predictor.runtime.device)


def _places(folder: Path) -> list[Path]:
    """Folders of checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def _free_place(folder: Path, step: int) -> Path:
    """A name that is not taken: a broken checkpoint of the same step is left as it is."""
    stem = f"step-{step:08d}"
    taken = {path.name for path in folder.iterdir()}
    return folder / next(name for name in (stem, *(f"{stem}-{k:04d}" for k in range(2, 10_000))) if name not in taken)


def _forget_older(folder: Path, newest: Path) -> None:
    """Take away all but the newest, which was read back, and the one before it that verifies."""
    kept = [newest]
    for place in reversed([place for place in _places(folder) if place.name < newest.name]):
        if len(kept) < _KEPT and not _problem(place):
            kept.append(place)
    for place in set(_places(folder)) - set(kept):
        (place / MANIFEST).unlink(missing_ok=True)  # from here on nobody takes it for a whole one
        shutil.rmtree(place, ignore_errors=True)


class _BrokenError(Exception):
    """Why a checkpoint cannot be used, in a few words."""


def _problem(place: Path) -> str:
    """Why a checkpoint cannot be used; empty where it verifies."""
    try:
        for name, facts in _files_of(place).items():
            _require_file(place / name, facts)
    except _BrokenError as error:
        return str(error)
    return ""


def _files_of(place: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of each file by its name, as the manifest says."""
    try:
        manifest = json.loads((place / MANIFEST).read_bytes())
        digest = manifest.pop("sha256")
        files: dict[str, dict[str, Any]] = manifest["files"]
        version = manifest["format_version"]
    except FileNotFoundError as error:
        raise _BrokenError("it was not finished") from error
    except OSError as error:
        raise _BrokenError(f"{MANIFEST} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _BrokenError(f"{MANIFEST} is damaged") from error
    if digest != _digest(manifest):
        raise _BrokenError(f"{MANIFEST} is damaged")
    if version != FORMAT_VERSION:
        raise _BrokenError(f"its format is {version}, not {FORMAT_VERSION}")
    return files


def _require_file(path: Path, facts: Mapping[str, Any]) -> None:
    try:
        is_whole = path.stat().st_size == facts["size"] and file_sha256(path) == facts["sha256"]
    except FileNotFoundError as error:
        raise _BrokenError(f"{path.name} is missing") from error
    except OSError as error:
        raise _BrokenError(f"{path.name} cannot be read: {error.strerror}") from error
    if not is_whole:
        raise _BrokenError(f"{path.name} is damaged")


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _contiguous(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
