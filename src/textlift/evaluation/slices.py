"""Parts of the rows on which a classifier is right less often than on the others, beyond what chance would do.

Knows which rows are right and which belong to a part; not what the parts mean or how they were found. Parts must be
chosen without a look at which rows are right: then Holm's correction over all that were tried holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

LEAST_ROWS = 20  # of a part, and of the rest
LEVEL = 0.05  # chance of a single false part among all that are tried
_SAME = 0.7  # share of rows that two parts have in common from which on they say the same


@dataclass(frozen=True)
class Slice:
    """One part of the rows beside the rest."""

    kind: str
    name: str
    n: int
    right: int
    rest_accuracy: float
    low: float  # bounds of the accuracy, 95 %, exact
    high: float
    p_value: float  # that the part is no worse than the rest, one-sided
    p_holm: float  # the same, corrected over all parts tried
    same_as: str  # title of a clearer part of nearly the same rows, or ""

    @property
    def title(self) -> str:
        """Kind and name together: "with a link"."""
        return f"{self.kind} {self.name}"

    @property
    def accuracy(self) -> float:
        """Share of rows of the part that are right."""
        return self.right / self.n

    @property
    def is_below(self) -> bool:
        """Whether the part is significantly below the rest."""
        return self.p_holm <= LEVEL


def compare_slices(right: Mask, parts: Mapping[tuple[str, str], Mask]) -> list[Slice]:
    """Every part that is large enough beside the rest of the rows, the clearest first.

    Args:
        right: Whether each row is right, shape (N,).
        parts: Kind and name of each part and its rows, shape (N,); of parts with the same rows the first is taken.

    Source:
        Fisher (1935), The Design of Experiments (exact test of a 2 x 2 table); Holm (1979), Scandinavian Journal of
        Statistics 6, 65-70; Clopper and Pearson (1934), Biometrika 26, 404-413.
    """
    kept = _large_and_distinct(parts, len(right))
    if not kept:
        return []
    from scipy.stats import hypergeom

    n = np.array([mask.sum() for mask in kept.values()])  # (S,)
    hits = np.array([(right & mask).sum() for mask in kept.values()])
    p_values = hypergeom.cdf(hits, len(right), int(right.sum()), n)
    corrected = holm(p_values)
    low, high = exact_bounds(hits, n)
    rest = (right.sum() - hits) / (len(right) - n)
    order = np.lexsort((np.arange(len(n)), hits / n - rest, p_values))
    names = list(kept)
    told: list[tuple[str, Mask]] = []
    found = []
    for place in order.tolist():
        kind, name = names[place]
        mask = kept[names[place]]
        same = next((other for other, rows in told if _overlap(rows, mask) >= _SAME), "")
        if corrected[place] <= LEVEL and not same:
            told.append((f"{kind} {name}", mask))
        found.append(
            Slice(
                kind,
                name,
                n=int(n[place]),
                right=int(hits[place]),
                rest_accuracy=float(rest[place]),
                low=float(low[place]),
                high=float(high[place]),
                p_value=float(p_values[place]),
                p_holm=float(corrected[place]),
                same_as=same,
            )
        )
    return found


def holm(p_values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """P-values that hold for all hypotheses together, shape (S,), by Holm's step-down procedure."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return corrected


def exact_bounds(
    hits: npt.NDArray[np.integer], n: npt.NDArray[np.integer], *, confidence: float = 0.95
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Bounds of the shares hits / n by Clopper and Pearson, shape (S,) each."""
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = np.where(hits > 0, beta.ppf(tail, np.maximum(hits, 1), n - hits + 1), 0.0)
    high = np.where(hits < n, beta.ppf(1 - tail, hits + 1, np.maximum(n - hits, 1)), 1.0)
    return low, high


def _large_and_distinct(parts: Mapping[tuple[str, str], Mask], n_rows: int) -> dict[tuple[str, str], Mask]:
    kept: dict[tuple[str, str], Mask] = {}
    seen: set[bytes] = set()
    for name, mask in parts.items():
        size = int(mask.sum())
        rows = np.packbits(mask).tobytes()
        if LEAST_ROWS <= size <= n_rows - LEAST_ROWS and rows not in seen:
            seen.add(rows)
            kept[name] = mask
    return kept


def _overlap(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))
