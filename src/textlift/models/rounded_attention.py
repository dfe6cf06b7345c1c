"""Attention of padded batches in bf16 on a CPU, forward and back, for layers whose products are bf16.

Scores, weights and the four products of the way back are batched products in bf16 over all heads of all texts; the
softmax is fp32, and its rows are filled up to a vector's width. Queries come scaled. A single query stays fp32: there
is little to win, and oneDNN compiles each product in bf16 anew for every length. Beyond 128 tokens the scores of all
heads are more than the caches hold and more than a layer should keep: the heads take turns, as many at a time as the
caches hold, and their weights are computed again going back.

    w = softmax(q k' + mask),  c = w v        q (B H, Q, E); k, v (B H, L, E), contiguous
    dv = w' dc,  dw = dc v',  ds = w (dw - rowsum(w dw)),  dq = ds k,  dk = ds' q

Source:
    Vaswani et al. (2017), Attention Is All You Need, section 3.2.1; the derivatives are ours.
"""

from collections.abc import Iterator
from typing import Any

import torch

from textlift.models.attention import Form, Mask

LONGEST, MOST_SCORES = 128, 8_000_000  # tokens, B H L L; all heads at once
SCORES_OF_A_TURN = 800_000  # of all heads whose turn it is, one at least
_VECTOR = 32  # bf16 numbers: a softmax over fewer takes torch's slow way, and is computed on filled rows of fp32
_SOFTMAX_BACK: Any = torch.ops.aten._softmax_backward_data
_BF16 = torch.bfloat16
_Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def split_heads(rows: torch.Tensor, form: Form, parts: int) -> torch.Tensor:
    """(B L, parts H E) to (parts, B H, L, E), a copy."""
    split = rows.view(form.texts, -1, parts, form.heads, rows.shape[1] // (parts * form.heads))
    return split.permute(2, 0, 3, 1, 4).reshape(parts, form.texts * form.heads, split.shape[1], -1)


def join_heads(states: torch.Tensor, form: Form, out: torch.Tensor) -> torch.Tensor:
    """(parts, B H, L, E) into the rows of out (B L, parts H E)."""
    parts, _, tokens, size = states.shape
    ordered = states.view(parts, form.texts, form.heads, tokens, size).permute(1, 3, 0, 2, 4)
    out.view(form.texts, tokens, parts, form.heads, size).copy_(ordered)
    return out


def attend_rounded(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, form: Form, mask: Mask
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Attended values (B H, Q, E) in bf16, and what `attend_rounded_back` needs of them.

    Args:
        query: (B H, Q, E) in bf16, scaled.
        key: (B H, L, E) in bf16.
        value: (B H, L, E) in bf16.
        form: Of the batch.
        mask: For as many queries.
    """
    if query.shape[1] == 1:
        weights = _softmax(torch.bmm(query.float(), key.float().transpose(1, 2)), form, mask)
        return torch.bmm(weights[..., : form.tokens], value.float()).to(_BF16), (weights,)
    if not _is_short(form):
        attended = torch.empty_like(query)
        for heads, weights in _turns((query, key), form, mask):
            torch.bmm(weights, value[heads], out=attended[heads])
        return attended, ()
    weights = _softmax(torch.bmm(query, key.transpose(1, 2)), form, mask)
    rounded = weights[..., : form.tokens].to(_BF16)
    return torch.bmm(rounded, value), (rounded, weights) if form.tokens < _VECTOR else (rounded,)


def attend_rounded_back(
    grad: torch.Tensor,
    states: _Three,
    kept: tuple[torch.Tensor, ...],
    *,
    form: Form,
    mask: Mask,
    into: _Three,
) -> None:
    """Put the gradients of query, key and value into three tensors of their shapes.

    Args:
        grad: (B H, Q, E) in bf16.
        states: Query, key and value.
        kept: By `attend_rounded`.
        form: As in `attend_rounded`.
        mask: As in `attend_rounded`.
        into: For the gradients of query, key and value, bf16.
    """
    query, key, value = states
    d_query, d_key, d_value = into
    if query.shape[1] == 1:
        weights, exact = kept[0][..., : form.tokens], grad.float()
        d_value.copy_(weights.transpose(1, 2) * exact)
        d_weights = torch.bmm(exact, value.float().transpose(1, 2)).mul_(weights)
        d_scores = d_weights - weights * d_weights.sum(-1, keepdim=True)
        d_query.copy_(torch.bmm(d_scores, key.float()))
        d_key.copy_(d_scores.transpose(1, 2) * query)
        return
    if not _is_short(form):
        for heads, weights in _turns((query, key), form, mask):
            here = query[heads], key[heads], value[heads]
            _many_back(grad[heads], here, (weights,), into=(d_query[heads], d_key[heads], d_value[heads]))
        return
    _many_back(grad, states, kept, into=into)


def _many_back(grad: torch.Tensor, states: _Three, kept: tuple[torch.Tensor, ...], *, into: _Three) -> None:
    """The way back of many heads at once; see `attend_rounded_back`."""
    (query, key, value), (d_query, d_key, d_value) = states, into
    torch.bmm(kept[0].transpose(1, 2), grad, out=d_value)
    d_scores = _softmax_back(torch.bmm(grad, value.transpose(1, 2)), *kept)
    torch.bmm(d_scores, key, out=d_query)
    torch.bmm(d_scores.transpose(1, 2), query, out=d_key)


def _turns(states: tuple[torch.Tensor, torch.Tensor], form: Form, mask: Mask) -> Iterator[tuple[slice, torch.Tensor]]:
    """Some heads at a time, of whole texts or of one, with their weights (heads, Q, L) in bf16; of query and key."""
    query, key = states
    scores_of_head = query.shape[1] * form.tokens
    texts = max(1, SCORES_OF_A_TURN // (form.heads * scores_of_head))
    heads = form.heads if texts > 1 else min(form.heads, max(1, SCORES_OF_A_TURN // scores_of_head))
    added = None if mask.added is None else mask.added.to(_BF16)
    for text in range(0, form.texts, texts):
        end = min(text + texts, form.texts) * form.heads
        for first in range(text * form.heads, end, texts * heads):
            taken = slice(first, min(first + texts * heads, end))
            scores = torch.bmm(query[taken], key[taken].transpose(1, 2))
            if added is not None:
                here = added[text : text + texts]  # (texts, 1, 1 or Q, L)
                scores.view(len(here), -1, *scores.shape[1:]).add_(here)
            yield taken, torch.softmax(scores, -1)


def _softmax(scores: torch.Tensor, form: Form, mask: Mask) -> torch.Tensor:
    """The weights in fp32, (B H, Q, L), or more in a row where the mask has been filled up."""
    added = mask.added
    if added is None:
        return torch.softmax(scores.float(), -1)
    if added.dim() == 4:
        return torch.softmax(_of_texts(scores, form) + added, -1).view(scores.shape)
    if added.shape == scores.shape:
        return torch.softmax(added + scores, -1)
    filled = added.clone()
    filled[..., : form.tokens].add_(scores)
    return torch.softmax(filled, -1)


def _softmax_back(d_weights: torch.Tensor, rounded: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """The gradient of the scores in bf16, of that of the weights; over filled rows of fp32 where there are such."""
    found: torch.Tensor
    if weights is None:
        found = _SOFTMAX_BACK(d_weights, rounded, -1, _BF16)
        return found
    filled = torch.zeros_like(weights)
    filled[..., : d_weights.shape[-1]] = d_weights
    found = _SOFTMAX_BACK(filled, weights, -1, torch.float32)
    return found[..., : d_weights.shape[-1]].to(_BF16)


def _is_short(form: Form) -> bool:
    """Whether the scores of a batch are computed at once, where all tokens ask."""
    return form.tokens <= LONGEST and form.texts * form.heads * form.tokens**2 <= MOST_SCORES


def _of_texts(states: torch.Tensor, form: Form) -> torch.Tensor:
    """(B H, L, E) to (B, H, L, E), a view."""
    return states.view(form.texts, form.heads, *states.shape[1:])
