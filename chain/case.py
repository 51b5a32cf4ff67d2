"""The structs and enums of a case before the ChallengeManager, as Python values: see :mod:`chain.types`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from chain.types import Beacon


class Ground(IntEnum):
    """What a challenger says is wrong."""

    REPLAY = 0
    WATERMARK = 1


class Stage(IntEnum):
    """Where a case stands."""

    NONE = 0
    SEALED = 1
    SHOWN = 2
    DRAWN = 3
    VOTING = 4
    SERVING = 5
    SETTLED = 6


class CaseVerdict(IntEnum):
    """How a case on chain ended; ``PENDING`` until it is settled. Not a verifier's verdict."""

    NONE = 0
    PENDING = 1
    UPHELD = 2
    REJECTED = 3
    INCONCLUSIVE = 4
    LAPSED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a sealed case holds: against the ``trainer``'s submission of ``round``.

    ``claim`` is the challenger's own run whose key is opened (watermarks only), ``named`` the segments to open besides
    those drawn.
    """

    trainer: str
    round: int
    ground: Ground
    claim: int = 0
    evidence_digest: bytes
    named: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """The votes of a case's present sitting, by weight."""

    uphold: int
    reject: int
    unavailable: int
    reproduced: bool


@dataclass(frozen=True, slots=True)
class Case:
    """A dispute over one submission; times are 0 until they are known, and so is what is shown later.

    ``leaves`` counts the leaves of its key that the challenger opened so far (watermarks only).
    """

    task_id: int
    challenger: str
    deadline: int
    stage: Stage
    verdict: CaseVerdict
    level: int
    answered: bool
    leaves_opened: bool
    served_again: bool
    leaves: int
    reveal_by: int
    commitment: bytes
    run_id: int
    charge: Charge
    seed: Beacon
    jury: Beacon
    tally: Tally


@dataclass(frozen=True, slots=True)
class MarkChannel:
    """The groups of one channel of a watermark, and the leaves of each; channels number both through."""

    groups: int
    leaves: int


@dataclass(frozen=True, slots=True)
class LeafRange:
    """Neighbouring leaves of a watermark key, opened: ``seed, salt`` of each in order, and the nodes that lead them to
    the key's root (:func:`pol.merkle.range_siblings`)."""

    secrets: tuple[bytes, ...]
    siblings: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class BlockOpening:
    """One 16 KiB block of one tensor of a state, by its digests: block ``index`` of ``blocks`` with digest ``leaf``,
    tensor ``position`` of ``tensors`` in the order of their names."""

    header: bytes
    leaf: bytes
    index: int
    blocks: int
    block_siblings: tuple[bytes, ...]
    position: int
    tensors: int
    tensor_siblings: tuple[bytes, ...]
