"""Alignment of a suspect to theta_ref: undo what leaves a ReLU network's function as it is, before bits are counted.

Channels (the units of an MLP) can be permuted and scaled without any change of the function, so a thief does both, and
adds channels that do nothing. Alignment finds for every channel of theta_ref the suspect's channel that looks like it.

A network is a sequence of affine maps between labelled axes. All axes of one label share their channels, and so one
permutation and one positive scale a channel: the writers and readers of a residual stream have one label. Labels are
matched by coordinate descent, one rectangular assignment a label (weight matching, Ainsworth et al. 2022, Git Re-Basin,
arXiv 2209.04836, section 3.2; here for networks of different widths, and on cosines, since ReLU allows scales).

Only ever align to theta_ref, never to the marked model. theta_ref was anchored before the beacon, so it knows nothing
of the bits, and whatever the alignment does with it the bits remain fair coins. The marked model holds the bits:
among hundreds of channels the assignment always finds some that lean towards them, and innocent models "match"
(tests/watermark/test_forbidden_shortcuts.py shows it). An alignment that is fooled costs a hit, never an innocent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from pol.errors import SpecError
from watermark.weights.arrays import Array

Numbers: TypeAlias = npt.NDArray[np.intp]

MAX_SWEEPS = 8
MAX_WIDENING = 16
"""How many times as many channels as theta_ref a suspect may have: what bounds time and memory."""
SAME_CHANNEL = 0.98
"""Cosine of incoming weights above which a suspect's spare channel counts as a copy of a matched one."""
SCALINGS = 4


class Axis(NamedTuple):
    """One side of a map: its channels are ``first``, ``first + 1``, ... of ``label``.

    The label None stands for inputs and classes, whose order nobody can change.
    """

    label: str | None
    first: int = 0


class Map(NamedTuple):
    """An affine map in float64: ``weight`` [out, in, taps] (one tap, or the pixels of a kernel) and ``bias`` [out]."""

    weight: Array
    bias: Array
    source: Axis
    target: Axis


Network: TypeAlias = Mapping[str, Map]
"""Maps by the names of their tensors, in forward order: each reads from inputs or from what an earlier one wrote."""


def align_maps(suspect: Network, reference: Network) -> dict[str, Map]:
    """``suspect`` in the coordinates of ``reference``: maps of its names, axes and shapes.

    Coordinate descent over the labels; each is one rectangular assignment (``scipy``'s Hungarian method) of the
    reference's channels to the suspect's, by the cosines of their incoming and of their outgoing weights. Each matched
    channel is scaled to the norm of the reference's. Spare channels are left out unless they are copies of a matched
    one (then their outgoing weights are added to its); channels that the suspect lacks are zero. What overflows on the
    way comes out as it is, not finite. Raises :class:`SpecError` if the two are not of one architecture, or the suspect
    has more than ``MAX_WIDENING`` times as many channels.
    """
    sizes = _compared(suspect, reference)
    pairs = [(suspect[name], reference[name]) for name in reference]
    matches: dict[str, _Match] = {}
    with np.errstate(all="ignore"):
        for seen, (_, there) in enumerate(pairs, 1):
            if (label := there.target.label) is not None:
                matches[label] = _match(pairs[:seen], matches, label, sizes[label], forward_only=True)
        for _ in range(MAX_SWEEPS):
            before = [match.units for match in matches.values()]
            for label in matches:
                matches[label] = _match(pairs, matches, label, sizes[label], forward_only=False)
            if all(np.array_equal(old, match.units) for old, match in zip(before, matches.values(), strict=True)):
                break
        return {name: _aligned(here, there, matches) for name, (here, there) in zip(reference, pairs, strict=True)}


_Pair: TypeAlias = tuple[Map, Map]
"""A map of the suspect, and the reference's map of that name."""


@dataclass(frozen=True, slots=True)
class _Match:
    """One label: n channels in the suspect, m in the reference.

    ``units`` [m] is the suspect's channel for each of the reference's, or -1. ``owner`` [n] is the reference's channel
    that each of the suspect's stands for, as a copy perhaps, or -1; ``share`` [n] is its incoming norm over that one's.
    """

    units: Numbers
    owner: Numbers
    share: Array

    @property
    def scale(self) -> Array:
        """[m]: ``share`` of the matched channel, 1 where that is nothing to divide by."""
        scale = np.where(self.units >= 0, self.share[self.units], 1.0)
        return np.where(scale > 0, scale, 1.0)


def _compared(suspect: Network, reference: Network) -> dict[str, tuple[int, int]]:
    """The labels' sizes in both; :class:`SpecError` unless there is something to compare."""
    if list(suspect) != list(reference):
        odd = sorted(set(suspect) ^ set(reference))[:3]
        raise SpecError(f"only one of the suspect and theta_ref has {', '.join(odd)}, ...: not comparable")
    for name in reference:
        ends = [_ends(network[name]) for network in (suspect, reference)]
        if ends[0] != ends[1]:
            raise SpecError(f"{name}: {ends[0]} in the suspect, {ends[1]} in theta_ref: not comparable")
    sizes = {label: (_sizes(suspect)[label], size) for label, size in _sizes(reference).items()}
    for label, (here, there) in sizes.items():
        if here > MAX_WIDENING * there:
            raise SpecError(f"the suspect has {here} channels in {label} for {there} of theta_ref: not comparable")
    return sizes


def _ends(layer: Map) -> str:
    outputs, inputs, taps = layer.weight.shape
    source = f"{inputs} inputs" if layer.source.label is None else layer.source.label
    target = f"{outputs} outputs" if layer.target.label is None else layer.target.label
    return f"{source} to {target} by {taps} taps"


def _sizes(network: Network) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for layer in network.values():
        if (label := layer.target.label) is not None:
            sizes[label] = max(sizes.get(label, 0), layer.target.first + len(layer.bias))
    return sizes


def _match(
    pairs: Sequence[_Pair],
    matches: Mapping[str, _Match],
    label: str,
    sizes: tuple[int, int],
    *,
    forward_only: bool,
) -> _Match:
    incoming, target = _incoming(pairs, matches, label, sizes)
    likeness = _cosines(target, incoming)
    if not forward_only:
        outgoing, wanted = _outgoing(pairs, matches, label, sizes)
        likeness = likeness + _cosines(wanted, outgoing)
    likeness = np.clip(np.nan_to_num(likeness), -2.0, 2.0)  # overflow in hostile weights
    units = np.full(len(target), -1, dtype=np.intp)
    there, here = linear_sum_assignment(likeness, maximize=True)
    units[there] = np.where(likeness[there, here] != 0, here, -1)  # exactly 0: there is nothing to go by yet
    biases = sum(layer.target.label == label for _, layer in pairs)
    return _Match(units, *_owners(incoming, target, units, biases))


def _owners(incoming: Array, target: Array, units: Numbers, biases: int) -> tuple[Numbers, Array]:
    found = np.flatnonzero(units >= 0)
    owner = np.full(len(incoming), -1, dtype=np.intp)
    owner[units[found]] = found
    spare = np.flatnonzero(owner < 0)
    if spare.size and found.size:
        ours, theirs = incoming[spare], incoming[units[found]]
        # Without the biases as well: they alone make all channels look alike that never fire, whatever reads them.
        likeness = np.minimum(_cosines(ours, theirs), _cosines(ours[:, :-biases], theirs[:, :-biases]))
        nearest = np.argmax(likeness, axis=1)
        copies = likeness[np.arange(len(spare)), nearest] > SAME_CHANNEL
        owner[spare[copies]] = found[nearest[copies]]
    norms, wanted = np.linalg.norm(incoming, axis=1), np.linalg.norm(target, axis=1)
    share: Array = norms / np.where(wanted > 0, wanted, 1.0)[owner]
    return owner, share


def _incoming(
    pairs: Sequence[_Pair], matches: Mapping[str, _Match], label: str, sizes: tuple[int, int]
) -> tuple[Array, Array]:
    """What writes to ``label``: the suspect's [n, k] and the reference's channels [m, k], the writers' biases last."""
    writers = [(here, there) for here, there in pairs if there.target.label == label]
    ours = [(here.target.first, _flat(_columns(here, there, matches))) for here, there in writers]
    ours += [(here.target.first, here.bias[:, None]) for here, _ in writers]
    theirs = [(there.target.first, _flat(there.weight)) for _, there in writers]
    theirs += [(there.target.first, there.bias[:, None]) for _, there in writers]
    return _stacked(ours, sizes[0]), _stacked(theirs, sizes[1])


def _outgoing(
    pairs: Sequence[_Pair], matches: Mapping[str, _Match], label: str, sizes: tuple[int, int]
) -> tuple[Array, Array]:
    """What reads from ``label``: weights of the suspect's [n, k] and of the reference's channels [m, k]."""
    readers = [(here, there) for here, there in pairs if there.source.label == label]
    ours = [
        (here.source.first, _flat(_rows(here.weight, here, there, matches).transpose(1, 0, 2)))
        for here, there in readers
    ]
    theirs = [(there.source.first, _flat(there.weight.transpose(1, 0, 2))) for _, there in readers]
    return _stacked(ours, sizes[0]), _stacked(theirs, sizes[1])


def _stacked(parts: Sequence[tuple[int, Array]], height: int) -> Array:
    """Blocks of rows side by side [height, sum of their columns], each from its own first row on, zeros elsewhere."""
    result = np.zeros((height, sum(part.shape[1] for _, part in parts)))
    column = 0
    for first, part in parts:
        result[first : first + len(part), column : column + part.shape[1]] = part
        column += part.shape[1]
    return result


def _aligned(here: Map, there: Map, matches: Mapping[str, _Match]) -> Map:
    weight = _rows(_columns(here, there, matches), here, there, matches)
    return Map(weight, _rows(here.bias, here, there, matches), there.source, there.target)


def _columns(here: Map, there: Map, matches: Mapping[str, _Match]) -> Array:
    """The suspect's ``weight`` as it reads from the reference's channels: copies added up, zero where there is none."""
    if there.source.label is None:
        return here.weight
    match, (outputs, inputs, taps) = matches[there.source.label], here.weight.shape
    by_input = here.weight.transpose(1, 0, 2)
    ours = slice(here.source.first, here.source.first + inputs)
    owner, width = match.owner[ours] - there.source.first, there.weight.shape[1]
    used = np.flatnonzero((owner >= 0) & (owner < width))
    result = np.zeros((width, outputs, taps))
    np.add.at(result, owner[used], by_input[used] * match.share[ours][used, None, None])
    return result.transpose(1, 0, 2)


def _rows(values: Array, here: Map, there: Map, matches: Mapping[str, _Match]) -> Array:
    """The suspect's ``values`` [out, ...] for the reference's channels: chosen, scaled, zero where there is none."""
    if there.target.label is None:
        return values
    match = matches[there.target.label]
    theirs = slice(there.target.first, there.target.first + len(there.bias))
    units, scale = match.units[theirs] - here.target.first, match.scale[theirs]
    found = (match.units[theirs] >= 0) & (units >= 0) & (units < len(values))
    result = np.zeros((len(units), *values.shape[1:]))
    result[found] = (values[units[found]].T / scale[found]).T
    return result


def _flat(weight: Array) -> Array:
    return weight.reshape(len(weight), -1)


def balanced(weight: Array, reference: Array) -> Array:
    """``weight`` [out, in, taps] with its outputs and inputs scaled to the norms of those of ``reference``.

    For reading an aligned map: what scale a channel has is the thief's to choose, and estimates of it are noise. Scales
    of outputs and of inputs in turns (Sinkhorn), ``SCALINGS`` times. Zeros stay, as do signs.
    """
    for _ in range(SCALINGS):
        for axes in ((1, 2), (0, 2)):
            norms, wanted = (np.linalg.norm(part, axis=axes, keepdims=True) for part in (weight, reference))
            weight = weight * (wanted / np.where(norms > 0, norms, 1.0))
    return weight


def _cosines(left: Array, right: Array) -> Array:
    """The cosines [a, b] of the rows of [a, k] and [b, k]; 0 for a row of zeros."""
    cosines: Array = _unit(left) @ _unit(right).T
    return cosines


def _unit(rows: Array) -> Array:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Array = rows / np.where(norms > 0, norms, 1.0)
    return unit
