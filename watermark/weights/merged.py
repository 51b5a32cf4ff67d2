"""What was added to a public base model, whatever a thief did to the sum.

A merged adapter is ``W + s B A``, and W is public: so the suspect's weight need not be compared with theta_ref's, whose
adapter is small, but with the base's own, which it all but equals. A permuted or rotated residual stream (QuaRot, arXiv
2404.00456) is undone by the token embeddings, permuted, split or added units by the likeness of their weights, and
scales (norm gains folded in, units scaled up here and down there, DoRA's magnitudes) row by row and column by column.
All of it is a function of suspect and base alone, so the bits stay fair coins.

Not undone: maps within a head (rotations of values, and those of queries and keys that commute with the positions). The
weights of those heads are then read as noise; the FFN's are not touched by them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pol.errors import SpecError
from watermark.weights.arrays import Array, State, finite_array
from watermark.weights.stream import WORTH, Stream, find_stream

SAME_UNIT: Final = 0.5
"""|cosine| of a unit's weights with the base's above which it is the base's unit: random ones of 64 weights reach it
once in 10,000, and those of a merged adapter are above it after int3, or with nine weights in ten pruned."""
MAX_PAIRS: Final = 1 << 27
_EMBEDDING = "embed_tokens.weight"
_WRITERS = ("o_proj", "down_proj")
_SWEEPS = 3


def added(weight: Array, base: Array) -> Array:
    """``weight - base`` [rows, columns] in the base's units and scales.

    Tried in this order, each taken only if it leaves less than ``WORTH`` of the squared difference that the one before
    leaves: the weight as it is, its units (rows or columns) in the base's order, those scaled. So a weight that is
    where it was loses nothing of its change. Scaled, a unit that the suspect lacks, or that is nothing like the base's,
    counts as unchanged. Raises :class:`SpecError` if no side has the base's size, or if there are too many units to
    compare.
    """
    if weight.shape[0] != base.shape[0] and weight.shape[1] != base.shape[1]:
        raise SpecError(f"a weight of {weight.shape} cannot be compared with the base's of {base.shape}")
    by_rows, by_columns = _ordered(weight, base), _ordered(weight.T, base.T)
    if by_columns[1] > by_rows[1]:
        return _least(weight.T, by_columns[0], base.T).T
    return _least(weight, by_rows[0], base)


def _least(weight: Array, ordered: Array, base: Array) -> Array:
    scaled = ordered
    for _ in range(_SWEEPS):
        scaled = _to_scale(_to_scale(scaled, base).T, base.T).T
    change: Array = (weight if weight.shape == base.shape else ordered) - base
    for candidate in (ordered - base, scaled - base):
        if np.square(candidate).sum() < WORTH * np.square(change).sum():
            change = candidate
    return change


def stream_of(suspect: State, base: State) -> Stream:
    """The suspect's residual stream in the base's, by their token embeddings.

    As it is where a model has none.
    """
    theirs, ours = _embedding(suspect, where="the suspect"), _embedding(base, where="the base model")
    if theirs is None or ours is None:
        return Stream(None, centred=False)
    return find_stream([theirs], [ours], centred=False)


def in_stream(weight: Array, stream: Stream, module: str) -> Array:
    """``weight`` of ``module`` with the side that meets the stream brought to the base's channels.

    That is the rows of what writes to the stream (by Llama's names), else the columns. A weight of another size is left
    as it is.
    """
    if stream.basis is None:
        return weight
    if module.endswith(_WRITERS):
        return stream.written(weight) if len(weight) == len(stream.basis) else weight
    return stream.read(weight) if weight.shape[1] == len(stream.basis) else weight


def _embedding(state: State, *, where: str) -> Array | None:
    name = next((name for name in state if name.endswith(_EMBEDDING)), None)
    rows = None if name is None else finite_array(state, name, where=where)
    return rows if rows is not None and rows.ndim == 2 and rows.size else None


def _ordered(weight: Array, base: Array) -> tuple[Array, float]:
    """For each row of ``base`` the row of ``weight`` that is most like it, or the one at its place if that is alike.

    With the mean |cosine| of these rows and ``base``'s; ``base`` and -1 where rows have another length.
    """
    if weight.shape[1] != base.shape[1]:
        return base, -1.0
    wanted, found = _unit(base), _unit(weight)
    chosen = np.arange(len(base)) % len(weight)
    strange = np.flatnonzero(np.abs((wanted * found[chosen]).sum(axis=1)) <= SAME_UNIT)
    if strange.size * len(found) > MAX_PAIRS:
        raise SpecError(f"{strange.size} units to be found among {len(found)}: too many to compare")
    if strange.size:
        chosen[strange] = np.argmax(np.abs(wanted[strange] @ found.T), axis=1)
    return weight[chosen], float(np.abs((wanted * found[chosen]).sum(axis=1)).mean())


def _to_scale(rows: Array, base: Array) -> Array:
    """Each row divided by its least-squares factor against the base's; the base's own where they are not alike."""
    inner, squares = (rows * base).sum(axis=1), np.square(base).sum(axis=1)
    alike = np.square(inner) > SAME_UNIT**2 * squares * np.square(rows).sum(axis=1)
    factor = np.where(alike, inner, 1.0) / np.where(alike, squares, 1.0)
    scaled: Array = np.where(alike[:, None], rows / factor[:, None], base)
    return scaled


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = rows / np.where(norms > 0, norms, 1.0)
    return unit
