"""Alignment of a suspect to theta_ref: undo the symmetries of a ReLU MLP before the bits are counted.

Hidden units can be permuted and scaled without any change of the function, so a thief does both, and adds units that
do nothing. Alignment finds, for every unit of theta_ref, the suspect's unit that looks like it.

Only ever align to theta_ref, never to the marked model. theta_ref was anchored before the beacon, so it knows nothing
of the bits, and whatever the alignment does with it the bits remain fair coins. The marked model holds the bits:
among hundreds of units the assignment always finds some that lean towards them, and innocent models "match"
(tests/watermark/test_forbidden_shortcuts.py shows it). An alignment that is fooled costs a hit, never an innocent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment

from pol.errors import SpecError
from watermark.mlp import Array, Layer, State, read_mlp, write_mlp

Units: TypeAlias = npt.NDArray[np.intp]

MAX_SWEEPS = 8
SAME_UNIT = 0.98
"""Cosine of incoming weights above which a suspect's spare unit counts as a copy of a matched one."""


def align(suspect: State, theta_ref: State) -> dict[str, torch.Tensor]:
    """``suspect`` in theta_ref's coordinates: a float64 state dict of theta_ref's shapes.

    Coordinate descent over the hidden layers; each is one rectangular assignment (``scipy``'s Hungarian method) of
    theta_ref's units to the suspect's, by the cosines of their incoming and outgoing weights. Each matched unit is
    scaled to the norm of theta_ref's. Spare units are left out unless they are copies of a matched one (then their
    outgoing weights are added to it); units that the suspect lacks are zero. Raises :class:`SpecError` if depth,
    inputs or outputs differ, or either model is no finite MLP.
    """
    return write_mlp(align_layers(read_mlp(suspect, where="suspect"), read_mlp(theta_ref, where="theta_ref")))


def align_layers(suspect: tuple[Layer, ...], reference: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """:func:`align` on layers that were read already."""
    ends = [(len(layers), layers[0].weight.shape[1], len(layers[-1].bias)) for layers in (suspect, reference)]
    if ends[0] != ends[1]:
        raise SpecError(f"depth, inputs, outputs: {ends[0]} in the suspect, {ends[1]} in theta_ref; not comparable")
    matches: list[_Match] = []
    for layer in range(len(reference) - 1):
        matches.append(_match(suspect, reference, matches, layer, forward_only=True))
    for _ in range(MAX_SWEEPS):
        before = [match.units for match in matches]
        for layer in range(len(matches)):
            matches[layer] = _match(suspect, reference, matches, layer, forward_only=False)
        if all(np.array_equal(old, match.units) for old, match in zip(before, matches, strict=True)):
            break
    return tuple(_aligned_layer(suspect, matches, layer) for layer in range(len(reference)))


@dataclass(frozen=True, slots=True)
class _Match:
    """One hidden layer: n suspect units, m reference units.

    ``units`` [m] is the suspect's unit for each of the reference's, or -1. ``scale`` [m] is its incoming norm over the
    reference's. ``gather`` [n, m] says how the suspect's outgoing weights make up those of the aligned units.
    """

    units: Units
    scale: Array
    gather: Array


def _match(
    suspect: tuple[Layer, ...], reference: tuple[Layer, ...], matches: list[_Match], layer: int, *, forward_only: bool
) -> _Match:
    incoming = _incoming(suspect, matches, layer)
    target = _with_bias(reference[layer])
    likeness = _cosines(target, incoming)
    if not forward_only:
        outgoing = _rows(suspect[layer + 1].weight, matches, layer + 1)
        likeness = likeness + _cosines(reference[layer + 1].weight.T, outgoing.T)
    likeness = np.nan_to_num(likeness)  # overflow in hostile weights
    units = np.full(len(target), -1, dtype=np.intp)
    wanted, found = linear_sum_assignment(likeness, maximize=True)
    units[wanted] = found
    return _Match(units, *_scale_and_gather(incoming, target, units))


def _scale_and_gather(incoming: Array, target: Array, units: Units) -> tuple[Array, Array]:
    here = np.flatnonzero(units >= 0)
    norms, wanted = np.linalg.norm(incoming, axis=1), np.linalg.norm(target, axis=1)
    wanted = np.where(wanted > 0, wanted, 1.0)
    gather = np.zeros((len(incoming), len(target)))
    gather[units[here], here] = norms[units[here]] / wanted[here]
    spare = np.setdiff1d(np.arange(len(incoming)), units[here])
    if spare.size:
        likeness = _cosines(incoming[spare], incoming[units[here]])
        nearest = np.argmax(likeness, axis=1)
        copies = likeness[np.arange(len(spare)), nearest] > SAME_UNIT
        owner = here[nearest[copies]]
        gather[spare[copies], owner] = norms[spare[copies]] / wanted[owner]
    scale = np.ones(len(target))
    scale[here] = norms[units[here]] / wanted[here]
    return np.where(scale > 0, scale, 1.0), gather


def _incoming(suspect: tuple[Layer, ...], matches: list[_Match], layer: int) -> Array:
    """The suspect's [n, inputs + 1] weights and bias into ``layer``, with the columns of the aligned layer before."""
    if layer == 0:
        return _with_bias(suspect[0])
    return _with_bias(Layer(suspect[layer].weight @ matches[layer - 1].gather, suspect[layer].bias))


def _rows(weight: Array, matches: list[_Match], layer: int) -> Array:
    """``weight``'s rows for the aligned units of ``layer``: chosen, scaled, zero where there is none."""
    if layer == len(matches):
        return weight
    match = matches[layer]
    chosen: Array = np.where(match.units[:, None] >= 0, weight[match.units], 0.0) / match.scale[:, None]
    return chosen


def _aligned_layer(suspect: tuple[Layer, ...], matches: list[_Match], layer: int) -> Layer:
    both = _rows(_incoming(suspect, matches, layer), matches, layer)
    return Layer(both[:, :-1], both[:, -1])


def _with_bias(layer: Layer) -> Array:
    return np.concatenate([layer.weight, layer.bias[:, None]], axis=1)


def _cosines(left: Array, right: Array) -> Array:
    """The cosines [a, b] of the rows of [a, k] and [b, k]; 0 for a row of zeros."""
    cosines: Array = _unit(left) @ _unit(right).T
    return cosines


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = rows / np.where(norms > 0, norms, 1.0)
    return unit
