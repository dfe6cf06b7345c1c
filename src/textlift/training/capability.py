"""Which method works on which base model and in which precision: one place, from the facts of both tables.

A method says what it needs (`Method.needs`, `Method.quantized_base`), a family what it has (`Family`); nothing is kept
beside them. Knows no weights: the answer is there before any are loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

from textlift.errors import RecipeError
from textlift.methods.base import Method, Need
from textlift.methods.registry import METHODS
from textlift.models.families import FAMILIES, Family
from textlift.recipe import Quantization

Precision = Literal["fp32", "bf16", "8-bit", "4-bit"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
QUANTIZED: tuple[Precision, ...] = ("8-bit", "4-bit")


@dataclass(frozen=True)
class Capability:
    """Whether a method works on a family in a precision.

    Args:
        works: Whether it is allowed.
        reason: What is missing where it is not; "not tested ..." for an architecture outside the table; else empty.
        nearest: Where it is not allowed, a method for that family, or a precision for that method; see `capability`.
    """

    works: bool
    reason: str = ""
    nearest: str = ""


# Whether a family meets a need, and what it has where it does not.
NEEDS: dict[Need, tuple[Callable[[Family], bool], str]] = {
    "past-key-values": (
        lambda family: family.takes_past,
        "no place for keys and values of others (past_key_values)",
    ),
    "biases": (lambda family: family.has_biases, "no biases in its layers"),
    "plain-linear": (lambda family: not family.fan_in_fan_out, "linear weights that lie transposed (Conv1D)"),
    "encoder": (lambda family: not family.is_decoder, "tokens that see only those before them (a decoder)"),
}


def capability(method: Method, family: Family | str, precision: Precision = "fp32") -> Capability:
    """Whether a method works on an architecture in a precision, with the reason and the nearest that works.

    The nearest, where a precision is refused: the next finer one in which the method works on this family (from 4-bit
    over 8-bit and bf16 to fp32), else the next coarser one. Where no precision serves, because the family lacks
    something: of the methods that work there, the closest in the order of the table, in which like methods stand side
    by side; the earlier of two.

    Args:
        method: Of the method table.
        family: Of the family table, discovered, or a `model_type`; one outside the table is "not tested".
        precision: Of the base model's weights.
    """
    known = FAMILIES.get(family) if isinstance(family, str) else family
    lack = _lack(method, known, precision)
    if not lack:
        return Capability(True, "" if known is not None and known.is_tested else _untested(family))
    return Capability(False, lack, _nearest(method, known, precision))


def precision_of(quantization: Quantization) -> Precision:
    """The precision of the base model's weights, as a recipe writes it, in the terms of this module."""
    return _PRECISION_OF[quantization]


_PRECISION_OF: dict[Quantization, Precision] = {"none": "fp32", "8bit": "8-bit", "4bit": "4-bit"}


def require_capability(method: Method, family: Family | str, precision: Precision = "fp32") -> None:
    """Refuse a method that cannot work on an architecture or in a precision.

    Raises:
        RecipeError: It cannot; the reason and the nearest that works are told.
    """
    found = capability(method, family, precision)
    if found.works:
        return
    nearest = found.nearest
    advice = f"--set model.quantization={_SETTINGS[nearest]}" if nearest in _SETTINGS else f"--method {nearest}"
    raise RecipeError(
        f"method {method.name} must fit the base model; {found.reason}."
        f"\nThe nearest that works: {advice}. `textlift methods` shows every pair."
    )


_SETTINGS: dict[str, Quantization] = {"fp32": "none", "bf16": "none", "8-bit": "8bit", "4-bit": "4bit"}


def _lack(method: Method, family: Family | None, precision: Precision) -> str:
    """What keeps the method from working there, as a clause; empty where nothing does."""
    if family is not None:
        held = replace(family, fan_in_fan_out=False) if precision in QUANTIZED else family  # packing turns them round
        for need in method.needs:
            is_met, told = NEEDS[need]
            if not is_met(held):
                return f"{family.model_type} has {told}"
    if precision not in QUANTIZED and method.quantization != "none":
        return f"{method.name} has its base in 8 or 4 bits, and in full precision is another method"
    if precision in QUANTIZED and not method.quantized_base:
        return f"{method.name} does not train on a base whose weights are held in {precision.replace('-', ' ')}s"
    return ""


def _nearest(method: Method, family: Family | None, precision: Precision) -> str:
    place = PRECISIONS.index(precision)
    others = (*reversed(PRECISIONS[:place]), *PRECISIONS[place + 1 :])
    fitting = next((one for one in others if not _lack(method, family, one)), None)
    if fitting is not None:
        return fitting
    names = list(METHODS)
    place = names.index(method.name) if method.name in METHODS else 0
    works = [name for name in names if name != method.name and not _lack(METHODS[name], family, precision)]
    return min(works, key=lambda name: abs(names.index(name) - place), default="")


def _untested(family: Family | str) -> str:
    name = family if isinstance(family, str) else family.model_type
    return f"not tested: {name or 'this architecture'} is not among {', '.join(FAMILIES)}"
