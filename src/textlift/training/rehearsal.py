"""What a training will take, from a few steps that change nothing: memory of its widest pass, seconds of an epoch.

The bytes that the backward pass needs are counted for one text and for two of the longest; each further text adds as
much. That says whether the widest pass can fit at all. If it can, it is rehearsed, forward and backward, and so is a
measurement; what they took is what training will take, beside the moments of the optimizer and the copy of the best
weights.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from textlift.data.batching import budget_batches, padded_tokens
from textlift.inference import INFERENCE_TOKENS
from textlift.memory import PeakMemory, available_memory, resident_memory
from textlift.training.loop import gradients_of
from textlift.training.random_state import random_states, set_random_states
from textlift.training.session import TrainingSession

_TYPICAL = 3  # steps that are timed, after one that is not
_MEASURED = 2  # batches of a measurement
# An epoch leaves holes in the heap, so takes more than a few passes do; more holes where more kernels are compiled,
# and fewer where few steps are to come.
_HEAP, _HEAP_FAST, _HEAP_STEPS = 0.2, 0.4, 60  # docs/performance.md has what was measured
_MIXED = (0.9, 0.25, 0.97, 0.6)  # of all passes, by size
_MOMENTS, _BEST, _GRADIENT = 8, 4, 4  # bytes of a trained weight: AdamW's two moments, the best so far, the gradient

_NOTHING = torch.empty(0)


@dataclass(frozen=True)
class Forecast:
    """What a training is expected to take.

    Args:
        steps: Optimizer steps planned.
        seconds_per_epoch: Of steps; measurements on validation come on top. None where nothing was rehearsed.
        widest: Texts and tokens of the widest pass.
        peak_memory_bytes: Of the process (on a GPU: allocated there), while training.
        free_bytes: What could be had when it was asked; None where the system does not tell.
        checkpoint_bytes: Of two checkpoints, all that is kept at a time.
        fits: Whether the widest pass can fit at all.
        fitting_tokens: The largest budget of tokens_per_batch that fits, where the widest pass does not; 0 for none.
    """

    steps: int
    seconds_per_epoch: float | None
    widest: tuple[int, int]
    peak_memory_bytes: int | None
    free_bytes: int | None
    checkpoint_bytes: int
    fits: bool
    fitting_tokens: int

    def to_dict(self) -> Mapping[str, Any]:
        """As `textlift plan --json` prints it."""
        return vars(self) | {"widest": {"texts": self.widest[0], "tokens": self.widest[1]}}


def rehearse(session: TrainingSession) -> Forecast:
    """Try a session that has not begun; afterwards it is as before, random states included."""
    with session.products():
        return _rehearse(session)


def _rehearse(session: TrainingSession) -> Forecast:
    device = session.predictor.runtime.device
    session.classifier.set_training(base_dropout=session.base_dropout)  # on which it hangs how steps are split
    trained = sum(weight.numel() for weight in session.trained_weights().values())
    lengths = session.train.tokens.lengths
    batches = session.batches_of_epoch(0)
    parts = [part for indices in batches for part in session.parts_of(indices)]
    widest = widest_pass(parts, lengths)
    states, memory = random_states(device), PeakMemory(device)
    before = resident_memory(device)
    one, another = (_saved_bytes(session, _longest(widest, lengths, count)) for count in (1, min(2, len(widest))))
    each = max(another - one, one if len(widest) == 1 else 0)
    kept = trained * (_MOMENTS + (0 if device.startswith("cuda") else _BEST))  # the best so far is kept on the CPU
    needed = one + each * (len(widest) - 1) + kept + trained * _GRADIENT
    free = available_memory(device)
    width = int(lengths[widest].max())
    facts: dict[str, Any] = {
        "steps": session.total_steps,
        "widest": (len(widest), len(widest) * width),
        "free_bytes": free,
        "checkpoint_bytes": 2 * trained * (_MOMENTS + _BEST + 4),
    }
    if free is not None and needed > free:
        rows = max(0, int((free - (needed - each * len(widest))) / max(1, each)))
        peak = None if before is None else before + needed
        set_random_states(states, device)
        return Forecast(
            **facts, seconds_per_epoch=None, peak_memory_bytes=peak, fits=False, fitting_tokens=rows * width
        )
    _pass(session, widest)
    seconds = _seconds_per_token(session, batches)
    for part in (*_spread(parts, lengths), widest):  # what one size leaves in the heap is not always of use to the next
        _pass(session, part)
    _measuring_pass(session)
    peak = memory.bytes()
    if peak is not None and before is not None and not device.startswith("cuda"):
        holes = (_HEAP_FAST if session.is_fast else _HEAP) * min(1.0, session.total_steps / _HEAP_STEPS)
        peak += int(holes * max(0, peak - before))
    set_random_states(states, device)
    return Forecast(
        **facts,
        seconds_per_epoch=seconds * float(lengths.sum()),
        peak_memory_bytes=None if peak is None else peak + kept,
        fits=True,
        fitting_tokens=session.progress.tokens_per_batch,
    )


def widest_pass(parts: list[np.ndarray], lengths: np.ndarray) -> np.ndarray:
    """The rows of the pass of most padded tokens; where several have as many, of the longest texts."""
    return max(parts, key=lambda part: (padded_tokens(part, lengths), int(lengths[part].max())))


def _spread(parts: list[np.ndarray], lengths: np.ndarray) -> list[np.ndarray]:
    """A few passes of unlike sizes, as an epoch mixes them."""
    ordered = sorted(parts, key=lambda part: padded_tokens(part, lengths))
    return [ordered[int(share * (len(ordered) - 1))] for share in _MIXED]


def _longest(part: np.ndarray, lengths: np.ndarray, count: int) -> np.ndarray:
    return part[np.argsort(lengths[part], kind="stable")[-count:]]


def _pass(session: TrainingSession, indices: np.ndarray) -> None:
    """Forward and backward of some texts, waited for; the gradients are thrown away."""
    classifier = session.classifier
    classifier.set_training(base_dropout=session.base_dropout)
    loss, *_ = gradients_of(
        classifier,
        session.micro_batches(indices),
        runtime=session.predictor.runtime,
        penalty=session.hooks.penalty,
        row_loss=session.row_loss,
        pair_loss=session.pair_loss,
    )
    loss.item()  # a GPU is at work until then
    session.optimizer.zero_grad(set_to_none=True)


def _measuring_pass(session: TrainingSession) -> None:
    """Forward of the widest batches that a measurement on validation takes."""
    tokens = session.validation.tokens
    batches = budget_batches(tokens.lengths, tokens_per_batch=INFERENCE_TOKENS)
    widest = sorted(batches, key=lambda rows: padded_tokens(rows, tokens.lengths))[-_MEASURED:]
    session.predictor.forward(tokens.take(np.concatenate(widest)))


def _seconds_per_token(session: TrainingSession, batches: list[np.ndarray]) -> float:
    """Seconds for a useful token, of typical steps."""
    lengths = session.train.tokens.lengths
    ordered = sorted(batches, key=lambda indices: int(lengths[indices].sum()))
    middle = len(ordered) // 2
    typical = ordered[max(0, middle - _TYPICAL // 2) :][:_TYPICAL]
    _pass(session, typical[0])
    began = time.perf_counter()
    for indices in typical:
        _pass(session, indices)
    return (time.perf_counter() - began) / sum(int(lengths[indices].sum()) for indices in typical)


def _saved_bytes(session: TrainingSession, indices: np.ndarray) -> int:
    """Bytes that the forward pass keeps for the backward pass, weights left out."""
    classifier = session.classifier
    weights = {parameter.untyped_storage().data_ptr() for parameter in classifier.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:  # not in the graph: one that holds its own output is never freed
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            kept[place] = tensor.detach()
        return _NOTHING

    classifier.set_training(base_dropout=session.base_dropout)
    runtime = session.predictor.runtime
    batch = session.one_batch(indices)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda nothing: nothing), runtime.autocast():
        logits = classifier(batch["input_ids"], batch["attention_mask"])
    total = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del logits
    return total
