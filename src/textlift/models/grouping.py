"""Batches without padding on a CPU: inside the encoder layers texts of like length lie together, group after group.

    outside the layers    (B, L, D)    a text to a row, padded on the right to the longest
    inside                (1, T, D)    T tokens: those of each group, which has a form of its own (see `attention`)

Whatever works token by token runs over all T rows at once; attention takes the groups in turn. Few texts of unlike
length, which padded would need a pass for each length or as many tokens again, are one pass of hardly more than their
own tokens. Does not know layers or weights.
"""

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

from textlift.models.attention import LONGEST, MOST_SCORES, Form, Mask, attend, attend_back

PRICE_OF_GROUP = 12  # tokens that attention of one group more takes; docs/performance.md
_WORTH = 0.03  # of the tokens: what packing and unpacking them takes, and a little
_States = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Masks = tuple[Mask, ...]


class Groups:
    """How the rows of a batch lie, as a `Form` tells it of a padded one, and how they come to lie so.

    Args:
        lengths: Tokens of each text of a batch that is padded on the right, (B,).
        width: L.
        heads: H.
    """

    def __init__(self, lengths: np.ndarray, width: int, heads: int) -> None:
        self.shape = len(lengths), width
        self.order = np.argsort(lengths, kind="stable")
        self._lengths = lengths[self.order]
        self.forms: list[Form] = []
        self._texts, self._rows = [0], [0]  # where groups begin, and the last one ends
        for start, end in pairwise(_bounds(self._lengths, heads)):
            form = Form(end - start, int(self._lengths[end - 1]), heads)
            self.forms.append(form)
            self._texts.append(end)
            self._rows.append(self._rows[-1] + form.texts * form.tokens)
        self._masks: dict[bool, Masks] = {}
        self.are_packed = False  # whether a pass went through them

    @property
    def tokens(self) -> int:
        """T."""
        return self._rows[-1]

    @cached_property
    def _places(self) -> torch.Tensor:
        """Of each row in the padded batch, row by row, (T,)."""
        batch, width = self.order * self.shape[1], np.arange(self.shape[1])
        texts = [batch[start:end, None] for start, end in pairwise(self._texts)]
        grids = [some + width[: form.tokens] for some, form in zip(texts, self.forms, strict=True)]
        ordered = [grid.T if form.is_time_major else grid for grid, form in zip(grids, self.forms, strict=True)]
        return torch.from_numpy(np.concatenate([one.ravel() for one in ordered]))

    @cached_property
    def _firsts(self) -> torch.Tensor:
        """The rows of the first tokens, (B,)."""
        steps = (1 if form.is_time_major else form.tokens for form in self.forms)
        each = zip(self._rows, self.forms, steps, strict=False)
        return torch.from_numpy(np.concatenate([row + step * np.arange(form.texts) for row, form, step in each]))

    def pack(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, L, D) to (1, T, D)."""
        self.are_packed = True
        return hidden.flatten(0, 1).index_select(0, self._places)[None]

    def unpack(self, hidden: torch.Tensor) -> torch.Tensor:
        """(1, T, D) to (B, L, D), zero where no group has a row; or (1, B, D) of the first tokens to (B, 1, D)."""
        texts, width = self.shape
        if hidden.shape[1] < self.tokens:
            return hidden[0].index_select(0, torch.from_numpy(np.argsort(self.order)))[:, None]
        empty = hidden.new_zeros(texts * width, hidden.shape[-1])
        return empty.index_copy(0, self._places, hidden[0]).view(texts, width, -1)

    def rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """(1, T, D) to (T, D)."""
        return hidden.contiguous()[0]

    def batch(self, rows: torch.Tensor) -> torch.Tensor:
        """(T, D) to (1, T, D), or (B, D) to (1, B, D)."""
        return rows[None]

    def first(self, rows: torch.Tensor) -> torch.Tensor:
        """A copy of the rows of the first tokens, (B, D), of (T, D)."""
        return rows.index_select(0, self._firsts)

    def add_to_first(self, rows: torch.Tensor, more: torch.Tensor) -> None:
        """Add (B, D) to the rows of the first tokens of (T, D), in place."""
        rows.index_add_(0, self._firsts, more)

    def masks(self, *, first_alone: bool) -> Masks:
        """Of each group, for all of its tokens or for the first of each text alone."""
        if first_alone not in self._masks:
            self._masks[first_alone] = tuple(self._made_masks(first_alone))
        return self._masks[first_alone]

    def _made_masks(self, first_alone: bool) -> Iterator[Mask]:
        for form, (start, end) in zip(self.forms, pairwise(self._texts), strict=True):
            lengths = torch.from_numpy(self._lengths[start:end])
            seen = None
            if self._lengths[start] < form.tokens:
                seen = (torch.arange(form.tokens) < lengths[:, None])[:, None, None]  # (B, 1, 1, L)
            yield Mask(seen, form, 1 if first_alone else form.tokens)

    def each(self, asked: int) -> Iterator[tuple[Form, slice, slice]]:
        """Each group's form, its rows, and which of the rows that ask are its: T of them, or B."""
        rows = [slice(*ends) for ends in pairwise(self._rows)]
        asking = rows if asked == self.tokens else [slice(*ends) for ends in pairwise(self._texts)]
        yield from zip(self.forms, rows, asking, strict=True)


def groups_of(attention_mask: torch.Tensor, heads: int) -> Groups | None:
    """How a batch is best put into groups; None where that saves too little.

    Args:
        attention_mask: (B, L), on the CPU.
        heads: Of attention.
    """
    texts, width = attention_mask.shape
    mask = attention_mask.numpy() != 0
    lengths = mask.sum(1)
    least = max(_WORTH * lengths.sum(), 2 * PRICE_OF_GROUP)
    if texts * width - lengths.sum() <= least or not _is_padded_right(mask, lengths):
        return None
    groups = Groups(lengths, width, heads)
    saved = texts * width - groups.tokens - PRICE_OF_GROUP * len(groups.forms)
    return groups if saved > _WORTH * lengths.sum() else None


def _is_padded_right(mask: np.ndarray, lengths: np.ndarray) -> bool:
    return bool(lengths.min() > 0 and (mask == (np.arange(mask.shape[1]) < lengths[:, None])).all())


def attend_each(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    form: Form | Groups,
    mask: Mask | Masks,
    scale: float,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """As `attend`, of rows of either kind."""
    if isinstance(form, Form):
        assert isinstance(mask, Mask)
        return attend(query, key, value, form=form, mask=mask, scale=scale)
    assert isinstance(mask, tuple)
    context, kept = torch.empty_like(query), list[torch.Tensor]()
    for (one, rows, asking), seen in zip(form.each(len(query)), mask, strict=True):
        context[asking], more = attend(query[asking], key[rows], value[rows], form=one, mask=seen, scale=scale)
        kept += more
    return context, tuple(kept)


def attend_each_back(
    grad: torch.Tensor,
    states: _States,
    kept: tuple[torch.Tensor, ...],
    *,
    form: Form | Groups,
    mask: Mask | Masks,
    scale: float,
) -> _States:
    """As `attend_back`, of rows of either kind."""
    if isinstance(form, Form):
        assert isinstance(mask, Mask)
        return attend_back(grad, states, kept, form=form, mask=mask, scale=scale)
    assert isinstance(mask, tuple)
    query, key, value = states
    found = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    left = iter(kept)
    for (one, rows, asking), seen in zip(form.each(len(query)), mask, strict=True):
        parts = query[asking], key[rows], value[rows]
        its = tuple(next(left) for _ in range(1 if one.is_time_major else 2))
        back = attend_back(grad[asking], parts, its, form=one, mask=seen, scale=scale)
        for whole, part, where in zip(found, back, (asking, rows, rows), strict=True):
            whole[where] = part
    return found


def _bounds(lengths: np.ndarray, heads: int) -> list[int]:
    """Where groups of texts, shortest first, begin, and the last one ends: of the least padding and price together."""
    widths, counts = np.unique(lengths, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(counts)])
    costs, cuts = np.zeros(len(ends)), np.zeros(len(ends), dtype=np.int64)  # of the best groups up to each width
    for index, width in enumerate(widths, start=1):
        each = costs[:index] + PRICE_OF_GROUP + (ends[index] - ends[:index]) * width
        cuts[index] = each.argmin()
        costs[index] = each[cuts[index]]
    found, at = [len(ends) - 1], len(ends) - 1
    while at:
        at = int(cuts[at])
        found.append(at)
    whole = [int(ends[at]) for at in reversed(found)]
    bounds = [0]
    for start, end in pairwise(whole):
        width = int(lengths[end - 1])
        most = max(1, MOST_SCORES // (heads * width**2))  # above it torch's own kernel would have to do
        parts = -(-(end - start) // most) if width <= LONGEST else 1
        bounds += [start + (end - start) * (part + 1) // parts for part in range(parts)]
    return bounds
