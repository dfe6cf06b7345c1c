"""Attention of padded batches on a CPU, forward and back, for whoever computes a whole layer himself.

torch's kernel works text by text and head by head, which for short texts is more call than arithmetic. Up to 48 tokens,
and a few hundred short texts, all heads of all texts go through one batched product instead, with the softmax over rows
that are filled up to a vector's width: half of the time or less. That wants the tokens of one position side by side, so
the rows of a batch lie

    time-major    row t B + b is token t of text b     where that is so
    text-major    row b L + t                          elsewhere

Does not know layers or weights.

Source:
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.1; the derivatives are ours.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

LONGEST, MOST_SCORES = 48, 1_500_000  # tokens, B H L L; above, scores leave the caches and torch's own kernel wins
_VECTOR = 16  # fp32 numbers: a softmax over fewer takes torch's slow way
FLASH: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
FLASH_BACK: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None)
HAS_KERNEL = FLASH is not None and FLASH_BACK is not None
"""Whether this torch has the attention for longer texts; a later one may name it otherwise."""


@dataclass(frozen=True)
class Form:
    """How the rows of a batch lie.

    Args:
        texts: B.
        tokens: L.
        heads: H.
    """

    texts: int
    tokens: int
    heads: int

    @property
    def is_time_major(self) -> bool:
        """Whether the tokens of one position lie side by side."""
        return self.tokens <= LONGEST and self.texts * self.heads * self.tokens**2 <= MOST_SCORES

    def rows(self, hidden: torch.Tensor) -> torch.Tensor:
        """(B, L, D) to (B L, D); what `batch` gave is not copied."""
        ordered = hidden.transpose(0, 1) if self.is_time_major else hidden
        return ordered.contiguous().view(-1, hidden.shape[-1])

    def batch(self, rows: torch.Tensor) -> torch.Tensor:
        """(B L, D) to (B, L, D), or (B, D) to (B, 1, D); never a copy."""
        if self.is_time_major:
            return rows.view(-1, self.texts, rows.shape[-1]).transpose(0, 1)
        return rows.view(self.texts, -1, rows.shape[-1])

    def first(self, rows: torch.Tensor) -> torch.Tensor:
        """A view of the rows of the first tokens, (B, D), of (B L, D)."""
        if self.is_time_major:
            return rows[: self.texts]
        return rows.view(self.texts, -1, rows.shape[-1])[:, 0]

    def add_to_first(self, rows: torch.Tensor, more: torch.Tensor) -> None:
        """Add (B, D) to the rows of the first tokens of (B L, D), in place."""
        self.first(rows).add_(more)


class Mask:
    """Which tokens are seen, as what is added to the scores: 0 or minus infinity.

    Args:
        seen: (B, 1, L or 1, L), true where a token is seen; None where all are.
        form: Of the batch.
        queries: Positions that ask: L, or 1 for the first alone.
    """

    def __init__(self, seen: torch.Tensor | None, form: Form, queries: int) -> None:
        self.added: torch.Tensor | None = None
        texts, tokens, heads = form.texts, form.tokens, form.heads
        if seen is not None:
            seen = seen[:, :, :queries]
            if seen.shape[2] > 1 and torch.equal(seen, seen[:, :, :1].expand_as(seen)):
                seen = seen[:, :, :1]  # padding alone: every query sees the same, so L numbers do in place of L L
            self.added = torch.zeros(seen.shape).masked_fill_(~seen, -math.inf)
        if not form.is_time_major:
            return
        width = max(tokens, _VECTOR)
        if self.added is None and width == tokens:
            return
        filled = torch.full((texts, heads, queries, width), -math.inf)
        filled[..., :tokens] = 0.0 if self.added is None else self.added
        self.added = filled.view(texts * heads, queries, width)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, form: Form, mask: Mask, scale: float
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Rows of the attended values, as many as of the query, and what `attend_back` needs of it.

    Args:
        query: (B L, H E), or (B, H E) for the first tokens alone.
        key: (B L, H E).
        value: (B L, H E).
        form: Of the batch.
        mask: For as many queries.
        scale: Of the scores.
    """
    if not form.is_time_major:
        added = mask.added
        out, sums = FLASH(*(_split(rows, form) for rows in (query, key, value)), attn_mask=added, scale=scale)
        return out.transpose(1, 2).reshape(query.shape), (out, sums)
    queries, keys, values = (_heads(rows, form) for rows in (query, key, value))
    scores = torch.bmm(queries, keys.transpose(1, 2))  # (B H, queries, L)
    if mask.added is None:
        weights = torch.softmax(scores.mul_(scale), -1)
    elif mask.added.shape == scores.shape:
        weights = torch.softmax(torch.add(mask.added, scores, alpha=scale, out=scores), -1)
    else:
        filled = mask.added.clone()
        filled[..., : form.tokens].add_(scores, alpha=scale)
        weights = torch.softmax(filled, -1)[..., : form.tokens]
    return _rows(torch.bmm(weights, values), form), (weights,)


def attend_back(
    grad: torch.Tensor,
    states: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    kept: tuple[torch.Tensor, ...],
    *,
    form: Form,
    mask: Mask,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of query, key and value, in their shapes.

    Args:
        grad: Of the rows that `attend` gave.
        states: Query, key and value.
        kept: By `attend`.
        form: As in `attend`.
        mask: As in `attend`.
        scale: As in `attend`.
    """
    if not form.is_time_major:
        out, sums = kept
        parts = (_split(rows, form) for rows in (grad, *states))
        found = FLASH_BACK(*parts, out, sums, 0.0, False, attn_mask=mask.added, scale=scale)
        d_query, d_key, d_value = (part.transpose(1, 2).reshape(-1, grad.shape[-1]) for part in found)
        return d_query, d_key, d_value
    (weights,) = kept
    grads, queries, keys, values = (_heads(rows, form) for rows in (grad, *states))
    d_value = torch.bmm(weights.transpose(1, 2), grads)
    d_weights = torch.bmm(grads, values.transpose(1, 2)).mul_(weights)
    d_scores = d_weights.addcmul_(weights, d_weights.sum(-1, keepdim=True), value=-1).mul_(scale)
    d_query, d_key = torch.bmm(d_scores, keys), torch.bmm(d_scores.transpose(1, 2), queries)
    return _rows(d_query, form), _rows(d_key, form), _rows(d_value, form)


def _heads(rows: torch.Tensor, form: Form) -> torch.Tensor:
    """(L B, H E) to (B H, L, E), a view."""
    both = form.texts * form.heads
    return rows.view(-1, both, rows.shape[-1] // form.heads).transpose(0, 1)


def _rows(heads: torch.Tensor, form: Form) -> torch.Tensor:
    """(B H, L, E) to (L B, H E), a copy."""
    return heads.transpose(0, 1).reshape(-1, form.heads * heads.shape[-1])


def _split(rows: torch.Tensor, form: Form) -> torch.Tensor:
    """(B L, H E) to (B, H, L, E), a view."""
    return rows.view(form.texts, -1, form.heads, rows.shape[-1] // form.heads).transpose(1, 2)
