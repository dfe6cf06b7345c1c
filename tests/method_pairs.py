"""Pairs of base model and method for contract tests: those that can work, as the product itself says."""

from collections.abc import Iterable
from typing import Any

import pytest

from textlift.methods.registry import METHODS
from textlift.models.families import FAMILIES, Family
from textlift.training.capability import Precision, capability
from tiny_models import EMBEDDERS, EVERY_BASE

# What discovery finds of the architectures outside the table; test_capability.py compares it with their modules.
OUTSIDE = {
    "electra": Family("electra", (), "", "", (), "", takes_past=True, is_tested=False),
    "albert": Family("albert", (), "", "", (), "", is_tested=False),
    "mpnet": Family("mpnet", (), "", "", (), "", is_tested=False),
    "opt": Family("opt", (), "", "", (), "", is_decoder=True, takes_past=True, is_tested=False),
    "gpt_neox": Family("gpt_neox", (), "", "", (), "", is_decoder=True, takes_past=True, is_tested=False),
}
# What only the loaded model can tell: ALBERT runs one layer many times, so there is no last one to train.
REFUSED_ONCE_LOADED = {("albert", "last-layers")}


def family(base: str) -> Family:
    """The family of a tiny base model by its name."""
    return OUTSIDE.get(base) or FAMILIES["bert" if base in EMBEDDERS else base]


def works(base: str, method: str, precision: Precision = "fp32") -> bool:
    """Whether a pair is one that must work."""
    able = capability(METHODS[method], family(base), precision).works
    return able and (base, method) not in REFUSED_ONCE_LOADED


def pairs(
    methods: Iterable[str] = METHODS, bases: Iterable[Any] = EVERY_BASE, *, precision: Precision = "fp32"
) -> list[Any]:
    """Parameters `name, method` of every pair that works, with the marks of the base."""
    chosen = [base if isinstance(base, type(pytest.param(""))) else pytest.param(base) for base in bases]
    return [
        pytest.param(base.values[0], method, marks=base.marks, id=f"{base.values[0]}-{method}")
        for base in chosen
        for method in methods
        if works(base.values[0], method, precision)
    ]


def refused(*, precision: Precision = "fp32") -> list[tuple[str, str]]:
    """Pairs of base and method that cannot work."""
    bases = [base.values[0] if not isinstance(base, str) else base for base in EVERY_BASE]
    return [(base, method) for base in bases for method in METHODS if not works(base, method, precision)]
