"""The reference model of one task with what people staked, lent and scored: what the contracts must pay, to the wei.

Powers and exponentials have 18 decimals on chain. So the contracts are asked for their weights, each of which is shown
to be the exact one within 1e-17 of it and a few units of the last of its 18 decimals (more for late ranks: every power
of q is rounded down); from there on everything is whole numbers, by :mod:`chain.rewards` and :mod:`chain.delegation`.
"""

from dataclasses import dataclass, field
from fractions import Fraction

from mpmath import mp, mpf

from chain.delegation import Delegations
from chain.rewards import aggregate, distance, portions, ranking, split, weighted_median
from chain.terms import Aggregator
from chain.types import to_abi

WAD = 10**18


@dataclass
class Operator:
    """A trainer or validator, and what the model knows of it. ``orders`` are its standing models, by round."""

    account: str
    own: int
    commission_bps: int
    orders: dict[int, int] = field(default_factory=dict)
    allotted: int = 0
    mine: int = 0

    def __post_init__(self):
        self.lent = Delegations(self.own, Fraction(self.commission_bps, 10_000))

    def stake(self, round_):
        return self.own + self.lent.delegated(round_)

    def order(self, round_):
        return next((self.orders[past] for past in range(round_, 0, -1) if past in self.orders), None)


class Model:
    """Settles the rounds of a task in order; trainers and validators are :class:`Operator`, in staking order.

    ``chain.call("TaskRules", ...)`` asks the contracts for weights.
    """

    def __init__(self, chain, config, trainers, validators):
        self.chain, self.config, self.pay = chain, config, to_abi(config.pay)
        self.trainers, self.validators = trainers, validators

    def settled(self, round_, rows):
        """What the two kinds of event must say of a round, from the contracts' weights; books what it allots."""
        standing = [t for t in self.trainers if t.order(round_) is not None]
        places = [self.trainers.index(t) for t in standing]
        judges = [v for v in self.validators if v.account in rows]
        if not standing or not judges:
            self.book(self.trainers, {}), self.book(self.validators, {})
            return {}, {}
        seen = [[rows[v.account][place] for place in places] for v in judges]
        stakes = [v.stake(round_) for v in judges]
        median = self.config.pay.aggregator is Aggregator.MEDIAN
        means = (weighted_median if median else aggregate)(seen, stakes)
        ranks = ranking(means, [t.order(round_) for t in standing])
        rules = self.config.round_rules(round_)
        owns = [sum(o.own for o in side) for side in (self.trainers, self.validators)]
        pots = split(rules.reward, rules.gamma, *owns)

        weights = self.trainer_weights([t.stake(round_) for t in standing], ranks)
        shares = dict(zip((t.account for t in standing), portions(pots[0], weights), strict=True))
        amounts = {t.account: min(shares[t.account], self.room(t)) for t in standing}
        gaps = [int(distance(row, means) * WAD) for row in seen]
        rewards = portions(pots[1], self.validator_weights(stakes, gaps))
        paid = dict(zip((v.account for v in judges), rewards, strict=True))
        self.book(self.trainers, amounts), self.book(self.validators, paid)
        of_trainers = {
            t.account: (rank, int(mean * WAD), amounts[t.account])
            for t, rank, mean in zip(standing, ranks, means, strict=True)
        }
        return of_trainers, {v.account: (gap, paid[v.account]) for v, gap in zip(judges, gaps, strict=True)}

    def room(self, trainer):
        cap = trainer.own * self.config.court.slash_bps // 10_000
        return max(0, cap - trainer.allotted)

    def book(self, operators, amounts):
        for operator in operators:
            amount = amounts.get(operator.account, 0)
            operator.allotted += amount
            operator.mine += operator.lent.settle(amount)

    def trainer_weights(self, stakes, ranks):
        found = self.chain.call("TaskRules", "trainerWeights", self.pay, stakes, ranks)
        q = mpf(self.config.pay.q) / WAD
        for weight, stake, rank in zip(found, stakes, ranks, strict=True):
            staked = power(stake, self.config.pay.alpha_trainer)
            exact = staked * q ** (rank - 1)
            assert abs(weight - exact) <= 2 + exact * mpf("1e-17") + rank * staked / WAD
        return found

    def validator_weights(self, stakes, gaps):
        found = self.chain.call("TaskRules", "validatorWeights", self.pay, stakes, gaps)
        for weight, stake, gap in zip(found, stakes, gaps, strict=True):
            staked = power(stake, self.config.pay.alpha_validator)
            exact = staked * mp.exp(-mpf(self.config.pay.lambda_) * gap / WAD**2)
            assert abs(weight - exact) <= 2 + exact * mpf("1e-17") + 2 * staked / WAD
        return found


def power(stake, alpha):
    """stake^alpha as the contracts scale it: in whole tokens, in units of 1e-18."""
    return (mpf(stake) / WAD) ** (mpf(alpha) / WAD) * WAD
