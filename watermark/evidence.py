"""The outcome of a watermark test: the exact tail of its null hypothesis, the union bound, and the decision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from pol.encoding import Json, float_text

ACCEPT_LOG2: Final = -64
"""A mark is found when the corrected p-value is at most 2^-64."""
COIN: Final = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Trials:
    """``count`` independent trials, each of which an innocent model matches with probability ``chance``."""

    chance: Fraction
    count: int


def tail(matches: int, null: Sequence[Trials]) -> tuple[int, int]:
    """P[X >= matches] as (numerator, denominator), not reduced; X is the number of matches in all trials of ``null``.

    X is Poisson-binomial, binomial if ``null`` has one entry. Exact: outcomes are counted, in units of one over the
    product of the chances' denominators. One entry costs the length of its tail, each further one a convolution.
    """
    first, *rest = null or [Trials(COIN, 0)]
    others = [1]  # of the other trials together: how many outcomes have 0, 1, 2, ... matches
    for trials in rest:
        others = _convolved(others, list(_outcomes(trials, 0))[::-1])
    total = at_least = 0
    for have, outcomes in zip(range(first.count, -1, -1), _outcomes(first, matches - len(others) + 1), strict=False):
        at_least += outcomes
        if 0 <= matches - have < len(others):
            total += others[matches - have] * at_least
    total += at_least * sum(others[max(0, matches + 1) :])
    return total, math.prod(trials.chance.denominator**trials.count for trials in null)


def tail_count(matches: int, trials: int) -> int:
    """How many of the 2^trials outcomes of fair coins have at least ``matches`` heads (exact)."""
    return tail(matches, [Trials(COIN, trials)])[0]


@dataclass(frozen=True, slots=True)
class Evidence:
    """``matches`` of ``trials`` bits or labels agree, with ``tests`` tests counted by the union bound.

    Under the null hypothesis (the model was made without knowledge of the bits) each trial matches independently of the
    others, with the chances in ``null``; an empty one stands for fair coins. ``channel`` says where the mark was looked
    for. ``void`` says why the claim or the model could not be tested at all, and then nothing is accepted.
    """

    matches: int
    trials: int
    tests: int = 1
    void: str | None = None
    channel: str = "weights"
    null: tuple[Trials, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.matches <= self.trials or self.tests < 1:
            raise ValueError(f"{self.matches} of {self.trials} matches in {self.tests} tests")
        fits = sum(trials.count for trials in self.law) == self.trials
        if not fits or any(trials.count < 0 or not 0 < trials.chance < 1 for trials in self.law):
            raise ValueError(f"the null hypothesis is not about {self.trials} trials with chances between 0 and 1")

    @property
    def law(self) -> tuple[Trials, ...]:
        """The null hypothesis in full: :attr:`null`, or the fair coins it stands for."""
        return self.null or (Trials(COIN, self.trials),)

    @property
    def log2_p(self) -> float:
        """log2 of the probability of at least ``matches`` matches by chance, from the exact count."""
        outcomes, of = tail(self.matches, self.law)
        return min(0.0, math.log2(outcomes) - math.log2(of))

    @property
    def log2_p_corrected(self) -> float:
        """:attr:`log2_p` after the union bound over ``tests``, at most 0."""
        return min(0.0, self.log2_p + math.log2(self.tests))

    @property
    def accepted(self) -> bool:
        """Whether the corrected p-value is at most 2^-64, decided in integers."""
        outcomes, of = tail(self.matches, self.law)
        return self.void is None and (self.tests * outcomes << -ACCEPT_LOG2) <= of

    def to_json(self) -> Json:
        """For reports; the p-values are ``float.hex()`` strings, the chances fractions."""
        law: list[Json] = [{"chance": str(trials.chance), "trials": trials.count} for trials in self.law]
        return {
            "channel": self.channel,
            "matches": self.matches,
            "trials": self.trials,
            "null": law,
            "tests": self.tests,
            "log2_p": float_text(self.log2_p),
            "log2_p_corrected": float_text(self.log2_p_corrected),
            "accepted": self.accepted,
            "void": self.void,
        }


def _outcomes(trials: Trials, least: int) -> Iterator[int]:
    """How many outcomes of ``trials`` have all, all but one, ... and at last ``least`` matches (not below none)."""
    hit, miss = trials.chance.numerator, trials.chance.denominator - trials.chance.numerator
    term = hit**trials.count
    for have in range(trials.count, max(least, 0) - 1, -1):
        yield term
        term = term * have * miss // ((trials.count - have + 1) * hit)


def _convolved(left: list[int], right: list[int]) -> list[int]:
    product = [0] * (len(left) + len(right) - 1)
    for i, outcomes in enumerate(left):
        for j, others in enumerate(right):
            product[i + j] += outcomes * others
    return product
