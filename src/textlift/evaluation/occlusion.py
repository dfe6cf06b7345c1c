"""How much each word of a text carries a prediction: the prediction is made again without it.

Exact and the same for every model: what it takes is a forward pass for each word. Knows texts and a function from texts
to logits; not what stands behind it.

Source:
    Zeiler and Fergus (2014), Visualizing and Understanding Convolutional Networks, section 4.2; Li, Monroe and Jurafsky
    (2016), Understanding Neural Networks through Representation Erasure.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from textlift.evaluation.metrics import log_softmax

MOST_PARTS = 64  # words that are left out one by one; of a longer text groups of neighbours, half as many

# Scripts that put no spaces between words are read by character: kana, Han, Thai, Lao, Khmer, Burmese.
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_NO_SPACES}]\s*|[^\s{_NO_SPACES}]+\s*")


@dataclass(frozen=True)
class Explained:
    """A text in parts, what each carries, and what the classifier said of all of it."""

    predicted: int
    log_odds: float  # of the predicted class, for the text as far as it is read
    parts: tuple[str, ...]  # one after the other they are the text that is read
    weights: tuple[float, ...]  # by how much the log odds of the predicted class drop without the part
    unread: int  # words after the last that is read


def words_of(text: str) -> list[str]:
    """The words of a text, each with the space after it; space before the first word belongs to it."""
    found = _WORD.findall(text)
    if found:
        found[0] = text[: len(text) - len(text.lstrip())] + found[0]
    return found


def explain(
    texts: Sequence[str],
    logits_of: Callable[[Sequence[str]], npt.NDArray[np.floating]],
    *,
    is_read_whole: Callable[[str], bool] = lambda _: True,
) -> list[Explained]:
    """What each word, or group of neighbouring words, carries of the prediction for each text.

    Args:
        texts: N of them.
        logits_of: Logits of texts, shape (., C); asked once.
        is_read_whole: Whether the classifier reads a text to its end; of a longer one only what it reads is explained,
            since leaving out a word there would let another one in.
    """
    split = [_read_words(words_of(text), is_read_whole) for text in texts]
    parts = [_grouped(words) for words, _ in split]
    asked = [variant for text, own in zip(texts, parts, strict=True) for variant in _variants(text, own)]
    if not asked:
        return []
    logits, start, explained = logits_of(asked), 0, []
    for own, (_, unread) in zip(parts, split, strict=True):
        odds, start = logits[start : start + len(own) + 1], start + len(own) + 1
        predicted = int(odds[0].argmax())
        values = log_odds(odds, predicted)
        explained.append(
            Explained(predicted, float(values[0]), tuple(own), tuple((values[0] - values[1:]).tolist()), unread)
        )
    return explained


def log_odds(logits: npt.NDArray[np.floating], label: int) -> npt.NDArray[np.float64]:
    """log(p / (1 - p)) of one class, shape (N,), exact also where p is nearly 0 or 1."""
    log_probabilities = log_softmax(logits)
    others = np.delete(log_probabilities, label, axis=1)
    highest = others.max(axis=1)
    odds: npt.NDArray[np.float64] = log_probabilities[:, label] - (
        highest + np.log(np.exp(others - highest[:, None]).sum(axis=1))
    )
    return odds


def _read_words(words: list[str], is_read_whole: Callable[[str], bool]) -> tuple[list[str], int]:
    """The first words that are read, found by halving, and how many follow."""
    if is_read_whole("".join(words)):
        return words, 0
    low, high = 0, len(words)  # the first low words are read whole, the first high are not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_read_whole("".join(words[:middle])) else (low, middle)
    kept = max(low, 1)
    return words[:kept], len(words) - kept


def _grouped(words: list[str]) -> list[str]:
    if len(words) <= MOST_PARTS:
        return words
    ends = np.linspace(0, len(words), MOST_PARTS // 2 + 1).astype(int).tolist()
    return ["".join(words[first:last]) for first, last in pairwise(ends)]


def _variants(text: str, parts: Sequence[str]) -> list[str]:
    """The text as far as it is read, then without each part."""
    without = ["".join(parts[:place]) + "".join(parts[place + 1 :]) for place in range(len(parts))]
    return ["".join(parts) if parts else text, *without]
