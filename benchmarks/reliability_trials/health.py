"""Trainings that go wrong are stopped within a step, named and kept; healthy ones are left alone."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reliability_trials.forks import Fork
from reliability_trials.ours import Setting, Tally, work

KINDS = ("nan in the logits", "inf in the logits", "weights times 1e30", "nan in a gradient")


def injections(setting: Setting, trials: int, progress: Callable[[str], None]) -> Tally:
    """A number that is not finite at a random step: exit code 1, the step named, the weights before it kept finite."""
    tally = Tally("NaN, Inf, explosion")
    for trial in range(trials):
        source = random.Random(3000 + trial)
        kind, step = KINDS[trial % len(KINDS)], source.randint(2, 60)
        output = setting.folder / f"injection-{trial}"
        ended = Fork(_injected(kind, step, setting.command(output, methods="lora")), setting.folder / "log").wait()
        named = f"step {step}:" in ended.err or f"step {step + 1}:" in ended.err
        kept = output / "variants" / "lora" / "last-finite"
        told = "" if ended.code == 1 and named else f"{kind} at step {step}: {ended.code} {ended.err[-400:]}"
        tally.count(told or _not_kept(kept, kind))
        shutil.rmtree(output, ignore_errors=True)
        progress(f"injection {trial + 1}/{trials}: {tally.good} caught")
    return tally


def _not_kept(folder: Path, kind: str) -> str:
    import torch
    from safetensors.torch import load_file

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return f"{kind}: no weights kept"
    odd = [name for name, tensor in load_file(file).items() if not bool(torch.isfinite(tensor).all())]
    return f"{kind}: {odd[0]} is not finite" if odd else ""


def _injected(kind: str, step: int, arguments: list[str]) -> Callable[[], None]:
    def done() -> None:
        from textlift.training import loop, rehearsal

        assert rehearsal.gradients_of is loop.gradients_of  # bound before it is spoilt: only steps of training count
        backward, count = loop.gradients_of, 0

        def spoilt(classifier: Any, batches: Any, **rest: Any) -> Any:
            nonlocal count
            count += 1
            if count != step:
                return backward(classifier, batches, **rest)
            if kind.startswith("weights"):
                _multiply(classifier, 1e30)
                return backward(classifier, batches, **rest)
            if kind.endswith("gradient"):
                told = backward(classifier, batches, **rest)
                next(p for p in classifier.parameters() if p.grad is not None).grad.view(-1)[0] = float("nan")
                return told
            forward, factor = classifier.forward, float("nan" if kind.startswith("nan") else "inf")
            classifier.forward = lambda *inputs: forward(*inputs) * factor
            try:
                return backward(classifier, batches, **rest)
            finally:
                del classifier.forward

        loop.gradients_of = spoilt
        work(arguments)()

    return done


def _multiply(classifier: Any, factor: float) -> None:
    import torch

    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.requires_grad:
                parameter.mul_(factor)


def healthy(setting: Setting, trials: int, progress: Callable[[str], None]) -> Tally:
    """Trainings of several methods, seeds and sound learning rates: none is stopped, of none a spike is told."""
    from textlift.methods.registry import METHODS

    names = [name for name in METHODS if name not in {"fusion", "qlora"}]
    tally = Tally("healthy runs")
    for trial in range(trials):
        source = random.Random(4000 + trial)
        name = names[trial % len(names)]
        rate = METHODS[name].learning_rate * source.choice([0.3, 1.0, 2.0])
        output = setting.folder / f"healthy-{trial}"
        more = ["--set", f"training.learning_rate={rate}"]
        arguments = setting.command(output, *more, seed=trial, methods=name)
        ended = Fork(work(arguments), setting.folder / "log").wait()
        alarm = "loss leapt" in ended.err or ended.code != 0
        tally.count(f"{name} at {rate:g}: {ended.code} {ended.err[-300:]}" if alarm else "")
        shutil.rmtree(output, ignore_errors=True)
        progress(f"healthy {trial + 1}/{trials}: {tally.good} left alone")
    return tally
