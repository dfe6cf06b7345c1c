"""Rows whose text is nearly, but not exactly, one of an earlier split or an earlier row of their own.

Mentions and links are set aside and every number counts as one and the same, so that messages of one form are found.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from textlift.data.alike import template
from textlift.data.dataset import Dataset
from textlift.data.findings import Finding, Severity, partner_columns, percent, rows_finding

_WORD = re.compile(r"\w+")
_MIN_WORDS = 5  # numbers aside; shorter texts share most of their words by chance
_LIKENESS = 0.8  # Jaccard index of the word pairs from which on two texts are nearly the same
_BANDS, _ROWS = 8, 4  # finds a pair of likeness 0.8 with probability 0.985, one of 0.5 with 0.40
_MOST_CHARACTERS = 150_000_000  # beyond it the check would take minutes
_MANY = 0.01  # share of a split that repeats itself from which on that is a warning
_CHUNK = 4096  # texts hashed at once

Signatures = npt.NDArray[np.uint32]  # (N, bands * rows)
_TOO_SHORT = np.iinfo(np.uint32).max


def near_findings(dataset: Dataset) -> list[Finding]:
    """Near duplicates between and within splits, found by MinHash and confirmed pair by pair.

    Of a prepared data set only splits that were cut from one file are compared, and none with itself: the others were
    before.

    Source: Broder (1997), On the resemblance and containment of documents; Leskovec, Rajaraman and Ullman (2014),
    Mining of Massive Datasets, section 3.4 (bands).
    """
    files = {split: set(rows.sources) for split, rows in dataset.splits.items()}
    pairs = [
        (earlier, later)
        for earlier, later in (("train", "test"), ("train", "validation"), ("validation", "test"))
        if earlier in files and later in files and not (dataset.prepared and files[earlier].isdisjoint(files[later]))
    ]
    pairs += [] if dataset.prepared else [(split, split) for split in files]
    needed = sorted({split for pair in pairs for split in pair}, key=list(files).index)
    size = sum(len(text) for split in needed for text in dataset.splits[split].texts)
    if size > _MOST_CHARACTERS:
        message = f"near duplicates were not counted: {size:,} characters are too many for this check."
        return [Finding("near_duplicates_not_counted", "info", message)]
    words: dict[str, int] = {}
    signatures = {split: _signatures(dataset.splits[split].texts, words) for split in needed}
    found = [_compare(dataset, signatures, earlier=earlier, later=later) for earlier, later in pairs]
    return [finding for finding in found if finding is not None]


def near_pairs(dataset: Dataset, earlier: str, later: str) -> dict[int, int]:
    """Rows of a later split whose text is nearly one of an earlier split, each with that row; none of large sets."""
    if sum(len(text) for split in (earlier, later) for text in dataset.splits[split].texts) > _MOST_CHARACTERS:
        return {}
    words: dict[str, int] = {}
    signatures = {split: _signatures(dataset.splits[split].texts, words) for split in (earlier, later)}
    return _pairs(dataset, signatures, earlier=earlier, later=later)


def _pairs(dataset: Dataset, signatures: dict[str, Signatures], *, earlier: str, later: str) -> dict[int, int]:
    first, second = dataset.splits[earlier], dataset.splits[later]
    own, other = dataset.text_groups[later], dataset.text_groups[earlier]
    exact = np.zeros(len(own), dtype=bool) if earlier == later else np.isin(own, other)
    near: dict[int, int] = {}
    for place, partner in _candidates(signatures[earlier], signatures[later], is_within=earlier == later):
        is_new = place not in near and not exact[place] and own[place] != other[partner]
        if is_new and _likeness(second.texts[place], first.texts[partner]) >= _LIKENESS:
            near[place] = partner
    return near


def _compare(dataset: Dataset, signatures: dict[str, Signatures], *, earlier: str, later: str) -> Finding | None:
    first, second = dataset.splits[earlier], dataset.splits[later]
    near = _pairs(dataset, signatures, earlier=earlier, later=later)
    if not near:
        return None
    places = sorted(near)
    partners = [near[place] for place in places]
    same = sum(second.labels[place] == first.labels[near[place]] for place in places)
    share = len(near) / len(second)
    whose = f"an earlier one of {later}" if earlier == later else f"one of {earlier}"
    found = (
        f"the text is nearly {whose} ({100 * _LIKENESS:.0f} % of word pairs or more; links, mentions and numbers "
        f"aside), in {percent(share)} of {later}, {same:,} with the same label and {len(near) - same:,} with another."
    )
    why = "Rows that say the same thing again weigh more than once and are less evidence than their number says."
    severity: Severity = "info" if earlier == later and share < _MANY else "warning"
    finding = rows_finding(
        f"near_duplicates_{later}" if earlier == later else f"near_duplicates_{earlier}_{later}",
        severity,
        (later, second, places),
        found=found,
        advice="Nothing was taken out." if earlier == later else "Scores may be flattered by them.",
        why=why if earlier == later else "",
        details={"same_label": same, "other_label": len(near) - same, "share": share},
        columns=partner_columns(first, partners),
    )
    return finding if earlier == later else replace(finding, earlier=earlier)


def _candidates(earlier: Signatures, later: Signatures, *, is_within: bool) -> Iterator[tuple[int, int]]:
    """Pairs of rows that agree in a whole band, the first row of earlier for each; short texts agree with none."""
    for band in range(_BANDS):
        columns = slice(band * _ROWS, (band + 1) * _ROWS)
        keys, partners = np.unique(_mixed(earlier[:, columns]), return_index=True)
        wanted = _mixed(later[:, columns])
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        hits = np.flatnonzero((keys[at] == wanted) & (later[:, 0] != _TOO_SHORT))
        if is_within:
            hits = hits[partners[at[hits]] < hits]
        matched = partners[at[hits]]
        is_likely = (later[hits] == earlier[matched]).mean(axis=1) > _LIKENESS - 0.25
        yield from zip(hits[is_likely].tolist(), matched[is_likely].tolist(), strict=True)


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
            found = _WORD.findall(template(text))
            if len(found) - found.count("0") >= _MIN_WORDS:
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
    a, b = (_WORD.findall(template(text)) for text in (first, second))
    pairs_a, pairs_b = set(pairwise(a)), set(pairwise(b))
    return len(pairs_a & pairs_b) / max(1, len(pairs_a | pairs_b))
