"""A piece of work in a forked process: everything is imported already, and its death hurts nobody else."""

import contextlib
import io
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Moments at which a file is about to be made, opened for writing, renamed or taken away (Python's audit events).
_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}
_WRITES = os.O_WRONLY | os.O_RDWR


@dataclass(frozen=True)
class Ended:
    """How a process ended; code is negative for a signal, as in subprocess."""

    code: int
    out: str
    err: str
    seconds: float


class Fork:
    """A forked process at work, its output kept in files.

    Args:
        work: Done in the child; its SystemExit is the exit code.
        folder: Where the output goes.
    """

    def __init__(self, work: Callable[[], object], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = folder / "stdout.txt", folder / "stderr.txt"
        self._began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._child(work)

    def _child(self, work: Callable[[], object]) -> None:
        for descriptor, path in zip((1, 2), self._files, strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
        sys.stdout = io.TextIOWrapper(os.fdopen(os.dup(1), "wb", 0), write_through=True)
        sys.stderr = io.TextIOWrapper(os.fdopen(os.dup(2), "wb", 0), write_through=True)
        code = 0
        try:
            work()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException:  # noqa: BLE001 - the parent reads it
            traceback.print_exc()
            code = 70
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def is_over(self) -> bool:
        """Whether the process has ended; it is not reaped."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> Ended:
        """How it ended."""
        _, status = os.waitpid(self.pid, 0)
        out, err = (path.read_text(errors="replace") for path in self._files)
        return Ended(os.waitstatus_to_exitcode(status), out, err, time.monotonic() - self._began)


def answer(work: Callable[[], Any], folder: Path) -> Any:
    """The JSON value that a piece of work in a forked process gives."""
    ended = Fork(lambda: print(json.dumps(work())), folder).wait()
    if ended.code != 0:
        raise RuntimeError(f"a forked process ended with {ended.code}: {ended.err[-2000:]}")
    return json.loads(ended.out.strip().splitlines()[-1])


def count_file_events(below: Path, seen: Callable[[int], None]) -> None:
    """From now on, count the moments at which this process changes files below a folder, and tell the count."""
    root, count = str(below), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in _EVENTS or not arguments or not str(arguments[0]).startswith(root):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return
        count += 1
        seen(count)

    sys.addaudithook(hook)


def die_at(event: int, delay: float) -> Callable[[int], None]:
    """Ends the process without a word at a file event, or shortly after: half way through a write."""

    def seen(count: int) -> None:
        if count == event:
            if delay <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, delay)

    return seen


def sleep_a_while(longest: float, source: random.Random) -> None:
    """Wait a random time."""
    time.sleep(source.uniform(0.0, longest))
