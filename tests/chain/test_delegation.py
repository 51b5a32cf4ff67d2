"""Delegators' shares over rounds: the whole-number rule against the equation, and what no order of events may break."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.delegation import Delegations
from chain.rewards import delegator_pool, delegator_reward
from tests.golden.shares import claims

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/delegations.json").read_text())["cases"]
TOKEN = 10**18
NAMES = ["dan", "dora", "dirk"]
amounts = st.integers(0, 27).flatmap(lambda digits: st.integers(1, 10**digits))
rewards = st.integers(0, 10**27)
loans = st.lists(st.tuples(st.sampled_from(NAMES), amounts), max_size=3)


def play(lives, own, commission):
    """One operator's task: what is lent in each round, and then its reward. Also what the operator itself was paid."""
    held, paid = Delegations(own, commission), 0
    for number, (lent, reward) in enumerate(lives):
        for delegator, amount in lent:
            held.lend(delegator, amount, number)
        paid += held.settle(reward)
    return held, paid


@given(st.lists(st.tuples(loans, rewards), max_size=8), amounts, st.fractions(0, 1, max_denominator=10_000))
def test_every_wei_is_accounted_for(lives, own, commission):
    held, paid = play(lives, own, commission)
    assert paid + held.pools() == sum(reward for _, reward in lives)
    assert sum(held.earned(name) for name in NAMES) == held.pools()
    claims = [held.claimable(name) for name in NAMES]
    stretches = sum(len({number for number, (lent, _) in enumerate(lives) if name in dict(lent)}) for name in NAMES)
    assert held.pools() - 2 * stretches <= sum(claims) <= held.pools()


@given(st.lists(st.tuples(loans, rewards), max_size=8), amounts, st.fractions(0, 1, max_denominator=10_000))
def test_the_index_gives_each_what_the_equation_gives(lives, own, commission):
    held, _ = play(lives, own, commission)
    at_work, earned = dict.fromkeys(NAMES, 0), dict.fromkeys(NAMES, Fraction(0))
    for lent, reward in lives:
        for name, amount in lent:
            at_work[name] += amount
        _, pool = delegator_pool(reward, commission, own, sum(at_work.values()))
        for name in NAMES:
            earned[name] += Fraction(pool * at_work[name], sum(at_work.values()) or 1)
    for name in NAMES:
        stretches = sum(name in dict(lent) for lent, _ in lives)
        assert held.earned(name) == earned[name]
        assert 0 <= earned[name] - held.claimable(name) < max(2 * stretches, 1)


@given(st.lists(st.tuples(loans, rewards), min_size=1, max_size=6), amounts, amounts)
def test_a_newcomer_takes_nothing_of_what_was_earned_before(lives, own, late):
    """And makes nobody's earlier share smaller."""
    held, _ = play(lives, own, Fraction(0))
    before = {name: (held.earned(name), held.claimable(name)) for name in NAMES}
    held.lend("newcomer", late, len(lives))
    assert held.earned("newcomer") == held.claimable("newcomer") == 0
    assert {name: (held.earned(name), held.claimable(name)) for name in NAMES} == before


def test_one_round_is_the_papers_formula():
    """FLock's worked example: 58,084 tokens, commission 0.4, 3,000 own and 1,000 lent give the delegator 8,712.6."""
    held = Delegations(3_000 * TOKEN, Fraction("0.4"))
    held.lend("dora", 1_000 * TOKEN, 0)
    mine = held.settle(58_084 * TOKEN)
    operator, pool = delegator_pool(58_084 * TOKEN, Fraction("0.4"), 3_000 * TOKEN, 1_000 * TOKEN)
    assert (mine, held.pools()) == (operator, pool)
    assert held.earned("dora") == delegator_reward(pool, 1, 1) == 87_126 * 10**17
    assert held.claimable("dora") == 87_126 * 10**17 - 1  # the index itself was rounded down


def test_a_delegation_counts_from_the_next_round():
    held = Delegations(100, Fraction(0))
    held.lend("dora", 100, 0)
    held.settle(200)  # 100 of it are dora's
    held.lend("dan", 200, 1)
    held.lend("dora", 40, 1)
    held.lend("dora", 60, 1)
    assert (held.delegated(1), held.delegated(2)) == (100, 400)
    assert held.settle(1_000) == 200
    assert (held.earned("dora"), held.earned("dan")) == (100 + 400, 400)


def test_where_nobody_lends_the_operator_has_it_all():
    held = Delegations(1, Fraction(1, 2))
    assert held.settle(77) == 77
    assert held.index(1) == held.pools() == held.claimable("dora") == 0
    assert held.earned("dora") == 0


@pytest.mark.parametrize(("amount", "round_"), [(0, 1), (-1, 1), (1, 0)], ids=["nothing", "less", "a round over"])
def test_what_cannot_be_lent_is_refused(amount, round_):
    held = Delegations(1, Fraction(0))
    held.settle(1)
    with pytest.raises(ValueError, match="round"):
        held.lend("dora", amount, round_)


@pytest.mark.parametrize("case", GOLDEN, ids=range(len(GOLDEN)))
def test_golden_claims(case):
    """The same file that the contracts are held to (chain/contracts/test/RewardEscrow.t.sol)."""
    assert {name: case[name] for name in ("operator", "claims")} == claims(case)
