"""Features of the frozen base kept in a run: whole where they are few, a seeded sample where they are many."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from textlift.errors import CheckpointError
from textlift.runs import RunDirectory
from textlift.workflow import features
from textlift.workflow.features import FILE, keep_features, kept_features

FEATURES = {split: np.random.default_rng(1).normal(size=(40, 8)) for split in ("train", "test")}


def frozen(*, is_made: bool = True) -> Any:
    return SimpleNamespace(is_made=is_made, is_whole=True, features=FEATURES.__getitem__)


def job(seed: int = 0) -> Any:
    return SimpleNamespace(recipe=SimpleNamespace(seed=seed))


def test_without_a_pass_nothing_is_kept(tmp_path: Path) -> None:
    keep_features(RunDirectory(tmp_path), job(), frozen(is_made=False))
    assert kept_features(RunDirectory(tmp_path)) is None


def test_what_is_kept_is_not_written_again(tmp_path: Path) -> None:
    keep_features(RunDirectory(tmp_path), job(), frozen())
    before = (tmp_path / FILE).stat().st_mtime_ns
    keep_features(RunDirectory(tmp_path), job(), frozen())
    assert (tmp_path / FILE).stat().st_mtime_ns == before


def test_of_many_rows_a_sample_of_the_seed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MOST_BYTES", 10 * 2 * 8)
    kept = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        (tmp_path / name).mkdir()
        keep_features(RunDirectory(tmp_path / name), job(seed), frozen())
        kept.append(kept_features(RunDirectory(tmp_path / name)))
    first, same, other = (one.rows["train"].tolist() for one in kept if one is not None)
    assert len(first) == 10
    assert first == sorted(set(first)) == same != other


def test_a_row_of_the_sample_has_the_features_of_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MOST_BYTES", 10 * 2 * 8)
    keep_features(RunDirectory(tmp_path), job(), frozen())
    kept = kept_features(RunDirectory(tmp_path))
    assert kept is not None
    found = [place for place in range(40) if kept.of_test(place) is not None]
    assert found == kept.rows["test"].tolist()
    row = FEATURES["test"][found[-1]]
    assert kept.of_test(found[-1]) == pytest.approx(row / np.linalg.norm(row), abs=1e-3)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CheckpointError, match="must hold features that textlift wrote"):
        kept_features(RunDirectory(tmp_path))
