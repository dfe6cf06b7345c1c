"""The innermost loop: one optimizer step at a time, no input or output, no measurement."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LRScheduler

from textlift.errors import TrainingError
from textlift.models.classifier import Classifier
from textlift.runtime import Runtime

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TrainStep:
    """What one optimizer step did; loss is the mean over its examples, grad_norm that before clipping."""

    number: int
    loss: float
    grad_norm: float
    learning_rate: float
    useful_tokens: int
    examples: int


def train_steps(
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    *,
    groups: Iterable[Sequence[Batch]],
    runtime: Runtime,
    dropout: bool,
    first: int = 1,
    max_grad_norm: float = 1.0,
    penalty: Callable[[], torch.Tensor] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> Iterator[TrainStep]:
    """Take one optimizer step per group of micro-batches; the caller measures, saves or stops between them.

    Args:
        classifier: With exactly the weights that train set to require gradients.
        optimizer: Over those weights.
        schedule: Of the learning rate.
        groups: Micro-batches of each step: input_ids and attention_mask (B, L), labels (B,).
        runtime: Device and arithmetic of the forward pass.
        dropout: Whether the dropout of the base model is on.
        first: Number of the first step.
        max_grad_norm: Gradients are clipped to this norm.
        penalty: A loss that a method adds to that of the rows.
        after_step: Called with the step's number after the weights moved, while their gradients are still there.

    Raises:
        TrainingError: Loss or gradient is not finite; the weights are those before the step.
    """
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    for number, micro_batches in enumerate(groups, start=first):
        classifier.set_training(base_dropout=dropout)  # the caller may have measured since the last step
        examples = sum(len(batch["labels"]) for batch in micro_batches)
        loss = torch.zeros((), device=trained[0].device)
        for batch in micro_batches:
            inputs = {name: tensor.to(runtime.device) for name, tensor in batch.items()}
            with runtime.autocast():
                logits = classifier(inputs["input_ids"], inputs["attention_mask"])  # (B, C)
            # Sum over examples, not mean of means: micro-batches may differ in size.
            share = functional.cross_entropy(logits.float(), inputs["labels"], reduction="sum") / examples
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.detach()
        if penalty is not None:
            extra = penalty()
            extra.backward()  # type: ignore[no-untyped-call]
            loss += extra.detach()
        grad_norm = nn.utils.clip_grad_norm_(trained, max_grad_norm)
        rate = float(schedule.get_last_lr()[0])
        _require_finite(number, loss=float(loss), grad_norm=float(grad_norm), learning_rate=rate)
        optimizer.step()
        schedule.step()
        if after_step is not None:
            after_step(number)
        optimizer.zero_grad(set_to_none=True)
        useful = sum(int(batch["attention_mask"].sum()) for batch in micro_batches)
        yield TrainStep(number, float(loss), float(grad_norm), rate, useful, examples)


def _require_finite(step: int, *, loss: float, grad_norm: float, learning_rate: float) -> None:
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return
    raise TrainingError(
        f"step {step}: loss and gradient must be finite; found loss {loss:g} and gradient norm {grad_norm:g} at a "
        f"learning rate of {learning_rate:.2g}.\nLikely cause: the learning rate is too high for this model. "
        "Pass --set training.learning_rate with a tenth of it."
    )
