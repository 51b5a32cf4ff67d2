"""The reward equations, as a reference model that the contracts are tested against.

Written from the published mechanism (AI Arena, arXiv 2412.14566, and FLock's documentation), not from the Solidity.
Everything rational is exact; powers and exponentials have 50 digits. Amounts are wei, stakes wei of the same token,
scores basis points, rates ``Fraction`` in [0, 1]. A share is a part of 1, before any rounding.

The notation: n trainers with own stakes t_i, m validators with own stakes s_j; what delegators lent counts in the
weights ``T_i = t_i + t_i^d`` and ``S_j = s_j + s_j^d`` only, never in the split between the two sides.

One round of one task is :func:`settle_round`; a day of all tasks begins with :func:`daily_emission` and
:func:`task_shares`; what delegators earn over many rounds is :mod:`chain.delegation`. Whatever is paid out is rounded
down to a wei, as in :func:`portions`, and what that leaves over is counted, never given to the last one who asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from itertools import accumulate
from typing import Any, TypeAlias

from mpmath import MPContext

# A private context: nobody else's precision setting can reach it.
_MP: Any = MPContext()
_MP.dps = 50

Real: TypeAlias = Any
"""A real number with 50 digits (mpmath's ``mpf``; that library has no types)."""

WAD = 10**18
SCORE_SCALE = 10_000


class Aggregator(Enum):
    """How a task makes one score of many: the paper's weighted mean, or the median that a minority cannot move."""

    MEAN = "mean"
    MEDIAN = "median"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRules:
    """The task's numbers: the round's reward R (wei), gamma, q, the two alphas and lambda; and its aggregator."""

    reward: int
    gamma: Fraction
    q: Fraction
    alpha_trainer: Fraction
    alpha_validator: Fraction
    sensitivity: Fraction
    aggregator: Aggregator = Aggregator.MEAN


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerEntry:
    """One staked trainer. ``commit_order`` sorts equal scores, earlier first; ``None`` means no standing model.

    ``room`` is what its own slashable stake still allows it to be allotted (wei), see :func:`settle_round`.
    """

    own: int
    delegated: int
    commit_order: int | None
    room: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorEntry:
    """One staked validator. ``scores`` has one entry a trainer, in staking order; ``None`` if it revealed none."""

    own: int
    delegated: int
    scores: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """A settled round: the two pots (wei), then per trainer and per validator, in order, the exact allotment.

    ``aggregates`` and ``ranks`` are ``None`` for a trainer without a standing model. Allotments are wei before the
    last rounding down, after the cap.
    """

    trainer_pot: int
    validator_pot: int
    aggregates: tuple[Fraction | None, ...]
    ranks: tuple[int | None, ...]
    trainers: tuple[Real, ...]
    validators: tuple[Real, ...]


def split(reward: int, gamma: Fraction, trainer_stake: int, validator_stake: int) -> tuple[int, int]:
    """The two sides' pots: ``R_T = floor(R (g + (1 - 2g) T / (T + S)))`` and ``R_V = R - R_T``.

    T and S are the sums of own stakes of all staked operators. Each side gets at least ``g R`` (less a wei).
    """
    if not 0 <= gamma <= Fraction(1, 2):
        raise ValueError("gamma lies between 0 and 1/2")
    part = gamma + (1 - 2 * gamma) * Fraction(trainer_stake, trainer_stake + validator_stake)
    trainers = int(reward * part)
    return trainers, reward - trainers


def aggregate(scores: Sequence[Sequence[int]], weights: Sequence[int]) -> list[Fraction]:
    """The consensus score of each model: ``rbar_i = sum_j S_j r_ji / sum_j S_j``, in [0, 1].

    One row of basis points a validator, one weight a row. Kept to 18 decimals, rounded down: two models that differ
    by less are tied.
    """
    total = sum(weights) * SCORE_SCALE
    columns = zip(*scores, strict=True)
    sums = (sum(weight * score for weight, score in zip(weights, column, strict=True)) for column in columns)
    return [Fraction(value * WAD // total, WAD) for value in sums]


def weighted_median(scores: Sequence[Sequence[int]], weights: Sequence[int]) -> list[Fraction]:
    """The other consensus score: the least score of a model that validators with half of the stake do not exceed.

    ``min {r : sum of S_j over r_ji <= r, at least half of sum_j S_j}``, in [0, 1], always somebody's own score. Less
    than half of the stake cannot move it out of the range of the others' scores (the mean moves by a liar's share of
    its lie). Source: the weighted median of Yuma consensus (subtensor), here without its clipping.
    """
    half = Fraction(sum(weights), 2)
    return [_lower_median(column, weights, half) for column in zip(*scores, strict=True)]


def ranking(aggregates: Sequence[Fraction], commit_orders: Sequence[int]) -> list[int]:
    """Rank from 1: the higher score first, of equal scores the earlier commitment first."""
    order = sorted(range(len(aggregates)), key=lambda i: (-aggregates[i], commit_orders[i]))
    return [order.index(i) + 1 for i in range(len(order))]


def geometric_series(q: Fraction, count: int) -> list[Fraction]:
    """``g_k = (1 - q) q^(k-1) / (1 - q^n)`` for ranks k = 1 to n; it sums to 1, and is flat for q = 1."""
    terms = [q**k for k in range(count)]
    return [term / sum(terms) for term in terms]


def shares(merits: Sequence[Fraction | Real], stakes: Sequence[int], alpha: Fraction) -> list[Real]:
    """``f_i = g_i T_i^alpha / sum_l g_l T_l^alpha``: both sides are paid by this form. No stake has no share."""
    weights = [_real(merit) * _power(stake, alpha) for merit, stake in zip(merits, stakes, strict=True)]
    total = _MP.fsum(weights)
    return [weight / total for weight in weights]


def trainer_shares(ranks: Sequence[int], stakes: Sequence[int], q: Fraction, alpha: Fraction) -> list[Real]:
    """:func:`shares` with the merit of a rank, ``g_k`` of the geometric series."""
    series = geometric_series(q, len(ranks))
    return shares([series[rank - 1] for rank in ranks], stakes, alpha)


def distance(scores: Sequence[int], aggregates: Sequence[Fraction]) -> Fraction:
    """How far a validator is from the consensus: ``Delta_j``, the mean over models of ``|r_ji - rbar_i|``."""
    gaps = [abs(Fraction(score, SCORE_SCALE) - mean) for score, mean in zip(scores, aggregates, strict=True)]
    return sum(gaps, Fraction(0)) / len(gaps)


def validator_shares(
    distances: Sequence[Fraction], stakes: Sequence[int], sensitivity: Fraction, alpha: Fraction
) -> list[Real]:
    """The modified softmax ``f_j = exp(-lambda Delta_j) S_j^alpha / sum_k exp(-lambda Delta_k) S_k^alpha``."""
    return shares([_MP.exp(-_real(sensitivity * gap)) for gap in distances], stakes, alpha)


def task_mean(tasks: Sequence[Sequence[Real]]) -> list[Real]:
    """Validators' shares over several tasks: ``F_j = (1/K) sum_k f_j^(k)``, where ``f_j^(k) = 0`` if j did not validate
    task k.

    One row a task, one entry a validator. Paid from one pot, F_j gives what the K tasks give, each from a K-th of it.
    """
    return [_MP.fsum(row) / len(tasks) for row in zip(*tasks, strict=True)]


def daily_emission(first: int, decay: Fraction, period: int, day: int) -> int:
    """What is handed out on ``day`` (from 0), in wei: ``first``, times ``decay`` after every ``period`` days.

    Rounded down at every decay. (FLock's second task manager: 0.9, every 30 days.)
    """
    if not 0 <= decay <= 1 or period < 1:
        raise ValueError("the decay lies between 0 and 1, its period is at least a day")
    amount = first
    for _ in range(day // period):
        amount = int(amount * decay)
    return amount


def task_shares(stakes: Sequence[int], beta: Fraction) -> list[Real]:
    """The parts of a day's emission that active tasks get, ``S^beta / sum S^beta`` of all that is staked in each."""
    return shares([Fraction(1)] * len(stakes), stakes, beta)


@dataclass(frozen=True, slots=True)
class Tenure:
    """A task's part in the daily emission: all own stakes in it (wei), on days ``first_day`` to ``last_day``."""

    stake: int
    first_day: int
    last_day: int


def task_emission(tasks: Sequence[Tenure], which: int, days: range, amounts: Sequence[int], beta: Fraction) -> Real:
    """What the days hand out to task ``which`` (wei, exact): the sum of its :func:`task_shares` of ``amounts[day]``,
    day by day, among the tasks that share in that day."""
    total = _MP.zero
    for day in days:
        active = [number for number, task in enumerate(tasks) if task.first_day <= day <= task.last_day]
        if which in active:
            parts = task_shares([tasks[number].stake for number in active], beta)
            total += amounts[day] * parts[active.index(which)]
    return total


def portions(pot: int, weights: Sequence[int]) -> list[int]:
    """``floor(pot w / sum w)`` wei for each weight; nothing where all are zero.

    How every pot is paid out once the weights are whole numbers. What stays over is less than a wei for each of them.
    """
    total = sum(weights)
    return [pot * weight // total if total else 0 for weight in weights]


def delegator_pool(amount: int, commission: Fraction, own: int, delegated: int) -> tuple[int, int]:
    """An operator's part and its delegators' pool of ``R_i`` (wei); the two add up exactly.

    The pool is ``floor(R_i (1 - sigma) t_d / (t_n + t_d))``: the operator keeps its commission sigma of all, and its
    own stake's share of the rest.
    """
    pool = int(amount * (1 - commission) * Fraction(delegated, own + delegated))
    return amount - pool, pool


def delegator_reward(pool: int, mine: int, delegated: int) -> int:
    """One delegator's part of the pool (wei), ``floor(pool d / t_d)``."""
    return pool * mine // delegated


def settle_round(
    rules: RoundRules, trainers: Sequence[TrainerEntry], validators: Sequence[ValidatorEntry]
) -> Settlement:
    """Everything above for one round.

    A trainer's allotments over all rounds are capped by its own slashable stake (``room`` is what the cap leaves
    now), so that a thief gains nothing by challenging itself; what the cap cuts goes to nobody here. Without a
    standing model, or without a revealed validator, nobody is allotted anything.
    """
    pots = split(rules.reward, rules.gamma, sum(t.own for t in trainers), sum(v.own for v in validators))
    standing = [i for i, trainer in enumerate(trainers) if trainer.commit_order is not None]
    rows = {j: validator.scores for j, validator in enumerate(validators) if validator.scores is not None}
    if not standing or not rows:
        standing, rows = [], {}
    seen = [[row[i] for i in standing] for row in rows.values()]
    weights = [validators[j].own + validators[j].delegated for j in rows]
    means = (weighted_median if rules.aggregator is Aggregator.MEDIAN else aggregate)(seen, weights)
    ranks = ranking(means, [_order(trainers[i]) for i in standing])
    stakes = [trainers[i].own + trainers[i].delegated for i in standing]
    rooms = [_real(Fraction(trainers[i].room)) for i in standing]
    parts = trainer_shares(ranks, stakes, rules.q, rules.alpha_trainer)
    amounts = [min(pots[0] * part, room) for part, room in zip(parts, rooms, strict=True)]
    gaps = [distance(row, means) for row in seen]
    rewards = [pots[1] * part for part in validator_shares(gaps, weights, rules.sensitivity, rules.alpha_validator)]
    n, m = len(trainers), len(validators)
    return Settlement(
        trainer_pot=pots[0],
        validator_pot=pots[1],
        aggregates=_spread(standing, means, n, None),
        ranks=_spread(standing, ranks, n, None),
        trainers=_spread(standing, amounts, n, _MP.zero),
        validators=_spread(list(rows), rewards, m, _MP.zero),
    )


def _spread(places: Sequence[int], values: Sequence[Any], count: int, default: Any) -> tuple[Any, ...]:
    found = dict(zip(places, values, strict=True))
    return tuple(found.get(index, default) for index in range(count))


def _lower_median(column: Sequence[int], weights: Sequence[int], half: Fraction) -> Fraction:
    ordered = sorted(zip(column, weights, strict=True))
    reached = accumulate(weight for _, weight in ordered)
    score = next(score for (score, _), sum_ in zip(ordered, reached, strict=True) if sum_ >= half)
    return Fraction(score, SCORE_SCALE)


def _order(trainer: TrainerEntry) -> int:
    assert trainer.commit_order is not None
    return trainer.commit_order


def _power(stake: int, alpha: Fraction) -> Real:
    return _MP.power(stake, _real(alpha)) if stake else _MP.zero


def _real(value: Fraction | Real) -> Real:
    return _MP.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value
