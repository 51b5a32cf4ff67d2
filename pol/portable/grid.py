"""Sums and products that are exact, so that neither order, threads, FMA nor a library can change a bit of them.

A group of numbers that is summed, or contracted with another group, is first rounded to a *grid*: integers of at most
``2**beta`` times one power of two, the group's *unit*. If ``beta`` is small enough for the group's length, then every
partial sum, in whatever order and with or without FMA, is an integer below ``2**53`` times a unit: float64 holds it
exactly, and all orders give the same sum. What is lost is lost in the rounding to the grid, element by element.

The rounding is one addition and one subtraction. Let P be the power of two with P <= max|x| < 2P, and unit =
2P * 2**-beta. With M = 1.5 * 2**52 * unit and beta <= 51, x + M lies in [2**52, 2**53] units, where float64 has a
spacing of exactly one unit: IEEE 754 rounds x + M to a multiple of the unit (ties to even), and subtracting M is exact.
The result is at most 2P = 2**beta units. P comes from the exponent bits of the maximum, and M is never subnormal nor
infinite for values between 2**-600 and 2**900, which holds for float32, its products and the sums of these.

Longer groups than :data:`BLOCK` are cut into blocks. The blocks of a product are added in order, one IEEE addition
each; those of a sum are summed like any other numbers, on a grid of their own.

A group in which there is an infinity or a NaN comes out as NaN, all of it: its M is infinite or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from pol.portable import fused, slices
from pol.portable.dot import BLOCK, product_bits, sum_bits
from pol.portable.fused import shift_factor

EXPONENT_BITS = 0x7FF0000000000000


def magnitude(x: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    """The power of two P with P <= max|x| < 2P over ``dims`` (kept, of size 1), in float64; 0 if all are zero.

    Infinity where there is one, or a NaN.
    """
    top = x.abs().amax(tuple(dims), keepdim=True).double()
    return (top.view(torch.int64) & EXPONENT_BITS).view(torch.float64)


def unit(x: torch.Tensor, dims: Sequence[int], beta: int) -> torch.Tensor:
    """The unit of the grid to which :func:`quantised` rounds ``x``; 0 for a group of zeros."""
    return magnitude(x, dims) * 2.0 ** (1 - beta)


def quantised(x: torch.Tensor, dims: Sequence[int], beta: int) -> torch.Tensor:
    """``x`` in float64, rounded to integers of at most 2**beta times a unit that is constant along ``dims``.

    ``dims`` must contain every dimension that is summed or contracted. Error: half a unit, 2**-beta * max|x|, an
    element. The integers themselves are ``quantised(x, dims, beta) / unit(x, dims, beta)``, exactly.
    """
    return x.double() if x.numel() == 0 else on_grid(x, magnitude(x, dims), beta)


def on_grid(x: torch.Tensor, power: torch.Tensor, beta: int) -> torch.Tensor:
    """:func:`quantised` where ``power`` is known: every |x| < 2 * power, the same for a whole group."""
    shift = power * shift_factor(beta)
    return x.to(torch.float64, copy=True).add_(shift).sub_(shift)


def total(x: torch.Tensor, dims: Sequence[int]) -> torch.Tensor:
    """The sum over ``dims`` (kept, of size 1) in float64: of at most BLOCK terms, then of those sums, and so on.

    Blocks are cut along the dimensions in their logical order, the last first, whatever the order in memory. Error: at
    each of these levels at most 2**-26 of the largest term in the block, since BLOCK * unit / 2 = 2**-26 * P.
    """
    if x.numel() == 0:
        return x.double().sum(list(dims), keepdim=True)
    rest = sorted(dim % max(x.dim(), 1) for dim in dims)
    while rest:
        if x.shape[rest[-1]] > BLOCK:
            x = _totals_of_blocks(x, rest[-1])
        else:
            x = _block_total(x, [rest.pop() for _ in range(_fitting(x, rest))])
    return x.double() + 0.0  # one sign of zero: a sum of nothing but -0 is -0 or +0, as a library begins it


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The matrix product of ``a`` (..., M, K) and ``b`` (..., K, N), of equal batch dimensions, in float64.

    Every row of ``a`` and every column of ``b`` has a unit of its own, in each block of BLOCK along K. Error of an
    element: at most K * 2**(2 - beta) of the product of the row's and the column's largest magnitudes; typically
    2**-beta of the product of their norms. With beta = :func:`product_bits` of the block: 20 for a whole one.
    """
    result = _block_product(a[..., :BLOCK], b[..., :BLOCK, :])
    for start in range(BLOCK, a.shape[-1], BLOCK):
        result += _block_product(a[..., start : start + BLOCK], b[..., start : start + BLOCK, :])
    return result


def _block_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    beta = product_bits(max(a.shape[-1], 1))
    if slices.worth(a, b):
        left, right = magnitude(a, [-1]), magnitude(b, [-2])
        factor = 2.0 ** (1 - beta)
        found = slices.product(on_grid(a, left, beta), left * factor, on_grid(b, right, beta), right * factor)
        if found is not None:
            return found
    # A sum whose terms are all -0 is -0 or +0, by where a library begins: adding +0 makes it +0
    return (quantised(a, [-1], beta) @ quantised(b, [-2], beta)).add_(0.0)


def _block_total(x: torch.Tensor, dims: list[int]) -> torch.Tensor:
    found = fused.block_total(x, dims)
    if found is not None:
        return found
    beta = sum_bits(math.prod(x.shape[dim] for dim in dims))
    return quantised(x, dims, beta).sum(dims, keepdim=True)


def _totals_of_blocks(x: torch.Tensor, dim: int) -> torch.Tensor:
    """``x`` with every BLOCK elements along ``dim``, and the rest of fewer, replaced by their sum."""
    whole, left = divmod(x.shape[dim], BLOCK)
    blocks = torch.unflatten(x.narrow(dim, 0, whole * BLOCK), dim, (whole, BLOCK))
    totals = _block_total(blocks, [dim + 1]).squeeze(dim + 1)
    if not left:
        return totals
    return torch.cat([totals, _block_total(x.narrow(dim, whole * BLOCK, left), [dim])], dim)


def _fitting(x: torch.Tensor, dims: list[int]) -> int:
    """How many of ``dims``, the last first, have at most BLOCK elements together; the last of them has."""
    length = 1
    for count, dim in enumerate(reversed(dims)):
        length *= x.shape[dim]
        if length > BLOCK:
            return count
    return len(dims)
