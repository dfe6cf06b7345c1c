"""How the process ends: every error with its message and its exit code."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from textlift.cli_printing import tell_error
from textlift.errors import StorageError, TextliftError, safe_for_terminal
from textlift.interrupts import Interrupted

OUR_BUG = 70


@contextmanager
def exit_codes() -> Iterator[None]:
    """Leave the process with the exit code of what happened inside; what went wrong is told in at most three lines.

    A bug of ours keeps its traceback.
    """
    try:
        yield
    except TextliftError as error:
        tell_error(f"error: {error}")
        sys.exit(error.exit_code)
    except Interrupted as error:
        tell_error(f"{error}; a run continues with --resume")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of stdout has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - told with its traceback, exit code 70
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's usage errors
            error.show()
            sys.exit(int(error.exit_code))
        if getattr(error, "errno", None) == errno.ENOSPC:  # of a temporary folder, say
            tell_error(
                f"error: {getattr(error, 'filename', None) or 'a file'}: no space is left on the disk.\nMake room."
            )
            sys.exit(StorageError.exit_code)
        import traceback

        typer.echo(safe_for_terminal(traceback.format_exc().rstrip()), err=True)
        tell_error("error: this is a bug of textlift; please report it with the lines above.")
        sys.exit(OUR_BUG)
