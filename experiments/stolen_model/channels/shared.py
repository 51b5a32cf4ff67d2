"""What the channels share: repeatable secrets, and evidence as a reading."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final, NamedTuple, Protocol

from torch import nn

from experiments.baselines.scheme import Owner, Reading, Scheme
from pol.encoding import digest, u64
from watermark import Evidence

SECRET_DOMAIN: Final = "aiarena/experiment-secret/v1"
LEAVES: Final = 8
"""Leaves a group."""


class Coins(NamedTuple):
    """``matches`` of many keys on one innocent; each of the ``trials`` of a key matches with ``chance``."""

    matches: list[int]
    trials: int
    chance: Fraction


class Channel(Scheme, Protocol):
    """A scheme with an exact null hypothesis."""

    def null(self, owner: Owner, innocent: nn.Module, keys: range) -> Coins:
        """The matches of other owners' keys (by number) on ``innocent``, with ``owner``'s theta_ref."""
        ...

    def parameters(self, owner: Owner) -> Any:
        """What the owner promises of this channel in its spec."""
        ...

    def at(self, strength: float) -> Channel:
        """The same channel with ``strength`` times the margin."""
        ...


def secret(seed: int, purpose: bytes) -> bytes:
    """32 bytes for ``purpose`` from ``seed``: these experiments must be repeatable, so their keys are no secrets."""
    return digest(SECRET_DOMAIN, u64(seed), purpose)


def beta_of(seed: int) -> bytes:
    """The beacon that the owner's bits and labels are bound to."""
    return secret(seed, b"beta")


def reading_of(evidence: Evidence) -> Reading:
    """Evidence as a reading: the score is -log2 p. Where no leaf could be read at all, nothing is retained."""
    share = evidence.matches / evidence.trials if evidence.trials else 0.0
    return Reading(-evidence.log2_p, share, evidence.log2_p, evidence.accepted, evidence.trials)
