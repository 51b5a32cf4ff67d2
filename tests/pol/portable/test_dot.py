"""An element of an exact product, recomputed in plain integers from one row and one column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pol import exact
from pol.errors import ProofError
from pol.portable.dot import BLOCK, LONGEST, GridRow, exact_dot, exact_element, on_grid, product_bits
from pol.portable.products import mm

VECTORS = json.loads((Path(__file__).parents[2] / "golden/exact-dot.json").read_text())


def bits_of(x: Tensor) -> list[int]:
    return [bits % 2**32 for bits in x.contiguous().view(torch.int32).flatten().tolist()]


def numbers(bits: list[int]) -> Tensor:
    return torch.tensor(bits, dtype=torch.int64).to(torch.uint32).view(torch.float32)


finite = st.integers(0, 2**32 - 1).filter(lambda bits: bits >> 23 & 0xFF != 0xFF)
near_one = st.floats(-2, 2, width=32).map(lambda x: bits_of(torch.tensor([x]))[0])


@given(pairs=st.lists(st.tuples(finite | near_one, finite | near_one), min_size=1, max_size=30))
def test_it_is_the_element_that_tensors_give(pairs: list[tuple[int, int]]) -> None:
    row, column = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = mm(numbers(row)[None], numbers(column)[:, None])
    assert exact_element(row, column) == bits_of(found)[0]


@pytest.mark.parametrize("length", [512, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
@pytest.mark.parametrize("spread", [0, 10])
def test_long_rows_are_added_block_by_block(length: int, spread: int) -> None:
    generator = torch.Generator().manual_seed(length + spread)
    a, b, scales = torch.randn(3, length, generator=generator)
    found = mm((a * torch.exp(spread * scales))[None], b[:, None])
    assert exact_element(bits_of(a * torch.exp(spread * scales)), bits_of(b)) == bits_of(found)[0]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_vectors(vector: dict) -> None:
    row, column = ([int(bits, 16) for bits in vector[side]] * vector["repeated"] for side in ("row", "column"))
    assert f"{exact_element(row, column):#010x}" == vector["element"]
    assert bits_of(mm(numbers(row)[None], numbers(column)[:, None])) == [int(vector["element"], 16)]
    if len(row) <= BLOCK:
        left, right = (on_grid(side, product_bits(len(side))) for side in (row, column))
        shown = {"integers": list(left.integers[: len(vector["row"])]), "exponent": left.exponent}
        assert shown == vector["row_on_grid"]
        assert [str(number) for number in exact_dot(left, right)] == vector["dot"]


@given(integers=st.lists(st.integers(-(2**22), 2**22), min_size=2, max_size=512), seed=st.integers(0, 2**32))
def test_order_does_not_matter_to_the_largest_integers(integers: list[int], seed: int) -> None:
    """Every partial sum fits 53 bits, so float64 in any order gives the integer."""
    row = torch.tensor(integers, dtype=torch.float64)
    order = torch.randperm(len(row), generator=torch.Generator().manual_seed(seed))
    grid = GridRow(tuple(integers), 0)
    assert int(row[order] @ row[order]) == exact_dot(grid, grid)[0]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (1, 1, 3), (3, 1, 3), (64, 1, 64), (64, 2, 64), (5, 512, 7)])
def test_zeros_have_one_sign(shape: tuple[int, int, int]) -> None:
    """-1 times 0 is -0, and a library that begins at +0 makes +0 of it, one that does not -0."""
    rows, length, columns = shape
    with exact():
        product = -torch.ones(rows, length) @ torch.zeros(length, columns)
        image = functional.conv2d(-torch.ones(rows, length, 3, 3), torch.zeros(columns, length, 3, 3))
    assert not product.signbit().any() and not image.signbit().any()


@pytest.mark.parametrize(
    "call",
    [
        lambda: exact_element([], []),
        lambda: exact_element([0], [0, 0]),
        lambda: exact_element([0x7F800000], [0]),
        lambda: exact_element([0], [0x7FC00000]),
        lambda: exact_element([2**32], [0]),
        lambda: exact_element([-1], [0]),
        lambda: exact_dot(GridRow((2**26 + 1,), 0), GridRow((1,), 0)),
        lambda: exact_dot(GridRow((1,) * (LONGEST + 1), 0), GridRow((1,) * (LONGEST + 1), 0)),
    ],
)
def test_what_is_no_row_or_not_exact_is_refused(call: object) -> None:
    with pytest.raises(ProofError):
        call()
