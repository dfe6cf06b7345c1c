"""Files that are whole or not there: written beside, synced, renamed; and room for them, looked for before.

Knows nothing of the rest of the package but its errors.
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from textlift.errors import StorageError

_OF_THE_SYSTEM = re.compile(r"\(os error \d+\)|Os \{ code: \d+")
_SPARE_BYTES = 1 << 20  # for folders, manifests and what else a file system needs


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: after a power cut the old content stands there, or the new one.

    Raises:
        OSError: The disk refuses; what was there before is untouched.
    """
    neighbour = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with neighbour.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        neighbour.replace(path)
    except OSError:
        neighbour.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk.

    Raises:
        OSError: It cannot.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in {errno.EINVAL, errno.EBADF, errno.ENOTSUP}):
            raise  # some network file systems cannot sync a folder
    finally:
        os.close(descriptor)


def require_free(folder: Path, size: int, *, what: str) -> None:
    """Refuse to begin writing what the disk cannot hold.

    Args:
        folder: Exists.
        size: Bytes to be written.
        what: Named in the message.

    Raises:
        StorageError: Less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < size + _SPARE_BYTES:
        raise StorageError(
            f"{what}: needs {(size + _SPARE_BYTES) / 1e6:,.1f} MB free on its disk; found {free / 1e6:,.1f} MB."
            "\nMake room, then continue with --resume."
        )


@contextmanager
def storing(what: object) -> Iterator[None]:
    """Turn what the system says of a failed write into a StorageError that names what was written.

    safetensors and tokenizers, written in Rust, raise errors of their own that quote the system's number.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and not _OF_THE_SYSTEM.search(str(error)):
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        advice = "\nMake room, then continue with --resume." if full else ""
        raise StorageError(
            f"{what}: must be written whole; {'no space is left on the disk' if full else reason}.{advice}"
        ) from error
