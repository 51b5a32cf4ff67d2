"""The reward model: FLock's published example as vectors, and the laws the equations promise."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from statistics import median_low

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.rewards import (
    Aggregator,
    RoundRules,
    TrainerEntry,
    ValidatorEntry,
    aggregate,
    daily_emission,
    delegator_pool,
    delegator_reward,
    distance,
    geometric_series,
    portions,
    ranking,
    settle_round,
    shares,
    split,
    task_mean,
    task_shares,
    trainer_shares,
    validator_shares,
    weighted_median,
)

TOKEN = 10**18
stakes = st.integers(1, 10**9).map(lambda tokens: tokens * TOKEN)
rates = st.fractions(0, 1, max_denominator=10**6)
scores = st.integers(0, 10_000)


class TestPublishedExample:
    """The worked example of FLock's documentation: 309,157.68 tokens a day, one task, two nodes, three validators.

    Nodes A and B stake 3,000 (and 1,000 lent) and 3,500; the validators 12,000 together; gamma is 0, alpha 1.
    """

    REWARD = 30_915_768 * 10**16

    def test_split_with_the_lent_stake_counted(self):
        trainers, validators = split(self.REWARD, Fraction(0), 7_500 * TOKEN, 12_000 * TOKEN)
        assert trainers == 118_906_800 * 10**15  # the calculator's 118,906.80
        assert validators == self.REWARD - trainers

    def test_node_a_with_direct_stakes_only(self):
        # The documentation prints 58,084; its scores are rounded to six digits. The equations give 58,087.40.
        pot, _ = split(self.REWARD, Fraction(0), 6_500 * TOKEN, 12_000 * TOKEN)
        merits = [Fraction("0.501435"), Fraction("0.498565")]
        node_a, node_b = shares(merits, [4_000 * TOKEN, 3_500 * TOKEN], Fraction(1))
        assert float(pot * node_a / TOKEN) == pytest.approx(58_084, rel=1e-4)
        assert float(node_a + node_b) == pytest.approx(1, rel=1e-15)

    def test_its_delegator(self):
        operator, pool = delegator_pool(58_084 * TOKEN, Fraction("0.4"), 3_000 * TOKEN, 1_000 * TOKEN)
        assert pool == 87_126 * 10**17  # 8,712.6
        assert operator + pool == 58_084 * TOKEN
        assert delegator_reward(pool, 1_000 * TOKEN, 1_000 * TOKEN) == pool

    def test_validator_performances_are_a_softmax(self):
        # Three equal stakes: the shares are the published performances, which add up to 1.
        performances = [Fraction("0.472768"), Fraction("0.280226"), Fraction("0.247006")]
        found = shares(performances, [4_000 * TOKEN] * 3, Fraction(1))
        assert [float(share) for share in found] == pytest.approx([float(p) for p in performances], rel=1e-12)


class TestSplit:
    @given(st.integers(0, 10**30), st.fractions(0, Fraction(1, 2), max_denominator=10_000), stakes, stakes)
    def test_conserves_and_guarantees_gamma_to_each_side(self, reward, gamma, trainers, validators):
        ours, theirs = split(reward, gamma, trainers, validators)
        assert ours + theirs == reward
        assert min(ours, theirs) >= int(gamma * reward) - 1

    def test_half_ignores_stakes(self):
        assert split(10**20, Fraction(1, 2), 1, 10**30) == (5 * 10**19, 5 * 10**19)

    def test_refuses_a_gamma_above_one_half(self):
        with pytest.raises(ValueError, match="gamma"):
            split(1, Fraction(3, 5), 1, 1)


class TestRanks:
    def test_aggregate_is_the_weighted_mean(self):
        assert aggregate([[9_000, 0], [6_000, 5_000]], [1, 2]) == [
            Fraction(7, 10),
            Fraction(333_333_333_333_333_333, 10**18),
        ]

    @given(st.lists(st.tuples(scores, st.integers(1, 12)), min_size=1, max_size=9))
    def test_median_counts_a_score_once_for_every_unit_of_stake(self, entries):
        repeated = [score for score, weight in entries for _ in range(weight)]
        found = weighted_median([[score] for score, _ in entries], [weight for _, weight in entries])
        assert found == [Fraction(median_low(repeated), 10_000)]

    @given(st.lists(st.tuples(scores, st.integers(1, 100)), min_size=1, max_size=6), scores, st.data())
    def test_less_than_half_of_the_stake_cannot_move_the_median_out_of_the_others_scores(self, honest, lie, data):
        """The mean moves by the liar's share of its lie; that is the twin of this test."""
        held = sum(weight for _, weight in honest)
        stake = data.draw(st.integers(1, held - 1) if held > 1 else st.just(0))
        rows, weights = [[score] for score, _ in honest] + [[lie]], [*(weight for _, weight in honest), stake]
        (median,) = weighted_median(rows, weights)
        assert min(score for score, _ in honest) <= median * 10_000 <= max(score for score, _ in honest)

    def test_the_mean_follows_a_liar_and_the_median_does_not(self):
        rows, weights = [[8_000], [8_000], [0]], [3, 3, 4]
        assert aggregate(rows, weights) == [Fraction(48, 100)]
        assert weighted_median(rows, weights) == [Fraction(8, 10)]

    def test_ties_go_to_the_earlier_commitment(self):
        means = [Fraction(1, 2), Fraction(3, 4), Fraction(1, 2)]
        assert ranking(means, [5, 9, 4]) == [3, 1, 2]

    @given(st.fractions(Fraction(1, 100), 1, max_denominator=100), st.integers(1, 40))
    def test_geometric_series_sums_to_one_with_ratio_q(self, q, count):
        series = geometric_series(q, count)
        assert sum(series) == 1
        assert all(later == q * earlier for earlier, later in pairwise(series))
        if q < 1:
            assert series[0] == (1 - q) / (1 - q**count)


class TestShares:
    @given(st.lists(st.tuples(stakes, scores), min_size=1, max_size=8), rates)
    def test_trainers_are_paid_in_rank_order_at_equal_stake(self, entries, alpha):
        ranks = ranking([Fraction(score, 10_000) for _, score in entries], range(len(entries)))
        found = trainer_shares(ranks, [TOKEN] * len(entries), Fraction(9, 10), alpha)
        assert abs(sum(found) - 1) < 1e-40
        by_rank = [share for _, share in sorted(zip(ranks, found, strict=True))]
        assert by_rank == sorted(by_rank, reverse=True)

    @given(st.lists(st.tuples(stakes, rates), min_size=2, max_size=6), st.integers(0, 20), rates)
    def test_validators_lose_by_distance_and_gain_by_stake(self, entries, sensitivity, alpha):
        held, gaps = [stake for stake, _ in entries], [gap for _, gap in entries]
        before = validator_shares(gaps, held, Fraction(sensitivity), alpha)
        assert abs(sum(before) - 1) < 1e-40
        further = validator_shares([gaps[0] + Fraction(1, 10), *gaps[1:]], held, Fraction(sensitivity), alpha)
        richer = validator_shares(gaps, [held[0] * 2, *held[1:]], Fraction(sensitivity), alpha)
        assert further[0] <= before[0] + 1e-40
        assert richer[0] >= before[0] - 1e-40

    def test_no_stake_has_no_share(self):
        assert [float(x) for x in shares([Fraction(1), Fraction(1)], [0, 5], Fraction(1, 2))] == [0.0, 1.0]

    def test_distance_is_the_mean_gap(self):
        assert distance([9_000, 1_000], [Fraction(1, 2), Fraction(1, 2)]) == Fraction(2, 5)


class TestDays:
    """What a day hands out, and to which task and validator."""

    @given(st.integers(0, 10**30), rates, st.integers(1, 40), st.integers(0, 400))
    def test_emission_falls_by_its_decay_after_every_period(self, first, decay, period, day):
        today = daily_emission(first, decay, period, day)
        assert today == daily_emission(first, decay, period, day - day % period)
        assert daily_emission(first, decay, period, day + period) == int(today * decay)
        assert 0 <= first * decay ** (day // period) - today < day // period + 1

    def test_emission_of_flocks_second_task_manager(self):
        """1,074 tokens a day, nine tenths of it after 30 days, and so on."""
        days = [daily_emission(1_074 * TOKEN, Fraction(9, 10), 30, day) for day in (0, 29, 30, 60)]
        assert days == [1_074 * TOKEN, 1_074 * TOKEN, 9_666 * TOKEN // 10, 86_994 * TOKEN // 100]

    @pytest.mark.parametrize(("decay", "period"), [(Fraction(11, 10), 30), (Fraction(-1), 30), (Fraction(1), 0)])
    def test_refuses_an_emission_that_grows_or_never_decays(self, decay, period):
        with pytest.raises(ValueError, match="decay"):
            daily_emission(1, decay, period, 0)

    def test_tasks_share_a_day_by_what_is_staked_in_them(self):
        assert [float(part) for part in task_shares([1_000, 3_000], Fraction(1))] == [0.25, 0.75]
        assert [float(part) for part in task_shares([1_000, 3_000], Fraction(0))] == [0.5, 0.5]

    @given(st.lists(st.lists(rates, min_size=3, max_size=3), min_size=1, max_size=5), st.integers(0, 10**27))
    def test_several_tasks_pay_what_their_mean_share_pays_of_one_pot(self, gaps, pot):
        """K tasks of equal pots, or one pot K times as large: it comes to the same for every validator."""
        tasks = [validator_shares(row, [TOKEN] * 3, Fraction(3), Fraction(1)) for row in gaps]
        whole = [len(tasks) * pot * share for share in task_mean(tasks)]
        single = [sum(pot * row[j] for row in tasks) for j in range(3)]
        assert max(abs(a - b) for a, b in zip(whole, single, strict=True)) < 1e-12
        assert abs(sum(task_mean(tasks)) - 1) < 1e-40

    def test_a_task_that_was_not_validated_counts_as_nothing(self):
        both, one = task_mean([shares([1, 1], [1, 1], Fraction(1)), shares([1, 1], [1, 0], Fraction(1))])
        assert (both, one) == (0.75, 0.25)

    @given(st.integers(0, 10**30), st.lists(st.integers(0, 10**30), max_size=9))
    def test_portions_leave_less_than_a_wei_a_payee(self, pot, weights):
        paid = portions(pot, weights)
        if sum(weights):
            assert 0 <= pot - sum(paid) < len(weights)
            exact = [Fraction(pot * weight, sum(weights)) for weight in weights]
            assert all(0 <= part - wei < 1 for part, wei in zip(exact, paid, strict=True))
        else:
            assert not any(paid)


RULES = RoundRules(
    reward=1_000 * TOKEN,
    gamma=Fraction(1, 10),
    q=Fraction(9, 10),
    alpha_trainer=Fraction(1),
    alpha_validator=Fraction(1, 2),
    sensitivity=Fraction(5),
)


def trainer(own=100, order=0, room=10**9, delegated=0):
    return TrainerEntry(own=own * TOKEN, delegated=delegated * TOKEN, commit_order=order, room=room * TOKEN)


def validator(row, own=100):
    return ValidatorEntry(own=own * TOKEN, delegated=0, scores=row)


class TestRound:
    def test_pots_are_shared_out_whole(self):
        result = settle_round(RULES, [trainer(order=0), trainer(order=1)], [validator((9_000, 8_000))] * 3)
        assert abs(sum(result.trainers) - result.trainer_pot) < 1e-20
        assert abs(sum(result.validators) - result.validator_pot) < 1e-20
        assert result.ranks == (1, 2)

    def test_a_trainer_without_a_standing_model_gets_nothing_and_no_rank(self):
        result = settle_round(RULES, [trainer(order=None), trainer(order=0)], [validator((0, 8_000))])
        assert result.ranks == (None, 1)
        assert result.aggregates == (None, Fraction(8, 10))
        assert result.trainers[0] == 0
        assert result.trainers[1] == result.trainer_pot

    def test_the_cap_cuts_one_and_enriches_no_other(self):
        free = settle_round(RULES, [trainer(order=0), trainer(order=1)], [validator((9_000, 8_000))])
        capped = settle_round(RULES, [trainer(order=0, room=1), trainer(order=1)], [validator((9_000, 8_000))])
        assert capped.trainers[0] == TOKEN < free.trainers[0]
        assert capped.trainers[1] == free.trainers[1]

    def test_a_task_may_rank_by_the_median(self):
        """A validator with two fifths of the stake turns the mean around, and not the median."""
        trainers = [trainer(order=0), trainer(order=1)]
        rows = [validator((6_000, 5_000)), validator((6_000, 5_000)), validator((0, 10_000)), validator((6_000, 5_000))]
        liars = [*rows, validator((0, 10_000))]
        mean = settle_round(RULES, trainers, liars)
        median = settle_round(replace(RULES, aggregator=Aggregator.MEDIAN), trainers, liars)
        assert (mean.ranks, median.ranks) == ((2, 1), (1, 2))
        assert median.aggregates == (Fraction(6, 10), Fraction(5, 10))
        assert float(median.validators[0] / mean.validators[0]) > 1 > float(median.validators[2] / mean.validators[2])

    @pytest.mark.parametrize(
        ("trainers", "validators"),
        [([trainer(order=None)], [validator((0,))]), ([trainer(order=0)], [validator(None)])],
        ids=["no standing model", "no revealed validator"],
    )
    def test_nothing_is_allotted(self, trainers, validators):
        result = settle_round(RULES, trainers, validators)
        assert sum(result.trainers) == sum(result.validators) == 0
        assert result.trainer_pot + result.validator_pot == RULES.reward

    @given(stakes, stakes, rates, st.integers(0, 10**30), st.lists(st.integers(1, 100), min_size=1, max_size=5))
    def test_a_pool_never_pays_out_more_than_it_holds(self, own, lent, commission, amount, parts):
        operator, pool = delegator_pool(amount, commission, own, lent)
        assert operator + pool == amount
        assert operator >= int(commission * amount)
        total = sum(parts)
        assert sum(delegator_reward(pool, part, total) for part in parts) <= pool
