"""What was so when the game before the court (:mod:`tests.chain.courtgame`) begins."""

from dataclasses import dataclass
from fractions import Fraction

from chain.terms import Numerics
from chain.types import tokens
from tests.chain.play import digest, task_config

WINDOW = 100
"""Seconds of every window."""


@dataclass(frozen=True)
class Setting:
    """What was so when the game begins: the thief's stake and what is lent to her (whole tokens), the sybils' share of
    the validators' stake, the terms that matter, whether somebody honest will accuse her, and the windows by which the
    phase is longer than the longest case."""

    stake: int = 1_000
    lent: int = 0
    sybils: Fraction = Fraction(1, 5)
    burn_bps: int = 0
    slash_bps: int = 10_000
    bond: int = 50
    opening_cost: int = 5
    jurors: int = 3
    appeals: int = 1
    accused: bool = False
    spare: int = 2

    def terms(self, start):
        return task_config(
            {
                "start": start,
                "round_length": 5 * WINDOW,
                "window": WINDOW,
                "challenge_length": (7 + 3 * self.appeals + self.spare) * WINDOW + WINDOW // 2,
                "rounds": 1,
                "program_digest": digest("program"),
                "train_root": digest("train"),
                "eval_root": digest("eval"),
                "final_set_commitment": digest("final"),
                "numerics": Numerics.EXACT,
                "steps": 2,
                "segment_length": 1,
                "q": tokens("0.5"),
                "alpha_trainer": tokens(1),
                "alpha_validator": tokens(1),
                "lambda_": tokens(5),
                "gamma_bps": 5_000,
                "round_reward": tokens(1_000),
                "final_reward": tokens(1_000),
                "deposit": tokens(1),
                "min_trainer_stake": tokens(1),
                "min_validator_stake": tokens(1),
                "max_trainers": 4,
                "max_validators": 8,
                "run_bond": 1,
                "min_delegation": tokens(1),
                "bond": tokens(self.bond),
                "opening_cost": tokens(self.opening_cost),
                "sampled": 1,
                "named": 0,
                "burn_bps": self.burn_bps,
                "slash_bps": self.slash_bps,
                "show_window": WINDOW,
                "answer_window": WINDOW,
                "vote_window": WINDOW,
                "appeal_window": WINDOW,
                "jurors": self.jurors,
                "appeals": self.appeals,
            }
        )
