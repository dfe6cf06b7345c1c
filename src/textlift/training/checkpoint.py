"""A training session on disk: safetensors for tensors, JSON for the rest, a manifest written last.

A checkpoint is a new folder for each step and never overwritten; the newest whose manifest verifies counts.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from textlift.digests import file_sha256
from textlift.errors import CheckpointError, StorageError
from textlift.training.session import Progress, TrainingSession

_MANIFEST = "manifest.json"
_KEPT = 2


def save_checkpoint(session: TrainingSession, folder: Path, *, fingerprint: str) -> Path:
    """Write the whole state of a session below folder, as a new folder named by its step.

    Args:
        session: Between two steps.
        folder: Holds the checkpoints of one variant.
        fingerprint: Of recipe, base model and data; a session of another job refuses the checkpoint.

    Raises:
        StorageError: It cannot be written; the checkpoints before it are kept.
    """
    place = folder / f"step-{session.progress.step:08d}"
    unfinished = folder / f".{place.name}.unfinished"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        save_file(_contiguous(session.trained_weights()), unfinished / "trained.safetensors")
        save_file(_contiguous(session.best), unfinished / "best.safetensors")
        tensors, plain = _optimizer_state(session)
        save_file(tensors, unfinished / "optimizer.safetensors")
        state = {
            "fingerprint": fingerprint,
            "progress": dataclasses.asdict(session.progress),
            "optimizer": plain,
            "schedule": session.schedule.state_dict(),
        }
        (unfinished / "state.json").write_text(json.dumps(state), encoding="utf-8")
        files = {path.name: file_sha256(path) for path in sorted(unfinished.iterdir())}
        (unfinished / _MANIFEST).write_text(json.dumps({"format_version": 1, "files": files}), encoding="utf-8")
        for path in unfinished.iterdir():
            _sync(path)
        if place.exists():
            shutil.rmtree(place)
        unfinished.rename(place)
        _sync(folder)
    except OSError as error:
        raise StorageError(f"checkpoint {place}: must be writable; {error.strerror or error}.") from error
    for old in _places(folder)[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def restore_latest(session: TrainingSession, folder: Path, *, fingerprint: str) -> tuple[int, list[str]]:
    """Put the newest checkpoint that verifies into the session.

    Returns:
        The step it stands at (0 where there is none) and a sentence for each broken checkpoint passed over.

    Raises:
        CheckpointError: The checkpoint belongs to another recipe, base model or data.
    """
    told = []
    places = _places(folder)
    for place in reversed(places):
        if not _verifies(place):
            instead = "training starts at the beginning" if place == places[0] else "the one before it is taken"
            told.append(f"checkpoint {place.name} is damaged; {instead}")
            continue
        _restore(session, place, fingerprint)
        return session.progress.step, told
    return 0, told


def _restore(session: TrainingSession, place: Path, fingerprint: str) -> None:
    state = json.loads((place / "state.json").read_text(encoding="utf-8"))
    if state["fingerprint"] != fingerprint:
        raise CheckpointError(
            f"{place}: must come from the same recipe, base model and data; it does not."
            "\nPass --overwrite to start anew, or another --output."
        )
    stored = load_file(place / "trained.safetensors")
    with torch.no_grad():
        for name, weight in session.trained_weights().items():
            weight.copy_(stored[name])
    session.best = load_file(place / "best.safetensors")
    tensors = load_file(place / "optimizer.safetensors")
    torch.set_rng_state(tensors.pop("rng.cpu"))
    if "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors.pop("rng.cuda"))
    session.optimizer.load_state_dict(_joined(tensors, state["optimizer"]))
    session.schedule.load_state_dict(state["schedule"])
    session.progress = Progress(**state["progress"])


def _optimizer_state(session: TrainingSession) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors under flat names, and the plain rest."""
    state = session.optimizer.state_dict()
    tensors = {"rng.cpu": torch.get_rng_state()}
    if session.predictor.runtime.device.startswith("cuda"):
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    for index, entries in state["state"].items():
        for key, value in entries.items():
            tensors[f"state.{index}.{key}"] = value.detach().to("cpu", copy=True).contiguous()
    return tensors, {"param_groups": state["param_groups"]}


def _joined(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        _, index, key = name.split(".", 2)
        state.setdefault(int(index), {})[key] = tensor
    return {"state": state, "param_groups": plain["param_groups"]}


def _places(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _verifies(place: Path) -> bool:
    try:
        manifest = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
        return all(file_sha256(place / name) == digest for name, digest in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _contiguous(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
