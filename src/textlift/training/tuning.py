"""A classifier wrapped by a method: which weights train, with which learning rate."""

from dataclasses import dataclass
from typing import Any

from textlift.methods.base import Method, MethodOptions, Parts
from textlift.models.classifier import Classifier
from textlift.models.families import locate
from textlift.models.quantized import quantization_of, weight_count
from textlift.runtime import quiet_libraries
from textlift.training.capability import precision_of, require_capability
from textlift.training.state import Hooks


@dataclass(frozen=True)
class ParameterCounts:
    """Weights that train and all weights, adapter included."""

    trained: int
    total: int


def apply_method(
    classifier: Classifier, method: Method, options: MethodOptions, *, total_steps: int = 100
) -> ParameterCounts:
    """Wrap the classifier in place, so that exactly the weights of method and head require gradients.

    Args:
        classifier: Fresh.
        method: Of the method table.
        options: The method's.
        total_steps: Optimizer steps that are planned, for methods with a schedule of their own.

    Raises:
        RecipeError: The method cannot work on the classifier's architecture, or in its precision.
    """
    require_capability(method, classifier.family, precision_of(quantization_of(classifier.model)))
    parts = parts_of(classifier, total_steps=total_steps)
    for parameter in classifier.parameters():
        parameter.requires_grad_(False)
    with quiet_libraries():
        classifier.model = method.wrap(parts, options)
    classifier.virtual_tokens = method.virtual_tokens(options) if method.virtual_tokens else 0
    if classifier.head is not None:
        classifier.head.requires_grad_(True)
        unused: Any = getattr(classifier.model, "pooler", None)
        if unused is not None:  # mean pooling reads the hidden states, not the pooler
            unused.requires_grad_(False)
    return count_parameters(classifier)


def hooks_of(classifier: Classifier, method: Method, options: MethodOptions) -> Hooks:
    """What a method does during training, bound to the classifier that it wraps."""
    penalty, after_step = method.penalty, method.after_step
    take, put_back = method.state, method.restore_state
    return Hooks(
        method.rate_ratios(options),
        (lambda: penalty(classifier.model)) if penalty else None,
        (lambda step: after_step(classifier.model, step)) if after_step else None,
        "past-key-values" in method.needs,
        (lambda: take(classifier.model)) if take else dict,
        (lambda tensors: put_back(classifier.model, tensors)) if put_back else lambda _: None,
    )


def parts_of(classifier: Classifier, *, total_steps: int = 100) -> Parts:
    """The parts of a classifier in the terms of the method table."""
    return Parts(
        classifier.model,
        tuple(classifier.linear_layers()),
        tuple(classifier.head_modules()),
        locate(classifier.model, classifier.family.layer_list),
        classifier.family.fan_in_fan_out,
        has_head=not classifier.mean_pooled,
        is_decoder=classifier.family.is_decoder,
        total_steps=total_steps,
    )


def count_parameters(classifier: Classifier) -> ParameterCounts:
    """Weights that train, and all; the untrained copy that peft keeps of a replaced head is not counted twice."""
    trained = total = 0
    for name, parameter in classifier.named_parameters():
        if ".original_module." in name:
            continue
        total += weight_count(parameter)
        trained += parameter.numel() if parameter.requires_grad else 0
    return ParameterCounts(trained, total)
