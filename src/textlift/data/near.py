"""Rows of a later split whose text is nearly, but not exactly, one of an earlier split."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from textlift.data.alike import normalised
from textlift.data.dataset import Dataset
from textlift.data.findings import Finding
from textlift.data.text_checks import at_rows, percent

_WORD = re.compile(r"\w+")
_MIN_WORDS = 5  # shorter texts share most of their words by chance
_LIKENESS = 0.8  # Jaccard index of the word pairs from which on two texts are nearly the same
_BANDS, _ROWS = 8, 4  # finds a pair of likeness 0.8 with probability 0.985, one of 0.5 with 0.40
_MOST_CHARACTERS = 150_000_000  # beyond it the check would take minutes
_CHUNK = 4096  # texts hashed at once

Signatures = npt.NDArray[np.uint32]  # (N, bands * rows)
_TOO_SHORT = np.iinfo(np.uint32).max


def near_findings(dataset: Dataset) -> list[Finding]:
    """Near duplicates between splits, counted by MinHash and confirmed pair by pair.

    Of a prepared data set only splits that were cut from one file are compared: the others were before.

    Source: Broder (1997), On the resemblance and containment of documents; Leskovec, Rajaraman and Ullman (2014),
    Mining of Massive Datasets, section 3.4 (bands).
    """
    files = {split: set(rows.sources) for split, rows in dataset.splits.items()}
    pairs = [
        (earlier, later)
        for earlier, later in (("train", "test"), ("train", "validation"), ("validation", "test"))
        if earlier in files and later in files and not (dataset.prepared and files[earlier].isdisjoint(files[later]))
    ]
    needed = sorted({split for pair in pairs for split in pair}, key=list(files).index)
    size = sum(len(text) for split in needed for text in dataset.splits[split].texts)
    if size > _MOST_CHARACTERS:
        message = f"near duplicates between splits were not counted: {size:,} characters are too many for this check."
        return [Finding("near_duplicates_not_counted", "info", message)]
    words: dict[str, int] = {}
    signatures = {split: _signatures(dataset.splits[split].texts, words) for split in needed}
    found = [_compare(dataset, signatures, earlier=earlier, later=later) for earlier, later in pairs]
    return [finding for finding in found if finding is not None]


def _compare(dataset: Dataset, signatures: dict[str, Signatures], *, earlier: str, later: str) -> Finding | None:
    first, second = dataset.splits[earlier], dataset.splits[later]
    exact = np.isin(dataset.text_groups[later], dataset.text_groups[earlier])
    near: set[int] = set()
    for band in range(_BANDS):
        columns = slice(band * _ROWS, (band + 1) * _ROWS)
        for place, partner in _same_bucket(signatures[earlier][:, columns], signatures[later][:, columns]):
            if place in near or exact[place]:
                continue
            agreement = np.mean(signatures[later][place] == signatures[earlier][partner])
            if agreement > _LIKENESS - 0.25 and _likeness(second.texts[place], first.texts[partner]) >= _LIKENESS:
                near.add(place)
    if not near:
        return None
    share = len(near) / len(second)
    likeness = f"{100 * _LIKENESS:.0f} % of word pairs or more"
    found = f"the text is nearly one of {earlier} ({likeness}), in {percent(share)} of {later}."
    message, numbers = at_rows(second, sorted(near), found=found, advice="Scores may be flattered by them.")
    return Finding(
        f"near_duplicates_{earlier}_{later}", "warning", message, later, len(near), numbers, {"share": share}
    )


def _same_bucket(earlier: Signatures, later: Signatures) -> list[tuple[int, int]]:
    """Rows of later with the first row of earlier that agrees in a whole band; texts of few words agree with none."""
    keys, partners = np.unique(_mixed(earlier), return_index=True)
    wanted = _mixed(later)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    hits = np.flatnonzero((keys[at] == wanted) & (later[:, 0] != _TOO_SHORT))
    return list(zip(hits.tolist(), partners[at[hits]].tolist(), strict=True))


def _mixed(band: Signatures) -> npt.NDArray[np.uint64]:
    key = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        key = _scatter(key ^ column)
    return key


def _signatures(texts: Sequence[str], words: dict[str, int]) -> Signatures:
    """MinHash signatures, shape (N, bands * rows); all ones for texts of too few words."""
    multipliers = np.random.default_rng(0).integers(1, 2**63, size=_BANDS * _ROWS, dtype=np.uint64) | np.uint64(1)
    result = np.full((len(texts), len(multipliers)), _TOO_SHORT, dtype=np.uint32)
    for start in range(0, len(texts), _CHUNK):
        numbers, rows, lengths = [], [], []
        for row, text in enumerate(texts[start : start + _CHUNK], start=start):
            found = _WORD.findall(normalised(text))
            if len(found) >= _MIN_WORDS:
                numbers += [words.setdefault(word, len(words)) for word in found]
                rows.append(row)
                lengths.append(len(found))
        if rows:
            shingles, starts = _word_pairs(np.array(numbers, dtype=np.uint64), np.array(lengths))
            for column, multiplier in enumerate(multipliers):
                result[rows, column] = np.minimum.reduceat(_scatter(shingles * multiplier), starts) >> np.uint64(32)
    return result


def _word_pairs(
    numbers: npt.NDArray[np.uint64], lengths: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Hashed pairs of neighbouring words of all texts in a row, and where each text starts."""
    pairs = _scatter((numbers[:-1] << np.uint64(32)) + numbers[1:] + np.uint64(1))
    ends = np.cumsum(lengths)
    inside = np.ones(len(pairs), dtype=bool)
    inside[ends[:-1] - 1] = False  # the last word of a text and the first of the next are no pair
    starts = np.concatenate([[0], np.cumsum(lengths - 1)[:-1]])
    return pairs[inside], starts


def _scatter(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Well mixed bits (the multiply and shift of MurmurHash3's finalizer, once)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    result: npt.NDArray[np.uint64] = values ^ (values >> np.uint64(33))
    return result


def _likeness(first: str, second: str) -> float:
    a, b = (_WORD.findall(normalised(text)) for text in (first, second))
    pairs_a, pairs_b = set(pairwise(a)), set(pairwise(b))
    return len(pairs_a & pairs_b) / max(1, len(pairs_a | pairs_b))
