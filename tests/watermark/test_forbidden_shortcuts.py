"""Shortcuts that look harmless and convict innocents: each is shown, and each is closed."""

from __future__ import annotations

import dataclasses

from tests.watermark import digits
from tests.watermark.conftest import BETA, SMALL, SMALL_WIDTHS
from tests.watermark.digits import CARRIER
from watermark import Claim, Evidence, WatermarkKey, align, detect, embed
from watermark.detect import count_matches


def test_alignment_to_the_marked_model_convicts_innocents() -> None:
    """Why ``align`` takes theta_ref: the marked model holds the bits, and the assignment leans towards them.

    Four innocents together: to theta_ref they are coin flips, to the marked model they are far below 2^-64. A claim
    that smuggles the marked model in as theta_ref is void, because the bits are in it already.
    """
    parameters = dataclasses.replace(SMALL, margin=8.0)
    key = WatermarkKey(b"an accuser's secret, 32 bytes ..", 256)
    theta_ref = digits.train(digits.initial(1, SMALL_WIDTHS), steps=100, seed=1)
    marked = embed(theta_ref, key, BETA, parameters)
    claim = Claim.make(key, BETA, parameters, range(16), theta_ref)
    innocents = digits.train_many(range(200, 204), SMALL_WIDTHS, steps=40, rate=5e-3)

    def matches(reference: digits.State) -> int:
        return sum(count_matches(align(model, reference)[CARRIER].numpy(), claim) for model in innocents)

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
