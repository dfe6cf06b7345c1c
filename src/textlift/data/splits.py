"""Train, validation and test as a run uses them: missing ones cut from train, stratified and seeded, then limited."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from textlift.data.alike import is_blank
from textlift.data.dataset import Dataset, Rows
from textlift.data.problems import listed
from textlift.data.text_checks import label_numbers, two_labels
from textlift.errors import DataError
from textlift.recipe import SPLITS, DataSection

MOST_VALIDATION, MOST_TEST = 2_000, 10_000  # rows: more would cost time and hardly narrow the intervals

Places = npt.NDArray[np.int64]


def prepare_splits(dataset: Dataset, section: DataSection, *, seed: int) -> Dataset:
    """The data set with train, validation and test: the same rows and seed give the same splits.

    Where only train and validation are given, the given validation serves as test, since that is what is reported of
    such sets, and validation is cut from train; where train stands alone, both are cut. A cut takes validation_size
    (at most 2,000 rows) and test_size (at most 10,000 rows) of the rows of train, from each class its share and at
    least one row. A class with fewer rows than splits to be filled stays in train whole. Texts that are alike stay on
    one side; those with two labels stay in train.

    Raises:
        DataError: There is no train, or a split would be empty.
    """
    reasons: list[str] = []
    n_before = sum(map(len, dataset.splits.values()))
    if section.drop_empty:
        dataset = without_empty(dataset)
        n_dropped = n_before - sum(map(len, dataset.splits.values()))
        if n_dropped:
            reasons.append(f"Rows with an empty text that were left out: {n_dropped:,}.")
    if not dataset.splits.get("train"):
        have = listed(dataset.splits) or "no rows"
        raise DataError(f"{dataset.name}: training rows must be there; found {have}. Name them: data.files.train=FILE.")
    places = {split: (split, np.arange(len(rows))) for split, rows in dataset.splits.items()}
    if "test" not in places and "validation" in places:
        places["test"] = places.pop("validation")
        reasons.append("The given validation rows serve as test, since no labelled test is given.")
    missing = [split for split in ("validation", "test") if split not in places]
    if missing:
        cut = _cut(dataset, missing, section, seed=seed, reasons=reasons)
        places |= {split: ("train", rows) for split, rows in cut.items()}
    splits = {split: dataset.splits[places[split][0]].take(places[split][1].tolist()) for split in SPLITS}
    _must_have_rows(splits, dataset.name)
    if section.limit is not None:
        splits = _limited(splits, section.limit, seed=seed, reasons=reasons)
    return replace(dataset, splits=splits, reasons=(*dataset.reasons, *reasons), prepared=True)


def cut_validation(dataset: Dataset, section: DataSection, *, seed: int) -> Dataset:
    """The data set with train and, cut from it by the rules of `prepare_splits`, validation; no test.

    Validation is empty where every class is too small to give a row.
    """
    reasons: list[str] = []
    cut = _cut(dataset, ["validation"], section, seed=seed, reasons=reasons)
    splits = {split: dataset.splits["train"].take(cut[split].tolist()) for split in ("train", "validation")}
    return replace(dataset, splits=splits, reasons=(*dataset.reasons, *reasons), prepared=True)


def without_empty(dataset: Dataset) -> Dataset:
    """The data set without rows whose text is empty; the same one where there is none."""
    kept = {
        split: [place for place, text in enumerate(rows.texts) if not is_blank(text)]
        for split, rows in dataset.splits.items()
    }
    if all(len(kept[split]) == len(rows) for split, rows in dataset.splits.items()):
        return dataset
    return replace(dataset, splits={split: rows.take(kept[split]) for split, rows in dataset.splits.items()})


def apportion(sizes: Sequence[int], total: int, most: Sequence[int]) -> list[int]:
    """How many of total rows each class gives: its share by largest remainder, at least one where total allows.

    Args:
        sizes: Rows of each class, shape (C,).
        total: Rows wanted in all.
        most: Rows that each class can give, shape (C,).
    """
    total = min(total, sum(most))
    ideal = [size * total / max(1, sum(sizes)) for size in sizes]
    least = [min(1, top) if total >= sum(top > 0 for top in most) else 0 for top in most]
    given = [min(max(int(want), low), top) for want, low, top in zip(ideal, least, most, strict=True)]
    classes = range(len(sizes))
    while sum(given) < total:
        open_ = [c for c in classes if given[c] < most[c]]
        given[max(open_, key=lambda c: (ideal[c] - given[c], sizes[c]))] += 1
    while sum(given) > total:
        open_ = [c for c in classes if given[c] > least[c]]
        given[max(open_, key=lambda c: (given[c] - ideal[c], sizes[c]))] -= 1
    return given


def _cut(
    dataset: Dataset, missing: Sequence[str], section: DataSection, *, seed: int, reasons: list[str]
) -> dict[str, Places]:
    """Places in train of each split that is cut from it, and of what is left as train."""
    rows, groups = dataset.splits["train"], dataset.text_groups["train"]
    labels = label_numbers(rows.labels)
    names = list(dict.fromkeys(rows.labels))  # by label number
    stays = two_labels(groups, labels)
    n_groups = [len(np.unique(groups[(labels == c) & ~stays])) for c in range(len(names))]
    small = [c for c, n in enumerate(n_groups) if n < len(missing) + 1]
    stays |= np.isin(labels, small)
    wanted = {
        "test": min(round(section.test_size * len(rows)), MOST_TEST),
        "validation": min(round(section.validation_size * len(rows)), MOST_VALIDATION),
    }
    order = ["test", "validation"] if len(missing) == 2 else list(missing)
    quotas = _quotas(np.bincount(labels[~stays], minlength=len(names)).tolist(), order, wanted)
    owner = _deal(groups, np.where(stays, -1, labels), quotas, seed=seed)
    for number, split in enumerate(order):
        share = 100 * (section.test_size if split == "test" else section.validation_size)
        cut_rows = f"{int((owner == number).sum()):,} rows ({share:g} % asked for)"
        reasons.append(f"The {split} rows are cut from train: {cut_rows}, stratified, seed {seed}.")
    if small:
        told = listed([dataset.name_of(names[c]) for c in small])
        reasons.append(f"Classes too small to split stand in train alone: {told}.")
    cut = {split: np.flatnonzero(owner == number) for number, split in enumerate(order)}
    return {**cut, "train": np.flatnonzero(owner == -1)}


def _quotas(sizes: list[int], order: Sequence[str], wanted: Mapping[str, int]) -> list[list[int]]:
    """Rows of each class for each split of the cut, each leaving a row for every split after it and for train."""
    taken = [0] * len(sizes)
    quotas = []
    for number, split in enumerate(order):
        later = len(order) - number
        most = [max(0, size - used - later) for size, used in zip(sizes, taken, strict=True)]
        quota = apportion(sizes, max(1, wanted[split]), most)
        taken = [used + more for used, more in zip(taken, quota, strict=True)]
        quotas.append(quota)
    return quotas


def _deal(groups: Places, labels: Places, quotas: list[list[int]], *, seed: int) -> Places:
    """Number of the split that each row goes to, -1 for train, shape (N,); a group of like texts goes as one."""
    owner = np.full(len(groups), -1, dtype=np.int64)
    shuffled = np.random.default_rng([seed, 0]).permutation(len(groups))
    left = [list(quota) for quota in quotas]
    by_group: dict[int, list[int]] = {}
    for place in np.flatnonzero(labels >= 0).tolist():
        by_group.setdefault(int(groups[place]), []).append(place)
    for place in shuffled.tolist():
        members = by_group.pop(int(groups[place]), None) if labels[place] >= 0 else None
        if members is None:
            continue
        label = int(labels[place])
        for number, room in enumerate(left):
            if len(members) <= room[label]:
                room[label] -= len(members)
                owner[members] = number
                break
    return owner


def _must_have_rows(splits: Mapping[str, Rows], name: str) -> None:
    empty = [split for split, rows in splits.items() if not len(rows)]
    if empty:
        raise DataError(
            f"{name}: {' and '.join(empty)} must have rows; there are too few to cut them from train "
            f"({sum(map(len, splits.values())):,} rows, classes of few distinct texts).\n"
            f"Add rows, or give a file: --set data.files.{empty[0]}=FILE."
        )


def _limited(splits: Mapping[str, Rows], limit: int, *, seed: int, reasons: list[str]) -> dict[str, Rows]:
    """At most limit rows of each split, stratified, in file order; later splits keep to the classes of train."""
    limited: dict[str, Rows] = {}
    for number, (split, rows) in enumerate(splits.items()):
        kept = rows
        if len(rows) > limit:
            known = set(limited["train"].labels) if limited else set(rows.labels)
            kept = rows.take(_sample(rows.labels, known, limit, rng=np.random.default_rng([seed, 1 + number])))
            reasons.append(
                f"The {split} rows are limited to {len(kept):,} of {len(rows):,} rows, stratified, seed {seed}."
            )
        limited[split] = kept
    empty = [split for split, rows in limited.items() if not len(rows)]
    if empty:  # none of its rows is of a class that the limited train has
        raise DataError(f"data.limit must leave rows in every split; found none for {listed(empty)}. Raise --limit.")
    return limited


def _sample(labels: Sequence[str], known: set[str], limit: int, *, rng: np.random.Generator) -> list[int]:
    places: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        if label in known:
            places.setdefault(label, []).append(place)
    names = sorted(places)
    sizes = [len(places[name]) for name in names]
    chosen: list[int] = []
    for name, n_rows in zip(names, apportion(sizes, limit, sizes), strict=True):
        chosen += rng.permutation(places[name])[:n_rows].tolist()
    return sorted(chosen)
