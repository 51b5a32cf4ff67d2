"""Sampling: what a sample is worth, exactly, and that nobody can know it beforehand."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from challenge.sampling import miss_probability, strength, unpredictable_segments


@given(st.integers(1, 8), st.data())
def test_miss_probability_counts_the_samples_that_miss(total: int, data: st.DataObject) -> None:
    sampled, forged = data.draw(st.integers(0, total)), data.draw(st.integers(0, total))
    samples = list(itertools.combinations(range(total), sampled))
    missing = sum(all(index >= forged for index in sample) for sample in samples)
    assert miss_probability(total, sampled, forged) == Fraction(missing, len(samples))


@pytest.mark.parametrize(
    ("forged", "sampled", "detected"),
    [(1, 30, 0.03), (10, 30, 0.264), (10, 100, 0.653), (50, 30, 0.790), (100, 30, 0.960), (100, 50, 0.996)],
)
def test_published_figures_for_a_thousand_segments(forged: int, sampled: int, detected: float) -> None:
    assert 1 - float(miss_probability(1000, sampled, forged)) == pytest.approx(detected, abs=5e-4)


def test_samples_are_distinct_in_range_and_not_from_a_seedable_generator() -> None:
    random.seed(0)
    first = unpredictable_segments(8, 1000)
    random.seed(0)
    assert first != unpredictable_segments(8, 1000)
    assert len(set(first)) == 8 and set(first) <= set(range(1000)) and first == sorted(first)
    assert unpredictable_segments(8, 3) == [0, 1, 2]


def test_strength_is_one_sentence_with_its_numbers() -> None:
    assert "8 of 120 segments" in strength(range(8), 120)
    assert "p = 0.42" in strength(range(8), 120)
    assert "all 24 segments" in strength(range(24), 24)
