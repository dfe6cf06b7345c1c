"""Parts of a step's gradients from other processes: on two cores, two processes of one thread do more than two threads.

The threads of one process wait for each other at the end of every small operation, and all but one of them while Python
decides which comes next. A twin is forked when training begins, where fork is the way of the system (Linux). It sees
the weights that train as they are now, for they lie in memory that both share; the rows of its part of a step go there,
gradients come back, and the sum is that of the whole step but for rounding.

Nothing depends on a twin: where one is lost, its part is computed here, and from then on every step.
"""

import json
import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from mmap import mmap
from typing import Any

import torch
from torch import nn

from textlift.models.classifier import Classifier
from textlift.runtime import Runtime
from textlift.training.loop import Batch, gradients_of
from textlift.training.loss import RowLoss

MOST_PROCESSES = 4  # more were never measured
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_ALIGNED = 64  # bytes
_FIELDS = ("input_ids", "attention_mask", "labels")
Found = tuple[torch.Tensor, int, int]  # loss, useful tokens, examples


def possible_twins(runtime: Runtime) -> int:
    """How many twins the threads of a run make: one less than there are threads; 0 where processes cannot be forked."""
    forks = sys.platform == "linux" and not multiprocessing.current_process().daemon
    fitting = runtime.device == "cpu" and 2 <= runtime.threads <= MOST_PROCESSES
    return runtime.threads - 1 if forks and fitting else 0


class Twins:
    """Other processes with the same classifier, for as long as it trains.

    Args:
        classifier: Whose weights train; they move to memory that is shared, and back when the twins are closed.
        count: Of other processes.
        runtime: Of the passes.
        base_dropout: Whether the dropout of the base model is on.
        row_loss: Of the rows.
    """

    def __init__(
        self, classifier: Classifier, count: int, *, runtime: Runtime, base_dropout: bool, row_loss: RowLoss
    ) -> None:
        self._trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
        for parameter, view in zip(self._trained, _shared_like(self._trained), strict=True):
            parameter.data = view.copy_(parameter.data)
        self._gradients = [_shared_like(self._trained) for _ in range(count)]
        self._ends: list[Any] = []
        self._processes: list[Any] = []
        context = multiprocessing.get_context("fork")
        for gradients in self._gradients:
            end, theirs = context.Pipe()
            self._ends.append(end)

            def serve(end: Any = theirs, gradients: list[torch.Tensor] = gradients) -> None:
                for one in self._ends:  # a twin that held these would never see them end
                    one.close()
                _serve(
                    end,
                    lambda parts, divisor: gradients_of(
                        classifier, parts, runtime=runtime, penalty=None, row_loss=row_loss, divisor=divisor
                    ),
                    begin=lambda: classifier.set_training(base_dropout=base_dropout),
                    trained=self._trained,
                    gradients=gradients,
                )

            process = context.Process(target=serve, daemon=True, name=f"textlift-twin-{len(self._ends)}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; a twin uses none of them
                process.start()
            theirs.close()
            self._processes.append(process)

    @property
    def are_there(self) -> bool:
        """Whether steps are shared; not any more once a twin was lost."""
        return bool(self._ends)

    def gradients_of(
        self,
        classifier: Classifier,
        batches: Sequence[Batch],
        *,
        runtime: Runtime,
        penalty: Callable[[], torch.Tensor] | None = None,
        row_loss: RowLoss,
    ) -> Found:
        """As `loop.gradients_of`, each twin with its part of the rows."""
        divisor = row_loss.divisor([batch["labels"] for batch in batches])

        def compute(parts: Sequence[Batch], extra: Callable[[], torch.Tensor] | None = None) -> Found:
            return gradients_of(classifier, parts, runtime=runtime, penalty=extra, row_loss=row_loss, divisor=divisor)

        parts = parts_of(batches, 1 + len(self._ends))
        seed = int(torch.empty((), dtype=torch.int64).random_())  # from the state that a checkpoint keeps
        asked = [
            bool(part) and _send(end, part, divisor=divisor, seed=seed + place)
            for place, (end, part) in enumerate(zip(self._ends, parts[1:], strict=True))
        ]
        try:
            with _one_thread():
                total, useful, examples = compute(parts[0], penalty)
        finally:  # where this one failed, too: the next answer must be that of the next question
            answers = [_receive(end) if sent else None for end, sent in zip(self._ends, asked, strict=True)]
        lost = [part for part, answer in zip(parts[1:], answers, strict=True) if answer is None and part]
        for gradients, answer in zip(self._gradients, answers, strict=True):
            if answer is not None:
                _add(self._trained, gradients)
                total = total + answer["loss"]
                useful, examples = useful + answer["useful"], examples + answer["examples"]
        if lost:
            self.close()
            for part in lost:
                more, tokens, rows = compute(part)
                total, useful, examples = total + more, useful + tokens, examples + rows
        return total, useful, examples

    def close(self) -> None:
        """End the twins; the weights that train are this process's own again."""
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self._ends, self._processes = [], []
        for parameter in self._trained:
            parameter.data = parameter.data.clone()


def parts_of(batches: Sequence[Batch], count: int) -> list[list[Batch]]:
    """The rows of a step in as many parts, of like lengths; every count-th row where there is a single micro-batch."""
    if len(batches) >= count:
        return [list(batches[place::count]) for place in range(count)]
    return [
        [{name: batch[name][place::count] for name in _FIELDS} for batch in batches if len(batch["labels"]) > place]
        for place in range(count)
    ]


def _shared_like(weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """As many fp32 tensors of the same shapes, of zeros, in memory that a forked process shares."""
    places = [0]
    for weight in weights:
        places.append(places[-1] + -(-4 * weight.numel() // _ALIGNED) * _ALIGNED)
    memory = mmap(-1, max(1, places[-1]))
    return [
        torch.frombuffer(memory, dtype=torch.float32, count=weight.numel(), offset=place).view(weight.shape)
        for weight, place in zip(weights, places, strict=False)
    ]


def _add(trained: Sequence[nn.Parameter], gradients: Sequence[torch.Tensor]) -> None:
    for parameter, gradient in zip(trained, gradients, strict=True):
        if parameter.grad is None:
            parameter.grad = gradient.clone()
        else:
            parameter.grad.add_(gradient)


@contextmanager
def _one_thread() -> Iterator[None]:
    """While open, this process computes on one thread: the other cores belong to the twins."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    if not _CONTROLLER:
        _CONTROLLER.append(ThreadpoolController())
    with _CONTROLLER[0].limit(limits=1, user_api="openmp"):
        yield


_CONTROLLER: list[Any] = []


def _send(end: Any, batches: Sequence[Batch], *, divisor: float, seed: int) -> bool:
    """Ask a twin; False where it is gone."""
    head = {"shapes": [list(batch["input_ids"].shape) for batch in batches], "divisor": divisor, "seed": seed}
    try:
        end.send_bytes(json.dumps(head).encode())
        for batch in batches:
            for name in _FIELDS:
                end.send_bytes(batch[name].to(torch.int64).contiguous().numpy().tobytes())
    except OSError:
        return False
    return True


def _receive(end: Any) -> dict[str, Any] | None:
    """The answer of a twin; None where it is gone or could not compute."""
    try:
        answer: dict[str, Any] = json.loads(end.recv_bytes())
    except (OSError, EOFError):
        return None
    return answer or None


def _serve(
    end: Any,
    compute: Callable[[Sequence[Batch], float], Found],
    *,
    begin: Callable[[], None],
    trained: Sequence[nn.Parameter],
    gradients: Sequence[torch.Tensor],
) -> None:
    """Answer until the other end is closed."""
    _end_with_parent()
    torch.set_num_threads(1)
    while True:
        try:
            head = json.loads(end.recv_bytes())
            batches = [_batch(end, shape) for shape in head["shapes"]]
        except (OSError, EOFError):
            return
        torch.manual_seed(head["seed"])
        begin()
        try:
            loss, useful, examples = compute(batches, head["divisor"])
        except (RuntimeError, MemoryError):  # the other process computes this part, too, and tells what is wrong
            end.send_bytes(b"{}")
            continue
        for parameter, gradient in zip(trained, gradients, strict=True):
            if parameter.grad is None:
                gradient.zero_()
            else:
                gradient.copy_(parameter.grad)
            parameter.grad = None
        told = float(loss)
        answer = {"loss": told if math.isfinite(told) else math.nan, "useful": useful, "examples": examples}
        end.send_bytes(json.dumps(answer).encode())


def _batch(end: Any, shape: Sequence[int]) -> Batch:
    shapes = {"input_ids": shape, "attention_mask": shape, "labels": shape[:1]}
    return {
        name: torch.frombuffer(bytearray(end.recv_bytes()), dtype=torch.int64).view(tuple(shapes[name]))
        for name in _FIELDS
    }


def _end_with_parent() -> None:
    """Have the system kill this process when its parent is gone, however that ended; signals are for the parent."""
    import ctypes

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if parent is not None and os.getppid() != parent.pid:
        os._exit(0)
