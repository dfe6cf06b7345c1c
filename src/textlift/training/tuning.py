"""A classifier wrapped by a method: which weights train, with which learning rate."""

from dataclasses import dataclass
from typing import Any

from textlift.methods.base import Method, MethodOptions, Parts
from textlift.models.classifier import Classifier
from textlift.runtime import quiet_libraries


@dataclass(frozen=True)
class ParameterCounts:
    """Weights that train and all weights, adapter included."""

    trained: int
    total: int


def apply_method(classifier: Classifier, method: Method, options: MethodOptions) -> ParameterCounts:
    """Wrap the classifier in place, so that exactly the weights of method and head require gradients."""
    parts = parts_of(classifier)
    for parameter in classifier.parameters():
        parameter.requires_grad_(False)
    with quiet_libraries():
        classifier.model = method.wrap(parts, options)
    if classifier.head is not None:
        classifier.head.requires_grad_(True)
        unused: Any = getattr(classifier.model, "pooler", None)
        if unused is not None:  # mean pooling reads the hidden states, not the pooler
            unused.requires_grad_(False)
    return count_parameters(classifier)


def parts_of(classifier: Classifier) -> Parts:
    """The parts of a classifier in the terms of the method table."""
    return Parts(
        classifier.model,
        tuple(classifier.linear_layers()),
        tuple(classifier.head_modules()),
        classifier.family.fan_in_fan_out,
        has_head=not classifier.mean_pooled,
    )


def count_parameters(classifier: Classifier) -> ParameterCounts:
    """Weights that train, and all; the untrained copy that peft keeps of a replaced head is not counted twice."""
    trained = total = 0
    for name, parameter in classifier.named_parameters():
        if ".original_module." in name:
            continue
        total += parameter.numel()
        trained += parameter.numel() if parameter.requires_grad else 0
    return ParameterCounts(trained, total)
