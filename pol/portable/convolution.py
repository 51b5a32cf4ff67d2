"""Convolutions of any number of dimensions, as products of windows and weights on a grid.

The contraction runs over a window's channels and offsets; so a sample has one unit, and an output channel's weights
have one (a unit for each pixel would vary along the contraction). Backward the roles change with what is summed over:
offsets and output channels for the input's gradient, samples and positions for the weight's.

Everything is one operation, the correlation of padded images with weights. The windows are copied for a few samples at
a time, which is where the memory goes: at most :data:`WINDOWS` numbers on a CPU. No library's convolution is called, so
none can choose an algorithm (Winograd, Fourier) whose intermediate sums are not sums of products.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pol.errors import SpecError
from pol.portable.dot import BLOCK, LONGEST, product_bits
from pol.portable.elementwise import rounded, single
from pol.portable.fused_convolution import Canvas, correlated, weight_gradient
from pol.portable.grid import quantised
from pol.portable.sums import sum as total_over

Sizes = Sequence[int]
WINDOWS = {"cpu": 2**17}
WINDOWS_ELSEWHERE = 2**26


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes, dilation: Sizes,
    transposed: bool, output_padding: Sizes, groups: int,
) -> Tensor:  # fmt: skip
    """The convolution of ``x`` (N, C, ...) and ``weight``, or the transposed one.

    Error: as that of :func:`pol.portable.grid.product`, with the sample's and the output channel's largest magnitudes.
    """
    if transposed:
        kernel = weight.shape[2:]
        size = [
            (n - 1) * s - 2 * p + d * (k - 1) + o + 1
            for n, s, p, d, k, o in zip(x.shape[2:], stride, padding, dilation, kernel, output_padding, strict=True)
        ]
        result = _spread(single(x), single(weight), size, stride, padding, dilation, groups)
    else:
        result = _gathered(single(x), single(weight), stride, padding, dilation, groups)
    result = result.float()
    if bias is not None:
        result += single(bias).reshape(-1, *[1] * (x.dim() - 2))
    return rounded(result, x.dtype)


def convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias_sizes: Sizes | None, stride: Sizes, padding: Sizes, dilation: Sizes,
    transposed: bool, output_padding: Sizes, groups: int, wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients of input, weight and bias, where ``wanted``."""
    g, inputs, weights = single(grad), single(x), single(weight)
    geometry = (stride, padding, dilation)
    to_input = to_weight = to_bias = None
    if wanted[0] and transposed:
        to_input = rounded(_gathered(g, weights, *geometry, groups, x.shape[2:]), x.dtype)
    elif wanted[0]:
        to_input = rounded(_spread(g, weights, x.shape[2:], *geometry, groups), x.dtype)
    if wanted[1]:
        large, small = (g, inputs) if transposed else (inputs, g)
        to_weight = rounded(_weight_gradient(large, small, weight.shape, *geometry, groups), weight.dtype)
    if wanted[2]:
        to_bias = total_over(grad, [0, *range(2, grad.dim())])
    return to_input, to_weight, to_bias


def _gathered(
    x: Tensor, weight: Tensor, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int, size: Sizes | None = None
) -> Tensor:
    """The ordinary convolution: contracted over channels (of a group) and offsets.

    ``size`` is that of the result where it is less than what fits: padding of a transposed convolution's output that is
    worth a step was reached by no input.
    """
    length = weight[0].numel()
    beta = product_bits(_contracted(length))
    canvas = _canvas(x, weight.shape[2:], stride, padding, dilation, size)
    found = correlated(x, canvas, weight, groups, beta)
    if found is not None:
        return found
    images = quantised(_padded(x, padding), list(range(1, x.dim())), beta)
    kernels = quantised(weight, list(range(1, weight.dim())), beta)
    return _correlated(images, kernels, canvas.out, stride, dilation, groups)


def _spread(
    x: Tensor, weight: Tensor, size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Tensor:
    """The transposed convolution onto images of ``size``: a correlation of ``x``, spread out by the stride, with the
    mirrored weights; contracted over ``weight``'s first channels (of a group) and offsets."""
    kernel, space = weight.shape[2:], range(2, x.dim())
    flipped = torch.unflatten(weight, 0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(list(space))
    beta = product_bits(_contracted(flipped[0].numel()))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    first = [r - p for r, p in zip(reach, padding, strict=True)]
    length = [n + r for n, r in zip(size, reach, strict=True)]
    whole = Canvas(
        tuple(x.shape[2:]), tuple(first), tuple(stride), tuple(length), tuple(kernel), tuple(dilation),
        (1,) * len(kernel), tuple(size),
    )  # fmt: skip
    found = correlated(x, whole, flipped, groups, beta)
    if found is not None:
        return found
    values = quantised(x, list(range(1, x.dim())), beta)
    canvas = values.new_zeros(*x.shape[:2], *length)
    # x[i] belongs at i * stride + reach - padding; what falls off the canvas meets no window
    places, taken = [], []
    for n, s, f, most in zip(x.shape[2:], stride, first, length, strict=True):
        begin, end = max(0, -(f // s)), min(n, (most - 1 - f) // s + 1)
        places.append(slice(begin * s + f, (end - 1) * s + f + 1, s))
        taken.append(slice(begin, end))
    canvas[(slice(None), slice(None), *places)] = values[(slice(None), slice(None), *taken)]
    kernels = quantised(flipped, list(range(1, x.dim())), beta)
    return _correlated(canvas, kernels, size, [1] * len(kernel), dilation, groups)


def _weight_gradient(
    large: Tensor, small: Tensor, shape: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Tensor:
    """Contracted over samples and positions, in blocks of whole samples: ``small`` (N, C', positions) with the windows
    of ``large`` (N, C, ...)."""
    positions = math.prod(small.shape[2:])
    block = max(1, BLOCK // max(1, positions))
    result = torch.zeros((groups, shape[0] // groups, math.prod(shape[1:])), dtype=torch.float64, device=large.device)
    dims = [0, *range(2, large.dim())]
    canvas = _canvas(large, shape[2:], stride, padding, dilation, small.shape[2:])
    for start in range(0, len(small), block):
        part, images = small[start : start + block], large[start : start + block]
        beta = product_bits(_contracted(len(part) * positions))
        found = weight_gradient(images, canvas, part, groups, beta)
        if found is not None:
            result += found
            continue
        heights, images = quantised(part, dims, beta), quantised(_padded(images, padding), dims, beta)
        sums = torch.zeros_like(result)
        for which, windows in _windows(images, shape[2:], small.shape[2:], stride, dilation, groups):
            rows = heights[which].reshape(-1, groups, shape[0] // groups, positions).permute(1, 2, 0, 3)
            sums += rows.reshape(groups, shape[0] // groups, -1) @ windows.transpose(1, 2)
        result += sums
    return result.reshape(tuple(shape))


def _correlated(images: Tensor, kernels: Tensor, size: Sizes, stride: Sizes, dilation: Sizes, groups: int) -> Tensor:
    """Integers times units in, the same out: (N, C', *size) of padded ``images`` and ``kernels`` (C', C, ...)."""
    kernel = kernels.shape[2:]
    rows = kernels.reshape(groups, len(kernels) // groups, -1)
    result = images.new_empty(len(images), len(kernels), *size)
    for which, windows in _windows(images, kernel, size, stride, dilation, groups):
        result[which] = (rows @ windows).reshape(len(kernels), -1, *size).transpose(0, 1)
    return result.add_(0.0)  # one sign for zeros, as in a product


def _windows(
    images: Tensor, kernel: Sizes, size: Sizes, stride: Sizes, dilation: Sizes, groups: int
) -> Iterator[tuple[slice, Tensor]]:
    """A few samples at a time: which, and their windows (groups, channels * offsets, samples * positions)."""
    images = images.contiguous()
    n, channels = images.shape[:2]
    sample, channel, *over = images.stride()
    between = [step * d for step, d in zip(over, dilation, strict=True)]
    moved = [step * s for step, s in zip(over, stride, strict=True)]
    view = images.as_strided((channels, *kernel, n, *size), (channel, *between, sample, *moved))
    each = max(1, channels * math.prod(kernel) * math.prod(size))
    count = max(1, WINDOWS.get(images.device.type, WINDOWS_ELSEWHERE) // each)
    for start in range(0, n, count):
        which = slice(start, min(start + count, n))
        part = view.narrow(1 + len(kernel), start, which.stop - start)
        yield which, part.reshape(groups, channels // groups * math.prod(kernel), -1)


def _canvas(
    x: Tensor, kernel: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, out: Sizes | None = None
) -> Canvas:
    """How the images of an ordinary convolution lie, for the kernels."""
    size = [n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True)]
    given = out or [(n - d * (k - 1) - 1) // s + 1 for n, s, d, k in zip(size, stride, dilation, kernel, strict=True)]
    return Canvas(
        tuple(x.shape[2:]), tuple(padding), (1,) * len(size), tuple(size), tuple(kernel), tuple(dilation),
        tuple(stride), tuple(given),
    )  # fmt: skip


def _padded(x: Tensor, padding: Sizes) -> Tensor:
    return functional.pad(x, [side for amount in reversed(padding) for side in (amount, amount)]) if any(padding) else x


def _contracted(length: int) -> int:
    if length > LONGEST:
        raise SpecError(f"a convolution that sums {length} products has no exact form here: use at most {LONGEST}")
    return max(1, length)
