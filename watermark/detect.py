"""Detection: does a model carry the marks that these claims say it does?

The null hypothesis is exact. Carriers, theta_ref and the suspect are fixed before or without the bits, alignment is a
function of them alone, and the bits are fair coins given all three, so the matches of an innocent model are exactly
Bin(M, 1/2). Inner products that are zero or not finite are misses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from pol.errors import SpecError
from watermark.align import align_layers
from watermark.carrier import carrier_factors, mark_bit
from watermark.claim import Claim
from watermark.evidence import Evidence
from watermark.key import LeafOpening
from watermark.mlp import Array, Layer, State, read_mlp

VOID_LOG2: Final = -20
"""A claim that matches its own theta_ref or theta_0 at 2^-20 is void: those were made before the bits."""


def detect(model: State, claims: Sequence[Claim], *, suspects: int = 1) -> list[Evidence]:
    """The evidence of each claim against ``model``, by the union bound over all claims times ``suspects``.

    ``suspects`` is how many models these claims are tested on in all. A model that is no finite MLP, or has another
    depth, inputs or outputs than a claim's theta_ref, never matches; a claim is void, and never matches, if two
    opened leaves have one seed, or if it matches theta_ref itself (or theta_0, where the verifier has set it).
    Raises :class:`pol.errors.ProofError` if a claim is malformed or an opened leaf is not in its key, and
    :class:`pol.errors.SpecError` if a ``theta_0`` that the verifier has set is not comparable with theta_ref.
    """
    for claim in claims:
        claim.check()
    tests = max(1, len(claims) * suspects)
    try:
        layers = read_mlp(model, where="the suspect")
    except SpecError as error:
        return [Evidence(0, len(claim.expected), tests, void=str(error)) for claim in claims]
    return [_test(layers, claim, tests) for claim in claims]


def count_matches(weight: Array, claim: Claim) -> int:
    """How many of the claim's opened bits ``weight`` agrees with: a carrier tensor aligned to theta_ref, float64."""
    return sum(_agrees(weight, leaf, claim) for leaf in claim.leaves)


def _test(suspect: tuple[Layer, ...], claim: Claim, tests: int) -> Evidence:
    trials = len(claim.expected)
    try:
        reason = _void(claim)
        return Evidence(0 if reason else _matches(suspect, claim), trials, tests, void=reason)
    except SpecError as error:
        return Evidence(0, trials, tests, void=str(error))


def _void(claim: Claim) -> str | None:
    if len({leaf.seed for leaf in claim.leaves}) != len(claim.leaves):
        return "two opened leaves have one seed"
    reference = read_mlp(claim.theta_ref, where="theta_ref")
    layer = claim.parameters.check_carrier(reference, where="theta_ref")
    matches = {"theta_ref": count_matches(reference[layer].weight, claim)}
    if claim.theta_0 is not None:
        matches["theta_0"] = _matches(read_mlp(claim.theta_0, where="theta_0"), claim)
    for name, count in matches.items():
        if Evidence(count, len(claim.expected)).log2_p <= VOID_LOG2:
            return f"the mark is in {name} already, which was made before the bits were drawn"
    return None


def _matches(suspect: tuple[Layer, ...], claim: Claim) -> int:
    reference = read_mlp(claim.theta_ref, where="theta_ref")
    layer = claim.parameters.check_carrier(reference, where="theta_ref")
    return count_matches(align_layers(suspect, reference)[layer].weight, claim)


def _agrees(weight: Array, leaf: LeafOpening, claim: Claim) -> bool:
    block = weight[claim.parameters.block(leaf.index // claim.parameters.leaves)]
    u, v = carrier_factors(leaf.seed, *block.shape)
    # A comparison with NaN is False, and so is one with a tie: both are misses.
    return mark_bit(claim.beta, claim.key_root, leaf.index, leaf.seed) * float(np.dot(u @ block, v)) > 0
