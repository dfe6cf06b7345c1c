"""Steps shared with other processes: the gradients of the whole step, the same for a seed, and never a step lost."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import BaseFolder
from textlift.errors import TrainingError
from textlift.models.kernels import has_bf16_products, use_linear_kernel
from textlift.runtime import ONEDNN, Runtime, onednn_product
from textlift.training import twins as module
from textlift.training.loop import TrainStep, gradients_of
from textlift.training.loss import PLAIN, RowLoss
from textlift.training.session import Hooks, TrainingSession
from textlift.training.twins import Twins, parts_of, possible_twins
from tiny_models import CPU, session, wrapped

TWO = Runtime("cpu", "fp32", 2, (), ONEDNN)

pytestmark = pytest.mark.skipif(possible_twins(replace(CPU, threads=2)) == 0, reason="this system cannot fork")


def batch(rows: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    seen = torch.ones(rows, 9, dtype=torch.int64)
    seen[0, 5:] = 0
    ids = torch.randint(3, 20, (rows, 9), generator=generator) * seen
    return {"input_ids": ids, "attention_mask": seen, "labels": torch.arange(rows) % 3}


@contextmanager
def twins(base_folder: BaseFolder, count: int = 1, row_loss: RowLoss = PLAIN) -> Iterator[tuple[Any, Twins]]:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    classifier = predictor.classifier
    for weight in classifier.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(weight.numel()))
    classifier.set_training(base_dropout=False)
    both = Twins(classifier, count, runtime=CPU, base_dropout=False, row_loss=row_loss)
    try:
        yield classifier, both
    finally:
        both.close()


def taken(classifier: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in classifier.named_parameters() if p.grad is not None}
    classifier.zero_grad()
    return found


def compare(classifier: Any, shared: Twins, batches: list[Any], row_loss: RowLoss = PLAIN) -> None:
    loss, useful, examples = gradients_of(classifier, batches, runtime=CPU, penalty=None, row_loss=row_loss)
    expected = taken(classifier)
    found_loss, *found_counts = shared.gradients_of(classifier, batches, runtime=CPU, row_loss=row_loss)
    found = taken(classifier)
    assert found_counts == [useful, examples]
    torch.testing.assert_close(found_loss, loss)
    assert list(found) == list(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("rows", [[1], [2], [7], [4, 3], [2, 1, 5, 3]])
def test_the_gradients_are_those_of_the_whole_step(base_folder: BaseFolder, count: int, rows: list[int]) -> None:
    loss = RowLoss(weights=torch.tensor([0.5, 1.0, 2.0]))
    with twins(base_folder, count, loss) as (classifier, shared):
        compare(classifier, shared, [batch(number, seed) for seed, number in enumerate(rows)], loss)
        assert shared.are_there


def test_a_weight_that_moved_is_seen_by_the_twins(base_folder: BaseFolder) -> None:
    with twins(base_folder) as (classifier, shared):
        compare(classifier, shared, [batch(6)])
        with torch.no_grad():
            for weight in classifier.parameters():
                if weight.requires_grad:
                    weight.mul_(1.5)
        compare(classifier, shared, [batch(6)])


def test_a_twin_that_is_killed_costs_no_step(base_folder: BaseFolder) -> None:
    with twins(base_folder, 2) as (classifier, shared):
        os.kill(shared._processes[0].pid, signal.SIGKILL)
        shared._processes[0].join()
        compare(classifier, shared, [batch(7)])
        assert not shared.are_there


def test_what_fails_in_a_twin_is_tried_here(base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    here, compute = os.getpid(), module.gradients_of

    def fails_elsewhere(*args: Any, **settings: Any) -> Any:
        if os.getpid() != here:
            raise RuntimeError("not enough memory")
        return compute(*args, **settings)

    monkeypatch.setattr(module, "gradients_of", fails_elsewhere)
    with twins(base_folder) as (classifier, shared):
        compare(classifier, shared, [batch(5)])
        assert not shared.are_there


def test_what_fails_here_leaves_the_twins_ready_for_the_next_step(
    base_folder: BaseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with twins(base_folder) as (classifier, shared):
        compute = module.gradients_of
        monkeypatch.setattr(module, "gradients_of", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("here")))
        with pytest.raises(RuntimeError, match="here"):
            shared.gradients_of(classifier, [batch(4, 5)], runtime=CPU, row_loss=PLAIN)
        monkeypatch.setattr(module, "gradients_of", compute)
        classifier.zero_grad()
        compare(classifier, shared, [batch(6)])


def test_closed_twins_are_gone_and_the_weights_are_as_they_were(base_folder: BaseFolder) -> None:
    with twins(base_folder) as (classifier, shared):
        processes = list(shared._processes)
        before = {name: weight.detach().clone() for name, weight in classifier.named_parameters()}
    assert not any(process.is_alive() for process in processes)
    for name, weight in classifier.named_parameters():
        assert torch.equal(weight, before[name])


def test_a_twin_ends_with_a_parent_that_is_killed(base_folder: BaseFolder) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def parent() -> None:
        torch.set_num_threads(1)
        with twins(base_folder) as (_, shared):
            theirs.send(shared._processes[0].pid)
            time.sleep(60)

    process = context.Process(target=parent)
    process.start()
    twin = ours.recv()
    process.kill()
    process.join()
    for _ in range(100):
        if _state(twin) in {"gone", "Z"}:
            return
        time.sleep(0.05)
    pytest.fail("the twin is still there")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("rows", [[1], [6], [3, 3], [1, 2, 3, 4, 5]])
def test_every_row_of_a_step_is_in_one_part(rows: list[int], count: int) -> None:
    batches = [batch(number, seed) for seed, number in enumerate(rows)]
    parts = parts_of(batches, count)
    assert len(parts) == count
    assert parts[0]
    found = sorted(tuple(row.tolist()) for part in parts for one in part for row in one["input_ids"])
    assert found == sorted(tuple(row.tolist()) for one in batches for row in one["input_ids"])


@pytest.mark.parametrize(
    ("runtime", "count"),
    [
        (replace(CPU, threads=1), 0),
        (replace(CPU, threads=2), 1),
        (replace(CPU, threads=4), 3),
        (replace(CPU, threads=16), 0),
        (replace(CPU, device="cuda", threads=2), 0),
    ],
)
def test_there_are_twins_for_the_threads_of_a_small_cpu(runtime: Runtime, count: int) -> None:
    assert possible_twins(runtime) == count


needs_bf16 = pytest.mark.skipif(
    onednn_product() is None or not has_bf16_products(TWO), reason="this processor has no bf16 products"
)


def fast_session(base_folder: BaseFolder) -> TrainingSession:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    use_linear_kernel(predictor.classifier, TWO)
    return session(replace(predictor, runtime=TWO), fast=True, epochs=3, patience=None)


@needs_bf16
def test_a_fast_training_with_twins_is_near_the_one_without_and_the_same_each_time(base_folder: BaseFolder) -> None:
    losses = []
    for alone in (False, False, True):
        training = fast_session(base_folder)
        if alone:
            training.is_fast = False
        torch.manual_seed(1)
        losses.append([event.loss for event in training.run() if isinstance(event, TrainStep)])
        assert training._twins is None
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(losses[2], rel=0.05, abs=0.02)
    assert losses[0] != losses[2]


@needs_bf16
@pytest.mark.parametrize(
    ("hooks", "count"),
    [(Hooks(), 1), (Hooks(penalty=lambda: torch.zeros(())), 0), (Hooks(after_step=lambda _: None), 0)],
)
def test_a_method_with_a_penalty_or_work_after_a_step_trains_alone(
    base_folder: BaseFolder, hooks: Hooks, count: int
) -> None:
    training = fast_session(base_folder)
    training.hooks = hooks
    assert training.planned_twins == count


@needs_bf16
def test_a_loss_that_is_not_finite_is_told_as_without_twins(base_folder: BaseFolder) -> None:
    training = fast_session(base_folder)
    next(training.run())
    with torch.no_grad():
        next(iter(training.trained_weights().values())).fill_(float("nan"))
    with pytest.raises(TrainingError, match="must be finite"):
        list(training.run())


def test_exact_training_has_no_twins(base_folder: BaseFolder) -> None:
    predictor, _ = wrapped(base_folder("bert"), "lora")
    assert session(replace(predictor, runtime=TWO)).planned_twins == 0
