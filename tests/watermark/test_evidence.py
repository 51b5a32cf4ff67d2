"""The tail is exact, and the decision is made in integers."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import mpmath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from watermark import Evidence
from watermark.evidence import Trials, tail, tail_count

counts = st.integers(0, 600).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))
chances = st.fractions(min_value=Fraction(1, 50), max_value=Fraction(49, 50), max_denominator=50)
laws = st.lists(st.builds(Trials, chances, st.integers(0, 3)), min_size=1, max_size=3).map(tuple)


@given(counts)
def test_tail_is_the_sum_of_binomial_coefficients(count: tuple[int, int]) -> None:
    matches, trials = count
    assert tail_count(matches, trials) == sum(math.comb(trials, heads) for heads in range(matches, trials + 1))


@given(counts)
def test_log2_p_agrees_with_scipy(count: tuple[int, int]) -> None:
    matches, trials = count
    expected = binom.logsf(matches - 1, trials, 0.5) / math.log(2)
    assert Evidence(matches, trials).log2_p == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("matches", "trials"), [(200, 256), (256, 256), (719, 1024), (4096, 4096), (3000, 4096)])
def test_log2_p_agrees_with_mpmath_far_out_in_the_tail(matches: int, trials: int) -> None:
    with mpmath.workdps(60):
        p = mpmath.betainc(matches, trials - matches + 1, 0, mpmath.mpf(1) / 2, regularized=True)
        assert Evidence(matches, trials).log2_p == pytest.approx(float(mpmath.log(p, 2)), rel=1e-12)


# Least matches for p <= 2^-64, 2^-84 and 2^-128.
THRESHOLDS = {
    128: (113, 120, 128),
    256: (200, 210, 227),
    512: (358, 373, 400),
    1024: (657, 679, 719),
    4096: (2339, 2384, 2465),
}


@pytest.mark.parametrize("trials", THRESHOLDS)
def test_published_thresholds(trials: int) -> None:
    for least, exponent in zip(THRESHOLDS[trials], (64, 84, 128), strict=True):
        assert tail_count(least, trials) << exponent <= 1 << trials < tail_count(least - 1, trials) << exponent


def test_acceptance_begins_at_the_threshold_and_pays_for_every_test() -> None:
    assert Evidence(200, 256).accepted
    assert not Evidence(199, 256).accepted
    assert not Evidence(200, 256, tests=1 << 20).accepted
    assert Evidence(210, 256, tests=1 << 20).accepted


def test_acceptance_is_exact_at_the_boundary() -> None:
    assert Evidence(64, 64).accepted  # p is 2^-64
    assert not Evidence(64, 64, tests=2).accepted
    assert Evidence(65, 65, tests=2).accepted


def test_nothing_tested_and_void_are_never_accepted() -> None:
    assert Evidence(0, 0).log2_p == 0
    assert not Evidence(0, 0).accepted
    assert not Evidence(256, 256, void="two opened leaves have one seed").accepted


@given(counts, st.integers(1, 1 << 30))
def test_the_union_bound_never_leaves_the_unit_interval(count: tuple[int, int], tests: int) -> None:
    evidence = Evidence(*count, tests=tests)
    assert evidence.log2_p <= evidence.log2_p_corrected <= 0


def test_impossible_counts_are_refused() -> None:
    for matches, trials, tests in ((3, 2, 1), (-1, 2, 1), (1, 2, 0)):
        with pytest.raises(ValueError, match="matches"):
            Evidence(matches, trials, tests)
    assert Evidence(2, 2, 1).matches == 2


def test_json_says_all_of_it() -> None:
    report = Evidence(256, 256, tests=4).to_json()
    assert isinstance(report, dict)
    assert (report["matches"], report["trials"], report["tests"], report["accepted"]) == (256, 256, 4, True)
    assert float.fromhex(str(report["log2_p"])) == -256
    assert float.fromhex(str(report["log2_p_corrected"])) == -254


def enumerated(matches: int, null: tuple[Trials, ...]) -> Fraction:
    """P[X >= matches], by going through all outcomes one by one."""
    each = [trials.chance for trials in null for _ in range(trials.count)]
    total = Fraction(0)
    for outcome in itertools.product((False, True), repeat=len(each)):
        if sum(outcome) >= matches:
            total += math.prod((p if hit else 1 - p for p, hit in zip(each, outcome, strict=True)), start=Fraction(1))
    return total


@given(laws, st.integers(-2, 14))
def test_a_mixed_tail_is_the_sum_over_all_outcomes(null: tuple[Trials, ...], matches: int) -> None:
    assert Fraction(*tail(matches, null)) == enumerated(matches, null)


@given(laws)
def test_the_order_of_the_trials_does_not_matter(null: tuple[Trials, ...]) -> None:
    matches = sum(trials.count for trials in null) // 2
    assert Fraction(*tail(matches, null)) == Fraction(*tail(matches, null[::-1]))


@given(counts, st.integers(2, 1000))
def test_labels_out_of_many_agree_with_mpmath(count: tuple[int, int], classes: int) -> None:
    """The regularised incomplete beta function at 60 digits; scipy's tail loses digits below its smallest number."""
    matches, trials = count
    evidence = Evidence(matches, trials, channel="triggers", null=(Trials(Fraction(1, classes), trials),))
    with mpmath.workdps(60):
        chance = mpmath.mpf(1) / classes
        p = mpmath.betainc(matches, trials - matches + 1, 0, chance, regularized=True) if matches else mpmath.mpf(1)
        assert evidence.log2_p == pytest.approx(float(mpmath.log(p, 2)), rel=1e-12, abs=1e-12)


# Least hits for p <= 2^-64, by number of classes and of triggers.
LEAST_HITS = {(2, 100): 93, (2, 256): 200, (10, 32): 26, (10, 64): 37, (10, 100): 46, (10, 256): 79, (100, 100): 20,
              (1000, 100): 12, (32_000, 64): 7}  # fmt: skip


@pytest.mark.parametrize(("classes", "trials"), LEAST_HITS)
def test_published_thresholds_of_labels(classes: int, trials: int) -> None:
    null, least = (Trials(Fraction(1, classes), trials),), LEAST_HITS[classes, trials]
    assert Evidence(least, trials, channel="triggers", null=null).accepted
    assert not Evidence(least - 1, trials, channel="triggers", null=null).accepted


def test_a_mixed_law_decides_at_its_own_boundary() -> None:
    null = (Trials(Fraction(1, 4), 31), Trials(Fraction(1, 2), 2))  # all of them: 2^-64
    assert Evidence(33, 33, null=null).accepted
    assert not Evidence(33, 33, tests=2, null=null).accepted
    assert not Evidence(32, 33, null=null).accepted


def test_a_null_hypothesis_about_something_else_is_refused() -> None:
    for null in ((Trials(Fraction(1, 4), 9),), (Trials(Fraction(0), 10),), (Trials(Fraction(1), 10),)):
        with pytest.raises(ValueError, match="null hypothesis"):
            Evidence(3, 10, null=null)
    assert Evidence(3, 10, null=(Trials(Fraction(1, 4), 10),)).trials == 10


def test_json_states_the_null_hypothesis() -> None:
    null = (Trials(Fraction(1, 10), 6), Trials(Fraction(1, 3), 4))
    report = Evidence(7, 10, channel="triggers", null=null).to_json()
    assert isinstance(report, dict)
    assert report["channel"] == "triggers"
    assert report["null"] == [{"chance": "1/10", "trials": 6}, {"chance": "1/3", "trials": 4}]
    assert Evidence(7, 10).to_json()["null"] == [{"chance": "1/2", "trials": 10}]  # type: ignore[call-overload, index]
