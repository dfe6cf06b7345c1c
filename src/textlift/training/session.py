"""The training of one variant: steps, measurements on validation, the best weights, an early end.

Yields what happened; does no input or output, so that the caller reports and saves. Its whole state can be taken out
and put back (see checkpoint.py).
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from textlift.data.batching import (
    TokenizedTexts,
    collate,
    cut_where_padded,
    padded_tokens,
    price_of_pass,
    split_by_budget,
)
from textlift.errors import RecipeError, TrainingError
from textlift.evaluation.metrics import quick_scores
from textlift.inference import ForwardResult, Predictor
from textlift.models.compiled import compiled
from textlift.models.encoder_layer import settled
from textlift.models.kernels import frozen_rounded, has_bf16_products, use_linear_kernel
from textlift.models.packing import use_packing
from textlift.models.rounded import rounded_once
from textlift.recipe import TrainingSection
from textlift.training.contrast import HEAD_RATIO, PairLoss, refit_head
from textlift.training.loop import Batch, Group, Shrunk, TrainStep, train_steps
from textlift.training.loss import row_loss
from textlift.training.optim import make_optimizer, make_schedule
from textlift.training.state import Hooks, Progress
from textlift.training.steps import USUAL_BATCH, batches_of_epoch, planned_steps, tokens_per_batch_of

_NAMED = 8  # rows of a step that a message names
_LOOKED_FIRST = 4 / 3  # passes where pairs reach over several: forward twice, backward once


@dataclass(frozen=True)
class Examples:
    """Tokenized rows with their label ids, (N,), and what each is called: the file and row that it came from."""

    tokens: TokenizedTexts
    labels: np.ndarray
    name_of: Callable[[int], str] = str


@dataclass(frozen=True)
class Measurement:
    """Scores on validation after a step; `is_refit` where the head was found anew after the last one."""

    step: int
    epoch: float
    accuracy: float
    log_loss: float
    is_best: bool
    is_refit: bool = False


class TrainingSession:
    """Trains the weights of a predictor's classifier that require gradients.

    Args:
        predictor: Its classifier is wrapped, on its device, with its head started.
        train: Rows that train.
        validation: Rows that steer.
        settings: Of the recipe; batches of 32 where they do not say.
        learning_rate: Peak.
        seed: Order of the rows and dropout come from it.
        base_dropout: Whether the dropout of the base model is on.
        hooks: What a method does beside the loss of the rows.
        stop: Asked between steps and between the batches of a measurement; where it says so, `run` ends there.

    Attributes:
        start_logits: What the classifier gives for the validation rows before the first step, (N, C), where that is
            known: the first measurement takes it in place of a pass.
    """

    def __init__(
        self,
        predictor: Predictor,
        train: Examples,
        validation: Examples,
        *,
        settings: TrainingSection,
        learning_rate: float,
        seed: int,
        base_dropout: bool,
        hooks: Hooks | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.predictor = predictor
        self.classifier = predictor.classifier
        use_linear_kernel(self.classifier, predictor.runtime)  # the layers that the method put in
        use_packing(self.classifier, predictor.runtime)
        self.train = train
        self.validation = validation
        self.settings = settings
        self.seed = seed
        self.base_dropout = base_dropout
        self.hooks = hooks or Hooks()
        self.start_logits: np.ndarray | None = None
        self.stop = stop
        if settings.gradient_checkpointing is True and not self.recompute():
            raise RecipeError(
                "training.gradient_checkpointing must meet an architecture whose layers can be computed again, and no "
                "trained keys and values (prefix-tuning); these cannot.\nLeave it at auto, or take another method."
            )
        self.row_loss = row_loss(settings, train.labels, len(predictor.label_names))
        self.pair_loss = PairLoss(settings.contrastive_weight) if settings.contrastive_weight else None
        self.is_fast = settings.fast and has_bf16_products(predictor.runtime)
        self.tokens_per_batch = tokens_per_batch_of(settings, device=predictor.runtime.device)
        self.progress = Progress(tokens_per_batch=self.tokens_per_batch)
        self.batch_size = settings.batch_size or USUAL_BATCH
        self.steps_per_epoch = math.ceil(len(train.tokens) / self.batch_size)
        self.total_steps = planned_steps(settings, train.tokens.lengths, seed=seed)
        self.optimizer = make_optimizer(
            self.classifier.named_parameters(),
            learning_rate=learning_rate,
            weight_decay=settings.weight_decay,
            ratios={**self.hooks.ratios, **self._ratios_of_head()},
        )
        self.schedule = make_schedule(
            self.optimizer,
            total_steps=self.total_steps,
            warmup_ratio=settings.warmup_ratio,
            kind=settings.lr_scheduler_type,
            time_used=None if settings.max_seconds is None else self._time_used,
        )
        self.best: dict[str, torch.Tensor] = {}

    def run(self) -> Iterator[TrainStep | Measurement | Shrunk]:
        """Train to the end, or until validation no longer gains, and put the best weights back.

        Where pairs count it is to the end, and the head is fitted anew there and measured once more.

        After every event is a safe place to take the state out, and to stop asking: a measurement that is due is made
        first when training continues. Ends early, with the last weights in place, where `stop` says so. With `fast` the
        measurements that steer are rounded as the steps are, and so is any pass of the classifier until this ends.

        Raises:
            TrainingError: Loss or gradient of a step, or the loss on validation, is not finite; or not even one text
                fits into memory. The weights are those before the step.
        """
        due = self._measured_steps()
        steps = train_steps(
            self.classifier,
            self.optimizer,
            self.schedule,
            groups=self._groups(),
            runtime=self.predictor.runtime,
            dropout=self.base_dropout,
            first=self.progress.step + 1,
            max_grad_norm=self.settings.max_grad_norm,
            row_loss=self.row_loss,
            pair_loss=self.pair_loss,
            penalty=self.hooks.penalty,
            after_step=self.hooks.after_step,
        )
        with self.products():
            while not self.stop():
                if self._is_due(due):
                    measured = self._measure()
                    if measured is None:
                        return
                    yield measured
                elif not self._is_over():
                    yield self._step(steps)
                elif self.pair_loss is None or self.progress.is_refit:
                    self.restore_best()
                    return
                else:
                    refit = self._measure_refit()
                    if refit is None:
                        return
                    yield refit

    def _ratios_of_head(self) -> dict[str, float]:
        """Where pairs count, the last layer follows the texts faster than they move."""
        if self.pair_loss is None:
            return {}
        of_head = {id(weight) for weight in self.classifier.final_linear().parameters()}
        return {name: HEAD_RATIO for name, p in self.classifier.named_parameters() if id(p) in of_head}

    def _step(self, steps: Iterator[TrainStep | Shrunk]) -> TrainStep | Shrunk:
        began = time.perf_counter()
        try:
            event = next(steps)
        finally:
            self.progress.seconds += time.perf_counter() - began
        if isinstance(event, TrainStep):
            self.progress.step = event.number
            self.progress.useful_tokens += event.useful_tokens
            self._remember(event)
        else:
            self.progress.history.append({"step": self.progress.step, "tokens_per_batch": event.tokens_per_batch})
        return event

    def _is_due(self, due: set[int]) -> bool:
        """Whether validation is to be measured at this step and was not yet."""
        if self.progress.measured_step == self.progress.step:
            return False
        return self.progress.step == 0 or self.progress.step in due or self._time_used() >= 1

    def recompute(self) -> bool:
        """Have the layers computed again going back; False where the method or the architecture cannot."""
        return not self.hooks.feeds_keys and self.classifier.recompute_layers() > 0

    @contextmanager
    def products(self) -> Iterator[None]:
        """While open, passes take the products that precision and settings ask for."""
        with ExitStack() as ways:
            if self.predictor.runtime.precision == "bf16":
                ways.enter_context(rounded_once(self.classifier))
            elif self.is_fast:
                of_a_step = math.ceil(self.batch_size * self.train.tokens.lengths.mean())
                rows = min(of_a_step, self.tokens_per_batch)
                ways.enter_context(frozen_rounded(self.classifier, rows=rows))
            ways.enter_context(settled(self.classifier.whole_layers))
            if self.settings.compile:
                ways.enter_context(compiled(self.classifier.layers()))
            yield

    def trained_weights(self) -> dict[str, torch.Tensor]:
        """The weights that train, by name; not copies."""
        return {name: p.detach() for name, p in self.classifier.named_parameters() if p.requires_grad}

    def restore_best(self) -> None:
        """Put the weights of the best measurement back."""
        if self.best:
            with torch.no_grad():
                for name, weight in self.trained_weights().items():
                    weight.copy_(self.best[name])

    @property
    def end_reason(self) -> str:
        """Why training ends before its planned steps; empty where it does not."""
        patience = None if self.pair_loss else self.settings.patience
        if self.progress.step >= self.total_steps:
            return ""
        if patience is not None and self.progress.without_gain >= patience:
            return f"{self.progress.without_gain} measurements without gain"
        return f"max_seconds {self.settings.max_seconds:g} is used up" if self._time_used() >= 1 else ""

    def _is_over(self) -> bool:
        return self.progress.step >= self.total_steps or bool(self.end_reason)

    def _time_used(self) -> float:
        """Share of the limit of time that is used up; 0 where there is none."""
        limit = self.settings.max_seconds
        return 0.0 if limit is None else self.progress.seconds / limit

    def _measured_steps(self) -> set[int]:
        interval = self.steps_per_epoch / self.settings.evaluations_per_epoch
        count = math.ceil(self.total_steps / interval)
        return {min(self.total_steps, max(1, round(interval * (k + 1)))) for k in range(count)} | {self.total_steps}

    def _groups(self) -> Iterator[Group]:
        done = self.progress.step
        for epoch in range(done // self.steps_per_epoch, self.settings.epochs):
            batches = self.batches_of_epoch(epoch)
            first = done - epoch * self.steps_per_epoch if epoch == done // self.steps_per_epoch else 0
            for indices in batches[first:]:
                yield Group(partial(self.micro_batches, indices), self._shrink, partial(self._names, indices))

    def batches_of_epoch(self, epoch: int) -> list[np.ndarray]:
        """The rows of each optimizer step of an epoch, counted from 0."""
        return batches_of_epoch(self.settings, self.train.tokens.lengths, seed=self.seed, epoch=epoch)

    def micro_batches(self, indices: np.ndarray) -> list[Batch]:
        """The rows of a step as inputs of forward passes within the budget of tokens."""
        return [self.one_batch(part) for part in self.parts_of(indices)]

    def one_batch(self, rows: np.ndarray) -> Batch:
        """Some rows as the inputs of one forward pass."""
        pad = int(self.predictor.tokenizer.pad_token_id or 0)
        inputs = collate(self.train.tokens, rows, pad_token_id=pad)
        return {**inputs, "labels": torch.from_numpy(self.train.labels[rows])}

    def parts_of(self, indices: np.ndarray) -> list[np.ndarray]:
        """The rows of a step, split so that each part stays within the budget of tokens.

        On a CPU they are also split where less padding is worth a pass more, unless a pass hardly pads.
        """
        lengths = self.train.tokens.lengths
        parts = split_by_budget(indices, lengths, tokens_per_batch=self.progress.tokens_per_batch)
        if self.predictor.runtime.device != "cpu" or self.classifier.pads_less():
            return parts
        price = price_of_pass(self.classifier.final_linear().in_features)
        cut = [one for part in parts for one in cut_where_padded(part, lengths, price=price)]
        looks_first = self.pair_loss is not None and len(parts) == 1 < len(cut)
        dearer = _LOOKED_FIRST if looks_first else 1.0
        whole, less = (sum(padded_tokens(one, lengths) for one in some) for some in (parts, cut))
        return cut if dearer * less < whole else parts

    def _shrink(self) -> int:
        """Half the budget of tokens; 0 where a step is split into single texts already."""
        widest = int(self.train.tokens.lengths.max()) * self.batch_size
        budget = min(self.progress.tokens_per_batch, widest) // 2
        if budget < int(self.train.tokens.lengths.min()):
            return 0
        self.progress.tokens_per_batch = budget
        return budget

    def _names(self, indices: np.ndarray) -> str:
        names = [self.train.name_of(int(index)) for index in indices]
        return f"{', '.join(names[:_NAMED])}{f' and {len(names) - _NAMED} more' if len(names) > _NAMED else ''}"

    def _measure(self) -> Measurement | None:
        """Scores on validation, and the best weights kept; None where it was stopped half way."""
        logits = self.start_logits if self.progress.step == 0 else None
        if logits is None:
            for event in self.predictor.forward_steps(self.validation.tokens):
                if isinstance(event, ForwardResult):
                    logits = event.logits
                elif self.stop():
                    return None
        assert logits is not None
        accuracy, log_loss = quick_scores(self.validation.labels, logits)
        progress = self.progress
        if not math.isfinite(log_loss):  # argmax over NaN answers class 0 and would look like a score
            raise TrainingError(
                f"step {progress.step}: log loss on validation must be finite; found {log_loss:g}."
                "\nLikely cause: the learning rate is too high for this model. "
                "Pass --set training.learning_rate with a tenth of it."
            )
        progress.measured_step = progress.step
        is_best = (accuracy, -log_loss) > (progress.best_accuracy, -progress.best_log_loss)
        if is_best:
            progress.best_step, progress.best_accuracy, progress.best_log_loss = progress.step, accuracy, log_loss
            self.best = {name: weight.to("cpu", copy=True) for name, weight in self.trained_weights().items()}
        gains = is_best or log_loss < progress.lowest_log_loss  # on few rows accuracy stands still while a model learns
        progress.lowest_log_loss = min(log_loss, progress.lowest_log_loss)
        progress.without_gain = 0 if gains else progress.without_gain + 1
        measured = Measurement(progress.step, self._epoch(), accuracy, log_loss, is_best)
        progress.history.append(
            {
                "step": measured.step,
                "epoch": measured.epoch,
                "validation": {"accuracy": accuracy, "log_loss": log_loss},
            }
        )
        return measured

    def _measure_refit(self) -> Measurement | None:
        """Where pairs count: the last weights, with the head that logistic regression finds; None where it was stopped.

        They are kept unless validation, which has few rows where texts are few, shows others to be better: by more than
        the standard error of such a difference. Where the training rows steer, the best weights get that head.
        """
        progress, error = self.progress, 0.0
        accuracy, _ = before = progress.best_accuracy, progress.best_log_loss
        if np.array_equal(self.train.tokens.input_ids, self.validation.tokens.input_ids):
            self.restore_best()
        else:
            rows = len(self.validation.labels)
            share = (accuracy * rows + 1) / (rows + 2)  # Laplace's estimate: all right of six is no proof of no error
            error = math.sqrt(2 * share * (1 - share) / rows)
        refit_head(self.predictor, self.train.tokens, self.train.labels, seed=self.seed)
        progress.best_accuracy, progress.best_log_loss = accuracy - error, math.inf
        measured = self._measure()
        if measured is None or not measured.is_best:
            progress.best_accuracy, progress.best_log_loss = before
        if measured is None:
            return None
        progress.is_refit = True
        progress.history[-1] |= {"is_refit": True, "is_kept": measured.is_best}
        return replace(measured, is_refit=True)

    def _remember(self, step: TrainStep) -> None:
        self.progress.history.append(
            {
                "step": step.number,
                "epoch": self._epoch(),
                "train_loss": step.loss,
                "learning_rate": step.learning_rate,
                "grad_norm": step.grad_norm,
            }
        )

    def _epoch(self) -> float:
        return round(self.progress.step / self.steps_per_epoch, 4)
