"""Where the bytes of a text file break its encoding, and which encoding they look like."""

import codecs
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from textlift.data.problems import Problem
from textlift.errors import RecipeError, nearest

_ESCAPED = re.compile("[\udc80-\udcff]")  # how the error handler surrogateescape writes a byte it cannot decode
_MARKS = (  # byte order marks; longer ones first, since UTF-32 starts like UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NO_ENCODINGS = {"idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7"}  # escapes, not characters
_COMMON = ("utf-8", "utf-16", "latin-1", "cp1252", "cp1251", "shift_jis", "gb18030", "big5", "euc-kr", "ascii")


def known_encoding(encoding: str) -> str:
    """The encoding to open a file with: Python's name, with the byte order mark of UTF-8 taken off.

    Raises:
        RecipeError: Python has no such text encoding.
    """
    try:
        "".encode(encoding)  # bytes-to-bytes codecs such as hex are refused here
        name = codecs.lookup(encoding).name
        if name.replace("_", "-") in _NO_ENCODINGS:
            raise LookupError(name)
    except (LookupError, ValueError, TypeError) as error:
        raise RecipeError(
            f"data.encoding must be a text encoding that Python knows, such as {', '.join(_COMMON[:4])}; "
            f"found {encoding!r}.{nearest(encoding, _COMMON)}"
        ) from error
    return "utf-8-sig" if name == "utf-8" else name


def encoding_problem(path: Path, *, name: str, encoding: str, records: Callable[[TextIO], Iterator[str]]) -> Problem:
    """The fault of a file that does not decode: first offending byte, its offset, its row, and a guess.

    Args:
        path: The file.
        name: The file as shown to people.
        encoding: What it was read as.
        records: Turns the opened text into one string for each row, to count rows the way its format does.
    """
    plain = "utf-8" if encoding == "utf-8-sig" else encoding
    offset, byte = _first_fault(path, plain)
    guess = _guess(path, offset)
    shown = "UTF-8" if plain == "utf-8" else plain
    what = (
        f"byte 0x{byte:02X} at offset {offset:,} is not" if byte is not None else f"it breaks off at {offset:,} bytes"
    )
    problem = Problem(name, f"must be {shown}; {what}.", _advice(guess if guess != plain else ""))
    for row in _faulty_rows(path, encoding, records):
        if row:  # 0 is the header
            problem.add(row)
    return problem


def double_byte_problem(head: bytes, *, name: str, encoding: str) -> Problem | None:
    """The fault of a file in UTF-16 without its mark where one byte a character is expected: it has NUL bytes only."""
    codec = known_encoding(encoding)
    plain = "utf-8" if codec == "utf-8-sig" else codec
    guess = "" if head.startswith(tuple(mark for mark, _ in _MARKS)) else _half_nul(head)
    if not guess or len("a".encode(plain)) > 1:
        return None
    shown = "UTF-8" if plain == "utf-8" else plain
    return Problem(name, f"must be {shown}; every second byte is NUL.", _advice(guess))


def _advice(guess: str) -> str:
    if guess == "utf-8":
        return "It looks like utf-8: pass --encoding utf-8."
    return f"It looks like {guess}: pass --encoding {guess}, or save it as UTF-8." if guess else "Save it as UTF-8."


def _half_nul(sample: bytes) -> str:
    """The UTF-16 that a sample looks like, "" for none."""
    half = len(sample) // 2
    even, odd = sample[0 : 2 * half : 2].count(0), sample[1 : 2 * half : 2].count(0)
    if half and max(even, odd) > 0.4 * half and min(even, odd) < 0.1 * half:
        return "utf-16-le" if odd > even else "utf-16-be"
    return ""


def _first_fault(path: Path, encoding: str) -> tuple[int, int | None]:
    decoder = codecs.getincrementaldecoder(encoding)()
    offset = 0
    with path.open("rb") as file:
        while True:
            chunk = file.read(1 << 20)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                return offset - pending + error.start, error.object[error.start]
            except UnicodeError:  # UTF-16 without its mark: no position is told
                return offset - pending, None
            offset += len(chunk)
            if not chunk:
                return offset, None


def _faulty_rows(path: Path, encoding: str, records: Callable[[TextIO], Iterator[str]]) -> Iterator[int]:
    try:
        with path.open("rb") as file:
            text = io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")
            for row, record in enumerate(records(text)):
                if _ESCAPED.search(record):
                    yield row
    except UnicodeError:  # encodings of two bytes have no such escape: the offset must do
        return


def _guess(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, offset - 512))
        window = file.read(65_536)
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if window.count(0) > len(window) // 5:
        return _half_nul(window) or "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(window.lstrip(bytes(range(0x80, 0xC0))))
    except UnicodeDecodeError:
        pass
    else:
        return "utf-8"
    # Latin-1 has control characters where Windows' code page has curly quotes and dashes.
    return "cp1252" if any(0x80 <= byte < 0xA0 for byte in window) else "latin-1"
