"""Texts to tokens, tokens to batches of like length, batches to padded tensors.

Knows tokenizers and lengths. Does not know models or training.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_PRICE_OF_PASS, _PRICED_WIDTH = 128, 384  # tokens, of a model of that hidden size; docs/performance.md
_ENCODE_CHUNK = 4096
_CHUNK_BATCHES = 200
_RUN = 8  # batches; for each first one of a width the processor's library compiles its products anew


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of N texts, one after the other.

    Args:
        input_ids: All ids, (sum of lengths,).
        offsets: Where each text begins, (N + 1,).
        uncut_lengths: Tokens of each text before it was cut, (N,).
    """

    input_ids: np.ndarray
    offsets: np.ndarray
    uncut_lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, (N,)."""
        lengths: np.ndarray = np.diff(self.offsets)
        return lengths

    def __getitem__(self, index: int) -> np.ndarray:
        ids: np.ndarray = self.input_ids[self.offsets[index] : self.offsets[index + 1]]
        return ids

    def take(self, rows: np.ndarray) -> "TokenizedTexts":
        """The texts of some rows, (M,), in their order."""
        pieces = [self[int(row)] for row in rows]
        offsets = np.concatenate([[0], np.cumsum(self.lengths[rows], dtype=np.int64)]).astype(np.int64)
        flat = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int32)
        return TokenizedTexts(flat, offsets, self.uncut_lengths[rows])


def token_counts(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, advance: Callable[[int], None] | None = None
) -> np.ndarray:
    """Tokens of each text uncut, special tokens included, (N,).

    Args:
        tokenizer: Of the base model.
        texts: N of them.
        advance: Told how many texts are done.
    """
    counts: list[int] = []
    for start in range(0, len(texts), _ENCODE_CHUNK):
        counts += [len(ids) for ids in _encode(tokenizer, texts[start : start + _ENCODE_CHUNK], None)]
        if advance is not None:
            advance(len(counts))
    return np.asarray(counts, dtype=np.int64)


def tokenize(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, max_length: int) -> TokenizedTexts:
    """Token ids of the texts, special tokens included, cut on the right at max_length.

    A text without any token (an empty one, with a tokenizer that adds none) becomes one padding token.
    """
    pieces: list[np.ndarray] = []
    uncut: list[int] = []
    for start in range(0, len(texts), _ENCODE_CHUNK):
        chunk = texts[start : start + _ENCODE_CHUNK]
        encoded = _encode(tokenizer, chunk, None)
        uncut += [len(ids) for ids in encoded]
        long = [index for index, ids in enumerate(encoded) if len(ids) > max_length]
        for index, ids in zip(long, _encode(tokenizer, [chunk[i] for i in long], max_length), strict=True):
            encoded[index] = ids
        pieces += [np.asarray(ids or [tokenizer.pad_token_id], dtype=np.int32) for ids in encoded]
    lengths = [len(piece) for piece in pieces]
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    flat = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int32)
    return TokenizedTexts(flat, offsets, np.asarray(uncut, dtype=np.int64))


def epoch_batches(
    lengths: np.ndarray, *, batch_size: int, seed: int, epoch: int, group_by_length: bool = True
) -> list[np.ndarray]:
    """The examples of each optimizer step of one epoch: every example once, in an order that seed and epoch decide.

    With group_by_length, shuffled chunks of 200 batches are sorted by length before they are cut, so that a batch holds
    texts of like length and padding is rare; the batches are then shuffled, up to eight of the same width as one.

    Args:
        lengths: Tokens of each text, (N,).
        batch_size: Examples of a step; the last one of the epoch may be smaller.
        seed: Of the run.
        epoch: Counted from 0.
        group_by_length: False gives plain random batches.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    if group_by_length:
        size = batch_size * _CHUNK_BATCHES
        chunks = [order[start : start + size] for start in range(0, len(order), size)]
        order = np.concatenate([chunk[np.argsort(lengths[chunk], kind="stable")] for chunk in chunks])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    runs = _runs(batches, lengths) if group_by_length else [[batch] for batch in batches]
    generator.shuffle(runs)
    return [batch for run in runs for batch in run]


def _runs(batches: list[np.ndarray], lengths: np.ndarray) -> list[list[np.ndarray]]:
    """Batches of the same size and padded width together, at most eight."""
    runs: list[list[np.ndarray]] = []
    open_runs: dict[tuple[int, int], list[np.ndarray]] = {}
    for batch in batches:
        shape = len(batch), int(lengths[batch].max())
        if len(open_runs.get(shape, ())) in (0, _RUN):
            open_runs[shape] = []
            runs.append(open_runs[shape])
        open_runs[shape].append(batch)
    return runs


def split_by_budget(indices: np.ndarray, lengths: np.ndarray, *, tokens_per_batch: int) -> list[np.ndarray]:
    """The examples in parts whose padded size (examples times the longest) stays within the budget of one forward.

    As few parts as that takes, and as even as so many can be. A single text beyond the budget is a part of its own.
    """
    ordered = indices[np.argsort(lengths[indices], kind="stable")]
    widths: list[int] = lengths[ordered].tolist()
    cuts = _cuts(widths, tokens_per_batch)
    if cuts:
        even = bisect_left(range(tokens_per_batch), -len(cuts), key=lambda budget: -len(_cuts(widths, budget)))
        cuts = _cuts(widths, even)
    return np.split(ordered, cuts)


def _cuts(widths: list[int], budget: int) -> list[int]:
    """Where texts, shortest first, are cut so that each part is as large as the budget allows."""
    cuts: list[int] = []
    start = 0
    for end in range(1, len(widths)):
        if (end + 1 - start) * widths[end] > budget:
            cuts.append(end)
            start = end
    return cuts


def price_of_pass(hidden_size: int, *, forward_alone: bool = False) -> int:
    """Tokens that a pass on a CPU takes beside its own: fewer of a wider model, whose tokens take longer.

    Args:
        hidden_size: D; a token takes time with its square.
        forward_alone: A token then takes a third of forward and back together, a pass more than a third.
    """
    price = max(1, round(_PRICE_OF_PASS * min(1.0, (_PRICED_WIDTH / hidden_size) ** 2)))
    return 2 * price if forward_alone else price


def cut_where_padded(part: np.ndarray, lengths: np.ndarray, *, price: int) -> list[np.ndarray]:
    """The examples of one pass in as many as padding makes worth it.

    Cut where that saves the most padding, and the parts again, as long as each cut saves more tokens than a pass costs.

    Args:
        part: Rows, (B,).
        lengths: Tokens of every row, (N,).
        price: Of a further pass, in tokens.
    """
    ordered = part[np.argsort(lengths[part], kind="stable")]
    widths = lengths[ordered].astype(np.int64)
    saved = np.arange(1, len(widths)) * (widths[-1] - widths[:-1])  # of a cut behind each row but the last
    if not len(saved) or saved.max() <= price:
        return [part]
    cut = int(saved.argmax()) + 1
    halves = (ordered[:cut], ordered[cut:])
    return [one for half in halves for one in cut_where_padded(half, lengths, price=price)]


def padded_tokens(part: np.ndarray, lengths: np.ndarray) -> int:
    """Tokens of a pass, padding included."""
    return len(part) * int(lengths[part].max())


def budget_batches(
    lengths: np.ndarray, *, tokens_per_batch: int, max_rows: int = 256, pads: bool = True
) -> Iterator[np.ndarray]:
    """All examples, longest first, in batches within the budget: the order of inference.

    Args:
        lengths: Tokens of each text, (N,).
        tokens_per_batch: The budget.
        max_rows: Examples of a batch at most.
        pads: Whether padding counts; where it does not, it may be as much as the budget again.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    start = 0
    while start < len(order):
        widest = max(1, int(lengths[order[start]]))
        rows = tokens_per_batch // widest
        if not pads:
            before = ends[start - 1] if start else 0
            rows = min(int(np.searchsorted(ends, before + tokens_per_batch, side="right")) - start, 2 * rows)
        rows = max(1, min(max_rows, rows))
        yield order[start : start + rows]
        start += rows


def collate(tokens: TokenizedTexts, indices: np.ndarray, *, pad_token_id: int) -> dict[str, "torch.Tensor"]:
    """input_ids and attention_mask of the examples, (B, L) int64, padded on the right to the longest."""
    import torch

    width = int(tokens.lengths[indices].max())
    input_ids = np.full((len(indices), width), pad_token_id, dtype=np.int64)
    attention_mask = np.zeros((len(indices), width), dtype=np.int64)
    for row, index in enumerate(indices):
        ids = tokens[int(index)]
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(attention_mask)}


def _encode(tokenizer: Any, texts: Sequence[str], max_length: int | None) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        padding=False,
        truncation=max_length is not None,
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids: list[list[int]] = list(encoded["input_ids"])
    return ids
