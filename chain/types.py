"""The contracts' structs and enums as Python values.

Each dataclass has the fields of its Solidity struct, in order, in snake case. Digests, roots and beacons are 32
``bytes``, amounts are wei, times are seconds since 1970, ``WAD`` numbers are integers scaled by 10^18.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from fractions import Fraction
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from chain.errors import ChainError
from chain.rewards import WAD
from chain.terms import NO_DIGEST
from pol.merkle import MerkleProof
from pol.transcript import Anchor, Segment, segment_tree

T = TypeVar("T")


class Role(IntEnum):
    """What an account is in a task; at most one role a task."""

    NONE = 0
    TRAINER = 1
    VALIDATOR = 2


class Phase(IntEnum):
    """Where a task stands; follows from the block's time alone."""

    REGISTRATION = 0
    SUBMISSION = 1
    FINAL_VALIDATION = 2
    CHALLENGING = 3
    CLOSED = 4


class Bond(IntEnum):
    """Where the bond of a run is."""

    NONE = 0
    HELD = 1
    RETURNED = 2
    BURNED = 3


@dataclass(frozen=True, slots=True)
class Beacon:
    """A promised block and its hash: ``block`` is 0 until requested, ``value`` zeros until latched."""

    block: int
    value: bytes

    @property
    def latched(self) -> bool:
        """Whether the hash is stored."""
        return self.value != NO_DIGEST


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a trainer in a task: what it promised, what was drawn, what of it was anchored.

    ``stopped`` is the number of segments it was declared to end with, in ``stop_block``; both are 0 without a stop.
    ``first_order`` is the commit order of the first submission of it that was revealed and stands; 0 = none.
    """

    task_id: int
    trainer: str
    bond: Bond
    first_order: int
    spec_digest: bytes
    key_root: bytes
    base_digest: bytes
    transcript_digest: bytes
    anchored: int
    stopped: int
    stop_block: int
    reference_segment: int
    reference_digest: bytes
    beacon: Beacon
    mark: Beacon


@dataclass(frozen=True, slots=True)
class Submission:
    """What a trainer submitted in one round; ``order`` counts the task's commitments from 1, 0 = nothing.

    ``anchored`` segments of the run were anchored at the commitment, under ``transcript_digest``; the model's branch
    leaves the trunk after segment ``branch``.
    """

    run_id: int
    order: int
    anchored: int
    branch: int
    revealed: bool
    struck: bool
    commitment: bytes
    transcript_digest: bytes
    model_digest: bytes

    @property
    def committed(self) -> bool:
        """Whether anything was promised."""
        return self.order != 0

    @property
    def stands(self) -> bool:
        """Whether it was shown and nobody had promised the same model before."""
        return self.revealed and not self.struck


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model and its path in the task's list; the default is none: the run starts from the seed."""

    digest: bytes = NO_DIGEST
    position: int = 0
    count: int = 0
    siblings: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class ChainAnchor:
    """Segments [first, first + count), promised by ``root`` in ``block``."""

    first: int
    count: int
    block: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Stake:
    """One operator's stake in a round, as staked and as delegated before it."""

    operator: str
    commission_bps: int
    own: int
    delegated: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a delegator has at work with an operator, in all, from round ``from_`` on."""

    from_: int
    amount: int


@dataclass(frozen=True, slots=True)
class Result:
    """A trainer in a ranked round: consensus score (WAD) and rank from 1; 0 = not ranked."""

    aggregate: int
    rank: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the settlement of a round is; counts run to the number of operators, pools are wei."""

    scored_round: int
    aggregated: int
    standing: int
    ranked: bool
    trainers_paid: int
    validators_weighed: int
    validators_paid: int
    settled: bool
    trainers_pool: int
    validators_pool: int
    trainers_weight: int
    validators_weight: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A task's ledger in the escrow."""

    budget: int
    sponsored: int
    allocated: int
    deposit: int
    reclaimed: bool


@dataclass(frozen=True, slots=True)
class Enlisted:
    """What a task takes part in the daily emission with: weight (WAD; 0 = not enlisted), first and last day."""

    weight: int
    first_day: int
    last_day: int


@dataclass(frozen=True, slots=True)
class Opening:
    """A segment, the number of the anchor it first appeared in, and its Merkle proof in that anchor's tree."""

    segment: Segment
    anchor_index: int
    proof: MerkleProof

    def to_abi(self) -> tuple[Any, ...]:
        """The Solidity struct. The position and the count are not sent: the contract knows them from the anchor."""
        segment = self.segment
        return (
            (
                segment.index,
                segment.start_step,
                segment.end_step,
                segment.start_digest,
                segment.end_digest,
                segment.batch_root,
            ),
            self.anchor_index,
            list(self.proof.siblings),
        )


def open_segment(segments: Sequence[Segment], anchors: Sequence[Anchor | ChainAnchor], index: int) -> Opening:
    """Open segment ``index`` of a run, given all its segments and anchors; raises :class:`ChainError` if no anchor
    covers it."""
    for number, anchor in enumerate(anchors):
        if anchor.first <= index < anchor.first + anchor.count:
            tree = segment_tree(segments[anchor.first : anchor.first + anchor.count])
            return Opening(segment=segments[index], anchor_index=number, proof=tree.prove(index - anchor.first))
    raise ChainError(f"segment {index} is not anchored: anchor it before opening it")


def from_abi(cls: type[T], values: Sequence[Any] | Mapping[str, Any]) -> T:
    """A decoded ABI tuple as the dataclass ``cls``, nested structs and enums included; of an event, its mapping."""
    assert is_dataclass(cls)
    values = list(values.values()) if isinstance(values, Mapping) else values
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls)]
    return cls(**{name: _convert(hints[name], value) for name, value in zip(names, values, strict=True)})


def to_abi(value: Any) -> tuple[Any, ...]:
    """A dataclass as an ABI tuple, nested ones included."""
    return tuple(_plain(getattr(value, field.name)) for field in fields(value))


def tokens(amount: int | str | Fraction) -> int:
    """An amount of whole tokens in wei, exactly; also any decimal number in WAD: ``tokens("0.9")``.

    Raises ``ValueError`` for more than 18 decimals.
    """
    scaled = Fraction(amount) * WAD
    if scaled.denominator != 1:
        raise ValueError(f"{amount} has more than 18 decimals")
    return int(scaled)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return to_abi(value) if is_dataclass(value) else value


def _convert(hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple:
        return tuple(_convert(get_args(hint)[0], item) for item in value)
    if is_dataclass(hint):
        return from_abi(hint, value)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return hint(value)
    return value
