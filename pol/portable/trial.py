"""Compiled kernels are used in a process only if they give the bits of this package's own operators on hard inputs.

A compiler that contracts products and sums, reorders sums or takes a shortcut for a division or a root is noticed by
float64 results: the polynomials have hundreds of roundings on these inputs, and a fused multiply-add changes some. The
other cases cross every border of the kernels (tiles, blocks, groups of one element and of all, operands that lie
otherwise), with ties, denormals, numbers near overflow, infinities and NaN among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pol.portable import compiled, functions, grid, normalisation, products
from pol.portable.compiled import KERNELS, Functions
from pol.portable.convolution import convolution, convolution_backward

Case: TypeAlias = Callable[[], Any]
Sizes: TypeAlias = tuple[int, ...]

SPECIAL = (
    0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, 1 + 2.0**-23, 3.0, 1 / 3, 0.6875, 20.0, -22.5, 87.0, -104.0, 89.0, 3.0e38,
    2.0**-126, 2.0**-149, -3 * 2.0**-149, math.inf, -math.inf, math.nan,
)  # fmt: skip
# image, weights, stride, padding, dilation, groups
CONVOLUTIONS: tuple[tuple[Sizes, Sizes, Sizes, Sizes, Sizes, int], ...] = (
    ((3, 4, 9, 11), (6, 4, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 4, 10, 7), (6, 2, 3, 2), (2, 3), (1, 0), (2, 1), 2),
    ((2, 3, 31), (17, 3, 5), (2,), (2,), (1,), 1),
)
AROUND: dict[str, Callable[..., Tensor]] = {
    name: getattr(functions, name) for name in (*compiled.OF_ONE, *compiled.OF_TWO) if "gelu_tanh" not in name
}


@cache
def passed() -> Functions | None:
    """The kernels, if they can be had on this machine and gave the right bits; tried once a process."""
    built = compiled.built()
    return None if built is None or failed(built) else built


def failed(kernels: Functions) -> list[str]:
    """The cases in which ``kernels`` give other bits than torch's operators."""
    return [name for name, case in _cases() if not _agree(kernels, case)]


def _agree(kernels: Functions, case: Case) -> bool:
    with KERNELS.using(None):
        expected = case()
    with KERNELS.using(kernels):
        found = case()
    return all(same(a, b) for a, b in zip(_tensors(expected), _tensors(found), strict=True))


def same(a: Tensor, b: Tensor) -> bool:
    """Equal shape, dtype and bits; a NaN is as good as any other."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    equal = (a == b) & (a.signbit() == b.signbit())
    return bool((equal | (a.isnan() & b.isnan())).all())


def _tensors(result: Any) -> list[Tensor]:
    return [t for t in (result if isinstance(result, tuple) else (result,)) if t is not None]


def numbers(*shape: int, key: int = 1, special: bool = False) -> Tensor:
    """float32 numbers of 24 random bits, both signs and magnitudes from 2**-8 to 1; some SPECIAL ones first."""
    count = math.prod(shape)
    words = (torch.arange(1, count + 1, dtype=torch.int64, device="cpu") * (2654435761 + 2 * key)) % 2**32
    mantissa = ((words >> 4) % 2**24 - 2**23).to(torch.float64) * 2.0**-23
    values = (mantissa * 2.0 ** -(words % 8).to(torch.float64)).to(torch.float32)
    if special:
        values[: len(SPECIAL)] = torch.tensor(SPECIAL, dtype=torch.float32, device="cpu")[:count]
    return values.view(shape)


def _cases() -> Iterator[tuple[str, Case]]:
    yield from _functions()
    for special in (False, True):
        yield from _products(special)
        yield from _rows(special)
        yield from _channels(special)
        for sizes in CONVOLUTIONS:
            yield f"convolution {sizes}", _convolution(special, *sizes)


def _functions() -> Iterator[tuple[str, Case]]:
    x = torch.cat([numbers(700, special=True), numbers(700) * 4, numbers(300) * 100, numbers(300) * 2.0**-120])
    for values in (x, x.double(), torch.arange(-250, 251, device="cpu").double() * 0.016):
        grad = numbers(len(values), key=5).to(values.dtype)
        for name, function in AROUND.items():
            arguments = (grad, values) if name.endswith("backward") else (values,)
            yield f"{name}, {values.dtype}", partial(function, *arguments)
        yield "gelu, tanh", partial(functions.gelu, values, "tanh")
        yield "gelu_backward, tanh", partial(functions.gelu_backward, grad, values, "tanh")


def _products(special: bool) -> Iterator[tuple[str, Case]]:
    for a, b in (((5, 7), (7, 9)), ((2, 3, 70), (2, 70, 30)), ((130, 530), (530, 790)), ((3, 8200), (8200, 5))):
        left, right = numbers(*a, special=special), numbers(*b, key=3)
        yield f"product {a} {b}", partial(products.mm, left, right)
        turned = [x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in (left, right)]
        yield f"product {a} {b}, transposed", partial(products.mm, *turned)


def _rows(special: bool) -> Iterator[tuple[str, Case]]:
    for shape in ((6, 37), (3, 5, 200), (40, 1)):
        x, g = numbers(*shape, special=special), numbers(*shape, key=7)
        size, weight, bias = list(shape[-1:]), numbers(shape[-1], key=9), numbers(shape[-1], key=11)
        mean, scale = numbers(*shape[:-1], 1, key=13), numbers(*shape[:-1], 1, key=15)
        for dims in ([-1], [0], list(range(len(shape)))):
            yield f"sum of {shape} over {dims}", partial(grid.total, x, dims)
        for name in ("softmax", "log_softmax"):
            yield f"{name} {shape}", partial(getattr(normalisation, name), x, -1)
            back = getattr(normalisation, f"{name}_backward")
            yield f"{name}_backward {shape}", partial(back, g, x, -1, torch.float32)
        yield f"layer_norm {shape}", partial(normalisation.layer_norm, x, size, weight, bias, 1e-5)
        parts: tuple[Any, ...] = (g, x, size, mean, scale, weight, bias, [True] * 3)
        yield f"layer_norm_backward {shape}", partial(normalisation.layer_norm_backward, *parts)


def _channels(special: bool) -> Iterator[tuple[str, Case]]:
    for shape in ((3, 4, 5, 5), (11, 2, 30, 31)):  # a channel is one block, or a block for each sample
        x, g = numbers(*shape, special=special), numbers(*shape, key=7)
        weight, bias, mean, scale = (numbers(shape[1], key=key) for key in (9, 11, 13, 15))
        forward: tuple[Any, ...] = (x, weight, bias, None, None, True, 0.1, 1e-5)
        yield f"batch_norm {shape}", partial(normalisation.batch_norm, *forward)
        backward: tuple[Any, ...] = (g, x, weight, None, None, mean, scale, True, 1e-5, [True] * 3)
        yield f"batch_norm_backward {shape}", partial(normalisation.batch_norm_backward, *backward)


def _convolution(
    special: bool, image: Sizes, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Case:
    x, weight = numbers(*image, special=special), numbers(*kernel, key=3)
    geometry = (stride, padding, dilation, False, (0,) * len(stride), groups)

    def both() -> tuple[Tensor | None, ...]:
        forward = convolution(x, weight, None, *geometry)
        grad = numbers(*forward.shape, key=5)
        return forward, *convolution_backward(grad, x, weight, None, *geometry, [True, True, False])

    return both
