"""Embedding a mark at the least change, and replaying it.

A group's final rows are a pure function of theta_ref's tensors, the group's leaves, beta, the key root and the
parameters: the nearest rows (L2 norm) in which every bit stands at least its margin off zero, up to the rounding of the
result to float32. Bits that already do cost nothing. Sums are rounded once (``math.fsum``) and everything else is
element-wise IEEE arithmetic in a fixed order, so the result has the same bits on every machine, whatever its BLAS,
threads or torch build.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from pol.errors import ProofError, SpecError
from pol.tensors import same_bits
from watermark.key import Leaf, LeafOpening, WholeKey
from watermark.weights.arrays import Array, Float32s, State
from watermark.weights.carriers import carrier_lengths, carrier_scale, signed_carriers
from watermark.weights.layouts import layout_of
from watermark.weights.least_norm import least_weights
from watermark.weights.parameters import Carrier, WeightMark

MAX_EMBED_CHANGE: Final = 0.25
"""How far an embed segment may move a tensor, in units of the tensor's way from theta_0 to theta_ref: what is not
opened of a mark is held by this bound alone. It is no measure of honesty: what a mark moves is a share of the weights,
and the way is short after a short training. (Measured for suggested marks: perceptron 0.24
after 60 steps and 0.17 after 600, GPT 0.28 after 60 and 0.16 after 200; in the experiments ResNet-20 0.17, CNN 0.20,
LoRA 0.16.) So ``watermark.mark_run`` goes no further, and a verifier who finds that somebody did leaves it undecided
until the whole key is shown."""


def embed_weights(theta_ref: State, key: WholeKey, beta: bytes, mark: WeightMark) -> dict[str, torch.Tensor]:
    """The marked model: a new state dict that differs from ``theta_ref`` in the carriers' rows of groups only.

    A later submission of the same run passes the later trunk state that it branches from as ``theta_ref``; key and
    beta stay, and so do the bits. Raises :class:`SpecError` if the mark does not fit the model, or its carriers are not
    float32.
    """
    grounds = _grounds(theta_ref, mark)
    marked = [ground.left.copy() for ground in grounds]
    for group in range(mark.groups):
        number, rows = mark.place(group)
        leaves = key.leaves[group * mark.leaves : (group + 1) * mark.leaves]
        marked[number][rows] = grounds[number].replay(rows, leaves, beta, key.root)
    result = {name: tensor.detach().clone() for name, tensor in theta_ref.items()}
    for carrier, left in zip(mark.carriers, marked, strict=True):
        result[carrier.tensor] = torch.from_numpy(left).view(theta_ref[carrier.tensor].shape)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Ground:
    """One carrier of theta_ref: the matrix L [rows, k] that is changed, F, and the margin of a carrier of norm 1."""

    left: Float32s
    right: Float32s | None
    margin: float

    def replay(self, rows: slice, leaves: Sequence[Leaf | LeafOpening], beta: bytes, key_root: bytes) -> Float32s:
        return embed_group(self.left[rows], leaves, beta, key_root, margin=self.margin, right=self.right)


def _grounds(state: State, mark: WeightMark) -> list[_Ground]:
    layout = layout_of(mark.layout)
    layout.check(state, mark.carriers, where="theta")
    factors = [layout.factors(state, tensor) for tensor in mark.tensors]
    carried = zip(mark.carriers, factors, strict=True)
    return [_Ground(left, right, carrier.margin * carrier_sigma(left)) for carrier, (left, right) in carried]


def carrier_sigma(weight: Float32s) -> float:
    """The rms of theta_ref's carrier tensor, rounded once: the spread of ``<R, W>`` for a carrier of norm 1."""
    return math.sqrt(math.fsum(np.square(weight.astype(np.float64)).ravel().tolist()) / weight.size)


def embed_group(
    block: Float32s,
    leaves: Sequence[Leaf | LeafOpening],
    beta: bytes,
    key_root: bytes,
    *,
    margin: float,
    right: Float32s | None = None,
) -> Float32s:
    """The marked rows of one group (float32, the shape of ``block`` [rows, k], which is float32 as well).

    What is marked is ``block @ right`` [rows, columns]; without ``right`` [k, columns] it is ``block`` itself. A bit
    stands ``margin`` times ``|F v| / sqrt(columns)``, which is 1 without ``right``, off zero; ``margin`` is that of the
    parameters times :func:`carrier_sigma`. Raises :class:`SpecError` if the carriers of the leaves depend on each other
    linearly, as those of equal seeds do.
    """
    rows, columns = len(block), (block if right is None else right).shape[1]
    scale = carrier_scale(rows, columns)
    start: Array = block.astype(np.float64)
    u, w = signed_carriers(leaves, beta, key_root, rows, columns, right)
    lengths = carrier_lengths(w, columns)
    missing = [margin * length - _inner(a, start, b) / scale for length, a, b in zip(lengths, u, w, strict=True)]
    gram = _gram(u, w, rows * columns) / (lengths[:, None] * lengths[None, :])
    weights = least_weights(gram, (np.array(missing) / lengths).tolist())
    for weight, length, a, b in zip(weights, lengths, u, w, strict=True):
        start = start + (weight / length / scale) * (a[:, None] * b[None, :])
    return start.astype(np.float32)


def verify_embedding(
    theta_ref: State,
    model: State,
    openings: Iterable[LeafOpening],
    *,
    beta: bytes,
    key_root: bytes,
    leaf_count: int,
    mark: WeightMark,
) -> list[str]:
    """What speaks against ``model`` being ``theta_ref`` marked with this key: one sentence a finding, none if it holds.

    Every tensor but the carriers must be equal to the bit, so must a carrier's rows that no group owns, and every
    opened group must replay to the bit (all of its leaves must be there). Groups that were not opened are held by
    :func:`moved_too_far` alone. Raises :class:`ProofError` if a leaf is not in the key, and :class:`SpecError` if
    ``theta_ref`` is not a model that the mark fits.
    """
    grounds = _grounds(theta_ref, mark)
    groups = _opened_groups(openings, key_root, leaf_count, mark)
    findings = _changed_tensors(theta_ref, model, mark.tensors)
    if findings:
        return findings
    marked = [_matrix(model[name]) for name in mark.tensors]
    for carrier, ground, left in zip(mark.carriers, grounds, marked, strict=True):
        findings += _moved_wrongly(carrier, ground.left, left)
    for group, leaves in groups.items():
        number, rows = mark.place(group)
        name = mark.carriers[number].tensor
        if len(leaves) != mark.leaves:
            findings.append(f"group {group}: {len(leaves)} of {mark.leaves} leaves were opened")
        elif not _replays(grounds[number], marked[number][rows], rows, leaves, beta, key_root):
            findings.append(f"group {group}: {name} does not replay from theta_ref and the opened leaves")
    return findings


def moved_too_far(
    theta_0: State, theta_ref: State, model: State, mark: WeightMark, bound: float = MAX_EMBED_CHANGE
) -> list[str]:
    """The carriers that lie further from ``theta_ref`` in ``model`` than ``bound`` times their way from ``theta_0``.

    One sentence each; distances are Frobenius norms. All three have these tensors, in the same shapes; raises
    :class:`SpecError` if theta_0 has not.
    """
    far = []
    for name in mark.tensors:
        if name not in theta_0 or theta_0[name].shape != theta_ref[name].shape:
            raise SpecError(f"{name} is not in theta_0 as it is in theta_ref")
        first, reference, marked = (_matrix(state[name]) for state in (theta_0, theta_ref, model))
        change, way = _distance(marked, reference), _distance(reference, first)
        if not change <= bound * way:
            far.append(f"{name} moved by {change:.4g} from theta_ref, more than {bound} of its way there, {way:.4g}")
    return far


def _moved_wrongly(carrier: Carrier, reference: Float32s, marked: Float32s) -> list[str]:
    name, owned = carrier.tensor, carrier.groups * carrier.rows
    if not np.isfinite(marked).all():
        return [f"{name} holds values that are not finite"]
    if marked[owned:].tobytes() != reference[owned:].tobytes():
        return [f"{name}: rows from {owned} on belong to no group but differ from theta_ref"]
    return []


def _replays(
    ground: _Ground, marked: Float32s, rows: slice, leaves: Sequence[LeafOpening], beta: bytes, key_root: bytes
) -> bool:
    try:
        return ground.replay(rows, leaves, beta, key_root).tobytes() == marked.tobytes()
    except SpecError:  # carriers that depend on each other: such a group cannot have been embedded
        return False


def _matrix(tensor: torch.Tensor) -> Float32s:
    return np.ascontiguousarray(tensor.detach().cpu().reshape(len(tensor), -1).numpy())


def _opened_groups(
    openings: Iterable[LeafOpening], key_root: bytes, leaf_count: int, mark: WeightMark
) -> Mapping[int, list[LeafOpening]]:
    groups: dict[int, dict[int, LeafOpening]] = {}
    for opening in openings:
        opening.check(key_root, leaf_count)
        leaves = groups.setdefault(opening.index // mark.leaves, {})
        if opening.index in leaves:
            raise ProofError(f"watermark leaf {opening.index} was opened twice")
        leaves[opening.index] = opening
    return {group: [leaves[index] for index in sorted(leaves)] for group, leaves in sorted(groups.items())}


def _changed_tensors(theta_ref: State, model: State, carriers: Sequence[str]) -> list[str]:
    if set(model) != set(theta_ref):
        return [f"the model's tensors are {sorted(model)} and theta_ref's are {sorted(theta_ref)}"]
    findings = []
    for name, tensor in theta_ref.items():
        other = model[name]
        if (other.dtype, other.shape) != (tensor.dtype, tensor.shape):
            findings.append(f"{name} is {other.dtype} {list(other.shape)}, not {tensor.dtype} {list(tensor.shape)}")
        elif name not in carriers and not same_bits(other, tensor):
            findings.append(f"{name} differs from theta_ref, but only {', '.join(carriers)} may")
    return findings


def _distance(left: Float32s, right: Float32s) -> float:
    return math.sqrt(math.fsum(np.square(left.astype(np.float64) - right.astype(np.float64)).ravel().tolist()))


def _inner(u: Array, block: Array, w: Array) -> float:
    # u is signs, and so is w without a right factor; each product is rounded at most once, and the sum once.
    return math.fsum((u[:, None] * block * w[None, :]).ravel().tolist())


def _gram(u: Array, w: Array, size: int) -> Array:
    columns = np.array([[math.fsum((one * other).tolist()) for other in w] for one in w])
    gram: Array = (u @ u.T) * columns / size
    return gram
