"""Products by int8 slices are the float64 products, bit for bit: a GPU may take either. Here a CPU takes them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pol import exact
from pol.portable import grid, slices
from pol.portable.dot import BLOCK, product_bits
from tests.pol.portable.test_grid import draw, seeds


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.view(torch.int64), b.view(torch.int64))


def by_slices(a: Tensor, b: Tensor) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "worth", lambda a, b: a.shape[1] >= slices.LEAST)
        return grid.product(a, b)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(512, 700), st.integers(1, 40), st.integers(0, 60), seeds)
def test_a_product_by_slices_is_the_product(rows: int, length: int, columns: int, spread: int, seed: int) -> None:
    a = draw(rows, length, seed=seed, spread=spread)
    b = draw(length, columns, seed=seed + 1, spread=spread)
    assert same(by_slices(a, b), grid.product(a, b))


@pytest.mark.parametrize("length", [512, 513, BLOCK - 1, BLOCK])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, -1)])
def test_the_largest_integers_of_all_lengths_fit(length: int, signs: tuple[int, int]) -> None:
    most = float(2 ** product_bits(length))
    odd = most - torch.arange(3 * length, dtype=torch.float64).reshape(3, length) % 257
    for a in (torch.full((3, length), most, dtype=torch.float64), odd):
        found = slices.product(signs[0] * a, a.new_ones(3, 1), signs[1] * a.t(), a.new_ones(1, 3))
        assert found is not None
        exactly = [[sum(int(x) * int(y) for x, y in zip(r, c, strict=True)) for c in a.tolist()] for r in a.tolist()]
        assert [[int(x) for x in row] for row in found.tolist()] == [
            [signs[0] * signs[1] * x for x in row] for row in exactly
        ]


def test_longer_ones_are_cut_into_blocks_as_ever() -> None:
    a, b = draw(5, 2 * BLOCK + 600, seed=1, spread=3), draw(2 * BLOCK + 600, 7, seed=2, spread=3)
    assert same(by_slices(a, b), grid.product(a, b))


def test_infinities_nan_zeros_and_denormals_come_out_as_ever() -> None:
    a, b = draw(9, 600, seed=3), draw(600, 9, seed=4)
    a[0, 5], a[1, 7], a[2], b[3, 4], b[:, 5] = float("inf"), float("nan"), 0.0, float("-inf"), 0.0
    a[3] *= 2.0**-140
    b[:, 6] *= 2.0**-140
    a[4] *= 2.0**120
    found, expected = by_slices(a, b), grid.product(a, b)
    assert torch.equal(found.isnan(), expected.isnan()) and bool(found.isnan().any())
    assert same(found[~found.isnan()], expected[~expected.isnan()])


def test_a_training_step_by_slices_has_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def worth(a: Tensor, b: Tensor) -> bool:
        taken.append(a.dim() == 2 and a.shape[1] >= slices.LEAST)
        return bool(taken[-1])

    def step() -> list[Tensor]:
        with exact(fused=False):
            torch.manual_seed(5)
            layer = torch.nn.Linear(600, 513)
            x = torch.randn(520, 600, requires_grad=True)
            layer(x).pow(2).mean().backward()
            return [x.grad, *(parameter.grad for parameter in layer.parameters())]  # type: ignore[list-item]

    before = step()
    monkeypatch.setattr(slices, "worth", worth)
    assert all(map(torch.equal, step(), before))
    assert sum(taken) == 3  # forward, and the gradients of x and of the weights


def test_a_cpu_takes_float64() -> None:
    assert not slices.worth(torch.ones(600, 600), torch.ones(600, 600))


def test_the_trials_shapes_are_right_and_a_wrong_product_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    here = torch.device("cpu")
    assert all(slices.right(here, *shape) for shape in slices._TRIALS if shape != slices._LARGE)
    exactly = torch._int_mm
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: exactly(a, b) + (torch.arange(b.shape[1]) == 1))
    assert not slices.right(here, 33, 513, 41)


def test_a_library_that_refuses_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(a: Tensor, b: Tensor) -> Tensor:
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")

    monkeypatch.setattr(torch, "_int_mm", refuse)
    monkeypatch.setattr(slices, "_REFUSED", set())
    a, b = draw(40, 600, seed=1), draw(600, 40, seed=2)
    assert same(by_slices(a, b), grid.product(a, b))
    assert {a.device} == slices._REFUSED
    assert not slices.right(a.device, 40, 600, 40)
