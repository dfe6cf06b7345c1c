"""How many examples a step takes, how many steps a training, how often it is measured: arithmetic on lengths alone."""

import math

import numpy as np

from textlift.data.batching import epoch_batches
from textlift.recipe import TrainingSection

USUAL_BATCH, _FULLEST = 32, 128
_FEWEST_STEPS = 500  # that a fuller batch may leave
_USUAL_STEPS = 1_000


def batch_size_of(settings: TrainingSection, rows: int) -> int:
    """Examples of a step: as asked; else 32, with `fast` 64 or 128 where that leaves at least 500 steps.

    A step of a small model takes little longer for twice the texts.

    Args:
        settings: Of the recipe.
        rows: That train.
    """
    if settings.batch_size is not None:
        return settings.batch_size
    batch = USUAL_BATCH
    while settings.fast and batch < _FULLEST and math.ceil(rows / (2 * batch)) * settings.epochs >= _FEWEST_STEPS:
        batch *= 2
    return batch


def rate_factor(settings: TrainingSection, rows: int, *, steps: int, few_steps: float) -> float:
    """What a method's own learning rate is multiplied with, at least 1.

    Where batches are fuller than usual without being asked to, the square root of how much fuller. A training of fewer
    than 1,000 steps may go as far as one of 1,000 by longer steps: Adam's are as long as the rate, whatever the
    gradient.

    Args:
        settings: Of the recipe.
        rows: That train.
        steps: Planned.
        few_steps: What the method bears at most where steps are few.

    Source:
        Malladi et al. (2022), On the SDEs and Scaling Rules for Adaptive Gradient Algorithms, section 5: with the
        square root of the batch. The rule for few steps is ours; docs/performance.md has what it is worth.
    """
    fuller = 1.0 if settings.batch_size is not None else math.sqrt(batch_size_of(settings, rows) / USUAL_BATCH)
    return max(fuller, min(few_steps, _USUAL_STEPS / max(1, steps)))


def planned_steps(settings: TrainingSection, lengths: np.ndarray, *, seed: int) -> int:
    """Optimizer steps of a training that does not end early: all of its epochs, max_steps, or what max_tokens holds.

    Args:
        settings: Of the recipe.
        lengths: Tokens of each training text, (N,).
        seed: Of the run; the order of the rows, and so the tokens of each step, come from it.
    """
    of_an_epoch = math.ceil(len(lengths) / batch_size_of(settings, len(lengths)))
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
        settings: Of the recipe.
        lengths: Tokens of each training text, (N,).
        seed: Of the run.
        epoch: Counted from 0.
    """
    return epoch_batches(
        lengths,
        batch_size=batch_size_of(settings, len(lengths)),
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
