"""One data file, of whatever format: is it there, is it what its name says, what is in it."""

import os
import re
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path, PurePath

from textlift.data.csv_rows import read_csv
from textlift.data.encodings import double_byte_problem
from textlift.data.json_rows import read_json
from textlift.data.parquet_rows import read_parquet
from textlift.data.problems import Problem, quoted
from textlift.data.table import Advance, Table, Want
from textlift.digests import file_sha256
from textlift.errors import DataError, InputNotFoundError, StorageError, TextliftError, safe_for_terminal

CSV_ENDINGS = (".csv", ".tsv", ".tab")
JSON_ENDINGS = (".jsonl", ".ndjson", ".json")
DATA_ENDINGS = (*CSV_ENDINGS, *JSON_ENDINGS, ".parquet")

_MAGIC = {  # first bytes: what the file is, what to do
    b"PAR1": ("a Parquet file", "Name it .parquet."),
    b"\x1f\x8b": ("compressed with gzip", "Unpack it first (gunzip)."),
    b"PK\x03\x04": ("a ZIP archive or an Excel file", "Unpack it, or save the sheet as CSV (UTF-8)."),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "Unpack it first (unzstd)."),
    b"BZh": ("compressed with bzip2", "Unpack it first (bunzip2)."),
    b"\xfd7zXZ": ("compressed with xz", "Unpack it first (unxz)."),
    b"ARROW1": ("an Arrow file", "Write it as Parquet."),
    b"\xd0\xcf\x11\xe0": ("an old Excel file", "Save the sheet as CSV (UTF-8)."),
    b"%PDF": ("a PDF file", "Give the rows as CSV, JSON lines or Parquet."),
    b"SQLite format 3\0": ("an SQLite file", "Export the table as CSV."),
    b"version https://git-lfs": ("a pointer of Git LFS", "Fetch what it stands for (git lfs pull)."),
    b"\0" * 64: ("nothing but NUL bytes where it starts", "It was not written whole: fetch or write it again."),
}
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|\?xml)\b", re.IGNORECASE)
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:(\[)\s*)?\{\s*\"")


def read_table(
    path: Path, *, name: str, want: Want, delimiter: str | None = None, encoding: str = "utf-8", advance: Advance
) -> Table:
    """The wanted columns of a file, read by the format that its name says.

    Raises:
        InputNotFoundError: The file is not there or may not be read.
        RecipeError: The encoding or the delimiter is none.
        StorageError: Reading fails half way.
    """
    state = file_state(path)
    must_be_readable(path)
    try:
        table = _read(path, name=name, want=want, delimiter=delimiter, encoding=encoding, advance=advance)
    except OSError as error:
        if isinstance(error, TextliftError):
            raise
        if file_state(path) == state:
            reason = error.strerror or type(error).__name__
            shown = safe_for_terminal(name)
            raise StorageError(
                f"{shown}: must be read to its end; {reason}. Check the disk, or copy the file."
            ) from error
        table = Table()
    if file_state(path) != state:  # what was found wrong is then of no file that there is
        return Table(problems=[changed(name)], state=state)
    return replace(table, state=state)


def file_state(path: Path) -> tuple[int, ...]:
    """What changes when a file is written to, replaced or taken away: device, number, bytes, time of change."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def changed(name: str) -> Problem:
    """The fault of a file that is not the same any more."""
    found = "must stay as it is while it is read; it changed."
    return Problem(name, found, "Wait until it is written, then try again.")


def expanded(name: str | Path) -> Path:
    """The path of a name, with ~ as a home folder where there is such a person."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def _read(path: Path, *, name: str, want: Want, delimiter: str | None, encoding: str, advance: Advance) -> Table:
    problem = _not_as_named(path, name, encoding)
    if problem:
        return Table(problems=[problem])
    ending = path.suffix.casefold()
    if ending == ".parquet":
        return read_parquet(path, name=name, want=want, advance=advance)
    if ending in JSON_ENDINGS:
        return read_json(path, name=name, want=want, encoding=encoding, advance=advance)
    return read_csv(path, name=name, want=want, delimiter=delimiter, encoding=encoding, advance=advance)


def must_be_readable(path: Path) -> None:
    """Return where the path is a file that may be read.

    Raises:
        InputNotFoundError: It is not; nearest names and the owner are told.
    """
    shown = quoted(str(path), 200)[1:-1]
    try:
        if path.is_dir():
            raise InputNotFoundError(f"{shown}: must be a file; it is a folder. Name a file in it.")
        if path.is_symlink() and not path.exists():
            target = quoted(str(path.readlink()), 200)
            raise InputNotFoundError(f"{shown}: must be a data file; it is a link to {target}, which is not there.")
        if not path.exists():
            raise InputNotFoundError(f"{shown}: must be a data file; there is none of this name.{nearest_files(path)}")
        if not path.is_file():
            raise InputNotFoundError(f"{shown}: must be a regular file; it is a pipe or a device. Copy it to a file.")
        with path.open("rb"):
            return
    except PermissionError as error:
        raise InputNotFoundError(
            f"{shown}: must be readable; permission is denied.{_owner(path)} Change its permissions (chmod u+r)."
        ) from error
    except FileNotFoundError as error:
        if isinstance(error, InputNotFoundError):
            raise
        raise DataError(str(changed(shown))) from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        reason = getattr(error, "strerror", None) or error
        raise InputNotFoundError(f"{shown}: must be a readable file; {reason}.") from error


def nearest_files(path: Path) -> str:
    """A sentence that offers existing names near a missing path, from the last folder on its way that exists."""
    folder = path.parent
    if not folder.is_dir():
        return f" {_no_folder(folder)}"
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        names = sorted(entry.name for entry in entries if entry.is_dir() or is_data_file(entry))
    except OSError:
        return ""
    names = [name for name in names if name != path.name]
    near = get_close_matches(path.name, names, n=3) or [n for n in names if n.startswith(path.stem)][:3]
    return f" Did you mean {' or '.join(quoted(str(folder / name), 200) for name in near)}?" if near else ""


def _no_folder(path: Path) -> str:
    shown = quoted(str(path), 200)
    try:
        return f"{shown} is a file, no folder." if path.is_file() else f"The folder {shown} does not exist either."
    except OSError:
        return f"The folder {shown} does not exist either."


def is_data_file(path: PurePath) -> bool:
    """Whether the name says that the file can hold rows."""
    return path.suffix.casefold() in DATA_ENDINGS and not path.name.startswith(".")


def fingerprint(path: Path) -> dict[str, str | int]:
    """sha256 and size of a file; of one that is gone, of no bytes."""
    try:
        return {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    except FileNotFoundError:  # told by its state
        return {"sha256": "", "bytes": 0}


def _not_as_named(path: Path, name: str, encoding: str) -> Problem | None:
    with path.open("rb") as file:
        head = file.read(4096)
    ending = path.suffix.casefold()
    if not head:
        return Problem(name, "must hold labelled rows; the file has 0 bytes.", "Write or fetch it again.")
    if ending == ".parquet" and head.startswith(b"PAR1"):
        return None
    what, advice = _kind_of(head)
    if ending == ".parquet":
        found = f"it is {what}" if what else "it does not start as one"
        advice = advice or "Give it the ending of its real format."
        return Problem(name, f"must be a Parquet file; {found}.", advice)
    if what:
        return Problem(name, f"must be text; the file is {what}.", advice)
    if ending not in DATA_ENDINGS:
        found = f"must be one of {', '.join(DATA_ENDINGS)}; found the ending {quoted(path.suffix or 'none')}."
        return Problem(name, found, "Rename the file to what it holds.")
    is_json = ending in CSV_ENDINGS and _json_problem(head, name)
    return is_json or double_byte_problem(head, name=name, encoding=encoding)


def _json_problem(head: bytes, name: str) -> Problem | None:
    found = _JSON.match(head)
    if not found:
        return None
    what, ending = ("a JSON array", ".json") if found.group(1) else ("JSON lines", ".jsonl")
    return Problem(name, f"must hold fields and a delimiter; the file is {what}.", f"Name it {ending}.")


def _kind_of(head: bytes) -> tuple[str, str]:
    """What a file that is neither text nor Parquet is, and what to do; empty where it may be text."""
    if _PAGE.match(head):
        return "a web page or XML", "Fetch the file itself, not the page that shows it."
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), ("", ""))


def _owner(path: Path) -> str:
    try:
        import pwd

        return f" It belongs to {pwd.getpwuid(os.stat(path).st_uid).pw_name}."  # noqa: PTH116 - the same on 3.10
    except (ImportError, KeyError, OSError):  # Windows, unknown user, closed folder
        return ""
