"""One optimizer step: micro-batches, clipping, dropout, and an end at the first number that is not finite."""

import copy
import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch

from conftest import BaseFolder
from textlift.data.batching import collate
from textlift.errors import TrainingError
from textlift.inference import Predictor
from textlift.training.loop import Batch, Group, Shrunk, TrainStep, train_steps
from textlift.training.optim import make_optimizer, make_schedule
from tiny_models import CPU, LABELS, TEXTS, session, wrapped


def batch_of(predictor: Predictor, rows: list[int]) -> Batch:
    indices = np.asarray(rows)
    inputs = collate(predictor.tokenize(TEXTS), indices, pad_token_id=int(predictor.tokenizer.pad_token_id))
    return {**inputs, "labels": torch.from_numpy(LABELS[indices])}


def one_step(predictor: Predictor, micro_batches: list[Batch], max_grad_norm: float = 1.0) -> tuple[TrainStep, dict]:
    classifier = predictor.classifier
    optimizer = make_optimizer(classifier.named_parameters(), learning_rate=1e-3, weight_decay=0.01)
    schedule = make_schedule(optimizer, total_steps=10, warmup_ratio=0.0)
    gradients: dict[str, torch.Tensor] = {}

    def record(*_: object) -> None:
        gradients.update({key: p.grad.clone() for key, p in classifier.named_parameters() if p.grad is not None})

    optimizer.register_step_pre_hook(record)
    steps = train_steps(
        classifier,
        optimizer,
        schedule,
        groups=[Group(lambda: micro_batches)],
        runtime=CPU,
        dropout=False,
        max_grad_norm=max_grad_norm,
    )
    return next(steps), gradients


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "embedder"])
def test_unequal_micro_batches_make_the_same_step_as_one_batch(base_folder: BaseFolder, name: str, method: str) -> None:
    whole, _ = wrapped(base_folder(name), method)
    parts, _ = wrapped(base_folder(name), method)
    together, gradients = one_step(whole, [batch_of(whole, list(range(8)))])
    split, others = one_step(parts, [batch_of(parts, rows) for rows in ([0], [1, 2], [3, 4, 5, 6, 7])])
    assert split.loss == pytest.approx(together.loss, rel=1e-5)
    assert split.grad_norm == pytest.approx(together.grad_norm, rel=1e-4)
    assert (split.examples, split.useful_tokens) == (together.examples, together.useful_tokens)
    assert gradients.keys() == others.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(others[key], gradient, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("name", ["bert", "gpt2", "embedder"])
def test_a_small_token_budget_trains_the_same(base_folder: BaseFolder, name: str) -> None:
    losses = []
    for budget in (8192, 40):
        predictor, _ = wrapped(base_folder(name), "lora")
        training = session(predictor, tokens_per_batch=budget, patience=None)
        losses.append([event.loss for event in training.run() if isinstance(event, TrainStep)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_gradients_are_clipped_and_the_norm_before_is_told(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "full")
    step, gradients = one_step(predictor, [batch_of(predictor, [0, 1, 2])], max_grad_norm=0.01)
    norm = float(torch.stack([gradient.norm() for gradient in gradients.values()]).norm())
    assert step.grad_norm > 0.01
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_useful_tokens_are_those_that_are_not_padding(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    step, _ = one_step(predictor, [batch_of(predictor, [0, 1, 2])])
    assert step.useful_tokens == int(predictor.tokenize(TEXTS[:3]).lengths.sum())
    assert (step.number, step.examples, step.learning_rate) == (1, 3, 1e-3)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("gpt2"), "lora")
    with torch.no_grad():
        predictor.classifier.final_linear().weight[0, 0] = float("nan")
    before = copy.deepcopy(predictor.classifier.state_dict())
    with pytest.raises(TrainingError, match=r"step 1: loss and gradient must be finite; found loss nan") as caught:
        one_step(predictor, [batch_of(predictor, [0, 1, 2])])
    assert "the base model is damaged" in str(caught.value)
    assert caught.value.exit_code == 1
    after = predictor.classifier.state_dict()
    assert all(torch.equal(weight, after[key]) or weight.isnan().any() for key, weight in before.items())


def test_an_absurd_learning_rate_stops_with_the_step_named(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("gpt2"), "full")
    training = session(predictor, learning_rate=1e38, warmup_ratio=0.0, evaluations_per_epoch=1, patience=None)
    with pytest.raises(TrainingError, match=r"step 2: .* must be finite"):
        list(training.run())


def test_validation_that_is_not_finite_is_never_a_score(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("gpt2"), "full")
    training = session(predictor, learning_rate=1e38, warmup_ratio=0.0, max_steps=1, patience=None)
    with pytest.raises(TrainingError, match=r"step 1: log loss on validation must be finite; found nan"):
        list(training.run())
    assert training.progress.best_step == 0


def test_the_rows_of_a_step_that_is_not_finite_are_named(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("gpt2"), "full")
    training = session(predictor, learning_rate=1e38, warmup_ratio=0.0, evaluations_per_epoch=1, patience=None)
    training.train = dataclasses.replace(training.train, name_of=lambda index: f"rows.csv:{index + 1}")
    with pytest.raises(
        TrainingError, match=r"Rows: (rows.csv:\d+, ){7}rows.csv:\d+.\nLikely cause: a learning rate of"
    ):
        list(training.run())


class Small:
    """A classifier's forward pass on a device that holds so many padded tokens."""

    def __init__(self, predictor: Predictor, room: int) -> None:
        self.forward, self.room, self.widest = predictor.classifier.forward, room, 0

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        if input_ids.numel() > self.room and self.forward.__self__.training_now:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"
            )
        if self.forward.__self__.training_now:
            self.widest = max(self.widest, input_ids.numel())
        return self.forward(input_ids, attention_mask)


def in_a_small_memory(predictor: Predictor, room: int, monkeypatch: pytest.MonkeyPatch) -> Small:
    """Training fails above so many tokens; measuring does not."""
    classifier, small = predictor.classifier, Small(predictor, room)
    classifier.training_now = False
    monkeypatch.setattr(classifier, "forward", small)
    monkeypatch.setattr(
        type(classifier), "set_training", lambda self, base_dropout: setattr(self, "training_now", True)
    )
    monkeypatch.setattr(type(classifier), "eval", lambda self: setattr(self, "training_now", False))
    return small


def test_where_memory_runs_out_the_same_steps_are_taken_in_smaller_parts(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"epochs": 2, "batch_size": 8, "patience": None}
    plain = session(wrapped(base_folder("bert"), "lora")[0], **settings)
    losses = [event.loss for event in plain.run() if isinstance(event, TrainStep)]
    predictor, _ = wrapped(base_folder("bert"), "lora")
    small = in_a_small_memory(predictor, 60, monkeypatch)
    training = session(predictor, **settings)
    events = list(training.run())
    shrunk = [event.tokens_per_batch for event in events if isinstance(event, Shrunk)]
    assert len(shrunk) >= 1
    assert all(before == 2 * after or before == 2 * after + 1 for before, after in pairwise(shrunk))
    assert small.widest <= 60
    assert [event.loss for event in events if isinstance(event, TrainStep)] == pytest.approx(losses, rel=1e-4)
    told = [record["tokens_per_batch"] for record in training.progress.history if "tokens_per_batch" in record]
    assert told == shrunk
    assert training.progress.tokens_per_batch == shrunk[-1]


def test_a_text_that_does_not_fit_into_memory_stops_with_advice(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    in_a_small_memory(predictor, 2, monkeypatch)
    with pytest.raises(TrainingError, match=r"step 1: one text must fit into memory; .*\nPass --set model.max_length"):
        list(session(predictor, patience=None).run())


def test_another_error_of_torch_is_not_taken_for_a_lack_of_memory(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")

    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    training = session(predictor, patience=None)
    events = training.run()
    next(events)  # the first measurement
    monkeypatch.setattr(predictor.classifier, "forward", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        next(events)
