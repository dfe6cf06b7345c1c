"""Every random state of the process as plain values and tensors, to be put back where a training is continued."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_PREFIX = "rng."


def take(device: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The states of torch on the CPU and the device as tensors, those of Python and NumPy as plain values."""
    tensors = {f"{_PREFIX}cpu": torch.get_rng_state()}
    if device.startswith("cuda"):
        tensors[f"{_PREFIX}cuda"] = torch.cuda.get_rng_state(device)
    version, numbers, gauss = random.getstate()
    kind, words, place, has_gauss, cached = np.random.get_state(legacy=True)
    plain = {
        "python": [version, list(numbers), gauss],
        "numpy": [str(kind), np.asarray(words).tolist(), int(place), int(has_gauss), float(cached)],
    }
    return tensors, plain


def put_back(tensors: Mapping[str, torch.Tensor], plain: Mapping[str, Any], *, device: str) -> None:
    """Set the states that `take` gave."""
    torch.set_rng_state(tensors[f"{_PREFIX}cpu"])
    if device.startswith("cuda") and f"{_PREFIX}cuda" in tensors:
        torch.cuda.set_rng_state(tensors[f"{_PREFIX}cuda"], device)
    version, numbers, gauss = plain["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, words, place, has_gauss, cached = plain["numpy"]
    np.random.set_state((kind, np.asarray(words, dtype=np.uint32), place, has_gauss, cached))


def random_states(device: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The states of torch on the CPU and on the device: those that a step uses."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.startswith("cuda") else None


def set_random_states(states: tuple[torch.Tensor, torch.Tensor | None], device: str) -> None:
    """Put back what `random_states` gave."""
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1], device)
