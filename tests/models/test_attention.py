"""Attention of padded batches: values and gradients of torch's own, for short and long texts, all queries or one."""

import math

import pytest
import torch
from torch.nn import functional

from textlift.models.attention import LONGEST, Form, Mask, attend, attend_back

HEADS, WIDTH, TEXTS = 3, 8, 4
LENGTHS = [1, 2, 15, 16, 17, LONGEST, LONGEST + 1, 70]


def seen_of(tokens: int) -> torch.Tensor:
    """(B, 1, L, L): the first text whole, the others shorter, none without any token."""
    lengths = torch.tensor([tokens, max(1, tokens // 2), 1, max(1, tokens - 1)])
    return (torch.arange(tokens) < lengths[:, None])[:, None, None].expand(TEXTS, 1, tokens, tokens)


def states(tokens: int, count: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    return [torch.randn(TEXTS, tokens, HEADS * WIDTH, generator=generator) for _ in range(count)]


def of_torch(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor | None, scale: float
) -> torch.Tensor:
    split = [x.view(TEXTS, -1, HEADS, WIDTH).transpose(1, 2) for x in (query, key, value)]
    mask = None if seen is None else seen[:, :, : query.shape[1]]
    out = functional.scaled_dot_product_attention(*split, attn_mask=mask, scale=scale)
    return out.transpose(1, 2).reshape(query.shape)


@pytest.mark.parametrize("alone", [False, True], ids=["all queries", "the first alone"])
@pytest.mark.parametrize("masked", [True, False], ids=["padded", "full"])
@pytest.mark.parametrize("tokens", LENGTHS)
def test_values_and_gradients_are_those_of_torch_to_rounding(tokens: int, masked: bool, alone: bool) -> None:
    query, key, value, grad = states(tokens)
    queries = 1 if alone else tokens
    query, grad = query[:, :queries], grad[:, :queries]
    seen = seen_of(tokens) if masked else None
    inputs = [x.clone().requires_grad_() for x in (query, key, value)]
    expected = of_torch(*inputs, seen, 0.3)
    expected.backward(grad)

    form = Form(TEXTS, tokens, HEADS)
    mask = Mask(seen, form, queries)
    rows = [form.rows(x) for x in (query, key, value)]
    found, kept = attend(*rows, form=form, mask=mask, scale=0.3)
    gradients = attend_back(form.rows(grad), tuple(rows), kept, form=form, mask=mask, scale=0.3)
    torch.testing.assert_close(form.batch(found), expected, rtol=1e-4, atol=1e-5)
    for gradient, one in zip(gradients, inputs, strict=True):
        torch.testing.assert_close(form.batch(gradient), one.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokens", [5, LONGEST + 1])
def test_rows_of_a_batch_and_back_copy_nothing(tokens: int) -> None:
    form = Form(TEXTS, tokens, HEADS)
    rows = form.rows(states(tokens, 1)[0])
    assert form.rows(form.batch(rows)).data_ptr() == rows.data_ptr()
    assert torch.equal(form.first(rows), form.batch(rows)[:, 0])


def test_scores_that_would_leave_the_caches_are_torchs_own() -> None:
    assert Form(32, 40, 12).is_time_major
    assert not Form(256, 40, 12).is_time_major


@pytest.mark.parametrize("tokens", [5, LONGEST + 1])
def test_a_mask_that_is_the_same_for_every_query_is_kept_once(tokens: int) -> None:
    form = Form(TEXTS, tokens, HEADS)
    row, whole = (Mask(seen, form, tokens).added for seen in (seen_of(tokens)[:, :, :1], seen_of(tokens)))
    assert row is not None
    assert whole is not None
    assert torch.equal(row, whole)
    assert (float(row.max()), float(row.min())) == (0, -math.inf)


@pytest.mark.parametrize("tokens", [7, LONGEST + 1])
def test_queries_that_see_different_tokens_keep_their_own_masks(tokens: int) -> None:
    seen = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(TEXTS, 1, tokens, tokens)
    query, key, value, _ = states(tokens)
    form = Form(TEXTS, tokens, HEADS)
    rows = [form.rows(x) for x in (query, key, value)]
    found, _ = attend(*rows, form=form, mask=Mask(seen, form, tokens), scale=0.3)
    torch.testing.assert_close(form.batch(found), of_torch(query, key, value, seen, 0.3), rtol=1e-4, atol=1e-5)
