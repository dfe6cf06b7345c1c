"""What every method must keep on every family: trains its part and nothing else, learns, folds in."""

import pytest
import torch

from conftest import BaseFolder
from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.training.loop import TrainStep
from textlift.training.tuning import count_parameters
from tiny_models import EVERY_BASE, session, wrapped

every_method = pytest.mark.parametrize("method", list(METHODS))
every_family = pytest.mark.parametrize("name", EVERY_BASE)


def in_head(predictor: Predictor, name: str) -> bool:
    """Whether a weight belongs to the head, by its name."""
    if predictor.classifier.mean_pooled:
        return name.startswith("head.")
    return ".modules_to_save.default." in name


@every_method
@every_family
def test_exactly_head_and_method_train(base_folder: BaseFolder, name: str, method: str) -> None:
    predictor, _ = wrapped(base_folder(name), method)
    trained = {key for key, p in predictor.classifier.named_parameters() if p.requires_grad}
    everything = {key for key, _ in predictor.classifier.named_parameters()}
    marks = METHODS[method].weights
    if marks:
        own = {key for key in everything if any(mark in key for mark in marks) and not in_head(predictor, key)}
        heads = {key for key in everything if in_head(predictor, key)}
        assert own
        assert heads
        assert trained == own | heads
        assert not any(in_head(predictor, key) for key in own)  # no adapter inside the head
    else:
        left_out = {key for key in everything if predictor.classifier.mean_pooled and ".pooler." in key}
        assert trained == everything - left_out
    assert all(p.dtype == torch.float32 for p in predictor.classifier.parameters())


@every_method
@every_family
def test_all_that_trains_has_gradient_and_moves_and_the_rest_stays(
    base_folder: BaseFolder, name: str, method: str
) -> None:
    predictor, _ = wrapped(base_folder(name), method)
    parameters = dict(predictor.classifier.named_parameters())
    before = {key: p.detach().clone() for key, p in parameters.items()}
    gradients: dict[str, list[bool]] = {key: [] for key, p in parameters.items() if p.requires_grad}
    for key, seen in gradients.items():
        parameters[key].register_hook(lambda grad, seen=seen: seen.append(bool(grad.any())))
    for event in session(predictor, epochs=2, patience=None).run():
        if isinstance(event, TrainStep) and event.number == 3:
            break

    late = METHODS[method].late_weights
    without = [key for key, seen in gradients.items() if not seen[1 if any(mark in key for mark in late) else 0]]
    changed = {key for key, p in parameters.items() if not torch.equal(p, before[key])}
    assert without == []
    assert changed == set(gradients)


@every_method
@every_family
def test_a_small_set_is_learned(base_folder: BaseFolder, name: str, method: str) -> None:
    predictor, _ = wrapped(base_folder(name), method)
    training = session(predictor, n=12, batch_size=12, epochs=100, learning_rate=1e-2, patience=None)
    first: float | None = None
    for event in training.run():
        if isinstance(event, TrainStep):
            first = event.loss if first is None else first
            if event.loss < first / 2:
                return
    pytest.fail(f"the loss began at {first} and did not halve in 100 steps")


@every_method
def test_counted_parameters_are_those_that_train(base_folder: BaseFolder, method: str) -> None:
    predictor, _ = wrapped(base_folder("bert"), method)
    counts = count_parameters(predictor.classifier)
    assert counts.trained == sum(p.numel() for p in predictor.classifier.parameters() if p.requires_grad)
    plain = sum(p.numel() for p in wrapped(base_folder("bert"), "full")[0].classifier.parameters())
    marks = METHODS[method].weights if METHODS[method].saves_adapter else ()
    adapter = sum(
        p.numel()
        for key, p in predictor.classifier.named_parameters()
        if any(mark in key for mark in marks) and not in_head(predictor, key)
    )
    assert counts.total == plain + adapter
