"""Errors raised on purpose, each with the exit code of its kind.

Knows nothing of the rest of the package but how text is made safe to print.

TextliftError                1  the command line prints these without a traceback
├── UsageError               2  a command or call cannot be understood          (also ValueError)
├── DataError               65  the texts or labels cannot be used              (also ValueError)
├── ModelError              65  a base model or saved variant cannot be used    (also ValueError)
├── CheckpointError         65  a run cannot be read or resumed                 (also ValueError)
├── InputNotFoundError      66  a file, folder, model or data set is not there  (also FileNotFoundError)
├── CannotCreateError       73  the output cannot be written where asked        (also FileExistsError)
├── StorageError            74  reading or writing failed half way              (also OSError)
├── UnavailableError        75  something outside does not answer, try later    (also ConnectionError)
├── RecipeError             78  a recipe or one of its values cannot be used    (also ValueError)
├── TrainingError            1  training failed                                 (also RuntimeError)
└── MissingExtraError        2  an optional package is not installed            (also ImportError)
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from textlift.escaping import visible


class TextliftError(Exception):
    """An error with a message for people: what must hold, what was found, what to do."""

    exit_code = 1

    def __str__(self) -> str:
        return safe_for_terminal(super().__str__())


class UsageError(TextliftError, ValueError):
    """A command or call cannot be understood."""

    exit_code = 2


class DataError(TextliftError, ValueError):
    """The texts or labels cannot be used."""

    exit_code = 65


class ModelError(TextliftError, ValueError):
    """A base model or a saved variant cannot be used."""

    exit_code = 65


class CheckpointError(TextliftError, ValueError):
    """A run cannot be read or resumed."""

    exit_code = 65


class InputNotFoundError(TextliftError, FileNotFoundError):
    """A file, folder, model or data set is not there."""

    exit_code = 66


class CannotCreateError(TextliftError, FileExistsError):
    """The output cannot be written where it was asked for."""

    exit_code = 73


class StorageError(TextliftError, OSError):
    """Reading or writing failed half way."""

    exit_code = 74


class UnavailableError(TextliftError, ConnectionError):
    """Something outside does not answer; it may later."""

    exit_code = 75


class RecipeError(TextliftError, ValueError):
    """A recipe, or one of its values, cannot be used."""

    exit_code = 78


class TrainingError(TextliftError, RuntimeError):
    """Training failed."""

    exit_code = 1


class MissingExtraError(TextliftError, ImportError):
    """An optional package is not installed."""

    exit_code = 2


def nearest(value: str, known: Iterable[str]) -> str:
    """A sentence that offers the nearest known name, or nothing: " Did you mean 'label'?"."""
    by_folded = {name.casefold(): name for name in known}
    near = get_close_matches(value.casefold(), list(by_folded), n=1)
    return f" Did you mean {by_folded[near[0]]!r}?" if near else ""


def row_list(rows: Sequence[int], *, count: int | None = None, shown: int = 3) -> str:
    """Row numbers as they stand in a message: "3, 9, 14, ..." with count for rows that are not listed."""
    total = len(rows) if count is None else count
    numbers = ", ".join(str(row) for row in rows[:shown])
    return f"{numbers}, ..." if total > shown else numbers


def safe_for_terminal(text: str) -> str:
    """Text of users or data sets with control, escape and bidirectional characters shown as codes; lines stay."""
    return visible(text, keep="\n")
