"""The residual stream of a transformer: bring a suspect's channels to theta_ref's.

Whoever permutes or rotates the stream of a transformer must do it to its embeddings too, and those have public rows:
token by token they can be compared. So the embeddings alone tell the basis (orthogonal Procrustes; QuaRot and SliceGPT
rotate so). It is a function of the suspect and theta_ref, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import linear_sum_assignment

from watermark.weights.arrays import Array

MAX_ROWS: Final = 1 << 14
"""Rows of one embedding that are compared, evenly spaced."""

ROWS_A_CHANNEL: Final = 2
"""Embeddings a channel that a rotation has to be told from: with fewer it could fit mere noise, of quantising say."""

WORTH: Final = 0.5
"""A basis with more freedom is taken only if it leaves less than this share of the squared misfit."""


@dataclass(frozen=True, slots=True, eq=False)
class Stream:
    """``basis`` [suspect's width, width] maps the suspect's channels to theta_ref's; None leaves them as they are.

    ``centred``: norms take the mean over the channels out, so it is free and is taken out here, too.
    """

    basis: Array | None
    centred: bool

    def written(self, left: Array) -> Array:
        """``left`` [suspect's width, k], which writes to the stream, in theta_ref's channels [width, k]."""
        mapped = left if self.basis is None else self.basis.T @ left
        return mapped - mapped.mean(axis=0) if self.centred else mapped

    def read(self, right: Array) -> Array:
        """``right`` [k, suspect's width], which reads from the stream, in theta_ref's channels [k, width]."""
        mapped = right if self.basis is None else right @ self.basis
        return mapped - mapped.mean(axis=1, keepdims=True) if self.centred else mapped


def find_stream(suspect: Sequence[Array], reference: Sequence[Array], *, centred: bool) -> Stream:
    """The stream in which the suspect's embeddings are nearest to theta_ref's, [rows, width] each, tokens first.

    Tried in this order, each taken only if it halves the squared misfit of the one before: the channels as they are, a
    permutation of them (rectangular assignment), a rotation (orthogonal Procrustes). So a model that was fine-tuned,
    pruned or quantised where it was is not turned by its own noise. Rows beyond those of the other are left out, and
    every row counts alike, however large (tokens that never occur can hold anything).
    """
    shared = [(len(theirs), len(ours)) for theirs, ours in zip(suspect, reference, strict=False)]
    theirs, ours = (
        np.concatenate([_comparable(matrix[: min(rows)], centred) for matrix, rows in zip(side, shared, strict=False)])
        for side in (suspect, reference)
    )
    return Stream(_basis(theirs, ours), centred)


def _comparable(rows: Array, centred: bool) -> Array:
    """Evenly spaced rows, scaled to norm 1, without their mean (which the softmax or another embedding absorbs)."""
    rows = rows[:: -(-len(rows) // MAX_ROWS)]
    rows = rows - rows.mean(axis=1, keepdims=True) if centred else rows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms > 0, norms, 1.0)
    comparable: Array = unit - unit.mean(axis=0)
    return comparable


def _basis(theirs: Array, ours: Array) -> Array | None:
    cross = theirs.T @ ours
    chosen: Array = np.eye(*cross.shape)
    least = _misfit(theirs, ours, chosen)
    as_it_is = cross.shape[0] == cross.shape[1]
    enough = len(theirs) >= ROWS_A_CHANNEL * max(cross.shape)
    for candidate in (_permutation(cross), _rotation(cross)) if enough else (_permutation(cross),):
        misfit = _misfit(theirs, ours, candidate)
        if misfit < WORTH * least:
            chosen, least, as_it_is = candidate, misfit, False
    return None if as_it_is else chosen


def _misfit(theirs: Array, ours: Array, basis: Array) -> float:
    return float(np.square(theirs @ basis - ours).sum())


def _permutation(cross: Array) -> Array:
    """Of all matrices that pick channels, the one nearest; a channel that the suspect lacks is zero."""
    chosen: Array = np.zeros_like(cross)
    chosen[linear_sum_assignment(cross, maximize=True)] = 1.0
    return chosen


def _rotation(cross: Array) -> Array:
    """Of all matrices with orthonormal columns (or rows), the one nearest (Schönemann 1966)."""
    left, _, right = np.linalg.svd(cross, full_matrices=False)
    rotation: Array = left @ right
    return rotation
