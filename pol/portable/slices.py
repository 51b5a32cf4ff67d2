"""Exact products on GPUs by int8 tensor cores, where float64 is slow: integers cut into slices of eight bits.

Operands on a grid (:mod:`pol.portable.grid`) are integers of at most 2**beta, times a unit a row or column. With a
beta of 22 or less each is d0 + 2**8 * d1 + 2**16 * d2, its digits signed bytes. The products of digits i and j are
added up in int32, in one integer product for all pairs of the same i + j, and these five sums in float64, from the
largest power down, none of which is rounded (:func:`product`). The result is the integer that a float64 product gives,
so which of the two was taken changes no bit. (The Ozaki scheme on integers; here the slices are the whole operand.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from pol.portable.dot import product_bits

BITS, SLICES = 8, 3
LEAST = 512  # terms of a contraction: from here on beta is 22 or less
_ROWS, _MULTIPLE = 32, 8  # what torch._int_mm wants of CUDA: more than 16 rows, and lengths in eights
_TRIAL, _ROUNDS = 2048, 3


def worth(a: Tensor, b: Tensor) -> bool:
    """Whether the product of two float32 operands is to be taken by slices: matrices on a GPU where that is faster."""
    return (
        a.is_cuda
        and a.dim() == b.dim() == 2
        and a.dtype == b.dtype == torch.float32
        and a.shape[1] >= LEAST
        and min(a.shape[0], b.shape[1]) >= _ROWS
        and faster(a.device)
    )


def product(a: Tensor, left: Tensor, b: Tensor, right: Tensor) -> Tensor:
    """The product of ``a`` (M, K) and ``b`` (K, N), float64 on grids of units ``left`` (M, 1) and ``right`` (1, N).

    Exact for K from LEAST to BLOCK, as ``a @ b`` is. Rows and columns with an infinity or a NaN come out as NaN.

    int32 holds at most SLICES * K * 2**14 < 2**29. With the sum of power s in place, what is there differs from the
    result, of at most K * 2**(2 * beta) <= 2**53 units, by the sums to come, of less than 2**(8 * s + 21): a multiple
    of 2**(8 * s) of at most 2**54 for s = 4, and of at most 53 bits for each s.
    """
    lefts, rights = torch.cat(_digits(a / left), 1), torch.cat(_digits(b / right)[::-1], 0)
    length, result = rights.shape[0] // SLICES, a.new_zeros(a.shape[0], b.shape[1])
    for power in reversed(range(2 * SLICES - 1)):
        # The digits 0, 1, 2 of one meet 2, 1, 0 of the other: pairs that add up to `power` lie side by side in both
        first, last = max(0, power + 1 - SLICES), min(SLICES, power + 1)
        found = torch._int_mm(
            lefts[:, first * length : last * length].contiguous(),
            rights[(first + SLICES - 1 - power) * length : (last + SLICES - 1 - power) * length],
        )
        result += found[: a.shape[0], : b.shape[1]].double() * 2.0 ** (BITS * power)
    return result.mul_(left).mul_(right)


@cache
def faster(device: torch.device) -> bool:
    """Whether slices are right on this device, and faster than float64: tried once on a product of 2048 x 2048 x 2048.

    What it answers changes no bit, only the time.
    """
    numbers = torch.arange(_TRIAL * _TRIAL, dtype=torch.float64, device=device).reshape(_TRIAL, _TRIAL)
    most = 2.0 ** product_bits(_TRIAL)
    a, b = (numbers * factor % (2 * most + 1) - most for factor in (40503, 30011))
    ones = a.new_ones(_TRIAL, 1)
    ways: tuple[Callable[[], Tensor], ...] = (lambda: product(a, ones, b, ones.t()), lambda: a @ b)
    try:
        if not torch.equal(ways[0](), ways[1]()):
            return False
    except RuntimeError:  # a GPU, or a library, without int8 products
        return False
    by_slices, by_float64 = (min(_seconds(way, device) for _ in range(_ROUNDS)) for way in ways)
    return by_slices < by_float64


def _seconds(way: Callable[[], Tensor], device: torch.device) -> float:
    torch.cuda.synchronize(device)
    began = time.perf_counter()
    way()
    torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _digits(numbers: Tensor) -> list[Tensor]:
    """Three int8 matrices, the lowest digits first, padded with zeros. NaN counts as zero: its unit makes it NaN again,
    or is that of a row of zeros."""
    rest = torch.nan_to_num(numbers, nan=0.0).to(torch.int32)
    rows, columns = (-size % _MULTIPLE for size in rest.shape)
    rest = pad(rest, (0, columns, 0, rows))
    found = []
    for _ in range(SLICES):
        low = (rest + 128) % 256 - 128
        found.append(low.to(torch.int8))
        rest = (rest - low) >> BITS
    return found
