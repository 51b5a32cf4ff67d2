"""The terms of a task, in four parts, and the clock that follows from them.

Fields, order and names are those of chain/contracts/src/interfaces/ITasks.sol, which says what each means and its
bounds. Roots and digests are 32 ``bytes``, zeros for none; amounts are wei; ``start`` is seconds since 1970, lengths
and windows are seconds; ``*_bps`` are parts of 10,000; ``q``, the alphas and ``lambda_`` are WAD, integers scaled by
10^18.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction

from chain import rewards
from chain.rewards import WAD, RoundRules

BPS = 10_000
NO_DIGEST = bytes(32)
NO_ADDRESS = "0x" + "00" * 20


class Aggregator(IntEnum):
    """How the scores of a round become one number a model."""

    MEAN = 0
    MEDIAN = 1


class Numerics(IntEnum):
    """What replays must agree on: the bits on one class of machine, or the bits on any machine."""

    MACHINE = 0
    EXACT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """When things happen. The final validation is the round after the last of ``rounds`` submission rounds."""

    start: int
    round_length: int
    window: int
    challenge_length: int
    rounds: int

    @property
    def final_round(self) -> int:
        """The number of the final validation."""
        return self.rounds + 1

    @property
    def submissions_end(self) -> int:
        """When the last submission round ends."""
        return self.start + self.rounds * self.round_length


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be trained, and what a spec may say."""

    program_digest: bytes
    train_root: bytes
    eval_root: bytes
    final_set_commitment: bytes
    bases_root: bytes = NO_DIGEST
    classes_root: bytes = NO_DIGEST
    config_bounds: bytes = NO_DIGEST
    step_verifier: str = NO_ADDRESS
    numerics: Numerics
    steps: int
    segment_length: int

    @property
    def segments(self) -> int:
        """Segments that the task promises."""
        return -(-self.steps // self.segment_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pay:
    """Who earns what, and who may take part."""

    aggregator: Aggregator = Aggregator.MEAN
    q: int
    alpha_trainer: int
    alpha_validator: int
    lambda_: int
    gamma_bps: int
    round_reward: int
    final_reward: int
    deposit: int
    min_trainer_stake: int
    min_validator_stake: int
    max_trainers: int
    max_validators: int
    run_bond: int
    min_delegation: int

    def rules(self, reward: int) -> RoundRules:
        """The numbers of a round with this reward (wei), in the form of the reward model (:mod:`chain.rewards`)."""
        return RoundRules(
            reward=reward,
            gamma=Fraction(self.gamma_bps, BPS),
            q=Fraction(self.q, WAD),
            alpha_trainer=Fraction(self.alpha_trainer, WAD),
            alpha_validator=Fraction(self.alpha_validator, WAD),
            sensitivity=Fraction(self.lambda_, WAD),
            aggregator=rewards.Aggregator[self.aggregator.name],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Court:
    """How cases are tried."""

    bond: int
    opening_cost: int
    sampled: int
    named: int
    burn_bps: int
    slash_bps: int
    show_window: int
    answer_window: int
    vote_window: int
    appeal_window: int
    jurors: int
    appeals: int

    @property
    def longest_case(self) -> int:
        """The longest a case can take (seconds): a case is sealed only while there is so much time left."""
        votes = 2 * (self.appeals + 1) + 1
        return self.show_window + 3 * self.answer_window + votes * self.vote_window + self.appeals * self.appeal_window


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """All terms of a task, fixed at creation."""

    clock: Clock
    work: Work
    pay: Pay
    court: Court

    @property
    def budget(self) -> int:
        """What all rounds together pay at most, sponsors aside (wei)."""
        return self.clock.rounds * self.pay.round_reward + self.pay.final_reward

    @property
    def cost(self) -> int:
        """What the creator pays in: budget and deposit (wei)."""
        return self.budget + self.pay.deposit

    def round_rules(self, round_: int, *, sponsored: int = 0) -> RoundRules:
        """The round's numbers in the form of the reward model, with what sponsors added to its reward (wei)."""
        final = round_ == self.clock.final_round
        return self.pay.rules((self.pay.final_reward if final else self.pay.round_reward) + sponsored)


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
