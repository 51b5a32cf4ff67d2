"""Reductions and scatter-adds: exact sums of :mod:`pol.portable.grid`, rounded to the result's type once.

A NaN or infinity makes NaN of the sums it is in. The error of a sum is that of :func:`pol.portable.grid.total`, below
2**-25 of the largest term, and half a unit in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pol.errors import SpecError
from pol.portable.dot import sum_bits
from pol.portable.elementwise import Number, rounded, single, sqrt, unsigned_zero
from pol.portable.grid import quantised, total


def dims_of(x: Tensor, dim: int | Sequence[int] | None) -> list[int]:
    """``dim`` as torch's reductions take it (None and [] are all), as a list."""
    if isinstance(dim, int):
        return [dim]
    return list(dim) if dim else list(range(x.dim()))


def reduced(x: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
    """``x``, whose ``dims`` have size 1, with or without them."""
    return x if keepdim or x.dim() == 0 else x.squeeze(tuple(dims))


def quotient(x: Tensor, divisor: float) -> Tensor:
    """x / divisor, correctly rounded on every device: the divisor is a tensor."""
    return x / torch.full((), divisor, dtype=x.dtype, device=x.device)


def sum(  # noqa: A001 - the operator's name
    x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """The sum over ``dim``; of integers natively, which is exact modulo 2**64."""
    dims = dims_of(x, dim)
    if not x.is_floating_point():
        whole = torch.sum(x, dims, keepdim)
        return whole if dtype is None else whole.to(dtype)
    return rounded(reduced(total(single(x), dims), dims, keepdim), dtype or x.dtype)


def mean(
    x: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """The sum over ``dim``, divided in float64 by the number of terms."""
    dims = dims_of(x, dim)
    count = math.prod(x.shape[d] for d in dims)
    return rounded(reduced(quotient(total(single(x), dims), count), dims, keepdim), dtype or x.dtype)


def variance(x: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean (float32) and biased variance (float64) of float32 ``x`` over ``dims``, which are kept.

    The squares are of differences from the rounded mean, and the variance is corrected for that rounding.
    """
    count = math.prod(x.shape[d] for d in dims)
    exact = quotient(total(x, dims), count)
    centre = exact.float()
    difference = x - centre
    missed = exact - centre
    spread = quotient(total(difference * difference, dims), count) - missed * missed
    return centre, torch.where(spread < 0, 0, spread)


def var_mean(
    x: Tensor, dim: int | Sequence[int] | None = None, *, correction: Number | None = 1, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """Variance with Bessel's ``correction``, and mean."""
    dims = dims_of(x, dim)
    count = math.prod(x.shape[d] for d in dims)
    centre, spread = variance(single(x), dims)
    spread = quotient(spread * count, count - (1 if correction is None else correction))
    return rounded(reduced(spread, dims, keepdim), x.dtype), rounded(reduced(centre, dims, keepdim), x.dtype)


def var(
    x: Tensor, dim: int | Sequence[int] | None = None, *, correction: Number | None = 1, keepdim: bool = False
) -> Tensor:
    """Variance with Bessel's ``correction``."""
    return var_mean(x, dim, correction=correction, keepdim=keepdim)[0]


def std(
    x: Tensor, dim: int | Sequence[int] | None = None, *, correction: Number | None = 1, keepdim: bool = False
) -> Tensor:
    """The correctly rounded root of :func:`var`."""
    return sqrt(var(x, dim, correction=correction, keepdim=keepdim))


def linalg_vector_norm(
    x: Tensor,
    order: Number = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The 1-, 2- or infinity-norm. Squares of float32 are exact in float64, and the root is correctly rounded."""
    dims, values = dims_of(x, dim), single(x)
    if order == 2:
        wide = values.double()
        norm = total(wide * wide, dims).sqrt()
    elif order == 1:
        norm = total(values.abs(), dims)
    elif order == math.inf:
        norm = values.abs().amax(dims, keepdim=True)
    else:
        raise SpecError(f"a norm of order {order} has no portable form here: use 1, 2 or infinity")
    return rounded(reduced(norm, dims, keepdim), dtype or x.dtype)


def amax(x: Tensor, dim: int | Sequence[int] = (), keepdim: bool = False) -> Tensor:
    """The largest; a zero is +0."""
    return unsigned_zero(torch.amax(x, dims_of(x, dim), keepdim))


def amin(x: Tensor, dim: int | Sequence[int] = (), keepdim: bool = False) -> Tensor:
    """The smallest; a zero is +0."""
    return unsigned_zero(torch.amin(x, dims_of(x, dim), keepdim))


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The lowest index of the largest, or of a NaN: of equal ones torch promises none."""
    values = x.flatten() if dim is None else x
    along = 0 if dim is None else dim
    length = values.shape[along]
    shape = [-1 if d == along % max(values.dim(), 1) else 1 for d in range(values.dim())]
    places = torch.arange(length, device=x.device).reshape(shape)
    top = (values == values.amax(along, keepdim=True)) | values.isnan()
    found = torch.where(top, places, length).amin(along, keepdim=keepdim and dim is not None)
    return found.reshape([1] * x.dim()) if keepdim and dim is None else found


def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The lowest index of the smallest."""
    return argmax(-x, dim, keepdim)


def max_along(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """:func:`amax` and :func:`argmax` along ``dim``."""
    return amax(x, dim, keepdim), argmax(x, dim, keepdim)


def min_along(x: Tensor, dim: int, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """:func:`amin` and :func:`argmin` along ``dim``."""
    return amin(x, dim, keepdim), argmin(x, dim, keepdim)


def scattered(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Rows of ``values`` (N, ...) summed in float64 into row ``index`` (N) of ``size``; exact in any order.

    Every column has a unit of its own, fit for a sum of all N rows. Error of an element: N**2 * 2**-53 of the largest.
    """
    places = torch.zeros((size, *values.shape[1:]), dtype=torch.float64, device=values.device)
    if values.numel() == 0:
        return places
    return places.index_add_(0, index, quantised(values, [0], sum_bits(len(values))))


def embedding_dense_backward(
    grad: Tensor, indices: Tensor, rows: int, padding: int, scale_grad_by_freq: bool
) -> Tensor:
    """The gradient of an embedding's table: rows of ``grad`` summed by index, but for ``padding``."""
    if scale_grad_by_freq:
        raise SpecError("scale_grad_by_freq has no portable form here: leave it off")
    index = indices.reshape(-1)
    values = single(grad).reshape(len(index), -1)
    if padding >= 0:
        values = torch.where((index == padding).unsqueeze(1), 0, values)
    return rounded(scattered(values, index, rows), grad.dtype)


def index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Number = 1) -> Tensor:
    """``x`` with slices of ``source`` * alpha added at ``index`` along ``dim``: summed first, then added."""
    if not x.is_floating_point():
        return torch.index_add(x, dim, index, source, alpha=alpha)
    values = single(source) if alpha == 1 else single(source) * alpha
    added = scattered(values.movedim(dim, 0), index, x.shape[dim]).movedim(0, dim)
    return rounded(single(x) + added.float(), x.dtype)


def scatter_add(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``x`` with elements of ``source`` added where ``index`` says along ``dim``: summed first, then added."""
    if not x.is_floating_point():
        return torch.scatter_add(x, dim, index, source)
    values = single(source)[tuple(slice(length) for length in index.shape)]
    sums = torch.zeros(x.numel(), dtype=torch.float64, device=x.device)
    if values.numel():
        terms = quantised(values, [dim], sum_bits(index.shape[dim]))
        sums.index_add_(0, _places(x).gather(dim, index).flatten(), terms.flatten())
    return rounded(single(x) + sums.float().reshape(x.shape), x.dtype)


def scatter(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``x`` with elements of ``source`` put where ``index`` says along ``dim``; none may be written twice."""
    _refuse_repeats(_places(x).gather(dim, index))
    return torch.scatter(x, dim, index, source)


def index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False, _: bool = True
) -> Tensor:
    """``x`` with ``values`` put or, with ``accumulate``, summed and added at ``indices``.

    Without ``accumulate``, an element that is written twice has no defined value: it is refused.
    """
    places = _places(x)[tuple(slice(None) if place is None else place for place in indices)]
    if not accumulate:
        _refuse_repeats(places)
    if not (accumulate and x.is_floating_point()):
        put: Tensor = torch.ops.aten.index_put.default(x, indices, values, accumulate)
        return put
    terms = single(values).expand(places.shape).reshape(-1)
    added = scattered(terms, places.reshape(-1), x.numel()).reshape(x.shape)
    return rounded(single(x) + added.float(), x.dtype)


def _places(x: Tensor) -> Tensor:
    """The place of every element of ``x`` in its flattened form."""
    return torch.arange(x.numel(), device=x.device).reshape(x.shape)


def _refuse_repeats(places: Tensor) -> None:
    ordered = places.flatten().sort().values
    if bool((ordered[1:] == ordered[:-1]).any()):
        raise SpecError("an element is written twice, in no defined order: add them up, or use distinct indices")
