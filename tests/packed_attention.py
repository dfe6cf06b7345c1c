"""The kernel of packed batches for a CPU, written plainly: torch's own way to it is taken, as on a GPU."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch

from textlift.models import packing

State = torch.Tensor
seen: list[int] = []  # packed tokens of each call


def each_text(query: State, offsets: State, longest: int) -> list[slice]:
    bounds = list(pairwise(offsets.tolist()))
    assert offsets.dtype == torch.int32
    assert bounds[0][0] == 0
    assert bounds[-1][1] == len(query)
    assert max(end - start for start, end in bounds) <= longest
    return [slice(start, end) for start, end in bounds]


def weights(query: State, key: State, *, is_causal: bool) -> State:
    scores = query.transpose(0, 1) @ key.permute(1, 2, 0) * query.shape[-1] ** -0.5  # (H, T, T)
    if is_causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
    return scores.softmax(-1)


def forward(
    query: State,
    key: State,
    value: State,
    offsets: State,
    _: State,
    longest: int,
    __: int,
    is_causal: bool = False,
    *rest: Any,
    **more: Any,
) -> tuple[State, State, State]:
    seen.append(len(query))
    done = torch.empty_like(query)
    for text in each_text(query, offsets, longest):
        shares = weights(query[text], key[text], is_causal=is_causal)
        done[text] = (shares @ value[text].transpose(0, 1)).transpose(0, 1)
    return done, query.new_zeros(query.shape[1], len(query)).float(), torch.zeros(2, dtype=torch.uint64)


def backward(
    grad: State,
    query: State,
    key: State,
    value: State,
    _: State,
    __: State,
    offsets: State,
    ___: State,
    longest: int,
    ____: int,
    is_causal: bool,
    *rest: Any,
    **more: Any,
) -> tuple[State, State, State]:
    made = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    scale = query.shape[-1] ** -0.5
    for text in each_text(query, offsets, longest):
        q, k, v, g = (some[text].transpose(0, 1) for some in (query, key, value, grad))  # (H, T, E)
        shares = weights(query[text], key[text], is_causal=is_causal)
        d_shares = g @ v.transpose(1, 2)
        d_scores = shares * (d_shares - (d_shares * shares).sum(-1, keepdim=True)) * scale
        for place, some in zip(
            made, (d_scores @ k, d_scores.transpose(1, 2) @ q, shares.transpose(1, 2) @ g), strict=True
        ):
            place[text] = some.transpose(0, 1)
    return made


@cache
def register_kernels() -> None:
    import torch.nn.attention.varlen

    torch.library.register_kernel("torch_attn::_varlen_attn", "cpu", forward)
    torch.library.register_kernel("torch_attn::_varlen_attn_backward", "cpu", backward)


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a CPU pack, in any precision; the numbers of packed tokens that attention saw are returned, and more come."""
    register_kernels()
    seen.clear()
    why_not: Callable[..., str] = packing._why_not
    monkeypatch.setattr(
        packing,
        "_why_not",
        lambda classifier, runtime: why_not(classifier, replace(runtime, device="cuda", precision="bf16")),
    )
    return seen
