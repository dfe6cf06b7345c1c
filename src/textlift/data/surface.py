"""The surface of texts: what can be seen of them without reading a word, as yes and no, and the rule that tells best.

Knows texts and targets, not splits or labels.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from textlift.data.debris import misread_utf8

Flags = npt.NDArray[np.bool_]

_FIRST = 5_000  # characters of a text that are looked at
_QUANTILES = np.linspace(0.1, 0.9, 9)
_FIXED = (
    "a capital letter",
    "a digit",
    "a character beyond ASCII",
    "a line break",
    "two spaces in a row",
    "a space at its start",
    "a space at its end",
    "a capital letter at its start",
    "punctuation at its end",
    "a link",
    "misread UTF-8",
)


@dataclass(frozen=True)
class Surface:
    """What is to be seen of N texts: column a says whether the text has what names[a] says."""

    names: tuple[str, ...]
    flags: Flags  # (N, A)


@dataclass(frozen=True)
class Rule:
    """Texts that have one of one or two things."""

    name: str
    columns: tuple[int, ...]

    def holds(self, flags: Flags) -> Flags:
        """Whether each text fits the rule, shape (N,)."""
        result: Flags = np.any(flags[:, list(self.columns)], axis=1)
        return result


def surface(texts: Sequence[str]) -> Surface:
    """What is to be seen of texts; lengths are cut at the deciles of these."""
    fixed = np.array([_seen(text[:_FIRST]) for text in texts], dtype=bool)
    names = [f"`{character}`" for character in string.punctuation] + list(_FIXED)
    counts = np.array([[len(text), len(text.split())] for text in texts], dtype=np.int64)
    columns = [fixed]
    for what, values in zip(("characters", "words"), counts.T, strict=True):
        for least in np.unique(np.quantile(values, _QUANTILES).astype(int)).tolist():
            for name, column in (
                (f"over {least:,} {what}", values > least),
                (f"at most {least:,} {what}", values <= least),
            ):
                names.append(name)
                columns.append(column[:, None])
    return Surface(tuple(names), np.concatenate(columns, axis=1))


def best_rule(seen: Surface, target: Flags) -> tuple[Rule, bool, float]:
    """The rule of one or two things that tells a target best, whether it stands for it or against it, and how well.

    Args:
        seen: Of N texts.
        target: What is to be told, shape (N,), of both kinds.

    Returns:
        The rule, whether texts that fit it are of the target, and the balanced accuracy of that.
    """
    flags = seen.flags.astype(np.float64)
    rates = []
    for kind in (target, ~target):
        part = flags[kind]
        share = part.mean(axis=0)
        both = part.T @ part / len(part)
        rates.append(share[:, None] + share[None, :] - both)  # share of texts with one of two, (A, A)
    balanced = (1 + rates[0] - rates[1]) / 2
    quality = np.maximum(balanced, 1 - balanced)
    # Of rules that do equally well the one of a single thing is taken: a second must add half a point.
    pairs = np.where(np.eye(len(quality), dtype=bool), quality + 0.005, quality)
    first, second = np.unravel_index(int(pairs.argmax()), pairs.shape)
    columns = tuple(sorted({int(first), int(second)}))
    rule = Rule(" or ".join(seen.names[column] for column in columns), columns)
    is_for = bool(balanced[first, second] >= 0.5)
    return rule, is_for, float(quality[first, second])


def right_share(rule: Rule, flags: Flags, target: Flags, *, is_for: bool) -> float:
    """Share of texts of which the rule tells rightly whether they are of the target."""
    return float((rule.holds(flags) == (target if is_for else ~target)).mean())


def out_of_half(seen: Surface, target: Flags) -> npt.NDArray[np.float64]:
    """Probability of the target for each text, shape (N,), from a logistic regression that did not see its half."""
    halves = np.random.default_rng(0).permutation(len(target)) % 2
    features = np.concatenate([seen.flags, np.ones((len(target), 1))], axis=1).astype(np.float64)
    probabilities = np.zeros(len(target))
    for half in (0, 1):
        held = halves == half
        weights = _logistic(features[~held], target[~held])
        probabilities[held] = 1 / (1 + np.exp(-np.clip(features[held] @ weights, -30, 30)))
    return probabilities


def rank_share(scores: npt.NDArray[np.float64], target: Flags) -> float:
    """Share of pairs of a text of the target and one that is not in which the first has the higher score (AUC)."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n = int(target.sum())
    return float((ranks[target].sum() - n * (n + 1) / 2) / (n * (len(target) - n)))


def _logistic(features: npt.NDArray[np.float64], target: Flags, penalty: float = 1.0) -> npt.NDArray[np.float64]:
    """Weights of an L2-penalised logistic regression by Newton's method, both kinds of equal weight."""
    weights = np.zeros(features.shape[1])
    share = target.mean()
    importance = np.where(target, 0.5 / share, 0.5 / (1 - share))
    for _ in range(12):
        expected = 1 / (1 + np.exp(-np.clip(features @ weights, -30, 30)))
        gradient = features.T @ (importance * (expected - target)) + penalty * weights
        curvature = (features * (importance * expected * (1 - expected))[:, None]).T @ features
        curvature[np.diag_indices_from(curvature)] += penalty
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-4:
            break
    return weights


def _seen(text: str) -> list[bool]:
    characters = set(text)
    is_ascii = text.isascii()
    seen = [character in characters for character in string.punctuation]
    seen += [
        text != text.lower(),
        any(character.isdigit() for character in characters),
        not is_ascii,
        "\n" in characters,
        "  " in text,
        text[:1].isspace(),
        text[-1:].isspace(),
        text.lstrip()[:1].isupper(),
        text.rstrip()[-1:] in {".", "!", "?"},
        "://" in text or "www." in text,
        not is_ascii and misread_utf8(text),
    ]
    return seen
