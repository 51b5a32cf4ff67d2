"""Every element of a product or a convolution can be recomputed from two rows of integers."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import prod

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pol import exact
from pol.portable import trace
from pol.portable.convolution import convolution
from pol.portable.dot import BLOCK, GridRow, exact_dot, product_bits
from pol.portable.mode import way
from pol.portable.parts import Part, parts_of
from pol.portable.trace import Operation, OperatorTrace, first_difference

CONVOLUTIONS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "padded": (lambda x, w: F.conv2d(x, w, padding=1), [(3, 4, 6, 5), (2, 4, 3, 3)]),
    "strided": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), [(3, 4, 7, 6), (2, 4, 3, 3)]),
    "uneven": (lambda x, w: F.conv2d(x, w, stride=(3, 2), padding=(0, 2)), [(1, 2, 9, 8), (2, 2, 2, 5)]),
    "grouped, dilated": (lambda x, w: F.conv2d(x, w, groups=2, dilation=2), [(2, 4, 8, 8), (6, 2, 3, 3)]),
    "of rows": (lambda x, w: F.conv1d(x, w, padding=2, dilation=2), [(2, 3, 9), (4, 3, 3)]),
    "of volumes": (lambda x, w: F.conv3d(x, w, padding=1), [(1, 2, 4, 3, 5), (2, 2, 3, 3, 3)]),
    "wide strides": (lambda x, w: F.conv2d(x, w, stride=4), [(2, 1, 9, 9), (1, 1, 1, 1)]),
    "padded beyond its reach": (lambda x, w: F.conv2d(x, w, padding=2), [(2, 2, 4, 4), (3, 2, 1, 1)]),
    "transposed": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1, groups=2),
        [(2, 4, 3, 4), (4, 3, 3, 3)],
    ),
    "transposed, padded by steps": (
        lambda x, w: F.conv_transpose2d(x, w, dilation=(3, 4), output_padding=(2, 3), padding=(1, 2)),
        [(2, 4, 3, 4), (4, 3, 3, 2)],
    ),
    "in blocks": (lambda x, w: F.conv2d(x, w, padding=1), [(3, 1, 64, 65), (2, 1, 3, 3)]),
}


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    powers = torch.randint(-6, 7, shape, generator=generator)
    return torch.randn(shape, generator=generator) * 2.0 ** powers.float()


def seen(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> dict[str, list[list[Part]]]:
    """The parts of every operator that ``run`` calls, with their tensors."""
    found: dict[str, list[list[Part]]] = {}

    def kept(name: str, args: tuple[object, ...]) -> list[Part]:
        parts = list(parts_of(name, args))
        if parts:
            found.setdefault(name, []).append(parts)
        return parts

    monkeypatch.setattr(trace, "parts_of", kept)
    with exact(), OperatorTrace():
        run()
    return found


def products(parts: list[Part]) -> list[list[Tensor]]:
    """(rows, exponents, rows, exponents, result) of each product, after a look at some of its elements."""
    found = [[*inputs, *outputs] for name, _, inputs, outputs in parts if name == "exact::product"]
    chosen = random.Random(0)
    for rows, powers, columns, others, result in found:
        flat = [value.reshape(-1, *value.shape[-2:]) for value in (rows, powers, columns, others, result)]
        for _ in range(5):
            k, i, j = (chosen.randrange(size) for size in flat[4].shape)
            row = GridRow(tuple(flat[0][k, i].tolist()), int(flat[1][k, i]))
            column = GridRow(tuple(flat[2][k, j].tolist()), int(flat[3][k, j]))
            number, exponent = exact_dot(row, column)
            assert number * 2.0**exponent == flat[4][k, i, j]
    return found


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_products_of_a_convolution_are_its_result_and_its_gradients(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, shapes = CONVOLUTIONS[name]
    x, weight = (draw(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes))
    results: list[Tensor] = []

    def run() -> None:
        results.append(case(x, weight))
        results[0].backward(draw(*results[0].shape, seed=5))

    found = seen(monkeypatch, run)
    (forward,), (backward,) = found["convolution"], found["convolution_backward"]
    ((*_, value),) = products(forward)
    (*_, to_input), *to_weight = products(backward)
    assert torch.equal(as_images(value, results[0]), results[0].detach())
    assert x.grad is not None and torch.equal(as_images(to_input, x), x.grad)
    total = torch.zeros_like(to_weight[0][-1])
    for *_, block in to_weight:
        total += block
    assert len(to_weight) == (3 if name == "in blocks" else 1)
    assert weight.grad is not None and torch.equal(total.reshape(weight.shape).float(), weight.grad)


def as_images(value: Tensor, like: Tensor) -> Tensor:
    """(groups, samples * places, channels of a group) as (samples, channels, ...), rounded."""
    n, channels = like.shape[:2]
    rows = value.reshape(len(value), n, prod(like.shape[2:]), -1).permute(1, 0, 3, 2)
    return rows.reshape(n, channels, *like.shape[2:]).float()


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_windows_hold_the_integers_of_the_image_and_nothing_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution with one window's kernel of ones is the sum of that window: an independent way to the same rows."""
    case, (shape, kernel) = CONVOLUTIONS[name]
    x, weight = draw(*shape, seed=1), draw(*kernel, seed=2)
    (parts,) = seen(monkeypatch, lambda: case(x, weight))["convolution"]
    ((_, _, (integers, powers), (rows, row_powers)),) = [part for part in parts if part[0] == "exact::windows"]
    ones = case(integers.double(), torch.ones_like(weight, dtype=torch.float64))
    each = ones.shape[1] // len(rows)
    sums = ones.reshape(len(ones), len(rows), each, -1)[:, :, 0].transpose(0, 1).reshape(len(rows), -1)
    assert torch.equal(rows.double().sum(2), sums)
    places = rows.shape[1] // len(x)
    assert torch.equal(row_powers[0, ::places, 0], powers.flatten())


@pytest.mark.parametrize(
    ("left", "right"),
    [((3, 5), (5, 2)), ((2, 3, 4), (2, 4, 3)), ((3, 5), (5,)), ((7,), (7,)), ((2, BLOCK + 3), (BLOCK + 3, 2))],
)
def test_the_products_of_matrices_and_vectors(
    left: tuple[int, ...], right: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = draw(*left, seed=1), draw(*right, seed=2)
    results: list[Tensor] = []
    ((parts,),) = seen(monkeypatch, lambda: results.append(torch.matmul(a, b))).values()
    first, *rest = (product[-1] for product in products(parts))
    for value in rest:
        first = first + value
    assert torch.equal(first.float().reshape(results[0].shape), results[0])


def test_what_is_read_is_what_another_step_gave_or_an_operand(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = draw(2, 4, 5, 5, seed=1), draw(3, 4, 3, 3, seed=2)
    (parts,) = seen(monkeypatch, lambda: F.conv2d(x, weight, padding=1))["convolution"]
    known = [x, weight]
    for name, attributes, inputs, outputs in parts:
        assert all(any(value is other or torch.equal(value, other) for other in known) for value in inputs), name
        known += outputs
        assert attributes.get("beta", product_bits(36)) == product_bits(36)


def test_a_convolution_computed_wrongly_is_found_and_its_product_tells_who_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, weight = draw(2, 2, 5, 5, seed=1), draw(3, 2, 3, 3, seed=2)

    def traced() -> list[Operation]:
        with exact(), OperatorTrace() as operators:
            F.conv2d(x, weight)
        return operators.operations

    def wrong(*args: object) -> Tensor:
        result = convolution(*args)
        result[0, 0, 0, 0] = torch.nextafter(result[0, 0, 0, 0], torch.tensor(9.0))
        return result

    honest, true_way = traced(), way
    assert first_difference(honest, traced()) is None
    name = torch.ops.aten.convolution.default
    monkeypatch.setattr("pol.portable.mode.way", lambda func: (False, wrong) if func is name else true_way(func))
    lying = traced()
    index = first_difference(honest, lying)
    assert index is not None and honest[index].operator == lying[index].operator == "convolution"
    assert honest[index].inputs == lying[index].inputs and honest[index].outputs != lying[index].outputs
    assert [operation.operator for operation in lying[:index]] == [
        "exact::kernels", "exact::quantise", "exact::windows", "exact::quantise", "exact::product",
    ]  # fmt: skip
