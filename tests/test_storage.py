"""Files are whole or not there, and a disk that refuses is told in words."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from textlift.errors import StorageError
from textlift.storage import require_free, storing, sync, write_whole


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["facts.json"]


def test_where_the_disk_refuses_the_old_content_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "facts.json"
    write_whole(path, b"old")

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["facts.json"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        Exception("No space left on device (os error 28)"),
        SafetensorError('I/O error: Os { code: 28, kind: StorageFull, message: "No space left on device" }'),
    ],
)
def test_a_full_disk_is_told_with_what_to_do(error: Exception) -> None:
    with pytest.raises(StorageError) as caught, storing("adapter"):
        raise error
    assert str(caught.value) == (
        "adapter: must be written whole; no space is left on the disk.\nMake room, then continue with --resume."
    )
    assert caught.value.exit_code == 74


def test_another_refusal_is_told_in_the_words_of_the_system() -> None:
    with (
        pytest.raises(StorageError, match=r"^adapter: must be written whole; Permission denied\.$"),
        storing("adapter"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_room_is_looked_for_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_free(tmp_path, 1000, what="checkpoint")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2_000_000))
    require_free(tmp_path, 100_000, what="checkpoint")
    with pytest.raises(StorageError, match=r"checkpoint: needs 3.0 MB free on its disk; found 2.0 MB"):
        require_free(tmp_path, 2_000_000, what="checkpoint")


def test_a_folder_that_its_file_system_cannot_sync_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("os.fsync", refuse)
    sync(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Invalid argument"):
        sync(tmp_path / "file")


def test_an_error_that_is_not_of_the_system_stays_what_it_is() -> None:
    with pytest.raises(ZeroDivisionError), storing("adapter"):
        raise ZeroDivisionError
