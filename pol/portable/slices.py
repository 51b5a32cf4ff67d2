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

from pol.portable.dot import BLOCK, product_bits
from pol.portable.selftest import integers, is_product

BITS, SLICES = 8, 3
LEAST = 512  # terms of a contraction: from here on beta is 22 or less
_ROWS, _MULTIPLE = 32, 8  # what torch._int_mm wants of CUDA: more than 16 rows, and lengths in eights
_LARGE = (2048, 2048, 2048)
_TRIALS = ((32, LEAST, 32), (33, LEAST + 1, 41), (40, BLOCK, 56), (1000, 1000, 1000), _LARGE)
_ROUNDS = 3
_REFUSED: set[torch.device] = set()


def worth(a: Tensor, b: Tensor) -> bool:
    """Whether the product of two float32 operands is to be taken by slices: matrices on a GPU where that is faster."""
    return (
        a.is_cuda
        and a.dim() == b.dim() == 2
        and a.dtype == b.dtype == torch.float32
        and a.shape[1] >= LEAST
        and min(a.shape[0], b.shape[1]) >= _ROWS
        and a.device not in _REFUSED
        and faster(a.device)
    )


def product(a: Tensor, left: Tensor, b: Tensor, right: Tensor) -> Tensor | None:
    """The product of ``a`` (M, K) and ``b`` (K, N), float64 on grids of units ``left`` (M, 1) and ``right`` (1, N).

    Exact for K from LEAST to BLOCK, as ``a @ b`` is. Rows and columns with an infinity or a NaN come out as NaN. None
    where the device's library has no int8 product of these shapes; it is not asked again.

    int32 holds at most SLICES * K * 2**14 < 2**29. With the sum of power s in place, what is there differs from the
    result, of at most K * 2**(2 * beta) <= 2**53 units, by the sums to come, of less than 2**(8 * s + 21): a multiple
    of 2**(8 * s) of at most 2**54 for s = 4, and of at most 53 bits for each s.
    """
    # Of the right operand the columns lie in one piece, as int8 products want it on every GPU
    lefts, rights = torch.cat(_digits(a / left), 1), torch.cat(_digits((b / right).t())[::-1], 1)
    length, result = lefts.shape[1] // SLICES, a.new_zeros(a.shape[0], b.shape[1])
    for power in reversed(range(2 * SLICES - 1)):
        # The digits 0, 1, 2 of one meet 2, 1, 0 of the other: pairs that add up to `power` lie side by side in both
        first, last = max(0, power + 1 - SLICES), min(SLICES, power + 1)
        over = SLICES - 1 - power
        mine = lefts[:, first * length : last * length].contiguous()
        other = rights[:, (first + over) * length : (last + over) * length].contiguous()
        try:
            found = torch._int_mm(mine, other.t())
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            _REFUSED.add(a.device)
            return None
        result.add_(found[: a.shape[0], : b.shape[1]], alpha=2.0 ** (BITS * power))
    return result.mul_(left).mul_(right)


@cache
def faster(device: torch.device) -> bool:
    """Whether slices are right on this device, and faster than float64: tried once, on the borders of what they take.

    Where they are wrong they are not used; what this answers otherwise changes no bit, only the time.
    """
    if not all(right(device, *shape) for shape in _TRIALS):
        return False
    a, b = (x[0].to(device, torch.float64) for x in _operands(*_LARGE))
    ones = a.new_ones(len(a), 1)
    by_slices, by_float64 = (
        min(_seconds(way, device) for _ in range(_ROUNDS))
        for way in (lambda: product(a, ones, b, ones.t()), lambda: a @ b)
    )
    return by_slices < by_float64


def right(device: torch.device, rows: int, length: int, columns: int) -> bool:
    """Whether slices give the product of the largest integers in this shape, by a test without a float."""
    left, other = _operands(rows, length, columns)
    a, b = (x[0].to(device, torch.float64) for x in (left, other))
    found = product(a, a.new_ones(rows, 1), b, b.new_ones(1, columns))
    return found is not None and is_product(found[None].cpu(), left, other)


def _operands(rows: int, length: int, columns: int) -> tuple[Tensor, Tensor]:
    most = 2 ** product_bits(length)
    return integers((1, rows, length), most, 1), integers((1, length, columns), most, 2)


def _seconds(way: Callable[[], object], device: torch.device) -> float:
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
