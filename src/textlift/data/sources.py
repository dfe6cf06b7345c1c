"""Where the rows lie: the files of each split for a file, a folder, a mapping of files, or a Hub data set."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from textlift.data.card import read_card
from textlift.data.files import DATA_ENDINGS, expanded, is_data_file, must_be_readable, nearest_files
from textlift.data.hub import fetch
from textlift.data.layout import layout_of, layout_of_config, split_of
from textlift.data.problems import quoted
from textlift.errors import InputNotFoundError, RecipeError, safe_for_terminal
from textlift.recipe import SPLITS, DataSection

_HUB_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?)(?::(?P<config>[^/\\]+))?")
_OTHER_ENDINGS = (".txt", ".gz", ".zip", ".bz2", ".xz", ".zst", ".xlsx", ".xls", ".arrow", ".feather", ".pkl", ".yaml")


@dataclass(frozen=True)
class SplitFile:
    """A file and the name that people see."""

    path: Path
    name: str


@dataclass(frozen=True)
class Source:
    """The files of each split, in order, with what is known of them before they are read."""

    name: str
    files: dict[str, list[SplitFile]]
    reasons: tuple[str, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # from a data set card
    commit: str | None = None


def find_source(section: DataSection) -> Source:
    """The files that a data section names.

    Raises:
        RecipeError: It names none, or two for train.
        InputNotFoundError: A file, folder or data set is not there.
        UnavailableError: The Hub cannot be reached and nothing is cached.
        DataError: A folder's files do not say their splits.
    """
    if section.source is None and not section.files:
        raise RecipeError("data.source or data.files must name the rows; both are empty. Pass a file, folder or name.")
    found = Source("", {}) if section.source is None else _from_source(section.source, section.revision)
    if not section.files:
        return found
    if section.source is not None and Path(section.source).is_file() and "train" in section.files:
        raise RecipeError(
            f"data.files.train must not stand beside data.source; found {quoted(section.files['train'])} and "
            f"{quoted(section.source)}. Leave one out."
        )
    given: dict[str, Path] = {split: expanded(file) for split, file in section.files.items()}
    _all_readable(given)
    names = _distinct_names([*given.values(), *(file.path for files in found.files.values() for file in files)])
    files = {
        split: [SplitFile(given[split], names[given[split]])] if split in given else found.files[split]
        for split in SPLITS
        if split in given or split in found.files
    }
    reasons = (*found.reasons, f"Given as files: {', '.join(split for split in SPLITS if split in given)}.")
    name = found.name or _name_of(next(iter(given.values())))
    return Source(name, files, reasons, found.class_names, found.commit)


def _all_readable(given: Mapping[str, Path]) -> None:
    missing = []
    for path in given.values():
        try:
            must_be_readable(path)
        except InputNotFoundError as error:
            missing.append(str(error))
    if missing:
        raise InputNotFoundError("\n".join([*missing[:2], *missing[2:3]]))


def _from_source(source: str, revision: str | None) -> Source:
    path = expanded(source)
    try:
        is_folder, is_there = path.is_dir(), path.exists() or path.is_symlink()
    except OSError:  # such as a name that is too long, which is told below
        is_folder, is_there = False, True
    if is_folder:
        return _from_folder(path)
    if is_there or _must_be_local(source):
        must_be_readable(path)
        return Source(path.stem, {"train": [SplitFile(path, path.name)]})
    parts = _HUB_NAME.fullmatch(source)
    if parts is None:
        raise InputNotFoundError(
            f"{safe_for_terminal(source)}: must be a file, a folder, or a Hub data set such as owner/name[:config]; "
            f"there is none of this name.{nearest_files(path)}"
        )
    try:
        fetched = fetch(parts["name"], parts["config"], revision)
    except InputNotFoundError as error:
        raise InputNotFoundError(f"{error}{nearest_files(path) if '/' not in source else ''}") from error
    files = {
        split: [SplitFile(fetched.folder / file, file) for file in files]
        for split, files in fetched.layout.files.items()
    }
    reasons = (*fetched.layout.reasons, f"{parts['name']} is taken at commit {fetched.commit}.")
    return Source(source, files, reasons, fetched.class_names, fetched.commit)


def _must_be_local(source: str) -> bool:
    ending = Path(source).suffix.casefold()
    is_path = source.startswith((".", "/", "~")) or source.endswith("/") or "\\" in source or source.count("/") > 1
    return is_path or ending in DATA_ENDINGS or ending in _OTHER_ENDINGS


def _from_folder(folder: Path) -> Source:
    readme = folder / "README.md"
    card = read_card(readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else "")
    config = card.config(None, place=folder.name) if card.configs else None
    try:
        entries = list(folder.rglob("*")) if config else [*folder.iterdir(), *_entries(folder / "data")]
        paths = sorted(e.relative_to(folder).as_posix() for e in entries if is_data_file(e) and e.is_file())
    except OSError as error:
        shown = safe_for_terminal(str(folder))
        raise InputNotFoundError(f"{shown}: must be a readable folder; {error.strerror}.") from error
    if not paths:
        raise InputNotFoundError(
            f"{safe_for_terminal(str(folder))}: must hold data files ({', '.join(DATA_ENDINGS)}); the folder has none."
        )
    name = folder.resolve().name
    layout = layout_of_config(config, paths, place=name) if config else layout_of(paths, place=name)
    files = {split: [SplitFile(folder / file, file) for file in files] for split, files in layout.files.items()}
    class_names = card.class_names(str(config.get("config_name", "default")) if config else None)
    return Source(name, files, tuple(layout.reasons), class_names)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _distinct_names(paths: list[Path]) -> dict[Path, str]:
    names = [path.name for path in paths]
    return {path: path.name if names.count(path.name) == 1 else str(path) for path in dict.fromkeys(paths)}


def _name_of(path: Path) -> str:
    return path.resolve().parent.name if split_of(path.name) and path.resolve().parent.name else path.stem
