"""Keyed rank-1 carriers, drawn from a leaf's seed alone, and their products with a matrix, rounded once.

A leaf's carrier on a matrix of [rows, columns] is ``R = u v^T / sqrt(rows * columns)`` with u in {-1, 1}^rows and v in
{-1, 1}^columns, so its Frobenius norm is 1. Where the marked matrix is a product L F, ``<R, L F>`` is
``u^T L w / sqrt(rows * columns)`` with ``w = F v``: what the mark asks of L is linear, with v replaced by w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from pol.encoding import digest
from pol.errors import SpecError
from watermark.bits import mark_bit
from watermark.key import Leaf, LeafOpening
from watermark.weights.arrays import Array, Float32s

CARRIER_DOMAIN: Final = "aiarena/watermark-carrier/v1"
GRID_BITS: Final = 40
MAX_COLUMNS: Final = 1 << 22


def carrier_factors(seed: bytes, rows: int, columns: int) -> tuple[Array, Array]:
    """The factors (u, v) of a leaf's carrier, entries -1 and 1, shapes [rows] and [columns].

    They are the bits (most significant first, 1 for 1 and 0 for -1) of the ChaCha20 key stream under
    ``SHA256("aiarena/watermark-carrier/v1" || seed)`` with a zero nonce: u first, then v.
    """
    length = rows + columns
    cipher = Cipher(algorithms.ChaCha20(digest(CARRIER_DOMAIN, seed), bytes(16)), mode=None)
    stream = cipher.encryptor().update(bytes((length + 7) // 8))
    signs = np.unpackbits(np.frombuffer(stream, np.uint8), count=length).astype(np.float64) * 2 - 1
    return signs[:rows], signs[rows:]


def carrier_product(block: Array, seed: bytes) -> float:
    """``u^T M v`` of a leaf's carrier and the group's rows M [rows, columns]: its sign is the bit that is read."""
    u, v = carrier_factors(seed, *block.shape)
    return float(np.dot(u @ block, v))


def carrier_scale(rows: int, columns: int) -> float:
    """What divides ``u^T M v`` to give ``<R, M>`` for a carrier of Frobenius norm 1."""
    return math.sqrt(rows * columns)


def through(right: Float32s | None, signs: Array) -> Array:
    """``w = F v`` [leaves, k] for each row v of ``signs`` [leaves, columns]; ``signs`` itself where F is the identity.

    F [k, columns] is first rounded to 40-bit integers times a power of two, whose signed sums are exact in 64 bits: w
    has the same bits on every machine. Raises :class:`SpecError` if F has more than 2^22 columns.
    """
    if right is None:
        return signs
    if right.shape[1] > MAX_COLUMNS:
        raise SpecError(f"a right factor of {right.shape[1]} columns: the largest that can be summed is {MAX_COLUMNS}")
    top = float(np.abs(right).max(initial=0.0))
    step = math.ldexp(1.0, math.frexp(top)[1] - GRID_BITS)
    grid = np.rint(right.astype(np.float64) / step).astype(np.int64)
    sums: Array = (signs.astype(np.int64) @ grid.T).astype(np.float64) * step
    return sums


def signed_carriers(
    leaves: Sequence[Leaf | LeafOpening],
    beta: bytes,
    key_root: bytes,
    rows: int,
    columns: int,
    right: Float32s | None = None,
) -> tuple[Array, Array]:
    """(b u [leaves, rows], w [leaves, k]) of the carriers of ``leaves``, b being their bits and w = F v."""
    factors = [carrier_factors(leaf.seed, rows, columns) for leaf in leaves]
    u, v = (np.stack(side) for side in zip(*factors, strict=True))
    bits = np.array([mark_bit(beta, key_root, leaf.index, leaf.seed) for leaf in leaves], dtype=np.float64)
    return bits[:, None] * u, through(right, v)


def carrier_lengths(w: Array, columns: int) -> Array:
    """``|w| / sqrt(columns)`` for each row of ``w`` [leaves, k]: 1 where w is signs. SpecError for a zero."""
    lengths = np.array([math.sqrt(math.fsum(np.square(row).tolist()) / columns) for row in w])
    if not lengths.all():
        raise SpecError("a carrier has no part in the right factor: nothing in these rows can carry its bit")
    return lengths
