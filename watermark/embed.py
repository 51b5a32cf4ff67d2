"""Embedding a mark at the least change, and replaying it.

A group's final rows are a pure function of theta_ref's tensor, the group's leaves, beta, the key root and the
parameters: the nearest rows (L2 norm) in which every bit stands at least ``margin`` sigma off zero, up to the rounding
of the result to float32. Bits that already do cost nothing. Sums are rounded once (``math.fsum``) and everything else
is element-wise IEEE arithmetic in a fixed order, so the result has the same bits on every machine, whatever its BLAS,
threads or torch build.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from pol.errors import ProofError, SpecError
from pol.tensors import same_bits
from watermark.carrier import MarkParameters, carrier_factors, carrier_scale, mark_bit
from watermark.key import Leaf, LeafOpening, WatermarkKey
from watermark.least_norm import least_weights
from watermark.mlp import Array, Float32s, State, read_mlp


def embed(theta_ref: State, key: WatermarkKey, beta: bytes, parameters: MarkParameters) -> dict[str, torch.Tensor]:
    """The marked model: a new float32 state dict that differs from ``theta_ref`` in the carrier tensor's groups only.

    A later submission of the same run passes the later trunk state that it branches from as ``theta_ref``; key and
    beta stay, and so do the bits.

    Raises :class:`SpecError` if the model is not a float32 MLP that the parameters fit, or the key has another number
    of leaves than they ask for.
    """
    if key.leaf_count != parameters.leaf_count:
        raise SpecError(f"the key has {key.leaf_count} leaves and the parameters ask for {parameters.leaf_count}")
    weight = _carrier_weight(theta_ref, parameters)
    sigma = carrier_sigma(weight)
    marked = weight.copy()
    for group in range(parameters.groups):
        rows, leaves = parameters.block(group), [key.leaves[index] for index in parameters.indices([group])]
        marked[rows] = embed_group(weight[rows], leaves, beta, key.root, margin=parameters.margin * sigma)
    result = {name: tensor.detach().clone() for name, tensor in theta_ref.items()}
    result[parameters.tensor] = torch.from_numpy(marked)
    return result


def carrier_sigma(weight: Float32s) -> float:
    """The rms of theta_ref's carrier tensor, rounded once: the spread of ``<R, W>`` for a carrier of norm 1."""
    return math.sqrt(math.fsum(np.square(weight.astype(np.float64)).ravel().tolist()) / weight.size)


def embed_group(
    block: Float32s, leaves: Sequence[Leaf | LeafOpening], beta: bytes, key_root: bytes, *, margin: float
) -> Float32s:
    """The marked rows of one group (float32, the shape of ``block`` [rows, columns], which is float32 as well).

    ``margin`` is absolute (``MarkParameters.margin`` times :func:`carrier_sigma` of theta_ref's tensor). Raises
    :class:`SpecError` if the carriers of the leaves depend on each other linearly, as those of equal seeds do.
    """
    rows, columns = block.shape
    scale = carrier_scale(rows, columns)
    start: Array = block.astype(np.float64)
    factors = [carrier_factors(leaf.seed, rows, columns) for leaf in leaves]
    bits = [mark_bit(beta, key_root, leaf.index, leaf.seed) for leaf in leaves]
    signed = [(bit * u, v) for bit, (u, v) in zip(bits, factors, strict=True)]
    missing = [margin - _inner(u, start, v) / scale for u, v in signed]
    for weight, (u, v) in zip(least_weights(_gram(signed), missing), signed, strict=True):
        start = start + (weight / scale) * (u[:, None] * v[None, :])
    return start.astype(np.float32)


def verify_embedding(
    theta_ref: State,
    model: State,
    openings: Iterable[LeafOpening],
    *,
    beta: bytes,
    key_root: bytes,
    parameters: MarkParameters,
    theta_0: State,
    bound: float,
) -> list[str]:
    """What speaks against ``model`` being ``theta_ref`` marked with this key: one sentence a finding, none if it holds.

    Every tensor but the carrier must be equal to the bit, so must the carrier's rows that no group owns, and every
    opened group must replay to the bit (all of its leaves must be there). The carrier may have moved by at most
    ``bound`` times its distance from ``theta_0`` to ``theta_ref`` (Frobenius norms). Groups that were not opened are
    held by that bound alone. Raises :class:`ProofError` if a leaf is not in the key, and :class:`SpecError` if
    ``theta_ref`` or ``theta_0`` is not an MLP that the parameters fit.
    """
    reference = _carrier_weight(theta_ref, parameters)
    initial = _carrier_weight(theta_0, parameters)
    if initial.shape != reference.shape:
        raise SpecError(f"{parameters.tensor} is {initial.shape} in theta_0 and {reference.shape} in theta_ref")
    groups = _opened_groups(openings, key_root, parameters)
    findings = _changed_tensors(theta_ref, model, parameters.tensor)
    if findings:
        return findings
    marked = model[parameters.tensor].detach().cpu().numpy()
    if not np.isfinite(marked).all():
        return [f"{parameters.tensor} holds values that are not finite"]
    owned = parameters.groups * parameters.rows
    if marked[owned:].tobytes() != reference[owned:].tobytes():
        findings.append(f"{parameters.tensor}: rows from {owned} on belong to no group but differ from theta_ref")
    margin = parameters.margin * carrier_sigma(reference)
    for group, leaves in groups.items():
        rows = parameters.block(group)
        if len(leaves) != parameters.leaves:
            findings.append(f"group {group}: {len(leaves)} of {parameters.leaves} leaves were opened")
        elif not _replays(reference[rows], marked[rows], leaves, beta, key_root, margin=margin):
            findings.append(f"group {group}: {parameters.tensor} does not replay from theta_ref and the opened leaves")
    change, way = _distance(marked, reference), _distance(reference, initial)
    if not change <= bound * way:
        findings.append(f"{parameters.tensor} moved by {change:.6g} from theta_ref, more than {bound} x {way:.6g}")
    return findings


def _replays(
    block: Float32s, marked: Float32s, leaves: Sequence[LeafOpening], beta: bytes, key_root: bytes, *, margin: float
) -> bool:
    try:
        return embed_group(block, leaves, beta, key_root, margin=margin).tobytes() == marked.tobytes()
    except SpecError:  # carriers that depend on each other: such a group cannot have been embedded
        return False


def _carrier_weight(state: State, parameters: MarkParameters) -> Float32s:
    parameters.check_carrier(read_mlp(state, where="theta"), where="theta")
    tensor = state[parameters.tensor]
    if tensor.dtype != torch.float32:
        raise SpecError(f"{parameters.tensor} is {tensor.dtype}: only float32 can be marked")
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def _opened_groups(
    openings: Iterable[LeafOpening], key_root: bytes, parameters: MarkParameters
) -> Mapping[int, list[LeafOpening]]:
    groups: dict[int, dict[int, LeafOpening]] = {}
    for opening in openings:
        opening.check(key_root, parameters.leaf_count)
        leaves = groups.setdefault(opening.index // parameters.leaves, {})
        if opening.index in leaves:
            raise ProofError(f"watermark leaf {opening.index} was opened twice")
        leaves[opening.index] = opening
    return {group: [leaves[index] for index in sorted(leaves)] for group, leaves in sorted(groups.items())}


def _changed_tensors(theta_ref: State, model: State, carrier: str) -> list[str]:
    if set(model) != set(theta_ref):
        return [f"the model's tensors are {sorted(model)} and theta_ref's are {sorted(theta_ref)}"]
    findings = []
    for name, tensor in theta_ref.items():
        other = model[name]
        if (other.dtype, other.shape) != (tensor.dtype, tensor.shape):
            findings.append(f"{name} is {other.dtype} {list(other.shape)}, not {tensor.dtype} {list(tensor.shape)}")
        elif name != carrier and not same_bits(other, tensor):
            findings.append(f"{name} differs from theta_ref, but only {carrier} may")
    return findings


def _distance(left: Float32s, right: Float32s) -> float:
    return math.sqrt(math.fsum(np.square(left.astype(np.float64) - right.astype(np.float64)).ravel().tolist()))


def _inner(u: Array, block: Array, v: Array) -> float:
    # u and v are signs, so each product is exact and the sum is rounded once.
    return math.fsum((u[:, None] * block * v[None, :]).ravel().tolist())


def _gram(factors: Sequence[tuple[Array, Array]]) -> Array:
    u, v = (np.stack(side) for side in zip(*factors, strict=True))
    # Integers below 2^53: exact in whatever order the products are summed.
    gram: Array = (u @ u.T) * (v @ v.T) / (u.shape[1] * v.shape[1])
    return gram
