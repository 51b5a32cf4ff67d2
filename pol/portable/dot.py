"""One element of an exact product, in plain integers: what anyone can recompute from a row and a column.

A row of the left operand and a column of the right one, float32 numbers given by their IEEE 754 bits, are rounded to
integers times a power of two, block by block (:mod:`pol.portable.grid`, which does the same with tensors). Their dot
product is an integer; those of the blocks are added in order, each sum rounded to binary64, and the last is rounded to
binary32. tests/golden/exact-dot.json has vectors. Torch-free, and no more than a contract can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pol.errors import ProofError

MANTISSA = 53
BLOCK = 2**13
LONGEST = 2**20  # of a convolution, which is contracted in one piece
_SINGLE, _LEAST, _MOST = 24, -149, 128


def product_bits(length: int) -> int:
    """The largest beta for a dot product of ``length`` terms: length * 2**(2 * beta) <= 2**53."""
    return (MANTISSA - (length - 1).bit_length()) // 2


def sum_bits(length: int) -> int:
    """The largest beta for a sum of ``length`` terms: length * 2**beta <= 2**53, and beta <= 51."""
    return min(51, MANTISSA - (length - 1).bit_length())


@dataclass(frozen=True, slots=True)
class GridRow:
    """A row, or a column, of one block: ``integers`` of at most 2**beta, times 2**``exponent`` (0 if all are zero)."""

    integers: tuple[int, ...]
    exponent: int


def on_grid(row: Sequence[int], beta: int) -> GridRow:
    """The numbers with these binary32 ``row`` bits, rounded to the grid, ties to even.

    Raises :class:`ProofError` for infinities and NaN, with which every element of the row is NaN.
    """
    parts = [_parts(bits) for bits in row]
    powers = [abs(number).bit_length() + exponent for number, exponent in parts if number]
    if not powers:
        return GridRow((0,) * len(row), 0)
    unit = max(powers) - beta  # 2P = 2**max(powers), with P the power of two below the largest
    return GridRow(tuple(_to_unit(number, exponent, unit) for number, exponent in parts), unit)


def exact_dot(row: GridRow, column: GridRow) -> tuple[int, int]:
    """The dot product of one block as n, e with value n * 2**e; raises :class:`ProofError` if it would not be exact.

    A block has at most BLOCK numbers, and at most LONGEST if it is of a convolution.
    """
    length = len(row.integers)
    if length != len(column.integers) or not 0 < length <= LONGEST:
        raise ProofError(f"a row of {length} and a column of {len(column.integers)} integers have no dot product")
    most = 2 ** product_bits(length)
    if any(abs(number) > most for number in (*row.integers, *column.integers)):
        raise ProofError(f"an integer is beyond {most}, the largest of rows of {length}")
    total = sum(a * b for a, b in zip(row.integers, column.integers, strict=True))
    return total, row.exponent + column.exponent


def exact_element(row: Sequence[int], column: Sequence[int]) -> int:
    """The binary32 bits of the element of a matrix product with this ``row`` and ``column`` (binary32 bits).

    Raises :class:`ProofError` if the lengths differ or are zero, or a number is not finite.
    """
    if len(row) != len(column) or not row:
        raise ProofError(f"a row of {len(row)} and a column of {len(column)} numbers have no product")
    number, exponent = 0, 0
    for start in range(0, len(row), BLOCK):
        left, right = row[start : start + BLOCK], column[start : start + BLOCK]
        beta = product_bits(len(left))
        more, power = exact_dot(on_grid(left, beta), on_grid(right, beta))
        common = min(exponent, power)
        number = (number << (exponent - common)) + (more << (power - common))
        number, exponent = _rounded(number, common, MANTISSA)
    return _binary32(number, exponent)


def _parts(bits: int) -> tuple[int, int]:
    """The number with these binary32 bits as n, e with value n * 2**e."""
    field, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    if not 0 <= bits < 2**32 or field == 0xFF:
        raise ProofError(f"{bits:#x} is not the bits of a finite binary32 number")
    number = fraction | 0x800000 if field else fraction
    return (-number if bits >> 31 else number), max(field, 1) - 150


def _to_unit(number: int, exponent: int, unit: int) -> int:
    if exponent >= unit:
        return number << (exponent - unit)
    return _shifted(number, unit - exponent)


def _shifted(number: int, places: int) -> int:
    """``number`` / 2**``places``, rounded to the nearest integer, ties to even."""
    whole, rest = divmod(abs(number), 1 << places)
    half = 1 << (places - 1)
    whole += rest > half or (rest == half and whole & 1)
    return -whole if number < 0 else whole


def _rounded(number: int, exponent: int, places: int, least: int | None = None) -> tuple[int, int]:
    """n, e rounded to ``places`` binary digits, of which none is below 2**``least``."""
    drop = abs(number).bit_length() - places
    if least is not None:
        drop = max(drop, least - exponent)
    return (number, exponent) if drop <= 0 else (_shifted(number, drop), exponent + drop)


def _binary32(number: int, exponent: int) -> int:
    """The bits of ``number`` * 2**``exponent``, rounded to binary32: infinite beyond its range, and zeros with a sign
    where a number below its range was rounded."""
    sign = 2**31 if number < 0 else 0
    number, exponent = _rounded(abs(number), exponent, _SINGLE, _LEAST)
    if number == 0:
        return sign
    if number.bit_length() + exponent > _MOST:
        return sign | 0x7F800000
    shift = min(_SINGLE - number.bit_length(), exponent - _LEAST)
    number, exponent = number << shift, exponent - shift
    normal = number.bit_length() == _SINGLE
    return sign | ((exponent - _LEAST + 1) << 23 if normal else 0) | (number & 0x7FFFFF)
