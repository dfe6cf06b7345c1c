"""What a person sees while they wait: bars on a terminal, plain lines elsewhere, with the time left; all on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from textlift.escaping import visible

if TYPE_CHECKING:
    from tqdm import tqdm

_LINE_SECONDS = 10.0


class Task:
    """One piece of work of known length."""

    def __init__(self, title: str, total: int, *, stream: TextIO | None, bars: bool) -> None:
        self.title, self.total, self.done = visible(title), total, 0
        self._stream = stream
        self._began = self._told = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if bars:
            from tqdm import tqdm as make_bar

            self._bar = make_bar(total=total, desc=self.title, file=stream, leave=False, dynamic_ncols=True)

    def reach(self, done: int, note: str = "") -> None:
        """Say how much is done, with a note such as the loss."""
        note = visible(note)
        if self._bar is not None:
            self._bar.update(done - self.done)
            if note:
                self._bar.set_postfix_str(note, refresh=False)
        self.done = done
        now = time.monotonic()
        if self._stream is not None and self._bar is None and now - self._told >= _LINE_SECONDS:
            self._told = now
            left = (now - self._began) / max(1, done) * (self.total - done)
            tail = f", {note}" if note else ""
            self._stream.write(f"{self.title}: {done}/{self.total}, {seconds_in_words(left)} left{tail}\n")
            self._stream.flush()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


class Progress:
    """Lines and bars on stderr; silent where asked."""

    def __init__(self, stream: TextIO | None = None, *, silent: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._silent = silent
        self._bars = not silent and self._stream.isatty()

    def say(self, text: str) -> None:
        """One line."""
        if self._bars:  # a line of its own above the bar that is drawn
            from tqdm import tqdm

            tqdm.write(visible(text), file=self._stream)
        elif not self._silent:
            self._stream.write(visible(text) + "\n")
            self._stream.flush()

    @contextmanager
    def task(self, title: str, total: int) -> Iterator[Task]:
        """A piece of work whose share done is told."""
        task = Task(title, total, stream=None if self._silent else self._stream, bars=self._bars)
        try:
            yield task
        finally:
            task.close()


def seconds_in_words(seconds: float) -> str:
    """Such as "8 s", "3 min 20 s", "1 h 05 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
