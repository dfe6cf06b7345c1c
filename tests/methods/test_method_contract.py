"""What every method must keep on every family: trains its part and nothing else, learns, folds in."""

import pytest
import torch

from conftest import BaseFolder
from method_pairs import pairs, works
from textlift.inference import Predictor
from textlift.methods.registry import METHODS
from textlift.models.families import locate
from textlift.training.loop import TrainStep
from textlift.training.tuning import count_parameters
from tiny_models import session, wrapped

every_pair = pytest.mark.parametrize(("name", "method"), pairs())
FROZEN = {"fusion": ("fused_",)}  # weights that a method brings along and does not train
# Of those that need another one than 1e-2 to learn a small set: prompts have little hold on a base of random weights.
RATES = {"probe": 3e-2, "prompt-tuning": 3e-2, "p-tuning": 3e-2}
STEPS = 300


def in_head(predictor: Predictor, name: str) -> bool:
    """Whether a weight belongs to the head, by its name: peft trains a copy, our own methods the module itself."""
    if predictor.classifier.mean_pooled:
        return name.startswith("head.")
    heads = tuple(f"model.{head}." for head in predictor.classifier.head_modules())
    return ".modules_to_save.default." in name or name.startswith(heads)


def of_the_base(predictor: Predictor, method: str, names: set[str]) -> set[str]:
    """Weights of the base that a method without marks trains: all, none, or those of the last layers and their norm."""
    unused = {name for name in names if predictor.classifier.mean_pooled and ".pooler." in name}
    if method == "full":
        return names - unused
    if method == "probe":
        return set()
    assert method == "last-layers"
    place = f"model.{locate(predictor.classifier.model, predictor.classifier.family.layer_list)}"
    norms = tuple(f"{place.rpartition('.')[0]}.{norm}." for norm in ("norm", "final_norm", "ln_f", "final_layer_norm"))
    return {name for name in names if name.startswith((f"{place}.", *norms))}  # both layers of a tiny model


@every_pair
def test_exactly_head_and_method_train(base_folder: BaseFolder, name: str, method: str) -> None:
    predictor, _ = wrapped(base_folder(name), method)
    trained = {key for key, p in predictor.classifier.named_parameters() if p.requires_grad}
    everything = {key for key, _ in predictor.classifier.named_parameters()}
    marks = METHODS[method].weights
    if marks:
        own = {key for key in everything if any(mark in key for mark in marks) and not in_head(predictor, key)}
        heads = {key for key in everything if in_head(predictor, key)}
        own -= {key for key in own if predictor.classifier.mean_pooled and ".pooler." in key}  # nothing reads it
        assert own
        assert heads
        assert trained == own | heads
        assert not any(in_head(predictor, key) for key in own)  # no adapter inside the head
    else:
        heads = {key for key in everything if in_head(predictor, key)}
        assert heads
        assert trained == heads | of_the_base(predictor, method, everything - heads)
    assert all(p.dtype == torch.float32 for p in predictor.classifier.parameters())


@every_pair
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


@every_pair
def test_a_small_set_is_learned(base_folder: BaseFolder, name: str, method: str) -> None:
    predictor, _ = wrapped(base_folder(name), method)
    rate = RATES.get(method, 1e-2)
    training = session(predictor, n=12, batch_size=12, epochs=STEPS, learning_rate=rate, patience=None)
    first: float | None = None
    for event in training.run():
        if isinstance(event, TrainStep):
            first = event.loss if first is None else first
            if event.loss < first / 2:
                return
    pytest.fail(f"the loss began at {first} and did not halve in {STEPS} steps")


@pytest.mark.parametrize("method", [method for method in METHODS if works("bert", method)])
def test_counted_parameters_are_those_that_train(base_folder: BaseFolder, method: str) -> None:
    predictor, _ = wrapped(base_folder("bert"), method)
    counts = count_parameters(predictor.classifier)
    assert counts.trained == sum(p.numel() for p in predictor.classifier.parameters() if p.requires_grad)
    plain = sum(p.numel() for p in wrapped(base_folder("bert"), "full")[0].classifier.parameters())
    marks = (*METHODS[method].weights, *FROZEN.get(method, ())) if METHODS[method].saves_adapter else ()
    adapter = sum(
        p.numel()
        for key, p in predictor.classifier.named_parameters()
        if any(mark in key for mark in marks) and not in_head(predictor, key)
    )
    assert counts.total == plain + adapter
