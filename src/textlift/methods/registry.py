"""METHODS: the one visible table of methods; command line, recipe check, docs and contract tests read it."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from textlift.errors import RecipeError, nearest
from textlift.methods import bottleneck, factored, fusion, low_rank, prompt, quantized, scaling, selective, started
from textlift.methods.base import Method, MethodOptions
from textlift.recipe import Quantization, Recipe, Variant, complaints

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        *low_rank.METHODS,
        *quantized.METHODS,
        *started.METHODS,
        *factored.METHODS,
        *scaling.METHODS,
        *bottleneck.METHODS,
        *prompt.METHODS,
        *selective.METHODS,
        *fusion.METHODS,
    )
}


def method_of(variant: Variant) -> tuple[Method, MethodOptions]:
    """The method of a variant with its options checked.

    Raises:
        RecipeError: There is no such method, or an option is unknown or out of range.
    """
    told, method, options = _check(variant)
    if method is None or options is None:
        raise RecipeError("; ".join(told))
    return method, options


def quantization_of(variant: Variant) -> Quantization:
    """What a variant keeps its base model in: what it or its recipe says, else what its method does.

    Raises:
        RecipeError: The method is one for a quantized base, and the variant says that it is not to be.
    """
    own = METHODS[variant.method].quantization
    if own != "none" and variant.quantization == "none":
        raise RecipeError(
            f"variants.{variant.name}: method {variant.method} must have its base in 8 or 4 bits; found quantization "
            "none.\nUse lora, which is the same in full precision."
        )
    return variant.quantization or own


def check_methods(recipe: Recipe) -> None:
    """Check every variant against the table; all complaints are told at once.

    Raises:
        RecipeError: As `method_of`.
    """
    told = [sentence for variant in recipe.settled_variants() for sentence in _check(variant)[0]]
    told = list(dict.fromkeys(told))
    if told:
        raise RecipeError(f"{recipe.name}: {'; '.join(told)}.")


def _check(variant: Variant) -> tuple[list[str], Method | None, MethodOptions | None]:
    method = METHODS.get(variant.method)
    if method is None:
        known = ", ".join(METHODS)
        return (
            [f"method must be one of {known}; found {variant.method!r}{nearest(variant.method, METHODS)}".rstrip(".")],
            None,
            None,
        )
    try:
        return [], method, method.options.model_validate(dict(variant.options))
    except ValidationError as error:
        return complaints(error, method.options, "method."), method, None


def applicable_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a method has: what variants of several methods share of one section."""
    known = METHODS[method].options.model_fields if method in METHODS else options
    return {key: value for key, value in options.items() if key in known}
