"""Softmax and norms by the kernels of :mod:`pol.portable.compiled`: one pass over a row where torch takes ten.

As in :mod:`pol.portable.fused`, None is returned where there is no kernel for these tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pol.portable.compiled import KERNELS
from pol.portable.dot import BLOCK, sum_bits
from pol.portable.fused import shift_factor
from pol.portable.grid import total

Pair = tuple[Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]


def softmax(x: Tensor, dim: int) -> Tensor | None:
    """Along the last dimension."""
    return _along_last("softmax", dim, x)


def softmax_backward(grad: Tensor, output: Tensor, dim: int) -> Tensor | None:
    """Along the last dimension."""
    return _along_last("softmax_backward", dim, grad, output)


def log_softmax(x: Tensor, dim: int) -> Tensor | None:
    """Along the last dimension."""
    return _along_last("log_softmax", dim, x)


def log_softmax_backward(grad: Tensor, output: Tensor, dim: int) -> Tensor | None:
    """Along the last dimension."""
    return _along_last("log_softmax_backward", dim, grad, output)


def _along_last(name: str, dim: int, *arguments: Tensor) -> Tensor | None:
    first = arguments[0]
    if not KERNELS.fit(*arguments) or first.dim() == 0 or dim % first.dim() != first.dim() - 1:
        return None
    size = first.shape[-1]
    if size > BLOCK:
        return None
    out = first.new_empty(first.shape)
    factor = shift_factor(sum_bits(size))
    KERNELS(name, out.numel() // size, size, *(x.contiguous() for x in arguments), factor, out)
    return out


def layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Three | None:
    """The result, the means and 1 / sqrt."""
    size = math.prod(shape)
    if not KERNELS.fit(x, weight, bias) or size > BLOCK:
        return None
    out, (mean, scale) = x.new_empty(x.shape), (x.new_empty(_kept(x, shape)) for _ in range(2))
    KERNELS(
        "layer_norm", x.numel() // size, size, x.contiguous(), _flat(weight), _flat(bias), eps,
        shift_factor(sum_bits(size)), out, mean, scale,
    )  # fmt: skip
    return out, mean, scale


def layer_norm_backward(
    grad: Tensor, x: Tensor, shape: Sequence[int], mean: Tensor, scale: Tensor, weight: Tensor | None
) -> Three | None:
    """The gradients of input, weight and bias; the last two in float64."""
    size, rows = math.prod(shape), x.numel() // max(1, math.prod(shape))
    if not KERNELS.fit(grad, x, mean, scale, weight) or max(size, rows) > BLOCK:
        return None
    out, to_weight, to_bias = x.new_empty(x.shape), _sums(x, shape), _sums(x, shape)
    g, values, centre, root = (part.contiguous() for part in (grad, x, mean, scale))
    KERNELS(
        "layer_norm_backward", rows, size, g, values, centre, root, _flat(weight), shift_factor(sum_bits(size)), out
    )
    factor = shift_factor(sum_bits(rows))
    KERNELS("column_totals", rows, size, g, values, centre, root, factor, to_weight)
    KERNELS("column_totals", rows, size, g, None, None, None, factor, to_bias)
    return out, to_weight, to_bias


def channel_variance(x: Tensor) -> Pair | None:
    """Mean (float32) and biased variance (float64) of each channel of ``x`` (N, C, ...), kept dimensions."""
    joined = _joined(x)
    if joined is None or not KERNELS.fit(x):
        return None
    sizes, image, factor = _sizes(x), x.contiguous(), _channel_factor(x, joined)
    kept = (1, x.shape[1], *[1] * (x.dim() - 2))
    sums = x.new_empty((1 if joined else len(x), *kept[1:]), dtype=torch.float64)
    KERNELS("channel_totals", *sizes, int(joined), image, factor, sums)
    count = x.numel() // x.shape[1]
    exact = _over_samples(sums, joined) / _number(count, sums)
    centre = exact.float()
    KERNELS("channel_spreads", *sizes, int(joined), image, centre, factor, sums)
    missed = exact - centre
    spread = _over_samples(sums, joined) / _number(count, sums) - missed * missed
    return centre, torch.where(spread < 0, 0, spread)


def channel_norm(x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """(x - mean) * scale * weight + bias, with one of each a channel."""
    if not KERNELS.fit(x, mean, scale, weight, bias):
        return None
    out = x.new_empty(x.shape)
    KERNELS("channel_norm", *_sizes(x), x.contiguous(), *map(_flat, (mean, scale, weight, bias)), out)
    return out


def channel_norm_backward(grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor | None) -> Three | None:
    """The gradients of input (while training), weight and bias; the last two in float64, one a channel."""
    joined = _joined(x)
    if joined is None or not KERNELS.fit(grad, x, mean, scale, weight):
        return None
    sizes, parts = _sizes(x), (grad.contiguous(), x.contiguous(), *map(_flat, (mean, scale, weight)))
    kept = (1, x.shape[1], *[1] * (x.dim() - 2))
    sums = x.new_empty((4, 1 if joined else len(x), *kept[1:]), dtype=torch.float64)
    KERNELS("channel_gradient_totals", *sizes, int(joined), *parts, _channel_factor(x, joined), sums)
    to_bias, to_weight, level, slope = (_over_samples(part, joined) for part in sums)
    count = _number(x.numel() // x.shape[1], sums)
    out = x.new_empty(x.shape)
    KERNELS("channel_norm_backward", *sizes, *parts, (level / count).float(), (slope / count).float(), out)
    return out, to_weight.reshape(-1), to_bias.reshape(-1)


def _joined(x: Tensor) -> bool | None:
    """Whether a channel of all samples is one block; None if that of a single sample is not one."""
    size = math.prod(x.shape[2:])
    return None if size > BLOCK or x.dim() < 3 else len(x) * size <= BLOCK


def _sizes(x: Tensor) -> tuple[int, int, int]:
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def _channel_factor(x: Tensor, joined: bool) -> float:
    return shift_factor(sum_bits(math.prod(x.shape[2:]) * (len(x) if joined else 1)))


def _over_samples(sums: Tensor, joined: bool) -> Tensor:
    return sums if joined else total(sums, [0])


def _number(value: float, like: Tensor) -> Tensor:
    return like.new_full((), value)


def _kept(x: Tensor, shape: Sequence[int]) -> list[int]:
    return [*x.shape[: x.dim() - len(shape)], *[1] * len(shape)]


def _sums(x: Tensor, shape: Sequence[int]) -> Tensor:
    return x.new_empty(tuple(shape), dtype=torch.float64)


def _flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()
