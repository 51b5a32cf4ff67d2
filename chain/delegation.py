"""What delegators earn over many rounds, as a reference model that the contracts are tested against.

In every round an operator's delegators share the pool ``pool_r = floor(R_r (1 - sigma) t_d / (t_n + t_d))``, each
``pool_r d / t_d`` of it (AI Arena, arXiv 2412.14566, and FLock's documentation; :func:`chain.rewards.delegator_pool`).
A delegation counts from the round after it was made, so a newcomer takes nothing of what was earned before.

Two forms of the same: :meth:`Delegations.earned` adds up the equation, exactly. :meth:`Delegations.claimable` is the
rule of whole numbers, which needs no loop over rounds: the pool of a round raises an index, what one delegated wei has
earned since the first round in units of 2^-128 wei; a delegation that did not change between two rounds earned its
amount times the difference. Everything rounds down, so the claims never pass the pools.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate, pairwise

from chain.rewards import delegator_pool

INDEX_ONE = 2**128
"""One wei a delegated wei, in the index. So fine that what an index rounds off is far below a wei for any amount."""


@dataclass
class Delegations:
    """The delegations to one operator in one task: own stake (wei) and commission fixed, rounds settled from 1 on."""

    own: int
    commission: Fraction
    _lent: dict[str, dict[int, int]] = field(default_factory=dict)
    _rounds: list[tuple[int, int]] = field(default_factory=list)

    def lend(self, delegator: str, amount: int, round_: int) -> None:
        """Delegate ``amount`` (wei, more) in ``round_``, or in 0 for the registration; counts from the next round.

        Raises ``ValueError`` if that round is settled.
        """
        if amount <= 0 or round_ < len(self._rounds):
            raise ValueError(f"{amount} wei in round {round_}: give a positive amount, in a round not over yet")
        mine = self._lent.setdefault(delegator, {})
        mine[round_ + 1] = mine.get(round_ + 1, 0) + amount

    def lent(self, delegator: str, round_: int) -> int:
        """What the delegator has at work in ``round_``, wei."""
        return sum(amount for first, amount in self._lent.get(delegator, {}).items() if first <= round_)

    def delegated(self, round_: int) -> int:
        """What all delegators have at work in ``round_``, wei: t_d, which also weighs for the operator's reward."""
        return sum(self.lent(delegator, round_) for delegator in self._lent)

    def settle(self, reward: int) -> int:
        """Share out the operator's reward (wei) of the next round; returns the operator's own part."""
        delegated = self.delegated(len(self._rounds) + 1)
        mine, pool = delegator_pool(reward, self.commission, self.own, delegated)
        self._rounds.append((pool, delegated))
        return mine

    def pools(self) -> int:
        """What all delegators together were given so far, wei."""
        return sum(pool for pool, _ in self._rounds)

    def earned(self, delegator: str) -> Fraction:
        """``sum_r pool_r d_r / t_d,r`` over the settled rounds, wei."""
        parts = (
            Fraction(pool * self.lent(delegator, number), delegated)
            for number, (pool, delegated) in enumerate(self._rounds, start=1)
            if delegated
        )
        return sum(parts, Fraction(0))

    def index(self, round_: int) -> int:
        """``I_r = I_(r-1) + floor(pool_r 2^128 / t_d,r)``; 0 before the first round, and still where nobody lends."""
        settled = self._rounds[:round_]
        return sum(pool * INDEX_ONE // delegated for pool, delegated in settled if delegated)

    def claimable(self, delegator: str) -> int:
        """What the delegator is paid for the settled rounds, wei: ``floor(d (I_b - I_a) / 2^128)`` for every stretch
        (a, b] of rounds in which d did not change, less than two wei a stretch below :meth:`earned`."""
        changes = sorted(self._lent.get(delegator, {}).items())
        amounts = accumulate(amount for _, amount in changes)
        bounds = [*(first - 1 for first, _ in changes), len(self._rounds)]
        return sum(
            amount * (self.index(end) - self.index(start)) // INDEX_ONE
            for amount, (start, end) in zip(amounts, pairwise(bounds), strict=True)
        )
