"""The planner: published figures, every case counted by hand for small runs, and the command."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenge.plan import Plan
from challenge.sampling import miss_probability, needed_sample, replayed_segments, with_ends
from pol.errors import SpecError

AMOUNTS = st.fractions(0, 20, max_denominator=20)
REWARD = Fraction(6, 5)


@pytest.mark.parametrize(
    ("forged", "detection", "sample"),
    [
        (10, "0.95", 258), (10, "0.99", 368), (50, "0.95", 57), (50, "0.99", 86), (50, "0.999", 126),
        (100, "0.95", 29), (100, "0.99", 43), (100, "0.999", 64), (500, "0.95", 5), (500, "0.99", 7),
        (500, "0.999", 10),
    ],
)  # fmt: skip
def test_published_samples_for_a_thousand_segments(forged: int, detection: str, sample: int) -> None:
    assert needed_sample(1000, forged, Fraction(detection)) == sample


@pytest.mark.parametrize(("forged", "sample"), [(100, 230), (500, 39)])
def test_published_samples_that_miss_with_two_to_the_minus_forty(forged: int, sample: int) -> None:
    assert needed_sample(1000, forged, 1 - Fraction(1, 2**40)) == sample


@pytest.mark.parametrize(
    ("forged", "sampled", "detection"),
    [
        (1, 30, 0.03), (1, 100, 0.10), (10, 30, 0.264), (10, 100, 0.653), (10, 300, 0.972), (50, 30, 0.790),
        (50, 100, 0.996), (100, 30, 0.960), (100, 50, 0.996), (300, 10, 0.972), (300, 20, 0.9993),
    ],
)  # fmt: skip
def test_published_detection(forged: int, sampled: int, detection: float) -> None:
    plan = Plan(segments=1000, sampled=sampled, forged=forged)
    assert float(plan.detection(forged)) == pytest.approx(detection, abs=5e-4)


@pytest.mark.parametrize(("audit", "stake"), [("0.05", 18.8), ("0.1", 8.8), ("0.3", 2.1), ("0.5", 0.8)])
def test_published_stake_against_training_nothing_at_all(audit: str, stake: float) -> None:
    """With R = 1.2 C, and every segment forged: what one audit of probability P needs."""
    plan = Plan(segments=1000, sampled=1000, forged=1000, reward=REWARD, audit=Fraction(audit))
    assert float(plan.needed_stake(1000)) == pytest.approx(stake, abs=0.05)


def test_the_published_lie_in_one_segment_is_out_of_reach() -> None:
    plan = Plan(segments=1000, sampled=30, forged=1, reward=REWARD, lie=Fraction(10))
    assert float(plan.needed_stake(1)) == pytest.approx(332, abs=0.5)
    assert plan.worst == 1 and not plan.honesty_pays


def test_one_segment_is_enough_against_laziness_alone() -> None:
    """V = 0: P(f) >= f for any sample, so a reward of at least the cost that can be clawed back already suffices."""
    plan = Plan(segments=1000, sampled=1, forged=1)
    assert plan.honesty_pays and plan.needed_stake(plan.worst) == 0
    assert not Plan(segments=1000, sampled=1, forged=1, reward=Fraction(99, 100)).honesty_pays


def test_what_is_never_audited_never_pays() -> None:
    plan = Plan(segments=10, sampled=10, forged=1, stake=Fraction(10**9), audit=Fraction(0))
    assert not plan.honesty_pays and plan.to_json()["minimal_stake"] is None
    idle = Plan(segments=10, sampled=10, forged=1, cost=Fraction(0), audit=Fraction(0))
    assert idle.honesty_pays, "where a cheat gains nothing, nothing need deter it"


@given(st.integers(1, 7), st.data(), st.integers(1, 2))
def test_detection_counts_the_draws_of_all_challengers(segments: int, data: st.DataObject, challengers: int) -> None:
    sampled, forged = data.draw(st.integers(1, segments)), data.draw(st.integers(1, segments))
    plan = Plan(segments=segments, sampled=sampled, forged=forged, challengers=challengers)
    draws = list(itertools.product(itertools.combinations(range(segments), sampled), repeat=challengers))
    caught = sum(any(index < forged for draw in all_ for index in draw) for all_ in draws)
    assert plan.detection(forged) == Fraction(caught, len(draws))


@given(st.integers(1, 25), st.data(), st.integers(1, 3), st.fractions(0, 1, max_denominator=9))
def test_honesty_pays_if_no_cheat_of_any_size_does(segments: int, data, challengers: int, audit: Fraction) -> None:
    stake, reward, cost, lie = (data.draw(AMOUNTS) for _ in range(4))
    sampled = data.draw(st.integers(1, segments))
    plan = Plan(
        segments=segments, sampled=sampled, forged=1, stake=stake, reward=reward, cost=cost, lie=lie, audit=audit,
        challengers=challengers,
    )  # fmt: skip
    sizes = range(1, segments + 1)
    deterred = []
    for m in sizes:
        caught = audit * (1 - miss_probability(segments, sampled, m) ** challengers)
        deterred.append(caught * (stake + reward) >= Fraction(m, segments) * cost + lie)
    assert plan.honesty_pays == all(deterred)
    stakes = [plan.needed_stake(m) for m in sizes]
    assert plan.needed_stake(plan.worst) == (None if None in stakes else max(stakes))


@given(st.integers(1, 12), st.data())
def test_the_needed_sample_is_the_smallest(total: int, data: st.DataObject) -> None:
    forged, wanted = data.draw(st.integers(1, total)), data.draw(st.fractions(0, 1))
    enough = [q for q in range(total + 1) if 1 - miss_probability(total, q, forged) >= wanted]
    assert needed_sample(total, forged, wanted) == enough[0]


@given(st.integers(1, 9), st.data())
def test_the_mean_and_the_most_replays_count_every_draw(total: int, data: st.DataObject) -> None:
    sampled = data.draw(st.integers(1, total))
    starts = sorted({0} | data.draw(st.sets(st.integers(0, total - 1))))
    branches = {start - 1 for start in starts if start and data.draw(st.booleans())}
    replays = []
    for drawn in itertools.combinations(range(total), sampled):
        done: set[int] = set()
        for segment in with_ends(drawn, total, branches):
            done |= set(range(max(start for start in starts if start <= segment), segment + 1))
        replays.append(len(done))
    found = replayed_segments(starts, total, sampled, branches)
    assert found == (Fraction(sum(replays), len(replays)), max(replays))


@pytest.mark.parametrize(
    "change",
    [
        {"segments": 0}, {"segments": 2**16 + 1}, {"sampled": 0}, {"sampled": 11}, {"forged": 0}, {"forged": 11},
        {"audit": Fraction(2)}, {"challengers": 0}, {"stake": Fraction(-1)},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_out_of_range_are_refused(change: dict) -> None:
    with pytest.raises(SpecError):
        Plan(**({"segments": 10, "sampled": 1, "forged": 1} | change))


def test_what_cannot_be_counted_is_refused_not_begun() -> None:
    plan = Plan(segments=2**16, sampled=30_000, forged=6_000, challengers=2**16)
    with pytest.raises(SpecError, match="too many"):
        plan.detection(plan.forged)
