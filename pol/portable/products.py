"""Matrix products: exact products of :mod:`pol.portable.grid`, rounded to the result's type once.

Error: that of :func:`pol.portable.grid.product`, and half a unit in the last place for each rounding.
"""

from __future__ import annotations

from torch import Tensor

from pol.portable.elementwise import Number, rounded, single
from pol.portable.fused import product as fused_product
from pol.portable.grid import product as product_by_torch


def mm(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, for matrices or for batches of them."""
    return rounded(_product(single(a), single(b)), a.dtype)


def addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """bias * beta + (a @ b) * alpha, each product rounded to float32, and then the sum."""
    result = _product(single(a), single(b))
    if alpha != 1:
        result *= alpha
    if beta != 0:
        result += single(bias) if beta == 1 else single(bias) * beta
    return rounded(result, a.dtype)


def mv(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for a matrix and a vector."""
    return mm(a, b.unsqueeze(1)).squeeze(1)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """The dot product of two vectors."""
    return mm(a.unsqueeze(0), b.unsqueeze(1)).reshape(())


def _product(a: Tensor, b: Tensor) -> Tensor:
    found = fused_product(a, b)
    return product_by_torch(a, b).float() if found is None else found
