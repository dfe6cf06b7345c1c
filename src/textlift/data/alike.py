"""When two texts count as the same, and when a text counts as empty: one rule for checks and cuts."""

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_LINK = re.compile(r"(?:https?://|www\.|\b(?:t\.co|pic\.twitter\.com|bit\.ly)/)\S*", re.IGNORECASE)
_MENTION = re.compile(r"(?<!\w)@\w+")
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
# White space, control characters, and what takes no room: soft hyphen, zero-width and direction marks, fillers.
_INVISIBLE = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]*"
)


def is_blank(text: str) -> bool:
    """Whether nothing of the text can be seen: white space, control and zero-width characters alone."""
    return not text or _INVISIBLE.fullmatch(text) is not None


def normalised(text: str) -> str:
    """The text with case, white space and links aside; a text of links alone keeps them."""
    folded = text.casefold()
    if "://" in folded or "www." in folded or ".co" in folded or "bit.ly" in folded:
        return " ".join(_LINK.sub(" ", folded).split()) or folded.strip()
    return " ".join(folded.split())


def template(text: str) -> str:
    """The normalised text with mentions aside too and every number as 0: what messages of one form share."""
    folded = normalised(text)
    if "@" in folded:
        folded = _MENTION.sub(" ", folded)
    return _NUMBER.sub("0", folded)


def group_alike(texts: Iterable[str]) -> npt.NDArray[np.int64]:
    """A number for each text, shape (N,), equal for texts that are alike; numbers rise in order of appearance."""
    numbers: dict[int, int] = {}  # by hash, not by text: a million texts are not kept a second time
    return np.fromiter((numbers.setdefault(hash(normalised(text)), len(numbers)) for text in texts), dtype=np.int64)
