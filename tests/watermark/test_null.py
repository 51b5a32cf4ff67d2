"""The null hypothesis: innocents match by coin flips, whoever they are and whatever the alignment does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binom, kstest

from tests.watermark import digits
from tests.watermark.conftest import BETA, SMALL_WIDTHS, Owner
from tests.watermark.digits import CARRIER, State
from watermark import Claim, Evidence, LeafOpening, WatermarkKey, detect
from watermark.bits import mark_bit
from watermark.key import Leaf
from watermark.weights.arrays import Array
from watermark.weights.carriers import carrier_product
from watermark.weights.layouts.mlp import align
from watermark.weights.parameters import WeightMark

INNOCENTS = 50


def every_match(
    matrices: Sequence[Array], leaves: Sequence[Leaf | LeafOpening], beta: bytes, root: bytes, mark: WeightMark
) -> int:
    """The bits that agree among all leaves, also in rows that a test sets aside because they are not theta_ref's."""
    matches = 0
    for leaf in leaves:
        number, rows = mark.place(leaf.index // mark.leaves)
        product = carrier_product(matrices[number][rows], leaf.seed)
        matches += mark_bit(beta, root, leaf.index, leaf.seed) * product > 0
    return matches


def all_matches(weight: Array, claim: Claim) -> int:
    """The same for a claim whose mark is in one matrix."""
    return every_match([weight], claim.leaves, claim.beta, claim.key_root, claim.parameters.weights)


def claim_of(key: WatermarkKey, owner: Owner) -> Claim:
    """Another key's claim with the same theta_ref; the openings have no paths, which play no part in counting."""
    leaves = tuple(LeafOpening(leaf.index, leaf.seed, leaf.salt, ()) for leaf in key.leaves)
    return dataclasses.replace(owner.claim, key_root=key.root, leaves=leaves, groups=tuple(range(16)))


def wrong_keys(first: int, count: int) -> list[WatermarkKey]:
    return [WatermarkKey(number.to_bytes(32, "big"), 256) for number in range(first, first + count)]


def assert_coin_flips(matches: list[int], trials: int) -> None:
    """The counts look like Bin(trials, 1/2), and none is below 2^-20. Ties are broken at random to make KS exact."""
    assert min(Evidence(count, trials).log2_p for count in matches) > -20
    counts, dice = np.array(matches), np.random.default_rng(0).random(len(matches))
    p_values = binom.sf(counts, trials, 0.5) + dice * binom.pmf(counts, trials, 0.5)
    assert kstest(p_values, "uniform").pvalue > 1e-3


@pytest.fixture(scope="module")
def innocents() -> list[State]:
    """Models from other seeds, all of them good ones."""
    models = digits.train_many(range(100, 100 + INNOCENTS), SMALL_WIDTHS, steps=40, rate=5e-3)
    assert min(digits.accuracy(model) for model in models) > 0.85
    return models


@pytest.fixture(scope="module")
def aligned(innocents: list[State], small: Owner) -> list[Array]:
    return [align(model, small.theta_ref)[CARRIER].numpy() for model in innocents]


def test_a_thousand_wrong_keys_on_a_marked_model(small: Owner) -> None:
    weight = align(small.model, small.theta_ref)[CARRIER].numpy()
    matches = [all_matches(weight, claim_of(key, small)) for key in wrong_keys(0, 1000)]
    assert_coin_flips(matches, 256)
    assert all_matches(weight, small.claim) == 256  # the honest twin


def test_fifty_innocent_models_after_alignment(small: Owner, aligned: list[Array]) -> None:
    evidence = [Evidence(all_matches(weight, small.claim), 256) for weight in aligned]
    assert min(item.log2_p for item in evidence) > -20


def test_innocent_models_and_many_keys_give_uniform_p_values(small: Owner, aligned: list[Array]) -> None:
    """12 keys for each of 50 aligned innocents: 600 pairs."""
    matches = [
        all_matches(weight, claim_of(key, small))
        for number, weight in enumerate(aligned)
        for key in wrong_keys(10_000 + 12 * number, 12)
    ]
    assert_coin_flips(matches, 256)


def test_detect_agrees_on_innocents(small: Owner, innocents: list[State]) -> None:
    """The whole path, for a few of them: rows that do not resemble theta_ref's are set aside, and the rest coins."""
    for model in innocents[:4]:
        evidence = detect(model, [small.claim])[0]
        assert 0 < evidence.trials <= 256
        assert evidence.log2_p > -20


def test_fully_trained_innocents_of_full_size(owner: Owner) -> None:
    for seed in (21, 22):
        innocent = digits.train(digits.initial(seed), steps=300, seed=seed)
        assert digits.accuracy(innocent) > 0.95
        assert detect(innocent, [owner.claim])[0].log2_p > -20


def test_the_unmarked_trunk_is_innocent_too(owner: Owner) -> None:
    """Training on from theta_ref gives a close relative that never saw the bits."""
    later = digits.train(owner.theta_ref, steps=60, seed=8)
    assert detect(later, [owner.claim])[0].log2_p > -20


def test_bits_of_another_beacon_are_not_there(owner: Owner) -> None:
    other = dataclasses.replace(owner.claim, beta=bytes(32))
    assert detect(owner.model, [other])[0].log2_p > -20
    assert bytes(32) != BETA
