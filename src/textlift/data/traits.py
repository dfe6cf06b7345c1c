"""Parts that rows fall into by what can be seen of them: length, class, script, words, links, mentions and the like.

Every part is chosen by texts alone, never by what a classifier says of them. Knows no predictions.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from textlift.data.languages import script_of

Mask = npt.NDArray[np.bool_]

MOST_WORDS = 300  # the most frequent ones: each costs the others some power
_LEAST_ROWS, _MOST_SHARE = 20, 0.5
_FIRST = 5_000  # characters of a text that are looked at
_WORD = re.compile(r"[^\W_][\w'\u2019-]+")
_SEEN: Mapping[str, re.Pattern[str]] = {
    "a link": re.compile(r"https?://|www\.|\b(?:t\.co|bit\.ly)/", re.IGNORECASE),
    "a mention": re.compile(r"(?<!\w)@\w"),
    "a hashtag": re.compile(r"(?<!\w)#\w"),
    "a digit": re.compile(r"\d"),
    "a question mark": re.compile(r"\?"),
    "an exclamation mark": re.compile(r"!"),
    "a negation": re.compile(r"\b(?:not|no|never|nor|cannot|without|\w+n['\u2019 ]?t)\b", re.IGNORECASE),
}


def traits(texts: Sequence[str], *, token_lengths: npt.NDArray[np.integer]) -> dict[tuple[str, str], Mask]:
    """Kind and name of each part, and which of N texts belong to it, shape (N,).

    Args:
        texts: N of them.
        token_lengths: Tokens of each, cut as the model cuts them, shape (N,).
    """
    looked = [text[:_FIRST] for text in texts]
    characters = np.array([len(text) for text in texts], dtype=np.int64)
    parts = quarters(token_lengths, "tokens") | quarters(characters, "characters")
    for what, pattern in _SEEN.items():
        mask = np.array([pattern.search(text) is not None for text in looked], dtype=bool)
        parts["with", what], parts["without", what] = mask, ~mask
    scripts = np.array([script_of(text) or "no letters" for text in looked])
    for script in sorted(set(scripts.tolist())):
        parts["script", script] = scripts == script
    return parts | words(looked)


def quarters(values: npt.NDArray[np.integer], unit: str) -> dict[tuple[str, str], Mask]:
    """Rows cut at the quartiles of a length; fewer parts where many are equally long."""
    if not len(values):
        return {}
    cuts = [int(value) for value in np.unique(np.quantile(values, (0.25, 0.5, 0.75)).astype(int))]
    edges = [int(values.min()) - 1, *[cut for cut in cuts if cut < values.max()], int(values.max())]
    return {
        ("length", f"{first + 1:,} to {last:,} {unit}"): (values > first) & (values <= last)
        for first, last in pairwise(edges)
    }


def classes(label_ids: npt.NDArray[np.integer], names: Sequence[str], *, kind: str) -> dict[tuple[str, str], Mask]:
    """Rows of each class that occurs."""
    return {(kind, names[number]): label_ids == number for number in np.unique(label_ids).tolist()}


def words(texts: Sequence[str]) -> dict[tuple[str, str], Mask]:
    """Rows that hold a word, for the words that are in most rows but not in half of them."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        for word in set(_WORD.findall(text.casefold())):
            places[word].append(place)
    usable = {word: rows for word, rows in places.items() if _LEAST_ROWS <= len(rows) <= _MOST_SHARE * len(texts)}
    chosen = sorted(usable, key=lambda word: (-len(usable[word]), word))[:MOST_WORDS]
    parts = {}
    for word in chosen:
        mask = np.zeros(len(texts), dtype=bool)
        mask[usable[word]] = True
        parts["word", word] = mask
    return parts
