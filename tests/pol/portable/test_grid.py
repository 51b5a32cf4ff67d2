"""No order of summation can change a bit: the integers are what they are said to be, and the bound is sharp."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pol.portable import grid, sums
from pol.portable.dot import BLOCK, product_bits
from pol.portable.grid import product, quantised, sum_bits, total, unit

LARGEST = torch.finfo(torch.float32).max
SMALLEST = 2.0**-149
values32 = st.floats(-LARGEST, LARGEST, width=32, allow_nan=False)
rows32 = st.lists(values32, min_size=1, max_size=12)
seeds = st.integers(0, 2**32)


def draw(*shape: int, seed: int, spread: int = 0) -> Tensor:
    """Gaussian numbers, times powers of two up to 2**spread either way; some are zero."""
    generator = torch.Generator().manual_seed(seed)
    powers = torch.randint(-spread, spread + 1, shape, generator=generator)
    kept = torch.rand(shape, generator=generator) > 0.1
    return torch.ldexp(torch.randn(shape, generator=generator), powers) * kept


def fraction(value: Tensor) -> Fraction:
    return Fraction(float(value))


@given(rows32, st.integers(1, 51))
def test_a_number_is_rounded_to_the_nearest_integer_of_units_ties_to_even(row: list[float], beta: int) -> None:
    x = torch.tensor(row)
    power = Fraction(0)
    if any(row):
        power = Fraction(2) ** (math.frexp(max(map(abs, row)))[1] - 1)
    spacing = 2 * power / 2**beta
    assert fraction(unit(x, [0], beta)) == spacing
    for value, found in zip(row, quantised(x, [0], beta), strict=True):
        assert fraction(found) == (round(Fraction(value) / spacing) * spacing if spacing else 0)
        assert abs(fraction(found)) <= 2**beta * spacing


def test_the_bits_are_the_most_that_fit() -> None:
    for length in [*range(1, 2000), *(2**k + d for k in range(11, 21) for d in (-1, 0, 1))]:
        assert length * 2 ** sum_bits(length) <= 2**53 and sum_bits(length) <= 51
        assert length * 2 ** (2 * product_bits(length)) <= 2**53
        assert sum_bits(length) == 51 or 2 * length * 2 ** (sum_bits(length) + 1) > 2**53
        assert 2 * length * 2 ** (2 * (product_bits(length) + 1)) > 2**53
    assert [product_bits(k) for k in (512, 2048, 8192)] == [22, 21, 20]


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 5), seeds, st.sampled_from([0, 8, 60]))
def test_a_product_is_that_of_its_integers(m: int, k: int, n: int, seed: int, spread: int) -> None:
    a, b = draw(m, k, seed=seed, spread=spread), draw(k, n, seed=seed + 1, spread=spread)
    beta, found = product_bits(k), product(a, b)
    rows, columns = quantised(a, [1], beta), quantised(b, [0], beta)
    row_units, column_units = unit(a, [1], beta), unit(b, [0], beta)
    for i in range(m):
        for j in range(n):
            scale = fraction(row_units[i, 0]) * fraction(column_units[0, j])
            integers = [
                int(fraction(x) / fraction(row_units[i, 0])) * int(fraction(y) / fraction(column_units[0, j]))
                for x, y in zip(rows[i], columns[:, j], strict=True)
                if scale
            ]
            assert fraction(found[i, j]) == sum(integers) * scale


@settings(max_examples=20)
@given(seeds, st.sampled_from([3, 64, 513, BLOCK]), st.sampled_from([0, 20, 60]))
def test_no_order_of_the_contraction_changes_a_bit(seed: int, k: int, spread: int) -> None:
    a, b = draw(3, k, seed=seed, spread=spread), draw(k, 2, seed=seed + 1, spread=spread)
    order = torch.randperm(k, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(product(a, b), product(a[:, order], b[order]))
    assert torch.equal(product(a, b), product(a.t().contiguous().t(), b.t().contiguous().t()))
    assert torch.equal(total(a, [1]), total(a[:, order], [1]))
    assert torch.equal(total(a, [0, 1]), total(a.t().contiguous().t()[[2, 0, 1]][:, order], [0, 1])) or 3 * k > BLOCK


def _differs_under_some_order(a: Tensor, b: Tensor) -> bool:
    reference = product(a, b)
    return any(
        not torch.equal(reference, product(a[:, order], b[order]))
        for order in (torch.randperm(a.shape[1], generator=torch.Generator().manual_seed(s)) for s in range(20))
    )


@pytest.mark.parametrize("length", [2**9, 2**11, 2**13])
def test_one_bit_more_and_the_order_shows(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a = torch.rand(4, length, generator=torch.Generator().manual_seed(1)) + 0.9
    b = torch.rand(length, 4, generator=torch.Generator().manual_seed(2)) + 0.9
    assert not _differs_under_some_order(a, b)
    monkeypatch.setattr(grid, "product_bits", lambda k: product_bits(k) + 1)
    assert _differs_under_some_order(a, b)


NOWHERE_ELSE = torch.zeros(BLOCK, dtype=torch.long)
IN_TURN: dict[str, tuple[ModuleType, Callable[[Tensor], Tensor]]] = {
    "one after the other": (grid, lambda x: quantised(x, [0], grid.sum_bits(BLOCK)).cumsum(0)[-1]),
    "scattered": (sums, lambda x: sums.scattered(x.unsqueeze(1), NOWHERE_ELSE, 1)),
}


@pytest.mark.parametrize("name", IN_TURN)
def test_one_bit_more_and_the_order_of_a_sum_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # near the largest sum that fits, with terms small enough to have bits at the grid's end
    module, added = IN_TURN[name]
    x = torch.rand(BLOCK, generator=torch.Generator().manual_seed(1)) * 0.01 + 1.98
    x[::3] *= 2.0**-18
    orders = [torch.randperm(BLOCK, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    (found,) = {float(added(x[order])) for order in orders}
    assert found == float(total(x, [0])) == math.fsum(quantised(x, [0], sum_bits(BLOCK)).tolist())
    monkeypatch.setattr(module, "sum_bits", lambda count: sum_bits(count) + 1)
    assert len({float(added(x[order])) for order in orders}) > 1


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_makes_nan_of_its_row_alone(value: float) -> None:
    a, b = draw(3, 5, seed=1), draw(5, 4, seed=2)
    clean = product(a, b)
    a[1, 2] = value
    found = product(a, b)
    assert found[1].isnan().all() and torch.equal(found[[0, 2]], clean[[0, 2]])
    assert total(a, [1]).isnan().flatten().tolist() == [False, True, False]


def test_the_smallest_and_the_largest_numbers_are_computed_with() -> None:
    smallest = torch.full((1, 4), SMALLEST)
    assert float(product(smallest, torch.ones(4, 1))) == 4 * SMALLEST == float(total(smallest, [1]))
    largest = torch.full((1, 4), LARGEST)
    assert float(product(largest, largest.t())) == pytest.approx(4 * LARGEST**2, rel=1e-5)
    assert float(total(largest, [1])) == 4 * LARGEST
    assert not product(torch.zeros(2, 3), torch.zeros(3, 2)).any()
    assert product(torch.zeros(2, 0), torch.zeros(0, 3)).tolist() == [[0.0] * 3] * 2


@settings(max_examples=20)
@given(seeds, st.sampled_from([1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5]), st.sampled_from([0, 10]))
def test_a_sum_is_within_its_bound_of_the_true_one(seed: int, length: int, spread: int) -> None:
    x = draw(2, length, seed=seed, spread=spread)
    levels = 1 if length <= BLOCK else 2
    for row, found in zip(x, total(x, [1]), strict=True):
        largest = float(row.abs().max()) * (BLOCK if levels == 2 else 1)
        assert abs(float(found) - math.fsum(row.tolist())) <= levels * 2.0**-26 * largest


def test_blocks_are_cut_in_logical_order_whatever_the_memory() -> None:
    x = draw(5, 3000, 4, seed=3, spread=20)
    moved = x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert moved.stride() != x.stride()
    for dims in ([0, 1, 2], [0, 1], [1, 2], [1], [0, 2]):
        assert torch.equal(total(x, dims), total(moved, dims))
