#!/usr/bin/env python3
"""Coverage-guided fuzzing of the readers: any bytes are read, or refused in at most three lines; nothing else happens.

atheris is no dependency of the project. Install it beside the package and run, from the root of the repository:

    python tests/fuzz/fuzz_readers.py -max_total_time=600 -max_len=4095 tests/fuzz/corpus

The first byte of an input chooses the format and the options, the rest is the file. A finding is written to
crash-*, and `python tests/fuzz/fuzz_readers.py crash-...` plays it again. After a run the corpus is made small again:

    mkdir found && tests/fuzz/fuzz_readers.py -set_cover_merge=1 -max_len=4095 found tests/fuzz/corpus

then `found` takes the place of the corpus. tests/fuzz/test_corpus.py plays every file of the corpus without atheris.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from textlift.errors import TextliftError
from textlift.recipe import DataSection

# The ending of the file and the options it is read with, by the first byte of an input.
WAYS: tuple[tuple[str, dict[str, str]], ...] = (
    (".csv", {}),
    (".jsonl", {}),
    (".parquet", {}),
    (".tsv", {}),
    (".json", {}),
    (".csv", {"text": "text", "label": "label"}),
    (".csv", {"delimiter": ";"}),
    (".csv", {"encoding": "utf-16"}),
    (".csv", {"encoding": "cp1252"}),
    (".jsonl", {"encoding": "utf-16-le"}),
    (".jsonl", {"text": "text", "label": "label"}),
    (".csv", {"split_column": "split"}),
)


def read_one(data: bytes, folder: Path) -> str:
    """Read an input as a file of the folder; the message where it is refused, nothing where it is read.

    Raises:
        AssertionError: The message has no line or over three of them, or cells are missing.
        Exception: Whatever is no TextliftError is a fault of the reader.
    """
    from textlift.data import find_problems, read_dataset, read_texts  # here, so that main can instrument them

    ending, options = WAYS[(data[0] if data else 0) % len(WAYS)]
    path = folder / f"a{ending}"
    path.write_bytes(data[1:])
    section = DataSection(source=str(path), **options)

    def rows_are_whole() -> None:
        dataset = read_dataset(section)
        for rows in dataset.splits.values():
            sizes = {len(rows.texts), len(rows.labels), len(rows.row_numbers), len(rows.sources)}
            assert sizes == {len(rows)}, sizes
            assert all(isinstance(cell, str) for cell in (*rows.texts, *rows.labels))
        find_problems(dataset, section)

    said = _message_of(rows_are_whole)
    _message_of(lambda: read_texts(path, text_column=options.get("text"), delimiter=options.get("delimiter")))
    return said


def _message_of(act: Callable[[], object]) -> str:
    try:
        act()
    except TextliftError as error:
        message = str(error)
    else:
        return ""
    assert 1 <= len(message.splitlines()) <= 3, message
    return message


def main() -> None:
    """Fuzz until stopped; the arguments are those of libFuzzer."""
    import atheris

    with atheris.instrument_imports(include=["textlift.data", "json"]):
        import textlift.data  # noqa: F401 - imported here to be instrumented
    folder = Path(tempfile.mkdtemp(prefix="fuzz-readers-"))

    def play(data: bytes) -> None:
        read_one(data, folder)

    atheris.Setup(sys.argv, play)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
