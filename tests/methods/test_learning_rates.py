"""Learning rates of the methods: defaults within what is usual, and a word on those far from it."""

import pytest

from textlift.methods.base import Method, learning_rate_warning, peak_learning_rate
from textlift.methods.registry import METHODS

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@every_method
def test_the_default_lies_inside_the_usual_range(method: Method) -> None:
    low, high = method.learning_rates
    assert low < method.learning_rate < high


@every_method
@pytest.mark.parametrize("hidden_size", [64, 384, 768, 4096])
def test_the_default_is_never_warned_of(method: Method, hidden_size: int) -> None:
    rate, _ = peak_learning_rate(method, hidden_size=hidden_size)
    assert learning_rate_warning(method, rate, hidden_size=hidden_size) is None


@every_method
def test_the_default_falls_with_the_width_and_never_rises_above_its_own(method: Method) -> None:
    rates = [peak_learning_rate(method, hidden_size=width)[0] for width in (64, 384, 768, 1536)]
    assert rates == pytest.approx([method.learning_rate * factor for factor in (1, 1, 1 / 2, 1 / 4)])


def test_a_rate_far_from_the_usual_is_told_with_the_range_at_this_width() -> None:
    lora = METHODS["lora"]
    assert learning_rate_warning(lora, 5e-5, hidden_size=384) == (
        "learning_rate 5e-05 is below the usual 0.0001 to 0.005 of lora at this width"
    )
    assert learning_rate_warning(lora, 5e-3, hidden_size=768) == (
        "learning_rate 0.005 is above the usual 5e-05 to 0.003 of lora at this width"
    )


def test_the_ends_of_the_range_are_usual() -> None:
    for rate in METHODS["full"].learning_rates:
        assert learning_rate_warning(METHODS["full"], rate, hidden_size=384) is None
