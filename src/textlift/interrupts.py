"""Signals that ask the process to end: kept until the step is done and saved, or obeyed at once.

    with handled():            Ctrl-C and SIGTERM raise Interrupted where the process stands,
        with deferred():       but in here they only set `pending`, so that the work ends at a safe place;
            ...                a second signal leaves at once.

Signals belong to the process, so the state does, too. Knows nothing of training.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The process was asked to end; no Exception, so that nothing takes it for a failure of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell calls a process that the signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


class _State:
    """What was asked of this process."""

    was_asked: bool = False
    pending: int | None = None
    deferring: bool = False


def pending() -> bool:
    """Whether the process was asked to end and has not yet."""
    return _State.pending is not None


def obey() -> None:
    """End here if that was asked for.

    Raises:
        Interrupted: It was.
    """
    number, _State.pending = _State.pending, None
    if number is not None:
        raise Interrupted(number)


@contextmanager
def deferred() -> Iterator[None]:
    """Keep a signal until `obey` is called, or until the block ends."""
    before, _State.deferring = _State.deferring, True
    try:
        yield
    finally:
        _State.deferring = before
    if not before:
        obey()


@contextmanager
def handled() -> Iterator[None]:
    """Take the signals; outside the main thread of a process nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _asked) for number in _SIGNALS}
    _State.was_asked, _State.pending = False, None
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.pending = None


def _asked(number: int, _frame: Any) -> None:
    if _State.was_asked:
        os._exit(128 + number)  # asked twice: whoever asks does not want to wait
    _State.was_asked = True
    if not _State.deferring:
        raise Interrupted(number)
    _State.pending = number
    os.write(2, b"finishing the step and saving; again to leave at once\n")  # a handler must not wait for a lock
