"""Products in eight bits: near the exact ones whatever the rows look like, and only where they are worth it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from textlift.models import eight_bits
from textlift.models.eight_bits import EightBitJoint, EightBitRows, EightBitWeight, has_eight_bit_products, joint_of
from textlift.models.encoder_layer import settled, use_whole_layers
from textlift.models.joint import BF16, Joint
from textlift.models.kernels import frozen_rounded, use_linear_kernel
from textlift.models.products import Part
from tiny_encoders import FAST, batch, outcome, tiny

pytestmark = pytest.mark.skipif(not has_eight_bit_products(), reason="this processor has no products in eight bits")


@pytest.fixture
def small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eight_bits, "_LEAST", 0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def fresh_probe() -> Iterator[None]:
    has_eight_bit_products.cache_clear()
    yield
    has_eight_bit_products.cache_clear()


def off(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


def joint(generator: torch.Generator, width: int = 64, outputs: int = 48, **options: Any) -> EightBitJoint:
    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    low, high = drawn(3, width) / width**0.5, drawn(outputs, 3)
    made = EightBitJoint([Part(drawn(outputs, width), drawn(outputs), low, high, 0.5)], [2.0], **options)
    made.refresh()
    return made


def exact_product(of: EightBitJoint, x: torch.Tensor) -> torch.Tensor:
    (part,) = of.parts
    assert part.low is not None
    assert part.high is not None
    assert part.bias is not None
    return 2 * (x @ part.weight.t() + part.bias + 0.5 * x @ part.low.t() @ part.high.t())


@pytest.mark.parametrize("zero", [0, 8, 128, 255])
@pytest.mark.parametrize("width", [4, 24, 37, 384])
def test_a_product_is_off_by_no_more_than_half_a_step_of_rows_and_weights(
    width: int, zero: int, generator: torch.Generator
) -> None:
    x = torch.randn(29, width, generator=generator)
    weight = torch.randn(11, width, generator=generator)
    few, packed = EightBitRows(x, zero), EightBitWeight(weight)
    found = packed.times(few, torch.float32) * few.scales + few.centres * packed.sums
    of_rows = 0.51 * few.scales * weight.abs().sum(1)
    of_weights = 0.51 * packed.scales * (x.abs().sum(1, keepdim=True) + few.scales * width)
    assert ((found - x @ weight.t()).abs() <= of_rows + of_weights + 1e-4).all()


@pytest.mark.parametrize("x", [torch.zeros(5, 64), torch.full((5, 64), 3.0), torch.full((5, 64), -1e-20)])
def test_rows_without_a_range_keep_their_value(x: torch.Tensor, generator: torch.Generator) -> None:
    made = joint(generator)
    exact = exact_product(made, x)
    assert off(made.product(made.rounded(x)), exact) < 0.02


def test_a_few_large_columns_take_nothing_from_the_others(generator: torch.Generator) -> None:
    x = torch.randn(200, 64, generator=generator)
    x[:, [5, 40]] *= 100
    apart, together = joint(generator), joint(generator.manual_seed(0), apart=0)
    others = [column for column in range(64) if column not in (5, 40)]
    errors = {}
    for made in (apart, together):
        part = made.parts[0]
        small = torch.zeros_like(x)
        small[:, others] = x[:, others]
        both = made.product(made.rounded(x)).float(), exact_product(made, x)
        errors[made.apart] = float((both[0] - both[1]).norm() / (small @ part.weight.t()).norm())
    assert errors[eight_bits.APART] < 0.5 * errors[0]


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-9])
def test_small_gradients_are_as_precise_as_large_ones(size: float, generator: torch.Generator) -> None:
    made = joint(generator)
    part = made.parts[0]
    grad = size * torch.randn(70, 48, generator=generator) * torch.logspace(-3, 0, 70)[:, None]
    assert part.low is not None
    assert part.high is not None
    exact = 2 * (grad @ part.weight + 0.5 * grad @ part.high @ part.low)
    total = torch.zeros(70, 64)
    inner = made.back_into(total, grad)
    each = (total - exact).norm(dim=1) / exact.norm(dim=1)  # rows have ranges of their own
    assert float(each.max()) < 0.03
    assert off(made.back(grad)[0], exact) < 0.03
    assert off(inner, grad @ part.high) < 0.01


def test_into_a_total_goes_what_the_product_gives(generator: torch.Generator) -> None:
    made, x = joint(generator), torch.randn(33, 64, generator=generator)
    rows, total = made.rounded(x), torch.randn(33, 48, generator=generator)
    expected = total + made.product(rows).float()
    assert off(made.product_into(total, rows), expected) < 0.01


@pytest.mark.usefixtures("small_ones")
@pytest.mark.parametrize("targets", ["all-linear", ["query", "value", "q_lin", "v_lin"], ["output.dense", "lin2"]])
@pytest.mark.parametrize("tokens", [4, 20, 140])
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_values_and_gradients_of_a_layer_are_near_the_exact_ones(kind: str, tokens: int, targets: Any) -> None:
    model, inputs = tiny(kind, target_modules=targets), batch(tokens)
    values, gradients = outcome(model, inputs)
    use_linear_kernel(model, FAST)
    shared = use_whole_layers(model, FAST)
    with frozen_rounded(model, rows=30), settled(shared):
        found, near = outcome(model, inputs)
    assert 0 < off(found, values) < 0.05
    assert list(near) == list(gradients)
    assert {gradient.dtype for gradient in near.values()} == {torch.float32}
    close, exact = (torch.cat([one.flatten() for one in every.values()]) for every in (near, gradients))
    assert off(close, exact) < 0.1


@pytest.mark.usefixtures("small_ones")
def test_what_is_not_finite_stays_so_through_a_layer() -> None:
    model, inputs = tiny("bert"), batch(9)
    use_linear_kernel(model, FAST)
    shared = use_whole_layers(model, FAST)
    with torch.no_grad():
        model.get_input_embeddings().weight[inputs["input_ids"][0, 0]] = float("nan")
        with frozen_rounded(model, rows=30), settled(shared):
            assert not torch.isfinite(model(**inputs).last_hidden_state[0]).any()


@pytest.mark.parametrize(
    ("rows", "outputs", "kind"), [(416, 1536, Joint), (1664, 384, Joint), (1664, 1536, EightBitJoint)]
)
def test_small_products_stay_in_bf16(rows: int, outputs: int, kind: type[Joint]) -> None:
    made = joint_of([Part(torch.zeros(outputs, 384), None, rounds=rows)], [1.0])
    assert type(made) is kind
    assert made.product(made.rounded(torch.ones(2, 384))).dtype == BF16


@pytest.mark.usefixtures("fresh_probe")
def test_processors_without_the_instructions_have_no_products_in_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert not has_eight_bit_products()


@pytest.mark.usefixtures("fresh_probe")
@pytest.mark.parametrize("missing", ["_PRODUCT", "_PACKED", "_BYTES"])
def test_builds_of_torch_without_a_part_of_it_have_no_products_in_eight_bits(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eight_bits, missing, None)
    assert not has_eight_bit_products()


@pytest.mark.usefixtures("fresh_probe")
def test_a_product_that_gives_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    right = eight_bits._PRODUCT
    monkeypatch.setattr(eight_bits, "_PRODUCT", lambda *args: right(*args) * 1.1)
    assert not has_eight_bit_products()


@pytest.mark.usefixtures("fresh_probe")
def test_plain_loops_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eight_bits, "_LONGEST", 0.0)
    assert not has_eight_bit_products()
