"""What changes while a session trains, and what a method adds to it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Hooks:
    """What a method does beside the loss of the rows and keeps beside its weights; see `methods.base.Method`."""

    ratios: Mapping[str, float] = field(default_factory=dict)
    penalty: Callable[[], torch.Tensor] | None = None
    after_step: Callable[[int], None] | None = None
    feeds_keys: bool = False
    state: Callable[[], Mapping[str, torch.Tensor]] = dict
    restore: Callable[[Mapping[str, torch.Tensor]], None] = lambda _: None


@dataclass
class Progress:
    """Everything that changes while training, beside weights and optimizer."""

    step: int = 0
    measured_step: int = -1
    best_step: int = -1
    best_accuracy: float = -1.0
    best_log_loss: float = math.inf
    lowest_log_loss: float = math.inf
    without_gain: int = 0
    is_refit: bool = False
    seconds: float = 0.0
    useful_tokens: int = 0
    tokens_per_batch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
