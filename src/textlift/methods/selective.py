"""Methods that train some of the base model's own weights."""

from typing import Any

from textlift.methods.base import Method, MethodOptions, Parts


class FullOptions(MethodOptions):
    """Full fine-tuning has no options."""


def wrap_full(parts: Parts, _options: FullOptions) -> Any:
    """The model with every weight set to train."""
    return parts.model.requires_grad_(True)


METHODS = (
    Method(
        "full",
        "Every weight of the base model.",
        FullOptions,
        wrap_full,
        learning_rate=1e-4,
        paper="https://arxiv.org/abs/1810.04805",
        mergeable=False,
        saves_adapter=False,
        learning_rates=(1e-6, 1e-3),
    ),
)
