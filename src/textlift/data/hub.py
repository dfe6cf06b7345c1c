"""Data sets of the Hugging Face Hub: the card, then only the files that are needed; no code of a data set is run.

What is cached is used where the Hub cannot be reached.
"""

import glob
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from textlift.data.card import read_card
from textlift.data.files import is_data_file
from textlift.data.layout import Layout, layout_of, layout_of_config
from textlift.errors import DataError, InputNotFoundError, StorageError, UnavailableError, safe_for_terminal

_CARD_FILES = ["README.md", ".gitattributes"]


@dataclass(frozen=True)
class HubFiles:
    """A data set repository as it lies in the cache, pinned to a commit."""

    folder: Path
    commit: str
    layout: Layout
    class_names: dict[str, tuple[str, ...]]


def fetch(name: str, config: str | None, revision: str | None) -> HubFiles:
    """The files of a Hub data set's splits, downloaded or from the cache.

    Raises:
        InputNotFoundError: No such data set, revision or configuration, or it is gated.
        UnavailableError: The Hub cannot be reached and the files are not cached.
        DataError: It holds no usable data file, or its files do not say their splits.
    """
    with _told_errors(name):
        folder = _download(name, revision, _CARD_FILES, shows_progress=False)
        paths, is_complete = _listing(name, folder)
    readme = folder / "README.md"
    card = read_card(readme.read_text(encoding="utf-8", errors="replace")) if readme.is_file() else read_card("")
    chosen = card.config(config, place=name)
    try:
        _must_hold_data(name, paths)
        layout = layout_of(paths, place=name) if chosen is None else layout_of_config(chosen, paths, place=name)
    except DataError as error:
        if is_complete:
            raise
        raise _unavailable(name, "the files that are needed are not in the cache") from error
    needed = [path for files in layout.files.values() for path in files]
    with _told_errors(name):
        patterns = [*_CARD_FILES, *map(glob.escape, needed)]
        _download(name, folder.name, patterns, shows_progress=sys.stderr.isatty())
    missing = [path for path in needed if not (folder / path).is_file()]
    if missing:
        raise _unavailable(name, f"{safe_for_terminal(missing[0])} is not in the cache")
    config_name = str(chosen.get("config_name", "default")) if chosen else config
    return HubFiles(folder, folder.name, layout, card.class_names(config_name))


def _download(name: str, revision: str | None, patterns: list[str], *, shows_progress: bool) -> Path:
    from huggingface_hub import snapshot_download
    from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

    class Silent(tqdm):  # type: ignore[misc,type-arg,unused-ignore]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})

    bar = None if shows_progress else Silent
    return Path(
        snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns, tqdm_class=bar)
    )


def _listing(name: str, folder: Path) -> tuple[list[str], bool]:
    """Paths of all files of the repository, and whether these are all: the cached ones where the Hub is silent."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(name, revision=folder.name)  # listing the tree would retry for half a minute
        return [file.rfilename for file in info.siblings or ()], True
    except _connection_errors():
        return [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()], False


def _must_hold_data(name: str, paths: list[str]) -> None:
    if any(is_data_file(Path(path)) for path in paths):
        return
    if any(path.endswith(".py") for path in paths):
        raise DataError(
            f"{name}: must hold data files; it has only a loading script, and code of a data set is never run.\n"
            "Export it as CSV or Parquet, or name another data set."
        )
    raise DataError(f"{name}: must hold CSV, JSON lines or Parquet files; found none among {len(paths)} files.")


@contextmanager
def _told_errors(name: str) -> Iterator[None]:
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise InputNotFoundError(
            f"{name}: must be open to you; the data set is gated.\n"
            "Accept its terms on its page, then set HF_TOKEN (or run `hf auth login`)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputNotFoundError(
            f"{name}: data.revision must be a commit, tag or branch; there is none such."
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise InputNotFoundError(
            f"{name}: must be a file, a folder or a data set on {_host()}; there is none of this name "
            "(or it is private: set HF_TOKEN)."
        ) from error
    except _connection_errors() as error:
        raise _unavailable(name, "nothing of it is in the cache") from error
    except OSError as error:
        raise StorageError(f"{name}: its files must be stored; {error.strerror or error}.") from error


def _connection_errors() -> tuple[type[BaseException], ...]:
    """Errors of a Hub that does not answer."""
    from huggingface_hub import errors

    # The HTTP library differs between versions of huggingface_hub; its base error stands among the parents.
    transport = (kind for kind in errors.HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    return (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, *transport)


def _unavailable(name: str, found: str) -> UnavailableError:
    return UnavailableError(
        f"{name}: must be a file or folder here, or a data set on {_host()}; the host does not answer, and {found}.\n"
        "Check the connection (and HF_ENDPOINT, HF_HUB_OFFLINE), or pass local files: --data FILES."
    )


def _host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc or constants.ENDPOINT
