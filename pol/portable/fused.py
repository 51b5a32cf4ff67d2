"""Products, sums and functions by the kernels of :mod:`pol.portable.compiled`, in fewer passes over memory.

Every function here returns what its namesake elsewhere in this package does, to the last bit, or None where there is no
kernel for these tensors, and the caller goes on through torch. Groups that are summed have at most BLOCK elements here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pol.portable.compiled import KERNELS
from pol.portable.dot import BLOCK, MANTISSA, product_bits, sum_bits


def shift_factor(beta: int) -> float:
    """What a group's power of two is multiplied by for the shift that rounds it to integers of 2**beta units."""
    return 1.5 * 2.0 ** (MANTISSA - beta)


def product(a: Tensor, b: Tensor) -> Tensor | None:
    """:func:`pol.portable.grid.product`, rounded to float32.

    Memory: both operands of a block in float64, as through torch, but of the result only some columns.
    """
    if not KERNELS.fit(a, b):
        return None
    length, shape = a.shape[-1], (*a.shape[:-1], b.shape[-1])
    if length <= BLOCK:
        out = a.new_empty(shape)
        _multiply(a, b, out, None)
        return out
    whole = a.new_empty(shape, dtype=torch.float64)
    result = a.new_zeros(shape, dtype=torch.float64)
    for start in range(0, length, BLOCK):
        _multiply(a[..., start : start + BLOCK], b[..., start : start + BLOCK, :], None, whole)
        result += whole
    return result.float()


def _multiply(a: Tensor, b: Tensor, single: Tensor | None, whole: Tensor | None) -> None:
    assert KERNELS.functions is not None
    height, width = KERNELS.functions["tile_height"], KERNELS.functions["tile_width"]
    batch = math.prod(a.shape[:-2])
    rows, length, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    threads = torch.get_num_threads()
    high, wide = up(rows, height), up(columns, width)
    packed = (threads if batch > 1 else 1) * (high + wide) * length
    work = a.new_empty(threads * KERNELS.functions["block_size"] + packed, dtype=torch.float64)
    left, right = (x if x.dim() <= 3 else x.flatten(0, -3) for x in (a, b))
    KERNELS(
        "multiply", batch, rows, columns, length, left, left.stride(0) if batch > 1 else 0, *left.stride()[-2:],
        right, right.stride(0) if batch > 1 else 0, right.stride(-1), right.stride(-2),
        shift_factor(product_bits(length)), work, single, whole,
    )  # fmt: skip


def of_elements(name: str, *arguments: Tensor) -> Tensor | None:
    """The function ``name`` of :mod:`pol.portable.functions`, of float32 or float64."""
    first = arguments[0]
    double = first.dtype is torch.float64
    alike = all(x.shape == first.shape for x in arguments)
    if not alike or not KERNELS.fit(*arguments, dtype=torch.float64 if double else torch.float32):
        return None
    out = first.new_empty(first.shape)
    KERNELS(f"{name}_{'double' if double else 'float'}", out.numel(), *(x.contiguous() for x in arguments), out)
    return out


def block_total(x: Tensor, dims: Sequence[int]) -> Tensor | None:
    """The sum over ``dims``, which must be the last or the first; kept, of size 1, in float64."""
    if not KERNELS.fit(x):
        return None
    taken = sorted(dim % x.dim() for dim in dims)
    size = math.prod(x.shape[dim] for dim in taken)
    shape = [1 if dim in taken else n for dim, n in enumerate(x.shape)]
    out, factor = x.new_empty(shape, dtype=torch.float64), shift_factor(sum_bits(size))
    if taken == list(range(x.dim() - len(taken), x.dim())):
        KERNELS("row_totals", x.numel() // size, size, x.contiguous(), factor, out)
    elif taken == list(range(len(taken))):
        KERNELS("column_totals", size, x.numel() // size, x.contiguous(), None, None, None, factor, out)
    else:
        return None
    return out


def up(number: int, multiple: int) -> int:
    """``number``, or the next multiple above it."""
    return -(-number // multiple) * multiple
