"""Whether a training is well: a loss that leaps is told, one that is not finite has stopped it already (loop.py)."""

import math
from collections import deque
from statistics import fmean, median

_REMEMBERED = 64
_RECENT = 8
_ENOUGH = 16
_TIMES_USUAL = 5.0
_TIMES_GUESSING = 2.0


class Spikes:
    """Finds losses that leap up: the mean of 8 steps at five times the usual of 64 and at twice that of guessing.

    The mean and the second bound keep single hard batches from being called a spike: log C is the loss of a model that
    gives every class the same probability, and eight steps that are twice as bad on average are wrong and sure of it.

    Args:
        n_classes: C.
    """

    def __init__(self, n_classes: int) -> None:
        self._guessing = math.log(max(2, n_classes))
        self._losses: deque[float] = deque(maxlen=_REMEMBERED)
        self._is_told = False

    def told(self, step: int, loss: float) -> str:
        """A sentence where a spike begins, else nothing."""
        usual = median(self._losses) if len(self._losses) >= _ENOUGH else math.inf
        self._losses.append(loss)
        recent = fmean(list(self._losses)[-_RECENT:])
        was_told, self._is_told = self._is_told, recent > max(_TIMES_USUAL * usual, _TIMES_GUESSING * self._guessing)
        if was_told or not self._is_told:
            return ""
        times = recent / max(usual, 1e-9)
        mean = f"the mean of {_RECENT} steps is {times:.0f} times the usual"
        return f"warning: step {step}: the loss leapt to {loss:.3g}; {mean}"
