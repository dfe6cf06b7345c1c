"""What a method is: a record with its options, its wrapping and its facts.

Does not know models by name: it is handed a module and the names of its parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class MethodOptions(BaseModel):
    """Options of a method: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Parts:
    """A base model in the terms that every method needs.

    Args:
        model: The module to wrap, with a head of its own or without.
        linear_layers: Full names of the linear layers that an adapter can wrap.
        head_modules: Full names of the modules trained whole; empty where the head stands beside the model.
        fan_in_fan_out: Whether the linear layers keep their weight transposed.
        has_head: Whether the model is a sequence-classification model of transformers.
    """

    model: Any
    linear_layers: tuple[str, ...]
    head_modules: tuple[str, ...]
    fan_in_fan_out: bool
    has_head: bool


@dataclass(frozen=True)
class Method:
    """One way to tune: a row of the method table.

    Args:
        name: As on the command line.
        summary: One line for help and docs.
        options: Its options with range and default.
        wrap: Takes parts and options, gives the module with exactly its own weights (and the head's) set to train.
        learning_rate: Peak learning rate at a hidden size of 384; wider models get less (see `peak_learning_rate`).
        paper: Where it was published.
        mergeable: Whether what it trained folds into the base.
        saves_adapter: Whether a PEFT adapter is saved; else the whole model.
    """

    name: str
    summary: str
    options: type[MethodOptions]
    wrap: Callable[[Parts, Any], Any]
    learning_rate: float
    paper: str
    mergeable: bool
    saves_adapter: bool


def peak_learning_rate(method: Method, *, hidden_size: int) -> tuple[float, str]:
    """The default learning rate for a width, with its reason.

    Wider layers need smaller steps: the rate falls as 1/width above 384, the width at which the defaults were measured.

    Source:
        Yang et al. (2022), Tensor Programs V, section 3 (hidden weights under Adam).
    """
    rate = method.learning_rate * min(1.0, 384 / hidden_size)
    return rate, f"learning_rate {rate:.2g}: default of {method.name} at a hidden size of {hidden_size}"
