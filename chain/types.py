"""The contracts' structs and enums as Python values.

Each dataclass has the fields of its Solidity struct, in order, in snake case. Digests, roots and beacons are 32
``bytes``, amounts are wei, times are seconds since 1970, ``WAD`` numbers are integers scaled by 10^18.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from fractions import Fraction
from typing import Any, TypeVar, get_type_hints

from chain.errors import ChainError
from chain.rewards import WAD, RoundRules
from pol.merkle import MerkleProof
from pol.transcript import Anchor, Segment, segment_tree

T = TypeVar("T")
BPS = 10_000
FINAL_ROUND = 3
NO_DIGEST = bytes(32)


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


class CaseVerdict(IntEnum):
    """How a case on chain ended; ``PENDING`` until it is settled. Not a verifier's verdict."""

    NONE = 0
    PENDING = 1
    UPHELD = 2
    REJECTED = 3
    INCONCLUSIVE = 4
    LAPSED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """The terms of a task, fixed at creation.

    ``machine_class`` zeros = any; ``q``, the alphas and ``lambda_`` are WAD; ``*_bps`` are parts of 10,000; stakes,
    rewards, bond and cost are wei; lengths and windows are seconds, ``steps`` and ``segment_length`` optimiser steps.
    What each means, and its bounds: chain/contracts/src/interfaces/ITasks.sol.
    """

    program_digest: bytes
    train_root: bytes
    eval_root: bytes
    final_set_commitment: bytes
    machine_class: bytes = NO_DIGEST
    start: int
    round_length: int
    window: int
    challenge_length: int
    steps: int
    segment_length: int
    q: int
    alpha_trainer: int
    alpha_validator: int
    lambda_: int
    gamma_bps: int
    min_trainer_stake: int
    min_validator_stake: int
    round_reward: int
    final_reward: int
    challenge_bond: int
    opening_cost: int
    sampled_segments: int
    burn_bps: int
    slash_bps: int
    answer_window: int
    vote_window: int

    @property
    def budget(self) -> int:
        """What the creator pays in (wei)."""
        return 2 * self.round_reward + self.final_reward

    @property
    def segments(self) -> int:
        """Segments that the task promises."""
        return -(-self.steps // self.segment_length)

    def round_rules(self, round_: int) -> RoundRules:
        """The round's numbers in the form of the reward model (:mod:`chain.rewards`)."""
        return RoundRules(
            reward=self.final_reward if round_ == FINAL_ROUND else self.round_reward,
            gamma=Fraction(self.gamma_bps, BPS),
            q=Fraction(self.q, WAD),
            alpha_trainer=Fraction(self.alpha_trainer, WAD),
            alpha_validator=Fraction(self.alpha_validator, WAD),
            sensitivity=Fraction(self.lambda_, WAD),
        )


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """The windows of a round, each half open and each ending where the next begins."""

    opens_at: int
    scores_from: int
    reveal_from: int
    settle_from: int
    settle_until: int


@dataclass(frozen=True, slots=True)
class PhaseTimes:
    """When the phases begin."""

    submission_from: int
    final_from: int
    challenge_from: int
    closed_from: int


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
    """One trainer's run in one task: what it promised, what was drawn, what it submitted.

    ``stopped`` is the number of segments it was declared to end with, in ``stop_block``; both are 0 without a stop.
    """

    spec_digest: bytes
    key_root: bytes
    transcript_digest: bytes
    anchored: int
    stopped: int
    stop_block: int
    reference_segment: int
    reference_digest: bytes
    beacon: Beacon
    mark: Beacon
    commitment: bytes
    commit_order: int
    round: int
    revealed: bool
    struck: bool
    model_digest: bytes

    @property
    def registered(self) -> bool:
        """Whether there is a run at all."""
        return self.spec_digest != NO_DIGEST


@dataclass(frozen=True, slots=True)
class ChainAnchor:
    """Segments [first, first + count), promised by ``root`` in ``block``."""

    first: int
    count: int
    block: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Stake:
    """One operator's stake, as staked."""

    operator: str
    own: int
    delegated: int


@dataclass(frozen=True, slots=True)
class Result:
    """A trainer in a settled round: mean score (WAD) and rank from 1; 0 = not ranked."""

    aggregate: int
    rank: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A task's ledger in the escrow."""

    budget: int
    allocated: int
    reclaimed: bool


@dataclass(frozen=True, slots=True)
class Case:
    """A dispute over one trainer's submission; times are 0 until they are known."""

    task_id: int
    trainer: str
    challenger: str
    evidence_digest: bytes
    seed: Beacon
    latch_by: int
    answer_by: int
    commit_by: int
    reveal_by: int
    verdict: CaseVerdict
    reproduced: bool
    uphold_weight: int
    reject_weight: int


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


def from_abi(cls: type[T], values: Sequence[Any]) -> T:
    """A decoded ABI tuple as the dataclass ``cls``, nested structs and enums included."""
    assert is_dataclass(cls)
    hints = get_type_hints(cls)
    names = [field.name for field in fields(cls)]
    return cls(**{name: _convert(hints[name], value) for name, value in zip(names, values, strict=True)})


def to_abi(value: Any) -> tuple[Any, ...]:
    """A flat dataclass as an ABI tuple."""
    return tuple(getattr(value, field.name) for field in fields(value))


def tokens(amount: int | str | Fraction) -> int:
    """An amount of whole tokens in wei, exactly; also any decimal number in WAD: ``tokens("0.9")``.

    Raises ``ValueError`` for more than 18 decimals.
    """
    scaled = Fraction(amount) * WAD
    if scaled.denominator != 1:
        raise ValueError(f"{amount} has more than 18 decimals")
    return int(scaled)


def _convert(hint: Any, value: Any) -> Any:
    if is_dataclass(hint):
        return from_abi(hint, value)  # type: ignore[arg-type]
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return hint(value)
    return value
