"""The outcome of a watermark test: an exact binomial tail, its correction for multiple tests, and the decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from pol.encoding import Json, float_text

ACCEPT_LOG2: Final = -64
"""A mark is found when the corrected p-value is at most 2^-64."""


def tail_count(matches: int, trials: int) -> int:
    """How many of the 2^trials outcomes of fair coins have at least ``matches`` heads (exact)."""
    term, total = 1, 0  # C(trials, trials), then downwards: the cost is the length of the tail
    for heads in range(trials, matches - 1, -1):
        total += term
        term = term * heads // (trials - heads + 1)
    return total


@dataclass(frozen=True, slots=True)
class Evidence:
    """``matches`` of ``trials`` bits agree, with ``tests`` tests counted by the union bound.

    Under the null hypothesis (the model was made without knowledge of the bits) the matches are Bin(trials, 1/2).
    ``void`` says why the claim or the model could not be tested at all, and then nothing is accepted.
    """

    matches: int
    trials: int
    tests: int = 1
    void: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.matches <= self.trials or self.tests < 1:
            raise ValueError(f"{self.matches} of {self.trials} matches in {self.tests} tests")

    @property
    def log2_p(self) -> float:
        """log2 of P[Bin(trials, 1/2) >= matches], from the exact count."""
        return math.log2(tail_count(self.matches, self.trials)) - self.trials

    @property
    def log2_p_corrected(self) -> float:
        """:attr:`log2_p` after the union bound over ``tests``, at most 0."""
        return min(0.0, self.log2_p + math.log2(self.tests))

    @property
    def accepted(self) -> bool:
        """Whether the corrected p-value is at most 2^-64, decided in integers."""
        count = self.tests * tail_count(self.matches, self.trials)
        return self.void is None and (count << -ACCEPT_LOG2) <= (1 << self.trials)

    def to_json(self) -> Json:
        """For reports; the p-values are ``float.hex()`` strings."""
        return {
            "matches": self.matches,
            "trials": self.trials,
            "tests": self.tests,
            "log2_p": float_text(self.log2_p),
            "log2_p_corrected": float_text(self.log2_p_corrected),
            "accepted": self.accepted,
            "void": self.void,
        }
