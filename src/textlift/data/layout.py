"""Which files of a folder or data set repository are which split: by a card's header, else by words in file names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from textlift.data.files import is_data_file
from textlift.data.problems import listed, quoted
from textlift.errors import DataError

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_SHARD = re.compile(r"[-_.](\d+)-of-(\d+)(?:-[0-9a-f]+)?$")


@dataclass(frozen=True)
class Layout:
    """Files of each split, as paths below the folder, with what was found out."""

    files: dict[str, list[str]]
    reasons: list[str] = field(default_factory=list)


def split_of(path: str) -> str | None:
    """The split that a file's name says by a whole word, else its folders' names; None where it says none or two."""
    parts = PurePosixPath(path)
    stem = _SHARD.sub("", parts.name[: len(parts.name) - len(parts.suffix)])
    for text in (stem, " ".join(parts.parts[:-1])):
        splits = {SPLIT_WORDS[word] for word in re.findall("[a-z]+", text.casefold()) if word in SPLIT_WORDS}
        if splits:
            return splits.pop() if len(splits) == 1 else None
    return None


def layout_of(paths: Sequence[str], *, place: str) -> Layout:
    """The splits of a folder's files, from their names; the files at its top, else those in its data/.

    Raises:
        DataError: Several files could be one split, a shard is missing, or no name says a split.
    """
    usable = sorted(path for path in paths if is_data_file(PurePosixPath(path)))
    top = [path for path in usable if "/" not in path]
    below = [path for path in usable if path.startswith("data/")]
    candidates = top or below or usable
    by_split: dict[str, list[str]] = {}
    for path in candidates:
        by_split.setdefault(split_of(path) or "", []).append(path)
    unnamed = by_split.pop("", [])
    if not by_split and len(unnamed) == 1:
        return Layout({"train": unnamed}, [f"{quoted(unnamed[0])} is the only data file of {place}."])
    if not by_split:
        raise DataError(
            f"{place}: file names must say their split (train, validation, test); found {listed(unnamed) or 'none'}.\n"
            "Name the file to use, or one for each split: --set data.files.train=FILE."
        )
    reasons = [f"The splits of {place} are told by file names."]
    if unnamed:
        reasons.append(f"Files whose names say no split were left out: {listed(unnamed)}.")
    return Layout({split: _one_file(files, split, place) for split, files in _in_order(by_split)}, reasons)


def layout_of_config(config: dict[str, Any], paths: Sequence[str], *, place: str) -> Layout:
    """The splits that a card's configuration names by patterns, such as data/train-*.

    Raises:
        DataError: It names files that are not there, or none at all.
    """
    below = str(config.get("data_dir") or "").strip("/")
    stated = _patterns(config.get("data_files"))
    if None in stated:  # patterns without splits: their names must say them
        chosen = [path for path in paths if any(matches(path, p, below) for p in stated[None])]
        return layout_of(chosen, place=place)
    if not stated:
        return layout_of([path for path in paths if path.startswith(f"{below}/") or not below], place=place)
    files: dict[str, list[str]] = {}
    left_out = []
    for name, patterns in stated.items():
        split = SPLIT_WORDS.get(str(name).casefold())
        if split is None or split in files:
            left_out.append(str(name))
            continue
        files[split] = [path for path in sorted(paths) if any(matches(path, p, below) for p in patterns)]
        if not files[split]:
            raise DataError(f"{place}: its card names {listed(patterns)} for {split}; no such file is there.")
    reasons = [f"The splits of {place} are told by its card."]
    if left_out:
        reasons.append(f"Splits left out: {listed(left_out)}.")
    return Layout(dict(_in_order(files)), reasons)


def matches(path: str, pattern: str, below: str = "") -> bool:
    """Whether a path fits a pattern of a card: * within a name, ** over folders, ? and [..]."""
    pattern = f"{below}/{pattern}" if below else pattern
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]*\])", pattern.removeprefix("./"))
    rule = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    expression = "".join(rule.get(part) or (part if part.startswith("[") else re.escape(part)) for part in parts)
    return re.fullmatch(expression, path) is not None


def _patterns(data_files: object) -> dict[str | None, list[str]]:
    """Patterns by split name; by None where no split is named."""
    if isinstance(data_files, str):
        return {None: [data_files]}
    if isinstance(data_files, dict):
        return {str(split): _as_list(path) for split, path in data_files.items()}
    if isinstance(data_files, list):
        named = [item for item in data_files if isinstance(item, dict) and "split" in item]
        if named:
            return {str(item["split"]): _as_list(item.get("path", [])) for item in named}
        return {None: [str(item) for item in data_files]} if data_files else {}
    return {}


def _as_list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _in_order(by_split: dict[str, list[str]]) -> list[tuple[str, list[str]]]:
    return [(split, by_split[split]) for split in ("train", "validation", "test") if split in by_split]


def _one_file(files: list[str], split: str, place: str) -> list[str]:
    """The file of a split, or its shards in order."""
    if len(files) == 1 and not _SHARD.search(files[0].rpartition(".")[0]):
        return files
    shards: dict[int, str] = {}
    families = set()
    for path in files:
        stem, _, ending = path.rpartition(".")
        found = _SHARD.search(stem)
        families.add((_SHARD.sub("", stem), ending, found.group(2) if found else path))
        shards[int(found.group(1)) if found else -1] = path
    if len(families) > 1 or -1 in shards:
        raise DataError(
            f"{place}: one file must be {split}; found {listed(files)}.\n"
            f"Leave one in the folder, or choose: --set data.files.{split}=FILE."
        )
    expected = int(next(iter(families))[2])
    if sorted(shards) != list(range(expected)):
        raise DataError(f"{place}: {split} must have {expected} parts; found {len(files)}: {listed(files)}.")
    return [shards[number] for number in sorted(shards)]
