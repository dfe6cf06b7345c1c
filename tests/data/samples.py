"""Data sets in memory for the tests of this folder."""

from collections.abc import Sequence

from textlift.data import Dataset, Rows


def rows(pairs: Sequence[tuple[str, str]], source: str = "train.csv") -> Rows:
    return Rows(
        [text for text, _ in pairs],
        [label for _, label in pairs],
        list(range(1, len(pairs) + 1)),
        [source] * len(pairs),
    )


def dataset(**splits: Sequence[tuple[str, str]]) -> Dataset:
    made = {split: rows(pairs, f"{split}.csv") for split, pairs in splits.items()}
    labels = tuple(sorted({label for split in made.values() for label in split.labels if label.strip()}))
    return Dataset("sample", made, labels, labels, "text", "label", (), {})


def plain(n_rows: int, classes: str = "ab", word: str = "row") -> list[tuple[str, str]]:
    return [(f"{word} {i} of {n_rows}", classes[i % len(classes)]) for i in range(n_rows)]
