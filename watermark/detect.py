"""Detection: does a model carry the marks that these claims say it does?

The null hypothesis is exact. Carriers, trigger inputs, theta_ref and the suspect are fixed before or without the bits,
whatever reads or aligns the suspect is a function of them alone, and bits and labels are even draws given all of them.
So an innocent model's matches are exactly binomial, channel by channel. Ties and what is not finite are misses. Leaves
whose rows a thief cut out or drew anew are no trials (:mod:`watermark.weights.reading`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch

from pol.errors import SpecError
from watermark.claim import Claim
from watermark.evidence import Evidence, Trials
from watermark.key import LeafOpening
from watermark.outputs.parameters import OutputMark
from watermark.outputs.reading import output_matches
from watermark.triggers.reading import trigger_matches, trigger_null
from watermark.weights import reading
from watermark.weights.arrays import State
from watermark.weights.reading import Count, Reading

VOID_LOG2: Final = -20
"""A claim that matches its own theta_ref or theta_0 at 2^-20 is void: those were made before the bits."""

Network: TypeAlias = Callable[[State], Callable[[torch.Tensor], torch.Tensor]]
"""What the task's program makes of a model's tensors: a function from inputs to outputs, in evaluation mode."""
Probes: TypeAlias = Callable[[bytes, OutputMark], torch.Tensor]
"""The judge's inputs [mark.images, ...] for the claim of a key root; SpecError if there are not so many."""


@dataclass(frozen=True, slots=True, eq=False)
class Court:
    """What the judge brings, and no accuser: the task's network, and inputs of its own for channels that ask a model.

    ``probes`` gives the inputs that :func:`watermark.outputs.probe_indices` names for a key root. A channel for which
    something is missing here is not tested.
    """

    network: Network | None = None
    probes: Probes | None = None


def detect(model: State, claims: Sequence[Claim], *, suspects: int = 1, court: Court | None = None) -> list[Evidence]:
    """The evidence of each claim against ``model``: that of its strongest channel.

    The union bound counts all claims times ``suspects`` (how many models these claims are tested on in all) times the
    channels tested; an alignment is one function, and adds no tests. A model that is not finite, or cannot be compared
    with a claim's theta_ref, never matches; a claim is void, and never matches, if two opened leaves have one seed, or
    if it matches theta_ref itself (or theta_0, where the verifier has set it). Raises :class:`pol.errors.ProofError` if
    a claim is malformed or an opened leaf is not in its key.
    """
    for claim in claims:
        claim.check()
    return [
        min(by_channel, key=lambda found: (not found.accepted, found.log2_p))
        for by_channel in detect_channels(model, claims, suspects=suspects, court=court)
    ]


def detect_channels(
    model: State, claims: Sequence[Claim], *, suspects: int = 1, court: Court | None = None
) -> list[list[Evidence]]:
    """As :func:`detect`, for claims that were checked: the evidence of every channel of every claim."""
    court = court or Court()
    tests = max(1, len(claims) * suspects)
    found = []
    for claim in claims:
        channels = [name for name in claim.parameters.channels if _opened(claim, name) and _testable(court, name)]
        untested = Evidence(0, 0, tests, void="no channel of this mark could be tested here")
        found.append([_test(model, claim, name, tests * len(channels), court) for name in channels] or [untested])
    return found


def read(model: State, claim: Claim) -> Sequence[Reading]:
    """The marked matrices of ``model`` in the claim's coordinates; :class:`SpecError` if it cannot be compared."""
    if claim.parameters.weights is None:
        raise SpecError("this claim's mark is not in the weights")
    return reading.read_weights(model, claim.theta_ref, claim.parameters.weights, claim.base)


def count_matches(readings: Sequence[Reading], claim: Claim) -> Count:
    """How many of the claim's opened bits the readings of a model, from :func:`read`, agree with.

    Leaves that had to be opened and were not are misses.
    """
    mark = claim.parameters.weights
    assert mark is not None
    leaves = _leaves(claim, "weights")
    matches, trials = reading.count_matches(readings, leaves, claim.beta, claim.key_root, mark)
    return Count(matches, trials + len(_opened(claim, "weights")) - len(leaves))


def _test(model: State, claim: Claim, channel: str, tests: int, court: Court) -> Evidence:
    def evidence(found: Count, void: str | None = None) -> Evidence:
        return Evidence(*found, tests, void=void, channel=channel, null=_null(claim, channel, found.trials))

    nothing = Count(0, len(_opened(claim, channel)))
    if len({leaf.seed for leaf in claim.leaves}) != len(claim.leaves):
        return evidence(nothing, "two opened leaves have one seed")
    before = {"theta_ref": claim.theta_ref} | ({} if claim.theta_0 is None else {"theta_0": claim.theta_0})
    try:
        for name, state in before.items():
            if evidence(_count(state, claim, channel, court)).log2_p <= VOID_LOG2:
                return evidence(nothing, f"the mark is in {name} already, which was made before the bits were drawn")
        return evidence(_count(model, claim, channel, court))
    except SpecError as error:
        return evidence(nothing, str(error))


def _count(model: State, claim: Claim, channel: str, court: Court) -> Count:
    if channel == "weights":
        return count_matches(read(model, claim), claim)
    return Count(_matches(model, claim, channel, court), len(_opened(claim, channel)))


def _matches(model: State, claim: Claim, channel: str, court: Court) -> int:
    assert court.network is not None
    suspect, reference = court.network(model), court.network(claim.theta_ref)
    leaves, parameters = _leaves(claim, channel), claim.parameters
    if parameters.triggers and channel == "triggers":
        return trigger_matches(suspect, reference, leaves, claim.beta, claim.key_root, parameters.triggers)
    assert parameters.outputs is not None and court.probes is not None
    probes = court.probes(claim.key_root, parameters.outputs)
    return output_matches(suspect, reference, probes, leaves, claim.beta, claim.key_root, parameters.outputs)


def _null(claim: Claim, channel: str, trials: int) -> tuple[Trials, ...]:
    triggers = claim.parameters.triggers
    return trigger_null(triggers, trials) if triggers and channel == "triggers" else ()


def _opened(claim: Claim, channel: str) -> list[int]:
    """The leaves of ``channel`` that had to be opened: its number of trials."""
    own = claim.parameters.leaves_of(channel)
    return [index for index in claim.expected if index in own]


def _leaves(claim: Claim, channel: str) -> list[LeafOpening]:
    own = claim.parameters.leaves_of(channel)
    return [leaf for leaf in claim.leaves if leaf.index in own]


def _testable(court: Court, channel: str) -> bool:
    asked = {"weights": True, "triggers": court.network is not None}
    return asked.get(channel, court.network is not None and court.probes is not None)
