"""A training that is stopped and continued equals one that never stopped; broken checkpoints are passed over."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from conftest import BaseFolder
from method_pairs import pairs
from textlift.errors import CheckpointError, StorageError
from textlift.methods.registry import METHODS
from textlift.training.checkpoint import Restored, restore_latest, save_checkpoint
from textlift.training.session import Measurement, TrainingSession
from textlift.training.tuning import apply_method, hooks_of
from tiny_models import fresh, options_of, session

MARK = {"recipe": "of this job", "data": "of these rows"}
HERE = {"torch": "2.0", "threads": 1}


OPTIONS = {"lora": {"dropout": 0.3}, "adapter": {"dropout": 0.3}, "adalora": {"interval": 2}}


def fresh_session(base_folder: BaseFolder, name: str = "bert", method: str = "lora", seed: int = 0) -> TrainingSession:
    """Twelve steps in two epochs, measured every second; dropout is on."""
    folder, entry = base_folder(name), METHODS[method]
    predictor, _ = fresh(folder, seed=seed)
    options = options_of(folder, method, **OPTIONS.get(method, {}))
    torch.manual_seed(seed)
    apply_method(predictor.classifier, entry, options, total_steps=12)
    torch.manual_seed(11 + seed)
    training = session(
        predictor,
        epochs=2,
        batch_size=4,
        evaluations_per_epoch=3,
        patience=None,
        base_dropout=entry.base_dropout,
    )
    training.hooks = hooks_of(predictor.classifier, entry, options)
    return training


def run_to(training: TrainingSession, step: int, folder: Path) -> None:
    """Run, saving at each measurement, until the one after step is saved."""
    for event in training.run():
        if isinstance(event, Measurement):
            save_checkpoint(training, folder, job=MARK, environment=HERE)
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
        ("bert", "lora", 12),
        ("roberta", "lora", 4),
        ("gpt2", "full", 4),
        ("gpt2", "fusion", 4),
        ("llama", "last-layers", 8),
        *((name, method, 8) for name, method in (pair.values for pair in pairs(bases=["bert", "embedder"]))),
        *((name, "adalora", stop) for name, stop in (("bert", 2), ("gpt2", 4), ("llama", 10))),
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
    assert restore_latest(continued, tmp_path, job=MARK, environment=HERE) == Restored(stop)
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
            save_checkpoint(stopped, tmp_path, job=MARK, environment=HERE)
        elif event.number == 7:
            break
    continued = fresh_session(base_folder)
    assert restore_latest(continued, tmp_path, job=MARK, environment=HERE).step == 6
    list(continued.run())
    assert same(unbroken, continued)


def test_where_there_is_none_training_starts_at_the_beginning(base_folder: BaseFolder, tmp_path: Path) -> None:
    assert restore_latest(fresh_session(base_folder), tmp_path / "none", job=MARK, environment=HERE) == Restored(0)


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


def damage_version(place: Path) -> None:
    path = place / "manifest.json"
    path.write_text(path.read_text().replace('"torch": "2.0"', '"torch": "2.1"'))


DAMAGES = {
    damage_flip: "trained.safetensors is damaged",
    damage_cut: "optimizer.safetensors is damaged",
    lambda place: (place / "best.safetensors").unlink(): "best.safetensors is missing",
    lambda place: (place / "manifest.json").unlink(): "it was not finished",
    lambda place: (place / "manifest.json").write_text("[]"): "manifest.json is damaged",
    lambda place: (place / "manifest.json").write_text(""): "manifest.json is damaged",
    damage_version: "manifest.json is damaged",
}


@pytest.fixture(scope="module")
def two_checkpoints(base_folder: BaseFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints of steps 2 and 4; copy it before it is changed."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for event in (training := fresh_session(base_folder)).run():
        if isinstance(event, Measurement) and event.step in {2, 4}:
            save_checkpoint(training, folder, job=MARK, environment=HERE)
            if event.step == 4:
                break
    return folder


@pytest.mark.parametrize("damage", DAMAGES, ids=DAMAGES.values())
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_sentence(
    base_folder: BaseFolder, two_checkpoints: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    places = shutil.copytree(two_checkpoints, tmp_path / "checkpoints")
    damage(places / "step-00000004")
    continued = fresh_session(base_folder)
    restored = restore_latest(continued, places, job=MARK, environment=HERE)
    reason = DAMAGES[damage]
    assert restored == Restored(2, (f"checkpoint step-00000004 is not used ({reason}); the one before it is taken",))
    run_to(continued, 4, places)
    assert restore_latest(fresh_session(base_folder), places, job=MARK, environment=HERE) == Restored(4)


def test_with_every_checkpoint_damaged_training_starts_at_the_beginning(
    base_folder: BaseFolder, two_checkpoints: Path, tmp_path: Path
) -> None:
    places = shutil.copytree(two_checkpoints, tmp_path / "checkpoints")
    for place in places.iterdir():
        damage_flip(place)
    restored = restore_latest(fresh_session(base_folder), places, job=MARK, environment=HERE)
    assert restored.step == 0
    assert restored.told == (
        "checkpoint step-00000004 is not used (trained.safetensors is damaged); the one before it is taken",
        "checkpoint step-00000002 is not used (trained.safetensors is damaged); training starts at the beginning",
    )


def test_a_broken_checkpoint_is_not_written_over(
    base_folder: BaseFolder, two_checkpoints: Path, tmp_path: Path
) -> None:
    places = shutil.copytree(two_checkpoints, tmp_path / "checkpoints")
    damage_flip(places / "step-00000004")
    continued = fresh_session(base_folder)
    restore_latest(continued, places, job=MARK, environment=HERE)
    run_to(continued, 4, places)
    assert sorted(path.name for path in places.iterdir()) == ["step-00000002", "step-00000004-0002"]


def test_other_versions_continue_and_are_told(base_folder: BaseFolder, two_checkpoints: Path) -> None:
    elsewhere = {"torch": "3.0", "threads": 2}
    restored = restore_latest(fresh_session(base_folder), two_checkpoints, job=MARK, environment=elsewhere)
    assert restored.told == (
        "threads 2 in place of 1: the last digits may differ",
        "torch 3.0 in place of 2.0: the last digits may differ",
    )


def test_weights_of_another_method_are_refused(base_folder: BaseFolder, two_checkpoints: Path) -> None:
    with pytest.raises(CheckpointError, match="must hold the weights that this method trains"):
        restore_latest(fresh_session(base_folder, method="ia3"), two_checkpoints, job=MARK, environment=HERE)


def test_a_full_disk_is_found_before_anything_is_written(
    base_folder: BaseFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = fresh_session(base_folder)
    run_to(training, 2, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(StorageError, match=r"MB free on its disk; found 0.0 MB.\nMake room, then continue"):
        save_checkpoint(training, tmp_path, job=MARK, environment=HERE)
    assert restore_latest(fresh_session(base_folder), tmp_path, job=MARK, environment=HERE) == Restored(2)


@pytest.mark.parametrize("stop", [1, 3, 7, 11])
def test_a_training_stopped_between_two_measurements_continues_bit_for_bit(
    base_folder: BaseFolder, tmp_path: Path, stop: int
) -> None:
    unbroken = fresh_session(base_folder)
    list(unbroken.run())
    begun = fresh_session(base_folder)
    begun.stop = lambda: begun.progress.step >= stop
    list(begun.run())
    assert begun.progress.step == stop
    save_checkpoint(begun, tmp_path, job=MARK, environment=HERE)
    continued = fresh_session(base_folder)
    torch.manual_seed(12345)
    assert restore_latest(continued, tmp_path, job=MARK, environment=HERE).step == stop
    list(continued.run())
    assert same(unbroken, continued)


def test_a_measurement_that_is_stopped_is_made_when_training_continues(base_folder: BaseFolder, tmp_path: Path) -> None:
    unbroken = fresh_session(base_folder)
    list(unbroken.run())
    begun = fresh_session(base_folder)
    asked = []

    def stop() -> bool:  # between step 4 and the end of its measurement
        asked.append(begun.progress.step)
        return asked.count(4) == 2

    begun.stop = stop
    list(begun.run())
    assert (begun.progress.step, begun.progress.measured_step) == (4, 2)
    save_checkpoint(begun, tmp_path, job=MARK, environment=HERE)
    continued = fresh_session(base_folder)
    restore_latest(continued, tmp_path, job=MARK, environment=HERE)
    list(continued.run())
    assert same(unbroken, continued)


def test_a_checkpoint_of_another_job_is_refused(base_folder: BaseFolder, tmp_path: Path) -> None:
    run_to(fresh_session(base_folder), 2, tmp_path)
    with pytest.raises(CheckpointError, match="must come from the same recipe, data; not the same: data") as caught:
        restore_latest(fresh_session(base_folder), tmp_path, job={**MARK, "data": "of others"}, environment=HERE)
    assert "--overwrite" in str(caught.value)
    assert caught.value.exit_code == 65


def test_a_checkpoint_holds_no_pickle(base_folder: BaseFolder, tmp_path: Path) -> None:
    run_to(fresh_session(base_folder), 2, tmp_path)
    names = {path.name for path in (tmp_path / "step-00000002").iterdir()}
    assert names == {"trained.safetensors", "best.safetensors", "optimizer.safetensors", "state.json", "manifest.json"}
    assert json.loads((tmp_path / "step-00000002" / "manifest.json").read_text())["format_version"] == 2


def test_a_place_that_cannot_be_written_is_told(base_folder: BaseFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="must be written whole") as caught:
        run_to(fresh_session(base_folder), 2, tmp_path / "file" / "checkpoints")
    assert caught.value.exit_code == 74
