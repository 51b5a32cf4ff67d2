"""Reading a mark: how many of the opened bits a suspect's weights agree with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from watermark.bits import mark_bit
from watermark.key import LeafOpening
from watermark.weights.arrays import Array, State
from watermark.weights.carriers import carrier_factors
from watermark.weights.layouts import layout_of
from watermark.weights.parameters import WeightMark


def read_weights(suspect: State, theta_ref: State, mark: WeightMark, base: State | None = None) -> Sequence[Array]:
    """The suspect's marked matrices in theta_ref's coordinates, one a carrier, float64 [rows, columns].

    A function of the models alone. Raises :class:`pol.errors.SpecError` if they cannot be compared, or ``theta_ref``
    does not fit the mark.
    """
    layout = layout_of(mark.layout)
    layout.check(theta_ref, mark.carriers, where="theta_ref")
    return layout.read(suspect, theta_ref, mark.tensors, base)


def count_matches(
    matrices: Sequence[Array], leaves: Sequence[LeafOpening], beta: bytes, key_root: bytes, mark: WeightMark
) -> int:
    """How many of the bits of ``leaves`` the matrices agree with. Zero and what is not finite are misses."""
    return sum(_agrees(matrices, leaf, beta, key_root, mark) for leaf in leaves)


def _agrees(matrices: Sequence[Array], leaf: LeafOpening, beta: bytes, key_root: bytes, mark: WeightMark) -> bool:
    number, rows = mark.place(leaf.index // mark.leaves)
    block = matrices[number][rows]
    u, v = carrier_factors(leaf.seed, *block.shape)
    # A comparison with NaN is False, and so is one with a tie: both are misses.
    return mark_bit(beta, key_root, leaf.index, leaf.seed) * float(np.dot(u @ block, v)) > 0
