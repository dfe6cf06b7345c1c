"""Whether a training is well: a loss that leaps is told, one that is not finite has stopped it already (loop.py)."""

import math
from collections import deque
from statistics import median

_REMEMBERED = 64
_ENOUGH = 16
_TIMES_USUAL = 5.0
_TIMES_GUESSING = 2.0


class Spikes:
    """Finds losses that leap up: five times the usual of the last 64 steps and twice that of guessing.

    The second bound keeps a hard batch of a well-fitted model from being called a spike: log C is the loss of a model
    that gives every class the same probability, and a batch that is twice as bad is wrong and sure of it.

    Args:
        n_classes: C.
    """

    def __init__(self, n_classes: int) -> None:
        self._guessing = math.log(max(2, n_classes))
        self._losses: deque[float] = deque(maxlen=_REMEMBERED)

    def told(self, step: int, loss: float) -> str:
        """A sentence where the loss of a step is a spike, else nothing."""
        usual = median(self._losses) if len(self._losses) >= _ENOUGH else math.inf
        self._losses.append(loss)
        if loss <= max(_TIMES_USUAL * usual, _TIMES_GUESSING * self._guessing):
            return ""
        times = loss / max(usual, 1e-9)
        return f"warning: step {step}: the loss leapt to {loss:.3g}, {times:.0f} times the usual {usual:.2g}"
