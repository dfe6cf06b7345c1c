"""Commands called in this process, and rows to call them with."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from textlift import cli

SUBJECTS = {"sea": "wave boat salt", "sky": "cloud bird star", "soil": "root worm clay"}


class Ended(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Ended]


def call(capture: Any, *arguments: object) -> Ended:
    before = sys.argv
    sys.argv = ["textlift", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = before
    captured = capture.readouterr()
    return Ended(int(ended.value.code or 0), captured.out, captured.err)


def rows(n: int = 120, *, start: int = 0) -> str:
    lines = ["text,label"]
    for i in range(start, start + n):
        label = list(SUBJECTS)[i % 3]
        words = SUBJECTS[label].split()
        lines.append(f"we saw the {words[i % 3]} and {words[(i // 3) % 3]} number {i},{label}")
    return "\n".join(lines) + "\n"
