"""Reading a mark: how many of the opened bits a suspect's weights agree with.

A thief may cut units out, or draw whole layers anew. What is left of nothing says nothing: rows that do not resemble
theta_ref's are set aside, and a leaf whose rows are gone is not a trial. Which rows those are is a function of the
suspect and theta_ref alone, so the bits that are read are still even draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from watermark.bits import mark_bit
from watermark.key import Leaf, LeafOpening
from watermark.weights.arrays import Array, State
from watermark.weights.carriers import carrier_product
from watermark.weights.layouts import layout_of
from watermark.weights.parameters import WeightMark

LEAST_COSINE: Final = 0.2
"""Rows of which less is theta_ref's than this are lost: a bit in them is little better than a coin even at a margin of
3, where noise is 5 times the weights."""
DEVIATIONS: Final = 3.0
"""By so many standard deviations of an unrelated row's cosine, one over the root of its size, rows may fall short."""


class Count(NamedTuple):
    """``matches`` of ``trials`` bits agree; leaves whose rows are gone are not among the trials."""

    matches: int
    trials: int


@dataclass(frozen=True, eq=False)
class Reading:
    """One marked matrix of a suspect, ``found``, beside theta_ref's, ``reference``: both [rows, columns], float64."""

    found: Array
    reference: Array

    @cached_property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Which rows [rows] are recognisably theta_ref's. Rows that are not finite are: they are misses."""
        with np.errstate(all="ignore"):
            products, lengths = (self.found * self.reference).sum(axis=1), np.square(self.found).sum(axis=1)
        alike = _resembles(products, lengths, np.square(self.reference).sum(axis=1), self.found.shape[1])
        kept: npt.NDArray[np.bool_] = alike | ~np.isfinite(lengths)
        return kept

    def value(self, rows: slice, seed: bytes) -> float | None:
        """``u^T M v`` of a leaf's carrier on its group's ``rows``; None if they are gone.

        Where some are gone the rest is compared with theta_ref's, and theta_ref's own value, which the mark was added
        to, counts for as much as there is left: with all rows there, that is ``u^T M v`` itself.
        """
        kept, reference = self.kept[rows], self.reference[rows]
        found = np.where(kept[:, None], self.found[rows], 0.0)
        rest = np.where(kept[:, None], reference, 0.0)
        with np.errstate(all="ignore"):
            product, length, own = _inner(found, rest), _inner(found, found), _inner(reference, reference)
            if np.isfinite(length) and not _resembles(product, length, own, found.size):
                return None
            if not kept.all():
                scale = product / max(_inner(rest, rest), float(np.finfo(np.float64).tiny))
                found = found + scale * (kept.mean() * reference - rest)
            return carrier_product(found, seed)


def read_weights(suspect: State, theta_ref: State, mark: WeightMark, base: State | None = None) -> Sequence[Reading]:
    """The suspect's marked matrices in theta_ref's coordinates beside theta_ref's own, one a carrier.

    A function of the models alone. Raises :class:`pol.errors.SpecError` if they cannot be compared, or ``theta_ref``
    does not fit the mark.
    """
    layout = layout_of(mark.layout)
    layout.check(theta_ref, mark.carriers, where="theta_ref")
    found = layout.read(suspect, theta_ref, mark.tensors, base)
    factors = [layout.factors(theta_ref, tensor) for tensor in mark.tensors]
    own = [left if right is None else left.astype(np.float64) @ right for left, right in factors]
    return [Reading(matrix, np.asarray(one, np.float64)) for matrix, one in zip(found, own, strict=True)]


def count_matches(
    readings: Sequence[Reading], leaves: Sequence[Leaf | LeafOpening], beta: bytes, key_root: bytes, mark: WeightMark
) -> Count:
    """How many of the bits of ``leaves`` the readings agree with. Zero and what is not finite are misses."""
    matches = trials = 0
    for leaf in leaves:
        number, rows = mark.place(leaf.index // mark.leaves)
        value = readings[number].value(rows, leaf.seed)
        if value is not None:
            # A comparison with NaN is False, and so is one with a tie: both are misses.
            matches += mark_bit(beta, key_root, leaf.index, leaf.seed) * value > 0
            trials += 1
    return Count(matches, trials)


def _inner(left: Array, right: Array) -> float:
    return float(np.vdot(left, right))


def _resembles(
    product: Array | float, found: Array | float, reference: Array | float, size: int
) -> npt.NDArray[np.bool_]:
    """Whether vectors of ``size``, of these squared lengths and inner product, are less than unrelated."""
    least = LEAST_COSINE - DEVIATIONS / np.sqrt(size)
    with np.errstate(all="ignore"):
        alike: npt.NDArray[np.bool_] = (np.asarray(found) > 0) & (product >= least * np.sqrt(found * reference))
    return alike
