"""Texts to tokens, tokens to batches: what is cut, the order of an epoch, budgets and padding."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textlift.data.batching import (
    budget_batches,
    collate,
    cut_where_padded,
    epoch_batches,
    padded_tokens,
    price_of_pass,
    split_by_budget,
    token_counts,
    tokenize,
)
from tiny_models import TEXTS, byte_pairs, word_piece

LENGTHS = np.random.default_rng(0).integers(3, 200, size=2_000)
some_lengths = st.lists(st.integers(1, 90), min_size=1, max_size=60).map(np.asarray)


def padded(batches: list[np.ndarray], lengths: np.ndarray) -> int:
    return sum(len(batch) * int(lengths[batch].max()) for batch in batches)


def test_a_cut_text_keeps_its_special_tokens() -> None:
    tokenizer = word_piece()
    tokens = tokenize(tokenizer, ["the old boat near the cloud we saw", "boat"], max_length=5)
    assert tokenizer.convert_ids_to_tokens(tokens[0].tolist()) == ["[CLS]", "the", "old", "boat", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(tokens[1].tolist()) == ["[CLS]", "boat", "[SEP]"]
    assert tokens.lengths.tolist() == [5, 3]
    assert tokens.uncut_lengths.tolist() == [10, 3]


def test_tokens_are_those_of_the_tokenizer_text_by_text() -> None:
    tokenizer = word_piece()
    tokens = tokenize(tokenizer, TEXTS, max_length=12)
    assert len(tokens) == len(TEXTS)
    for index, text in enumerate(TEXTS):
        assert tokens[index].tolist() == tokenizer(text, truncation=True, max_length=12)["input_ids"]
    assert token_counts(tokenizer, TEXTS).tolist() == tokens.uncut_lengths.tolist()


def test_many_texts_are_encoded_in_chunks_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tokenize(word_piece(), TEXTS, max_length=12)
    monkeypatch.setattr("textlift.data.batching._ENCODE_CHUNK", 7)
    parts = tokenize(word_piece(), TEXTS, max_length=12)
    assert np.array_equal(whole.input_ids, parts.input_ids)
    assert np.array_equal(whole.offsets, parts.offsets)
    assert np.array_equal(token_counts(word_piece(), TEXTS), whole.uncut_lengths)


def test_an_empty_text_becomes_one_padding_token_where_nothing_is_added() -> None:
    tokenizer = byte_pairs()
    tokenizer.pad_token = tokenizer.eos_token
    tokens = tokenize(tokenizer, ["", "the boat", ""], max_length=8)
    assert tokens[0].tolist() == tokens[2].tolist() == [tokenizer.pad_token_id]
    assert tokens.lengths.tolist() == [1, 3, 1]
    assert tokens.uncut_lengths.tolist() == [0, 3, 0]


def test_no_text_at_all_gives_no_token() -> None:
    tokens = tokenize(word_piece(), [], max_length=8)
    assert (len(tokens), tokens.lengths.tolist(), token_counts(word_piece(), []).tolist()) == (0, [], [])


@pytest.mark.parametrize("group_by_length", [True, False])
@given(lengths=some_lengths, batch_size=st.integers(1, 20), seed=st.integers(0, 5))
def test_an_epoch_holds_every_example_once(
    group_by_length: bool, lengths: np.ndarray, batch_size: int, seed: int
) -> None:
    batches = epoch_batches(lengths, batch_size=batch_size, seed=seed, epoch=0, group_by_length=group_by_length)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // batch_size)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_batches(LENGTHS, batch_size=32, seed=seed, epoch=epoch)).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_batches_of_like_length_pad_far_less_and_still_come_in_any_order() -> None:
    grouped = epoch_batches(LENGTHS, batch_size=32, seed=0, epoch=0)
    plain = epoch_batches(LENGTHS, batch_size=32, seed=0, epoch=0, group_by_length=False)
    useful = int(LENGTHS.sum())
    assert padded(grouped, LENGTHS) - useful < 0.1 * (padded(plain, LENGTHS) - useful)
    means = [float(LENGTHS[batch].mean()) for batch in grouped]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.4


def test_batches_of_one_width_come_in_runs_of_up_to_eight_in_any_order() -> None:
    lengths = np.repeat([5, 9, 17, 30], [32 * 3, 32 * 20, 32 * 8, 7])
    orders = set()
    for seed in range(5):
        batches = epoch_batches(lengths, batch_size=32, seed=seed, epoch=0)
        shapes = [(len(batch), int(lengths[batch].max())) for batch in batches]
        runs = [shape for shape, _ in itertools.groupby(shapes)]
        assert len(batches) == 32
        assert len(runs) <= 6  # 3 of width 5; 8, 8 and 4 of width 9, which may stand side by side; 8 of 17; 1 of 30
        orders.add(tuple(runs))
    assert len(orders) > 2


@given(lengths=some_lengths, budget=st.integers(1, 400))
def test_parts_stay_within_the_budget_and_hold_everything_once(lengths: np.ndarray, budget: int) -> None:
    parts = split_by_budget(np.arange(len(lengths)), lengths, tokens_per_batch=budget)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    assert all(len(part) == 1 or padded([part], lengths) <= budget for part in parts)


def test_parts_are_as_even_as_so_many_can_be() -> None:
    lengths = np.repeat([20, 140], [4, 32])
    parts = split_by_budget(np.arange(36), lengths, tokens_per_batch=4_096)
    assert [len(part) for part in parts] == [18, 18]
    assert [len(part) for part in split_by_budget(np.arange(36), lengths, tokens_per_batch=5_040)] == [36]


@given(lengths=some_lengths, budget=st.integers(1, 400), max_rows=st.integers(1, 30))
def test_inference_batches_stay_within_the_budget_longest_first(
    lengths: np.ndarray, budget: int, max_rows: int
) -> None:
    batches = list(budget_batches(lengths, tokens_per_batch=budget, max_rows=max_rows))
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert all(len(batch) == 1 or padded([batch], lengths) <= budget for batch in batches)
    assert max(map(len, batches)) <= max_rows
    assert (np.diff(lengths[order]) <= 0).all()


@given(lengths=some_lengths, budget=st.integers(1, 400), max_rows=st.integers(1, 30))
def test_inference_batches_without_padding_are_bounded_by_their_own_tokens(
    lengths: np.ndarray, budget: int, max_rows: int
) -> None:
    batches = list(budget_batches(lengths, tokens_per_batch=budget, max_rows=max_rows, pads=False))
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert all(len(batch) == 1 or lengths[batch].sum() <= budget for batch in batches)
    assert all(len(batch) == 1 or padded([batch], lengths) <= 2 * budget for batch in batches)
    assert max(map(len, batches)) <= max_rows
    assert (np.diff(lengths[order]) <= 0).all()


def test_padding_stands_on_the_right_and_is_masked() -> None:
    tokens = tokenize(word_piece(), ["boat", "the old boat"], max_length=9)
    batch = collate(tokens, np.array([1, 0]), pad_token_id=77)
    assert batch["input_ids"].shape == (2, 5)
    assert batch["input_ids"][1, 3:].tolist() == [77, 77]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert batch["input_ids"][1, :3].tolist() == tokens[0].tolist()


def test_counting_tokens_tells_how_many_texts_are_done() -> None:
    told: list[int] = []
    counts = token_counts(word_piece(), ["the old boat"] * 5_000, advance=told.append)
    assert told == [4_096, 5_000]
    assert counts.tolist() == [5] * 5_000


def test_some_texts_are_taken_whole_and_in_the_order_asked_for() -> None:
    tokens = tokenize(word_piece(), TEXTS, max_length=12)
    taken = tokens.take(np.array([2, 0]))
    assert [taken[0].tolist(), taken[1].tolist()] == [tokens[2].tolist(), tokens[0].tolist()]
    assert taken.uncut_lengths.tolist() == tokens.uncut_lengths[[2, 0]].tolist()
    assert len(tokens.take(np.array([], dtype=np.int64))) == 0


def test_a_pass_is_cut_where_padding_costs_more_than_a_pass() -> None:
    lengths = np.asarray([40] * 4 + [5] * 20 + [12] * 20)
    parts = cut_where_padded(np.arange(44), lengths, price=100)
    assert [sorted(set(lengths[part].tolist())) for part in parts] == [[5], [12], [40]]
    assert sorted(np.concatenate(parts).tolist()) == list(range(44))
    assert sum(padded_tokens(part, lengths) for part in parts) == lengths.sum()


@pytest.mark.parametrize("price", [35 * 40, 10**6])
def test_a_pass_stays_whole_where_no_cut_saves_more_than_its_price(price: int) -> None:
    lengths = np.asarray([40] * 4 + [5] * 40)
    (part,) = cut_where_padded(np.arange(44)[::-1], lengths, price=price)
    assert part.tolist() == list(range(44))[::-1]


@pytest.mark.parametrize("seed", range(5))
def test_cutting_saves_more_than_the_passes_cost(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 200, 60)
    parts = cut_where_padded(np.arange(60), lengths, price=300)
    assert len(parts) > 1
    padded = sum(padded_tokens(part, lengths) for part in parts)
    assert padded + 300 * (len(parts) - 1) < padded_tokens(np.arange(60), lengths)


def test_a_pass_of_a_wider_model_costs_fewer_tokens_and_twice_as_many_forward_alone() -> None:
    assert [price_of_pass(width) for width in (24, 384, 768, 1_536, 8_192)] == [128, 128, 32, 8, 1]
    assert price_of_pass(768, forward_alone=True) == 64


def test_a_single_text_is_one_pass() -> None:
    assert len(cut_where_padded(np.asarray([3]), np.asarray([9, 9, 9, 500]), price=1)) == 1
