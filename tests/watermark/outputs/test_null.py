"""The null hypothesis: whoever the innocent is, his outputs agree with a payload by coin flips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

from pol.programs.image_to_image import Translator
from tests.watermark.outputs.conftest import BETA, MARK, Owner
from watermark import Evidence, WatermarkKey
from watermark.bits import mark_bit
from watermark.outputs import output_matches, read_outputs
from watermark.outputs.extractor import Regression, compared, public_extractor, soft_values_of
from watermark.outputs.fit import Predict, outputs_of
from watermark.outputs.reading import agreeing, seen_outputs

KEYS, BEACONS, LEAVES = 4, 100, 128


def wrong_matches(owner: Owner, suspect: Predict, first: int) -> list[int]:
    """The matches of ``KEYS`` other keys, each with ``BEACONS`` beacons."""
    counts = []
    for number in range(first, first + KEYS):
        key = WatermarkKey(number.to_bytes(32, "big"), LEAVES)
        seeds = [leaf.seed for leaf in key.leaves]
        values = read_outputs(suspect, owner.theta_ref, owner.probes, seeds, MARK).numpy()
        for beacon in range(BEACONS):
            beta = beacon.to_bytes(32, "big")
            bits = np.array([mark_bit(beta, key.root, leaf.index, leaf.seed) for leaf in key.leaves])
            counts.append(int((bits * values > 0).sum()))
    return counts


def assert_coin_flips(matches: list[int]) -> None:
    """The counts look like Bin(LEAVES, 1/2), and none is below 2^-20. Ties are broken at random to make KS exact."""
    assert min(Evidence(count, LEAVES).log2_p for count in matches) > -20
    counts, dice = np.array(matches), np.random.default_rng(0).random(len(matches))
    p_values = binom.sf(counts, LEAVES, 0.5) + dice * binom.pmf(counts, LEAVES, 0.5)
    assert kstest(p_values, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("who", ["marked", "innocent"])
def test_wrong_keys_give_uniform_p_values(owner: Owner, innocent: Translator, who: str) -> None:
    suspect, first = (owner.marked, 0) if who == "marked" else (innocent, 1000)
    assert_coin_flips(wrong_matches(owner, suspect, first))


def test_what_is_seen_once_says_the_same_for_every_key(owner: Owner, innocent: Translator) -> None:
    """Thousands of keys share the networks' answers, and each reads the very same bits as in a test of its own."""
    seen = list(seen_outputs(innocent, owner.theta_ref, owner.probes, MARK))
    for number in range(3):
        key = WatermarkKey(number.to_bytes(32, "big"), LEAVES)
        seeds = [leaf.seed for leaf in key.leaves]
        values = soft_values_of(seen, seeds)
        assert torch.equal(values, read_outputs(innocent, owner.theta_ref, owner.probes, seeds, MARK))
        alone = output_matches(innocent, owner.theta_ref, owner.probes, key.leaves, BETA, key.root, MARK)
        assert agreeing(values, key.leaves, BETA, key.root) == alone


def test_one_pass_over_the_pixels_reads_what_the_regression_reads(owner: Owner) -> None:
    reference = outputs_of(owner.theta_ref, owner.probes, where="theta_ref")
    images = outputs_of(owner.marked, owner.probes, where="the suspect")
    twice = Regression(reference, owner.seeds).soft_values(images, reference, public_extractor())
    once = soft_values_of(compared(images, reference, public_extractor()), owner.seeds)
    torch.testing.assert_close(once, twice)
    assert torch.equal(once > 0, twice > 0)
