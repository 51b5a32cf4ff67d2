"""Shortcuts that look harmless and convict innocents: each is shown, and each is closed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from tests.watermark import digits
from tests.watermark.conftest import BETA, SMALL, SMALL_WIDTHS, Owner, block, changed
from tests.watermark.digits import CARRIER
from tests.watermark.test_null import all_matches
from watermark import Claim, Evidence, LeafOpening, WatermarkKey, detect, embed
from watermark.bits import mark_bit
from watermark.detect import read
from watermark.weights.carriers import carrier_product
from watermark.weights.layouts.mlp import align


def test_alignment_to_the_marked_model_convicts_innocents() -> None:
    """Why ``align`` takes theta_ref: the marked model holds the bits, and the assignment leans towards them.

    Four innocents together: to theta_ref they are coin flips, to the marked model they are far below 2^-64. A claim
    that smuggles the marked model in as theta_ref is void, because the bits are in it already.
    """
    parameters = changed(SMALL, margin=8.0)
    key = WatermarkKey(b"an accuser's secret, 32 bytes ..", 256)
    theta_ref = digits.train(digits.initial(1, SMALL_WIDTHS), steps=100, seed=1)
    marked = embed(theta_ref, key, BETA, parameters)
    claim = Claim.make(key, BETA, parameters, range(16), theta_ref)
    innocents = digits.train_many(range(200, 204), SMALL_WIDTHS, steps=40, rate=5e-3)

    def matches(reference: digits.State) -> int:
        return sum(all_matches(align(model, reference)[CARRIER].numpy(), claim) for model in innocents)

    assert Evidence(matches(theta_ref), 4 * 256).log2_p > -20
    assert Evidence(matches(marked), 4 * 256).log2_p < -64

    smuggled = dataclasses.replace(claim, theta_ref=marked)
    for model in (*innocents, marked):
        evidence = detect(model, [smuggled])[0]
        assert not evidence.accepted
        assert "theta_ref" in str(evidence.void)
    assert detect(marked, [claim])[0].accepted  # the honest twin


def test_bits_known_before_training_would_be_in_theta_0() -> None:
    """A claim that matches the verifier's own theta_0 is void; with an honest theta_0 it stands."""
    key = WatermarkKey(b"an accuser's secret, 32 bytes ..", 256)
    theta_0 = digits.initial(1, SMALL_WIDTHS)
    theta_ref = digits.train(theta_0, steps=60, seed=1)
    marked = embed(theta_ref, key, BETA, SMALL)
    claim = Claim.make(key, BETA, SMALL, range(16), theta_ref)
    assert detect(marked, [dataclasses.replace(claim, theta_0=theta_0)])[0].accepted
    loaded = dataclasses.replace(claim, theta_0=embed(theta_0, key, BETA, SMALL))
    evidence = detect(marked, [loaded])[0]
    assert not evidence.accepted
    assert "theta_0" in str(evidence.void)


def test_bits_without_the_index_make_all_bits_one_coin(small: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """An accuser commits one seed 256 times. Were bits drawn from (beta, seed) alone, half of all beacons would convict
    every model there is; with the index in them the bits are coins of their own, and equal seeds void the claim anyway.
    """
    innocent = read(digits.train(digits.initial(7, SMALL_WIDTHS), steps=60, seed=7), small.claim)
    seed, rows = bytes(32), block(SMALL, 0)
    leaves = [LeafOpening(index, seed, bytes(32), ()) for index in range(SMALL.weights.leaves)]
    lean = np.sign(carrier_product(innocent[0].found[rows], seed))

    def matches(bit: Callable[..., int]) -> list[int]:
        betas = [number.to_bytes(32, "big") for number in range(64)]
        return [sum(bit(beta, small.key.root, leaf.index, leaf.seed) == lean for leaf in leaves) for beta in betas]

    all_or_nothing = matches(lambda beta, root, index, seed: mark_bit(beta, root, 0, seed))
    assert set(all_or_nothing) == {0, len(leaves)} and 16 < all_or_nothing.count(len(leaves)) < 48
    assert not {0, len(leaves)} & set(matches(mark_bit))
    equal = dataclasses.replace(small.claim.leaves[1], seed=small.claim.leaves[0].seed)
    monkeypatch.setattr(LeafOpening, "check", lambda *_: None)
    claim = dataclasses.replace(small.claim, leaves=(small.claim.leaves[0], equal, *small.claim.leaves[2:]))
    assert "one seed" in str(detect(small.model, [claim])[0].void)


def test_fresh_bits_every_day_are_averaged_away_and_the_same_bits_are_not(small: Owner) -> None:
    """A thief averages the submissions of several days. What differs between them cancels, what is the same stays."""
    trunks = [small.theta_ref]
    for day in range(3):
        trunks.append(digits.train(trunks[-1], steps=20, rate=2e-4, seed=40 + day))

    def averaged(betas: list[bytes]) -> digits.State:
        days = [embed(trunk, small.key, beta, SMALL) for trunk, beta in zip(trunks, betas, strict=True)]
        return {name: sum(day[name] for day in days) / len(days) for name in days[0]}

    fresh = averaged([bytes([day] * 32) for day in range(4)])
    claims = [dataclasses.replace(small.claim, beta=bytes([day] * 32)) for day in range(4)]
    assert not any(evidence.accepted for evidence in detect(fresh, claims))
    assert detect(averaged([BETA] * 4), [small.claim])[0].matches == 256  # the honest twin: one beta a run
