"""A training that is stopped and continued equals one that never stopped; broken checkpoints are passed over."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conftest import BaseFolder
from textlift.errors import CheckpointError, StorageError
from textlift.methods.registry import METHODS
from textlift.training.checkpoint import restore_latest, save_checkpoint
from textlift.training.session import Measurement, TrainingSession
from tiny_models import session, wrapped

MARK = "of this job"


def fresh_session(base_folder: BaseFolder, name: str = "bert", method: str = "lora", seed: int = 0) -> TrainingSession:
    """Twelve steps in two epochs, measured every second; dropout is on."""
    predictor, _ = wrapped(
        base_folder(name), method, seed=seed, **({"dropout": 0.3} if method in {"lora", "adapter"} else {})
    )
    torch.manual_seed(11 + seed)
    return session(
        predictor,
        epochs=2,
        batch_size=4,
        evaluations_per_epoch=3,
        patience=None,
        base_dropout=METHODS[method].base_dropout,
    )


def run_to(training: TrainingSession, step: int, folder: Path) -> None:
    """Run, saving at each measurement, until the one after step is saved."""
    for event in training.run():
        if isinstance(event, Measurement):
            save_checkpoint(training, folder, fingerprint=MARK)
            if event.step >= step:
                return


def same(left: TrainingSession, right: TrainingSession) -> bool:
    weights, others = left.trained_weights(), right.trained_weights()
    equal = all(torch.equal(weight, others[key]) for key, weight in weights.items())
    best = all(torch.equal(weight, right.best[key]) for key, weight in left.best.items())
    return equal and best and left.progress.history == right.progress.history


@pytest.mark.parametrize(
    ("name", "method", "stop"),
    [
        ("bert", "lora", 0),
        ("bert", "lora", 4),
        ("bert", "lora", 12),
        ("bert", "full", 8),
        ("roberta", "lora", 4),
        ("gpt2", "full", 4),
        ("embedder", "lora", 8),
        ("bert", "adapter", 4),
        ("embedder", "adapter", 8),
        ("gpt2", "bitfit", 4),
        ("llama", "last-layers", 8),
        ("embedder", "probe", 4),
        ("gpt2", "fusion", 4),
        ("embedder", "fusion", 8),
    ],
)
def test_a_continued_training_equals_an_unbroken_one(
    base_folder: BaseFolder, tmp_path: Path, name: str, method: str, stop: int
) -> None:
    unbroken = fresh_session(base_folder, name, method)
    list(unbroken.run())
    run_to(fresh_session(base_folder, name, method), stop, tmp_path)
    continued = fresh_session(base_folder, name, method)
    torch.manual_seed(12345)  # the state of the generator comes from the checkpoint
    assert restore_latest(continued, tmp_path, fingerprint=MARK) == (stop, [])
    list(continued.run())
    assert same(unbroken, continued)
    assert unbroken.progress.best_step == continued.progress.best_step
    assert unbroken.progress.useful_tokens == continued.progress.useful_tokens


def test_an_interruption_between_two_measurements_loses_only_the_steps_since_the_last(
    base_folder: BaseFolder, tmp_path: Path
) -> None:
    unbroken = fresh_session(base_folder)
    list(unbroken.run())
    stopped = fresh_session(base_folder)
    for event in stopped.run():
        if isinstance(event, Measurement):
            save_checkpoint(stopped, tmp_path, fingerprint=MARK)
        elif event.number == 7:
            break
    continued = fresh_session(base_folder)
    assert restore_latest(continued, tmp_path, fingerprint=MARK)[0] == 6
    list(continued.run())
    assert same(unbroken, continued)


def test_where_there_is_none_training_starts_at_the_beginning(base_folder: BaseFolder, tmp_path: Path) -> None:
    assert restore_latest(fresh_session(base_folder), tmp_path / "none", fingerprint=MARK) == (0, [])


def test_the_two_newest_are_kept(base_folder: BaseFolder, tmp_path: Path) -> None:
    run_to(fresh_session(base_folder), 8, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000006", "step-00000008"]


def damage_flip(place: Path) -> None:
    path = place / "trained.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def damage_cut(place: Path) -> None:
    path = place / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


DAMAGES = {
    "one flipped bit": damage_flip,
    "a file cut short": damage_cut,
    "a missing file": lambda place: (place / "best.safetensors").unlink(),
    "a missing manifest": lambda place: (place / "manifest.json").unlink(),
    "a manifest that is no object": lambda place: (place / "manifest.json").write_text("[]"),
    "an empty manifest file": lambda place: (place / "manifest.json").write_text(""),
}


@pytest.fixture(scope="module")
def two_checkpoints(base_folder: BaseFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of steps 2 and 4; copy it before it is changed."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for event in (training := fresh_session(base_folder)).run():
        if isinstance(event, Measurement) and event.step in {2, 4}:
            save_checkpoint(training, folder, fingerprint=MARK)
            if event.step == 4:
                break
    return folder


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_sentence(
    base_folder: BaseFolder, two_checkpoints: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    places = shutil.copytree(two_checkpoints, tmp_path / "checkpoints")
    damage(places / "step-00000004")
    continued = fresh_session(base_folder)
    step, told = restore_latest(continued, places, fingerprint=MARK)
    assert (step, told) == (2, ["checkpoint step-00000004 is damaged; the one before it is taken"])
    run_to(continued, 4, places)
    assert restore_latest(fresh_session(base_folder), places, fingerprint=MARK) == (4, [])


def test_with_every_checkpoint_damaged_training_starts_at_the_beginning(
    base_folder: BaseFolder, two_checkpoints: Path, tmp_path: Path
) -> None:
    places = shutil.copytree(two_checkpoints, tmp_path / "checkpoints")
    for place in places.iterdir():
        damage_flip(place)
    step, told = restore_latest(fresh_session(base_folder), places, fingerprint=MARK)
    assert step == 0
    assert told == [
        "checkpoint step-00000004 is damaged; the one before it is taken",
        "checkpoint step-00000002 is damaged; training starts at the beginning",
    ]


def test_an_unfinished_checkpoint_is_not_seen(base_folder: BaseFolder, tmp_path: Path) -> None:
    run_to(fresh_session(base_folder), 2, tmp_path)
    shutil.copytree(tmp_path / "step-00000002", tmp_path / ".step-00000009.unfinished")
    assert restore_latest(fresh_session(base_folder), tmp_path, fingerprint=MARK) == (2, [])


def test_a_checkpoint_of_another_job_is_refused(base_folder: BaseFolder, tmp_path: Path) -> None:
    run_to(fresh_session(base_folder), 2, tmp_path)
    with pytest.raises(CheckpointError, match="must come from the same recipe, base model and data") as caught:
        restore_latest(fresh_session(base_folder), tmp_path, fingerprint="of another")
    assert "--overwrite" in str(caught.value)
    assert caught.value.exit_code == 65


def test_a_checkpoint_holds_no_pickle(base_folder: BaseFolder, tmp_path: Path) -> None:
    run_to(fresh_session(base_folder), 2, tmp_path)
    names = {path.name for path in (tmp_path / "step-00000002").iterdir()}
    assert names == {"trained.safetensors", "best.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    assert json.loads((tmp_path / "step-00000002" / "manifest.json").read_text())["format_version"] == 1


def test_a_place_that_cannot_be_written_is_told(base_folder: BaseFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="must be writable") as caught:
        run_to(fresh_session(base_folder), 2, tmp_path / "file" / "checkpoints")
    assert caught.value.exit_code == 74
