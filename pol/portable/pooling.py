"""Pooling and enlarging of images: comparisons, exact sums over windows, and copies.

Error: that of :func:`pol.portable.grid.total`, and half a unit in the last place for a quotient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pol.errors import SpecError
from pol.portable.elementwise import rounded, single
from pol.portable.grid import total
from pol.portable.sums import quotient, scatter_add

Sizes = Sequence[int]


def max_pool2d(
    x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = (0,), dilation: Sizes = (1,), ceil_mode: bool = False
) -> tuple[Tensor, Tensor]:
    """The largest of each window, and the first place where it is: only compared, never computed."""
    found: tuple[Tensor, Tensor] = torch.ops.aten.max_pool2d_with_indices.default(
        x, kernel, stride, padding, dilation, ceil_mode
    )
    return found


def max_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel: Sizes,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
    index: Tensor,
) -> Tensor:
    """Each gradient added at the place its maximum came from: windows may overlap, and the sums are exact."""
    flat = x.new_zeros(x.shape).flatten(-2)
    return scatter_add(flat, -1, index.flatten(-2), grad.flatten(-2)).reshape(x.shape)


def avg_pool2d(
    x: Tensor, kernel: Sizes, stride: Sizes = (), padding: Sizes = (0,), ceil_mode: bool = False,
    count_include_pad: bool = True, divisor: int | None = None,
) -> Tensor:  # fmt: skip
    """The mean of each window."""
    size = _plain(kernel, stride, padding, ceil_mode)
    windows = single(x).unfold(-2, size[0], size[0]).unfold(-2, size[1], size[1])
    sums = total(windows, [-2, -1]).squeeze((-2, -1))
    return rounded(quotient(sums, divisor or math.prod(size)), x.dtype)


def avg_pool2d_backward(
    grad: Tensor, x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool, count_include_pad: bool,
    divisor: int | None,
) -> Tensor:  # fmt: skip
    """Each gradient's share, to every element of its window."""
    size = _plain(kernel, stride, padding, ceil_mode)
    share = quotient(single(grad), divisor or math.prod(size))
    spread = share.repeat_interleave(size[0], -2).repeat_interleave(size[1], -1)
    result = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    result[..., : spread.shape[-2], : spread.shape[-1]] = spread
    return rounded(result, x.dtype)


def adaptive_avg_pool2d(x: Tensor, size: Sizes) -> Tensor:
    """The mean of each of ``size`` windows that divide the image."""
    kernel = _windows(x.shape[-2:], size)
    return avg_pool2d(x, kernel, kernel)


def adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Each gradient's share, to every element of its window."""
    kernel = _windows(x.shape[-2:], grad.shape[-2:])
    return avg_pool2d_backward(grad, x, kernel, kernel, [0, 0], False, True, None)


def upsample_nearest2d(x: Tensor, size: Sizes, *scales: float | None) -> Tensor:
    """Every pixel repeated, a whole number of times each way."""
    factors = _windows(size, x.shape[-2:])
    return x.repeat_interleave(factors[0], -2).repeat_interleave(factors[1], -1)


def upsample_nearest2d_backward(grad: Tensor, size: Sizes, before: Sizes, *scales: float | None) -> Tensor:
    """The sum over each pixel's copies."""
    factors = _windows(size, before[-2:])
    windows = single(grad).unfold(-2, factors[0], factors[0]).unfold(-2, factors[1], factors[1])
    return rounded(total(windows, [-2, -1]).squeeze((-2, -1)), grad.dtype)


def _plain(kernel: Sizes, stride: Sizes, padding: Sizes, ceil_mode: bool) -> tuple[int, int]:
    """Height and width of windows that neither overlap nor leave the image."""
    height, width = kernel[0], kernel[-1]
    if ceil_mode or any(padding) or (stride and (stride[0], stride[-1]) != (height, width)):
        raise SpecError("average pooling is portable here only with windows side by side, without padding")
    return height, width


def _windows(size: Sizes, count: Sizes) -> list[int]:
    if any(n % c for n, c in zip(size, count, strict=True)):
        raise SpecError(f"sizes {tuple(size)} and {tuple(count)}: portable here only where one divides the other")
    return [n // c for n, c in zip(size, count, strict=True)]
