"""The innermost loop: one optimizer step at a time, no input or output, no measurement."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from textlift.errors import TrainingError
from textlift.memory import is_out_of_memory
from textlift.models.classifier import Classifier
from textlift.runtime import Runtime
from textlift.training.contrast import PairLoss
from textlift.training.loss import PLAIN, RowLoss
from textlift.training.random_state import random_states, set_random_states

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


@dataclass(frozen=True)
class Shrunk:
    """Memory ran out; the step is taken again with this many padded tokens in one forward pass."""

    tokens_per_batch: int


@dataclass(frozen=True)
class Group:
    """The examples of one optimizer step.

    Args:
        batches: Gives them as micro-batches: input_ids and attention_mask (B, L), labels (B,).
        shrink: Called where memory ran out: makes the next micro-batches smaller and tells their budget of tokens; 0
            where they cannot be.
        names: What the rows are called, for messages.
    """

    batches: Callable[[], Sequence[Batch]]
    shrink: Callable[[], int] = int
    names: Callable[[], str] = str


def train_steps(
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    *,
    groups: Iterable[Group],
    runtime: Runtime,
    dropout: bool,
    first: int = 1,
    max_grad_norm: float = 1.0,
    row_loss: RowLoss = PLAIN,
    pair_loss: PairLoss | None = None,
    penalty: Callable[[], torch.Tensor] | None = None,
    after_step: Callable[[int], None] | None = None,
) -> Iterator[TrainStep | Shrunk]:
    """Take one optimizer step per group; the caller measures, saves or stops between them.

    Where memory runs out, the same step is taken again, with the same random numbers, in smaller parts: the same
    arithmetic within rounding.

    Args:
        classifier: With exactly the weights that train set to require gradients.
        optimizer: Over those weights.
        schedule: Of the learning rate.
        groups: The examples of each step.
        runtime: Device and arithmetic of the forward pass.
        dropout: Whether the dropout of the base model is on.
        first: Number of the first step.
        max_grad_norm: Gradients are clipped to this norm.
        row_loss: Of the rows.
        pair_loss: Of the pairs of rows of a step, where they count.
        penalty: A loss that a method adds to that of the rows.
        after_step: Called with the step's number after the weights moved, while their gradients are still there.

    Raises:
        TrainingError: Loss or gradient is not finite, or memory does not suffice for one text; the weights are those
            before the step.
    """
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    for number, group in enumerate(groups, start=first):
        classifier.set_training(base_dropout=dropout)  # the caller may have measured since the last step
        while True:
            states = random_states(runtime.device)
            try:
                total, useful, examples = gradients_of(
                    classifier,
                    group.batches(),
                    runtime=runtime,
                    penalty=penalty,
                    row_loss=row_loss,
                    pair_loss=pair_loss,
                )
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                optimizer.zero_grad(set_to_none=True)
                budget = group.shrink()
                if not budget:
                    raise TrainingError(
                        f"step {number}: one text must fit into memory; it does not, on {runtime.device}."
                        "\nPass --set model.max_length with fewer tokens, a smaller base model, or --method qlora."
                    ) from error
            if runtime.device.startswith("cuda"):
                torch.cuda.empty_cache()  # outside the handler, which holds the memory of the failed pass
            set_random_states(states, runtime.device)
            yield Shrunk(budget)
        loss, grad_norm = _values(total, nn.utils.clip_grad_norm_(trained, max_grad_norm))
        rate = float(schedule.get_last_lr()[0])
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            optimizer.zero_grad(set_to_none=True)
            found = f"found loss {loss:g} and gradient norm {grad_norm:g}"
            raise TrainingError(_not_finite(number, found, classifier, runtime=runtime, rate=rate, rows=group.names()))
        optimizer.step()
        schedule.step()
        if after_step is not None:
            after_step(number)
        optimizer.zero_grad(set_to_none=True)
        yield TrainStep(number, loss, grad_norm, rate, useful, examples)


def gradients_of(
    classifier: Classifier,
    batches: Sequence[Batch],
    *,
    runtime: Runtime,
    penalty: Callable[[], torch.Tensor] | None,
    row_loss: RowLoss = PLAIN,
    pair_loss: PairLoss | None = None,
) -> tuple[torch.Tensor, int, int]:
    """The gradients of one step, summed over its micro-batches; its loss, useful tokens and examples.

    A GPU may still be at work on them.
    """
    examples = sum(len(batch["labels"]) for batch in batches)
    divisor = row_loss.divisor([batch["labels"] for batch in batches])
    loss = torch.zeros((), device=runtime.device)
    pulls: list[torch.Tensor] = []
    if pair_loss is not None and len(batches) > 1:  # pairs reach over micro-batches
        pulls, of_pairs = pair_loss.pulls(classifier, batches, runtime=runtime)
        loss += of_pairs
    for number, batch in enumerate(batches):
        with runtime.autocast():
            if pair_loss is None:
                logits = classifier(batch["input_ids"], batch["attention_mask"])  # (B, C)
            else:
                logits, features = classifier.with_features(batch["input_ids"], batch["attention_mask"])
        # Sum over examples, not mean of means: micro-batches may differ in size.
        labels = batch["labels"].to(runtime.device, non_blocking=runtime.device.startswith("cuda"))
        share = row_loss.summed(logits, labels) / divisor
        loss += share.detach()
        if pulls:
            share = share + (features.float() * pulls[number]).sum()
        elif pair_loss is not None:
            of_pairs = pair_loss.of(features, labels)
            share, loss = share + of_pairs, loss + of_pairs.detach()
        share.backward()  # type: ignore[no-untyped-call]
    if penalty is not None:
        extra = penalty()
        extra.backward()  # type: ignore[no-untyped-call]
        loss += extra.detach()
    return loss, sum(int(batch["attention_mask"].sum()) for batch in batches), examples


def _values(loss: torch.Tensor, grad_norm: torch.Tensor) -> tuple[float, float]:
    """Both as numbers; the one place of a step where a GPU is waited for."""
    both: list[float] = torch.stack((loss.float(), grad_norm.float().to(loss.device))).tolist()
    return both[0], both[1]


def _not_finite(step: int, found: str, classifier: Classifier, *, runtime: Runtime, rate: float, rows: str) -> str:
    """What stopped the training, in which rows, and why that is likely."""
    odd = next((name for name, p in classifier.named_parameters() if not bool(torch.isfinite(p.detach()).all())), None)
    if odd is not None and step == 1:
        cause = f"the base model is damaged: {odd} holds values that are not finite."
    elif step == 1 and runtime.precision != "fp32":
        cause = f"the base model leaves the range of {runtime.precision}. Pass --set runtime.precision=fp32."
    else:
        cause = f"a learning rate of {rate:.2g} is too high. Pass --set training.learning_rate with a tenth of it."
    told = f" Rows: {rows}." if rows else ""
    return f"step {step}: loss and gradient must be finite; {found}.{told}\nLikely cause: {cause}"
