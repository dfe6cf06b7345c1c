"""One data file, of whatever format: is it there, is it what its name says, what is in it."""

import os
from difflib import get_close_matches
from pathlib import Path, PurePath

from textlift.data.csv_rows import read_csv
from textlift.data.json_rows import read_json
from textlift.data.parquet_rows import read_parquet
from textlift.data.problems import Problem, quoted
from textlift.data.table import Advance, Table, Want
from textlift.digests import file_sha256
from textlift.errors import InputNotFoundError, safe_for_terminal

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
}


def read_table(
    path: Path, *, name: str, want: Want, delimiter: str | None = None, encoding: str = "utf-8", advance: Advance
) -> Table:
    """The wanted columns of a file, read by the format that its name says.

    Raises:
        InputNotFoundError: The file is not there or may not be read.
        RecipeError: The encoding or the delimiter is none.
    """
    must_be_readable(path)
    problem = _not_as_named(path, name)
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
    shown = safe_for_terminal(str(path))
    try:
        if path.is_dir():
            raise InputNotFoundError(f"{shown}: must be a file; it is a folder. Name a file in it.")
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
    except OSError as error:
        if isinstance(error, InputNotFoundError):
            raise
        raise InputNotFoundError(f"{shown}: must be a readable file; {error.strerror or error}.") from error


def nearest_files(path: Path) -> str:
    """A sentence that offers existing names near a missing path, from the last folder on its way that exists."""
    folder = path.parent
    if not folder.is_dir():
        return f" The folder {quoted(str(folder), 200)} does not exist either."
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        names = sorted(entry.name for entry in entries if entry.is_dir() or is_data_file(entry))
    except OSError:
        return ""
    near = get_close_matches(path.name, names, n=3) or [n for n in names if n.startswith(path.stem)][:3]
    return f" Did you mean {' or '.join(quoted(str(folder / name), 200) for name in near)}?" if near else ""


def is_data_file(path: PurePath) -> bool:
    """Whether the name says that the file can hold rows."""
    return path.suffix.casefold() in DATA_ENDINGS and not path.name.startswith(".")


def fingerprint(path: Path) -> dict[str, str | int]:
    """sha256 and size of a file."""
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def _not_as_named(path: Path, name: str) -> Problem | None:
    with path.open("rb") as file:
        head = file.read(16)
    ending = path.suffix.casefold()
    if not head:
        return Problem(name, "must hold labelled rows; the file has 0 bytes.", "Write or fetch it again.")
    if ending == ".parquet":
        found = "must be a Parquet file; it does not start as one."
        return None if head.startswith(b"PAR1") else Problem(name, found, "Give it the ending of its real format.")
    for magic, (what, advice) in _MAGIC.items():
        if head.startswith(magic):
            return Problem(name, f"must be text; the file is {what}.", advice)
    if ending not in DATA_ENDINGS:
        found = f"must be one of {', '.join(DATA_ENDINGS)}; found the ending {quoted(path.suffix or 'none')}."
        return Problem(name, found, "Rename the file to what it holds.")
    return None


def _owner(path: Path) -> str:
    try:
        import pwd

        return f" It belongs to {pwd.getpwuid(os.stat(path).st_uid).pw_name}."  # noqa: PTH116 - the same on 3.10
    except (ImportError, KeyError, OSError):  # Windows, unknown user, closed folder
        return ""
