"""Attention in bf16 gives what exact attention gives, to rounding, whatever the length and however heads take turns."""

import math

import pytest
import torch

from textlift.models import rounded_attention
from textlift.models.attention import Form, Mask
from textlift.models.kernels import has_bf16_products
from tiny_encoders import FAST

pytestmark = pytest.mark.skipif(not has_bf16_products(FAST), reason="no bf16 products here")
TEXTS, HEADS, SIZE = 5, 4, 8
LONG = rounded_attention.LONGEST + 12


def states(tokens: int) -> list[torch.Tensor]:
    """Query, key, value and the gradient of what is attended, in bf16."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(TEXTS * HEADS, tokens, SIZE, generator=generator).to(torch.bfloat16) for _ in range(4)]


def seen_by(tokens: int, *, padded: bool) -> torch.Tensor | None:
    """(B, 1, 1, L), or None where all tokens are seen."""
    lengths = torch.tensor([tokens, tokens - 1, 3, tokens // 2, 1])
    return (torch.arange(tokens) < lengths[:, None])[:, None, None] if padded else None


def exact(parts: list[torch.Tensor], seen: torch.Tensor | None) -> list[torch.Tensor]:
    """Attended values and the gradients of query, key and value, in fp32."""
    query, key, value, grad = (part.float().view(TEXTS, HEADS, *part.shape[1:]) for part in parts)
    asked = [part.requires_grad_() for part in (query, key, value)]
    scores = query @ key.transpose(2, 3)
    if seen is not None:
        scores = scores.masked_fill(~seen, -math.inf)
    attended = scores.softmax(-1) @ value
    attended.backward(grad)
    found = [attended.detach(), *(part.grad for part in asked if part.grad is not None)]
    return [one.reshape(part.shape) for one, part in zip(found, (parts[0], *parts[:3]), strict=True)]


def rounded(parts: list[torch.Tensor], seen: torch.Tensor | None) -> list[torch.Tensor]:
    query, key, value, grad = parts
    form = Form(TEXTS, key.shape[1], HEADS)
    mask = Mask(seen, form, query.shape[1])
    attended, kept = rounded_attention.attend_rounded(query, key, value, form=form, mask=mask)
    into = (torch.empty_like(query), torch.empty_like(key), torch.empty_like(value))
    rounded_attention.attend_rounded_back(grad, (query, key, value), kept, form=form, mask=mask, into=into)
    return [attended, *into]


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("tokens", [20, 100, LONG, 600])
def test_values_and_gradients_are_the_exact_ones_to_rounding(tokens: int, padded: bool) -> None:
    parts, seen = states(tokens), seen_by(tokens, padded=padded)
    for found, expected in zip(rounded(parts, seen), exact(parts, seen), strict=True):
        assert float((found - expected).norm()) < 0.02 * float(expected.norm())


@pytest.mark.parametrize("heads", [1, 3, 4, 7, 8, 19, 20, 100])
@pytest.mark.parametrize("padded", [True, False])
def test_turns_of_any_number_of_heads_give_the_same(monkeypatch: pytest.MonkeyPatch, padded: bool, heads: int) -> None:
    parts, seen = states(LONG), seen_by(LONG, padded=padded)
    monkeypatch.setattr(rounded_attention, "SCORES_OF_A_TURN", heads * LONG**2)
    for found, expected in zip(rounded(parts, seen), exact(parts, seen), strict=True):
        assert float((found - expected).norm()) < 0.02 * float(expected.norm())


@pytest.mark.parametrize("tokens", [20, LONG])
def test_a_single_query_is_answered_as_exactly(tokens: int) -> None:
    (query, key, value, grad), seen = states(tokens), seen_by(tokens, padded=True)
    parts = [query[:, :1].contiguous(), key, value, grad[:, :1].contiguous()]
    for found, expected in zip(rounded(parts, seen), exact(parts, seen), strict=True):
        assert float((found - expected).norm()) < 0.02 * float(expected.norm())


def test_nothing_is_kept_of_heads_that_take_turns() -> None:
    query, key, value, _ = states(LONG)
    form = Form(TEXTS, LONG, HEADS)
    kept = rounded_attention.attend_rounded(query, key, value, form=form, mask=Mask(None, form, LONG))[1]
    assert kept == ()


def test_no_more_scores_are_held_at_once_than_a_turn_may() -> None:
    query, key, _, _ = states(LONG)
    form = Form(TEXTS, LONG, HEADS)
    turns = list(rounded_attention._turns((query, key), form, Mask(None, form, LONG)))
    assert max(weights.numel() for _, weights in turns) <= rounded_attention.SCORES_OF_A_TURN
    assert [index for heads, _ in turns for index in range(*heads.indices(TEXTS * HEADS))] == list(range(TEXTS * HEADS))
