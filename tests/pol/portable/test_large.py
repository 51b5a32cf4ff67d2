"""Kernels and torch's operators agree on shapes beyond any border: long, odd, of one element, of none, strided."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pol.portable import compiled, functions, grid, normalisation, products, trial
from pol.portable.compiled import KERNELS
from pol.portable.convolution import convolution, convolution_backward
from pol.portable.trial import numbers, same
from tests.pol.portable.test_compiled import agree, needs_compiler

pytestmark = needs_compiler
LONG = 70001  # more than 2**16, and odd
MANY = 2**20 + 7


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def strided(*shape: int, key: int = 1, special: bool = False) -> Tensor:
    """Every second element of a turned tensor, from an odd address."""
    turned = numbers(*reversed(shape), 2, key=key, special=special)[..., 1]
    return turned.permute(*reversed(range(len(shape))))


def both(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Iterator[Callable[[], Any]]:
    """``function`` of tensors of these shapes, and of such that lie otherwise in memory."""
    for made in (numbers, strided):
        yield partial(function, *(made(*shape, key=7 + 2 * place) for place, shape in enumerate(shapes)))


PRODUCTS = [
    ((LONG, 3), (3, 5)), ((3, 5), (5, LONG)), ((2, LONG), (LONG, 3)), ((LONG, 1), (1, 1)), ((1, 1), (1, LONG)),
    ((LONG, 2, 3), (LONG, 3, 2)), ((1, MANY), (MANY, 1)), ((129, 8191), (8191, 1)), ((1, 8193), (8193, 97)),
    ((1031, 1033), (1033, 1021)), ((2, 3, 257, 65), (2, 3, 65, 129)), ((5, 513, 3), (5, 3, 769)),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("shapes", PRODUCTS)
def test_large_products(shapes: tuple[tuple[int, ...], ...], threads: int) -> None:
    for case in both(products.mm, *shapes):
        assert agree(compiled.built(), case)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((MANY,), [0]), ((LONG, 3), [0]), ((LONG, 3), [1]), ((3, LONG), [0]), ((3, LONG), [1]), ((1025, 1031), [0, 1]),
        ((1025, 1031), [0]), ((7, 8193, 3), [1]), ((8192, 33), [0]), ((8193, 31), [0]), ((1, LONG, 1), [0, 2]),
        ((2, 1, LONG), [1, 2]), ((33, 31, 1037), [0, 2]),
    ],
)  # fmt: skip
def test_large_sums(shape: tuple[int, ...], dims: list[int], threads: int) -> None:
    for case in both(lambda x: grid.total(x, dims), shape):
        assert agree(compiled.built(), case)


def norms(x: Tensor, g: Tensor) -> Iterator[Tensor | None]:
    """Every norm and softmax of rows, and their gradients."""
    size, weight, bias = list(x.shape[-1:]), numbers(x.shape[-1], key=9), numbers(x.shape[-1], key=11)
    y, mean, scale = normalisation.layer_norm(x, size, weight, bias, 1e-5)
    yield from (y, mean, scale)
    yield from normalisation.layer_norm_backward(g, x, size, mean, scale, weight, bias, [True] * 3)
    for name in ("softmax", "log_softmax"):
        y = getattr(normalisation, name)(x, -1)
        yield y
        yield getattr(normalisation, f"{name}_backward")(g, y, -1, torch.float32)


def channels(x: Tensor, g: Tensor) -> Iterator[Tensor | None]:
    """Batch norm and its gradients."""
    weight, bias = numbers(x.shape[1], key=9), numbers(x.shape[1], key=11)
    y, mean, scale = normalisation.batch_norm(x, weight, bias, None, None, True, 0.1, 1e-5)
    yield from (y, mean, scale)
    yield from normalisation.batch_norm_backward(g, x, weight, None, None, mean, scale, True, 1e-5, [True] * 3)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(LONG, 3), (3, 8192), (3, 8193), (1, 1), (8193, 1), (8192, 31), (129, 8191)])
def test_large_rows(shape: tuple[int, ...], threads: int) -> None:
    for case in both(lambda x, g: tuple(norms(x, g)), shape, shape):
        assert agree(compiled.built(), case)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [(LONG, 3), (LONG, 2, 1), (1, 1, 97, 101), (3, 1, 91, 90), (1, 5, 8192), (9, 3, 8193), (2, LONG, 3), (8192, 2, 1)],
)
def test_large_channels(shape: tuple[int, ...], threads: int) -> None:
    for case in both(lambda x, g: tuple(channels(x, g)), shape, shape):
        assert agree(compiled.built(), case)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, MANY])
@pytest.mark.parametrize("name", trial.AROUND)
def test_functions_of_many_numbers(name: str, count: int, threads: int) -> None:
    function = trial.AROUND[name]
    shapes = [(count,)] * (2 if name.endswith("backward") else 1)
    for case in both(function, *shapes):
        assert agree(compiled.built(), case)


# image, weights, stride, padding, dilation, groups
CONVOLUTIONS = [
    ((1, 1, 1, 1), (1, 1, 1, 1), 1, 0, 1, 1),
    ((1, 1, 259, 263), (1, 1, 31, 29), 1, 15, 1, 1),
    ((2, 3, 1, LONG), (5, 3, 1, 3), 1, 0, 1, 1),
    ((1, 2, LONG), (3, 2, 5), 3, 2, 2, 1),
    ((300, 1, 3, 3), (1, 1, 3, 3), 1, 0, 1, 1),
    ((3, 33, 17, 19), (33, 1, 3, 3), 2, 1, 1, 33),
    ((2, 1100, 3, 2), (7, 1100, 1, 1), 1, 0, 1, 1),
    ((LONG, 1, 2), (2, 1, 2), 1, 1, 1, 1),
    ((9, 2, 33, 35), (13, 2, 1, 1), 1, 0, 1, 1),
    ((2, 2, 12, 13, 11), (5, 2, 5, 4, 3), 2, 3, 1, 1),
    ((1, 3, 129, 127), (2, 3, 3, 3), 5, 1, 7, 1),
    ((2, 64, 65, 63), (65, 64, 3, 3), 1, 1, 1, 1),
]


@pytest.mark.slow
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("made", CONVOLUTIONS)
def test_large_convolutions(made: tuple[Any, ...], transposed: bool, threads: int) -> None:
    image, kernel, stride, padding, dilation, groups = made
    space = len(kernel) - 2
    if transposed:
        kernel = (image[1], kernel[0] // groups, *kernel[2:])
        padding = min(padding, *(dilation * (k - 1) for k in kernel[2:]))
    geometry = ([stride] * space, [padding] * space, [dilation] * space, transposed, [0] * space, groups)

    def all_three(x: Tensor, weight: Tensor) -> tuple[Tensor | None, ...]:
        y = convolution(x, weight, None, *geometry)
        grad = strided(*y.shape, key=5)
        return y, *convolution_backward(grad, x, weight, None, *geometry, [True, True, False])

    for case in both(all_three, image, kernel):
        assert agree(compiled.built(), case)


SOME = st.integers(0, 3)


@given(st.tuples(SOME, SOME, SOME, SOME), st.integers(0, 2**32), st.booleans())
@settings(deadline=None, max_examples=25)
def test_small_and_empty_tensors_that_lie_anyhow(sizes: tuple[int, ...], key: int, special: bool) -> None:
    batch, rows, length, columns = sizes
    a, b = strided(batch, rows, length, key=key, special=special), strided(batch, length, columns, key=3)
    assert agree(compiled.built(), partial(products.mm, a, b))
    assert products.mm(a, b).shape == (batch, rows, columns)
    for dims in ([0], [2], [1, 2], [0, 1, 2]):
        assert agree(compiled.built(), partial(grid.total, a, dims))
    assert agree(compiled.built(), partial(functions.gelu_backward, a, a))
    if length:
        assert agree(compiled.built(), lambda: tuple(norms(a, a)))
    if batch * length > 1 and rows:
        assert agree(compiled.built(), lambda: tuple(channels(a, a)))


@given(st.tuples(SOME, st.integers(1, 3), st.integers(1, 3)), st.integers(1, 4), st.booleans())
@settings(deadline=None, max_examples=15)
def test_convolutions_of_few_or_no_samples(sizes: tuple[int, ...], kernel: int, transposed: bool) -> None:
    samples, channels_in, channels_out = sizes
    x = strided(samples, channels_in, 4, 5)
    weight = strided(*((channels_in, channels_out) if transposed else (channels_out, channels_in)), kernel, 1, key=3)
    geometry = ([1, 2], [0, 0], [1, 1], transposed, [0, 1] if transposed else [0, 0], 1)
    y = convolution(x, weight, None, *geometry)
    function = F.conv_transpose2d if transposed else F.conv2d
    expected = function(x, weight, stride=(1, 2), **({"output_padding": (0, 1)} if transposed else {}))
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    grad = strided(*y.shape, key=5)
    assert agree(compiled.built(), partial(convolution, x, weight, None, *geometry))
    assert agree(
        compiled.built(), partial(convolution_backward, grad, x, weight, [channels_out], *geometry, [True] * 3)
    )


def test_threads_of_threads_share_no_memory() -> None:
    """Where OMP_NESTED is set, a parallel region inside another one has threads of its own."""
    a, b = numbers(16, 200, 100), numbers(16, 100, 400, key=3)
    with KERNELS.using(None):
        expected = products.mm(a, b)
    path = compiled.library("grid", compiled.CONTRACTION["grid"])
    runtime, before = ctypes.CDLL(str(path)), torch.get_num_threads()
    nested = runtime.omp_get_nested()
    try:
        runtime.omp_set_nested(1)
        torch.set_num_threads(2)
        with KERNELS.using(compiled.built()):
            assert all(same(products.mm(a, b), expected) for _ in range(8))
    finally:
        runtime.omp_set_nested(nested)
        torch.set_num_threads(before)
