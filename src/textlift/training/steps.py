"""How many examples a step takes, how many steps a training, how often it is measured: arithmetic on lengths alone."""

import math

import numpy as np

from textlift.data.batching import epoch_batches
from textlift.recipe import TrainingSection

USUAL_BATCH = 32
_CPU_TOKENS, _GPU_TOKENS = 4_096, 8_192  # of a pass: a CPU gains nothing from more (docs/performance.md)
_FULL_TOKENS = 1_024  # of a step that need not be fuller: from there on twice the texts take almost twice the time
_FEWEST_STEPS = 500  # that a fuller batch may leave
_USUAL_STEPS = 1_000


def batch_size_of(settings: TrainingSection, lengths: np.ndarray, *, fullest: int = USUAL_BATCH) -> int:
    """Examples of a step: as asked; else 32, or 64 or 128 where texts are short and many.

    A step of few tokens takes little longer for twice as many. Batch and learning rate go together, so that a recipe
    which gives the rate, or counts the steps, keeps the usual batch.

    Args:
        settings: Of the recipe.
        lengths: Tokens of each training text, (N,).
        fullest: Examples that the method bears.
    """
    if settings.batch_size is not None:
        return settings.batch_size
    if settings.learning_rate is not None or settings.max_steps is not None:
        return USUAL_BATCH
    batch, mean = USUAL_BATCH, float(lengths.mean())
    texts = min(len(lengths) * settings.epochs, (settings.max_tokens or math.inf) / mean)
    while batch < fullest and batch * mean <= _FULL_TOKENS and texts / (2 * batch) >= _FEWEST_STEPS:
        batch *= 2
    return batch


def tokens_per_batch_of(settings: TrainingSection, *, device: str) -> int:
    """Padded tokens of one forward pass at most: as asked; else 4,096 on a CPU, 8,192 elsewhere."""
    return settings.tokens_per_batch or (_CPU_TOKENS if device == "cpu" else _GPU_TOKENS)


def rate_factor(fuller: float, *, steps: int, few_steps: float) -> float:
    """What a method's own learning rate is multiplied with, at least 1.

    The square root of how much fuller than usual batches are. A training of fewer than 1,000 steps may go as far as one
    of 1,000 by longer steps: Adam's are as long as the rate, whatever the gradient.

    Args:
        fuller: Examples of a step over the usual number; 1 where the recipe asks for it.
        steps: Planned.
        few_steps: What the method bears at most where steps are few.

    Source:
        Malladi et al. (2022), On the SDEs and Scaling Rules for Adaptive Gradient Algorithms, section 5: with the
        square root of the batch. The rule for few steps is ours; docs/performance.md has what it is worth.
    """
    return max(math.sqrt(fuller), min(few_steps, _USUAL_STEPS / max(1, steps)))


def planned_steps(settings: TrainingSection, lengths: np.ndarray, *, seed: int) -> int:
    """Optimizer steps of a training that does not end early: all of its epochs, max_steps, or what max_tokens holds.

    Args:
        settings: Of the recipe; batches of 32 where they do not say.
        lengths: Tokens of each training text, (N,).
        seed: Of the run; the order of the rows, and so the tokens of each step, come from it.
    """
    of_an_epoch = math.ceil(len(lengths) / (settings.batch_size or USUAL_BATCH))
    planned = min(of_an_epoch * settings.epochs, settings.max_steps or of_an_epoch * settings.epochs)
    if settings.max_tokens is None:
        return planned
    epochs, left = divmod(settings.max_tokens, int(lengths.sum()))
    batches = batches_of_epoch(settings, lengths, seed=seed, epoch=epochs)
    used = np.cumsum([int(lengths[indices].sum()) for indices in batches])
    return min(planned, max(1, epochs * of_an_epoch + int((used <= left).sum())))


def batches_of_epoch(settings: TrainingSection, lengths: np.ndarray, *, seed: int, epoch: int) -> list[np.ndarray]:
    """The rows of each optimizer step of an epoch.

    Args:
        settings: Of the recipe; batches of 32 where they do not say.
        lengths: Tokens of each training text, (N,).
        seed: Of the run.
        epoch: Counted from 0.
    """
    return epoch_batches(
        lengths,
        batch_size=settings.batch_size or USUAL_BATCH,
        seed=seed,
        epoch=epoch,
        group_by_length=settings.group_by_length,
    )


def affordable_evaluations(asked: int, *, train_tokens: int, validation_tokens: int) -> int:
    """Measurements of an epoch that take at most about a quarter of its time, at least one.

    A token that trains costs three passes (forward, and two backward), a token that is measured one.

    Args:
        asked: Measurements that the recipe asks for.
        train_tokens: Tokens of one epoch.
        validation_tokens: Tokens of one measurement.
    """
    return min(asked, max(1, int(0.75 * train_tokens / max(1, validation_tokens))))
