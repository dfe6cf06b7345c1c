"""textlift: labelled text in, a proven and cheap classifier out.

    >>> import textlift
    >>> result = textlift.run("demo")                        # doctest: +SKIP
    >>> textlift.load(result.directory).predict(["a text"])  # doctest: +SKIP

The names below are the whole public face; heavy libraries load when one of them is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textlift.api import check, compare, evaluate, explain, export, fix, load, run
    from textlift.errors import TextliftError
    from textlift.estimator import TextClassifier

__version__ = "0.1.0"

_HOMES = {
    "TextClassifier": "textlift.estimator",
    "TextliftError": "textlift.errors",
    "check": "textlift.api",
    "compare": "textlift.api",
    "evaluate": "textlift.api",
    "explain": "textlift.api",
    "export": "textlift.api",
    "fix": "textlift.api",
    "load": "textlift.api",
    "run": "textlift.api",
}

__all__ = [
    "TextClassifier",
    "TextliftError",
    "__version__",
    "check",
    "compare",
    "evaluate",
    "explain",
    "export",
    "fix",
    "load",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'textlift' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
