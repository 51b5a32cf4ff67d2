"""Batch, layer and group norms, softmax, and their gradients.

Statistics are exact sums over float32 numbers; everything else is element by element, one rounding of float32 an
operation, so that two devices cannot differ. The bounds below are for results of float32 that are normal numbers, of
groups of at most BLOCK elements; e is 2**-24, the largest relative error of one rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from pol.portable import fused_normalisation as fused
from pol.portable.elementwise import rounded, single
from pol.portable.functions import exp, log
from pol.portable.grid import total
from pol.portable.sums import quotient, variance

Three = tuple[Tensor | None, Tensor | None, Tensor | None]
P = ParamSpec("P")
R = TypeVar("R", bound=Tensor | tuple[Tensor | None, ...])


def lying_in_order(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` with contiguous results, as kernels leave them, whatever computed them.

    Strides are no bits of a result, but torch looks at them where it composes operators: inside
    ``multi_head_attention_forward`` it sums the gradient of a bias otherwise if the rows are not contiguous.
    """

    @wraps(function)
    def lying(*args: P.args, **kwargs: P.kwargs) -> R:
        result = function(*args, **kwargs)
        if isinstance(result, tuple):
            return tuple(None if part is None else part.contiguous() for part in result)  # type: ignore[return-value]
        return result.contiguous()  # type: ignore[return-value]

    return lying


@lying_in_order
def softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """exp(x - max) over its sum along ``dim``; NaN where all are -inf.

    Relative error: (|x - max| + log n + 5) e. The difference is off by |x - max| e, exp by 1.02 e, and so is the sum of
    n terms, of which the mean |x - max| is at most log n; the grid adds e/4 to it, its rounding e, and the quotient e.
    """
    values = single(x)
    found = fused.softmax(values, dim)
    if found is None:
        parts = exp(values - values.amax(dim, keepdim=True))
        found = parts / total(parts, [dim]).float()
    return rounded(found, torch.float32 if half_to_float else x.dtype)


def safe_softmax(x: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """:func:`softmax`, but 0 where all are -inf."""
    values = softmax(single(x), dim)
    masked = (x == -math.inf).all(dim, keepdim=True)
    return torch.where(masked, 0, values).to(dtype or x.dtype)


@lying_in_order
def softmax_backward(grad: Tensor, output: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """(grad - sum(grad * output)) * output.

    Error: (2 sum|grad * output| + |sum| + 2 |grad - sum|) |output| e: a rounding for each product, and e/4 of the
    largest on the grid; then one each for the sum, the difference and the product.
    """
    g, y = single(grad), single(output)
    found = fused.softmax_backward(g, y, dim)
    return rounded((g - total(g * y, [dim]).float()) * y if found is None else found, dtype)


@lying_in_order
def log_softmax(x: Tensor, dim: int, half_to_float: bool = False) -> Tensor:
    """x - max - log(sum(exp(x - max))) along ``dim``.

    Error: (2 |x - max| + 4 log n + 5) e. The sum of n terms is off as in :func:`softmax`; that is what its logarithm
    misses, which is at most log n, beside 1.02 e of itself; both differences are rounded.
    """
    values = single(x)
    result = fused.log_softmax(values, dim)
    if result is None:
        shifted = values - values.amax(dim, keepdim=True)
        result = shifted - log(total(exp(shifted), [dim]).float())
    return rounded(result, torch.float32 if half_to_float else x.dtype)


@lying_in_order
def log_softmax_backward(grad: Tensor, output: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    """grad - exp(output) * sum(grad).

    Error: (exp(output) (max|grad| / 4 + 4 |sum|) + |result|) e: the grid, and a rounding of each step.
    """
    g, y = single(grad), single(output)
    found = fused.log_softmax_backward(g, y, dim)
    return rounded(g - exp(y) * total(g, [dim]).float() if found is None else found, dtype)


@lying_in_order
def layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimensions; also mean and 1 / sqrt.

    Error of a result y before weight and bias, a rounding each: (|mean| / sqrt(variance + eps) + 6 |y| + 1) e. The mean
    is rounded once; differences, their squares (half of whose error is the root's) and the product make 5 |y| e.
    """
    values = single(x)
    found = fused.layer_norm(values, shape, _single(weight), _single(bias), eps)
    if found is not None:
        return rounded(found[0], x.dtype), found[1], found[2]
    mean, spread = variance(values, _last(x, shape))
    scale = _inverse_root(spread, eps)
    result = _affine((values - mean) * scale, weight, bias)
    return rounded(result, x.dtype), mean, scale


@lying_in_order
def layer_norm_backward(
    grad: Tensor, x: Tensor, shape: Sequence[int], mean: Tensor, scale: Tensor, weight: Tensor | None,
    bias: Tensor | None, wanted: Sequence[bool],
) -> Three:  # fmt: skip
    """The gradients of input, weight and bias, where ``wanted``.

    Errors, for the mean and scale that are given. Of the bias: (max|grad| / 4 + |sum|) e, the grid and one rounding.
    With y = (x - mean) * scale, which is off by 2 |y| e, of the weight: (3.25 sum|grad * y| + |sum|) e. Of the input,
    with g = grad * weight: (4 |g| + 6 mean|g| + 11 |y| mean|g * y|) scale e. For g is off by |g| e; mean(g) by
    1.25 mean|g| e and its rounding; mean(g * y) by 4.25 mean|g * y| e and its rounding, and its product with y by 3 of
    itself more; both differences and the product with the scale are rounded, and each is at most
    |g| + mean|g| + |y| mean|g * y| in size.
    """
    g, values = single(grad), single(x)
    found = fused.layer_norm_backward(g, values, shape, mean, scale, _single(weight))
    if found is not None:
        return _finished(found, x, weight, bias, shape, wanted)
    normal = (values - mean) * scale
    rows = list(range(x.dim() - len(shape)))
    scaled = g if weight is None else g * single(weight)
    to_x = rounded(_centred(scaled, normal, _last(x, shape)) * scale, x.dtype) if wanted[0] else None
    return to_x, *_affine_gradients(g, normal, rows, weight, bias, wanted, shape)


@lying_in_order
def batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_variance: Tensor | None,
    training: bool, momentum: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Normalised over all but dimension 1; while ``training``, the running statistics are updated in place.

    Error: as of :func:`layer_norm`, with another of its last terms for each BLOCK of a channel.
    Also the batch's mean and 1 / sqrt(variance + eps), which are empty out of training.
    """
    values, dims = single(x), [0, *range(2, x.dim())]
    if not training:
        assert running_mean is not None and running_variance is not None
        scale = _inverse_root(_column(running_variance, x).double(), eps)
        result = _affine((values - _column(running_mean, x)) * scale, _columns(weight, x), _columns(bias, x))
        return rounded(result, x.dtype), values.new_empty(0), values.new_empty(0)
    mean, spread = fused.channel_variance(values) or variance(values, dims)
    scale = _inverse_root(spread, eps)
    count = x.numel() // max(1, x.shape[1])
    if running_mean is not None:
        _move(running_mean, mean, momentum)
    if running_variance is not None:
        _move(running_variance, quotient(spread * count, max(1, count - 1)).float(), momentum)
    found = fused.channel_norm(values, mean, scale, _single(weight), _single(bias))
    if found is None:
        found = _affine((values - mean) * scale, _columns(weight, x), _columns(bias, x))
    return rounded(found, x.dtype), mean.reshape(-1), scale.reshape(-1)


@lying_in_order
def batch_norm_backward(
    grad: Tensor, x: Tensor, weight: Tensor | None, running_mean: Tensor | None, running_variance: Tensor | None,
    mean: Tensor | None, scale: Tensor | None, training: bool, eps: float, wanted: Sequence[bool],
) -> Three:  # fmt: skip
    """The gradients of input, weight and bias, where ``wanted``.

    Errors: as of :func:`layer_norm_backward`. Out of training, where the root is one more rounding: 3 e of the input's
    gradient, and sum|grad * y| e more of the weight's.
    """
    g, dims = single(grad), [0, *range(2, x.dim())]
    if training:
        assert mean is not None and scale is not None
        centre, root = _column(mean, x), _column(scale, x)
    else:
        assert running_mean is not None and running_variance is not None
        centre, root = _column(running_mean, x), _inverse_root(_column(running_variance, x).double(), eps)
    found = fused.channel_norm_backward(g, single(x), centre, root, _single(weight)) if training else None
    if found is not None:
        return _finished(found, x, weight, weight, [x.shape[1]], wanted)
    normal = (single(x) - centre) * root
    to_x = None
    if wanted[0]:
        scaled = g if weight is None else g * _column(single(weight), x)
        to_x = rounded((_centred(scaled, normal, dims) if training else scaled) * root, x.dtype)
    return to_x, *_affine_gradients(g, normal, dims, weight, weight, wanted, [x.shape[1]])


def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, channels: int, size: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised over each of ``groups`` groups of a sample's channels; also the means and 1 / sqrt, (n, groups).

    Error: as of :func:`layer_norm`.
    """
    values = single(x).reshape(n, groups, -1)
    mean, spread = variance(values, [2])
    scale = _inverse_root(spread, eps)
    normal = ((values - mean) * scale).reshape(x.shape)
    result = _affine(normal, _columns(weight, x), _columns(bias, x))
    return rounded(result, x.dtype), mean.squeeze(2), scale.squeeze(2)


def group_norm_backward(
    grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor | None, n: int, channels: int, size: int,
    groups: int, wanted: Sequence[bool],
) -> Three:  # fmt: skip
    """The gradients of input, weight and bias, where ``wanted``.

    Errors: as of :func:`layer_norm_backward`.
    """
    g, root = single(grad), scale.unsqueeze(2)
    normal = (single(x).reshape(n, groups, -1) - mean.unsqueeze(2)) * root
    to_x = None
    if wanted[0]:
        scaled = g if weight is None else g * _column(single(weight), x)
        to_x = rounded(_centred(scaled.reshape(n, groups, -1), normal, [2]) * root, x.dtype).reshape(x.shape)
    dims = [0, *range(2, x.dim())]
    return to_x, *_affine_gradients(g, normal.reshape(x.shape), dims, weight, weight, wanted, [channels])


def _last(x: Tensor, shape: Sequence[int]) -> list[int]:
    return list(range(x.dim() - len(shape), x.dim()))


def _inverse_root(spread: Tensor, eps: float) -> Tensor:
    """1 / sqrt(spread + eps) of float64, rounded to float32."""
    return (torch.ones((), dtype=torch.float64, device=spread.device) / (spread + eps).sqrt()).float()


def _affine(normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        normal = normal * single(weight)
    return normal if bias is None else normal + single(bias)


def _centred(g: Tensor, normal: Tensor, dims: Sequence[int]) -> Tensor:
    """g - mean(g) - normal * mean(g * normal): the gradient through a normalisation, less its scale."""
    count = math.prod(g.shape[dim] for dim in dims)
    level = quotient(total(g, dims), count).float()
    slope = quotient(total(g * normal, dims), count).float()
    return g - level - normal * slope


def _affine_gradients(
    g: Tensor, normal: Tensor, dims: Sequence[int], weight: Tensor | None, bias: Tensor | None, wanted: Sequence[bool],
    shape: Sequence[int],
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    to_weight = to_bias = None
    if wanted[1] and weight is not None:
        to_weight = rounded(total(g * normal, dims), weight.dtype).reshape(tuple(shape))
    if wanted[2]:
        to_bias = rounded(total(g, dims), g.dtype if bias is None else bias.dtype).reshape(tuple(shape))
    return to_weight, to_bias


def _finished(
    found: Three, x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int], wanted: Sequence[bool]
) -> Three:
    """Gradients from a kernel in the types of what they are gradients of, where ``wanted``."""
    to_x, to_weight, to_bias = (part if want else None for part, want in zip(found, wanted, strict=True))
    return (
        None if to_x is None else rounded(to_x, x.dtype),
        None if to_weight is None or weight is None else rounded(to_weight, weight.dtype).reshape(tuple(shape)),
        None if to_bias is None else rounded(to_bias, torch.float32 if bias is None else bias.dtype).reshape(*shape),
    )


def _move(running: Tensor, value: Tensor, momentum: float) -> None:
    running.copy_(single(running) * (1 - momentum) + value.reshape(-1) * momentum)


def _column(values: Tensor, x: Tensor) -> Tensor:
    """One value a channel, shaped to go with ``x`` (N, C, ...)."""
    return values.reshape(1, -1, *[1] * (x.dim() - 2))


def _single(values: Tensor | None) -> Tensor | None:
    return None if values is None else single(values)


def _columns(values: Tensor | None, x: Tensor) -> Tensor | None:
    return None if values is None else _column(values, x)
