"""Reading: the owner's payload is there, nobody else's is, and broken suspects are refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pol.errors import SpecError
from pol.programs.image_to_image import Translator
from tests.watermark.outputs.conftest import BETA, MARK, Owner
from watermark import Evidence, WatermarkKey
from watermark.outputs import output_matches, probe_indices, read_outputs
from watermark.outputs.carriers import blurred
from watermark.outputs.distort import compressed
from watermark.outputs.fit import Predict


def evidence(owner: Owner, suspect: Predict, *, key: WatermarkKey | None = None, beta: bytes = BETA) -> Evidence:
    key = key or owner.key
    matches = output_matches(suspect, owner.theta_ref, owner.probes, key.leaves, beta, key.root, MARK)
    return Evidence(matches, len(key.leaves))


def test_the_owners_payload_is_read(owner: Owner) -> None:
    found = evidence(owner, owner.marked)
    assert found.accepted
    assert found.log2_p < -100


def test_another_key_or_beacon_finds_coin_flips(owner: Owner) -> None:
    assert evidence(owner, owner.marked, key=WatermarkKey(bytes(32), 128)).log2_p > -20
    assert evidence(owner, owner.marked, beta=bytes(32)).log2_p > -20


def test_an_innocent_network_gives_coin_flips(owner: Owner, innocent: Translator) -> None:
    assert evidence(owner, innocent).log2_p > -20


def test_theta_ref_itself_has_no_bit_at_all(owner: Owner) -> None:
    """R sees no difference, so whatever it says is the same for every bit: nothing is found in theta_ref."""
    assert evidence(owner, owner.theta_ref).log2_p > -20


EDITS = {
    "compressed": compressed,
    "paler": lambda images: 0.8 * images + 0.1,
    "blurred": blurred,
    "noisy": lambda images: images + 0.02 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)),
    "8 bits": lambda images: torch.round(images * 255) / 255,
}


@pytest.mark.parametrize("edit", EDITS)
def test_outputs_that_were_edited_keep_the_payload(owner: Owner, innocent: Translator, edit: str) -> None:
    assert evidence(owner, lambda inputs: EDITS[edit](owner.marked(inputs))).accepted
    assert evidence(owner, lambda inputs: EDITS[edit](innocent(inputs))).log2_p > -20


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_outputs_that_are_not_finite_are_refused(owner: Owner, value: float) -> None:
    def broken(inputs: torch.Tensor) -> torch.Tensor:
        images = owner.marked(inputs).clone()
        images[-1, 0, 3, 3] = value
        return images

    with pytest.raises(SpecError, match="not finite"):
        evidence(owner, broken)


@pytest.mark.parametrize(
    "shape", [lambda images: images[:, :, :-1], lambda images: images[:-1], lambda images: images.flatten(1)]
)
def test_outputs_of_another_shape_are_refused(owner: Owner, shape: Predict) -> None:
    with pytest.raises(SpecError, match="images"):
        evidence(owner, lambda inputs: shape(owner.marked(inputs)))


def test_huge_outputs_are_clipped_and_count_for_nothing(owner: Owner) -> None:
    assert evidence(owner, lambda inputs: 1e30 * owner.marked(inputs)).log2_p > -20
    flat = read_outputs(torch.zeros_like, torch.zeros_like, owner.probes, [bytes(32)], MARK)
    assert flat.tolist() == [0]


def test_the_number_of_inputs_is_the_promised_one(owner: Owner) -> None:
    with pytest.raises(SpecError, match="63 inputs"):
        read_outputs(owner.marked, owner.theta_ref, owner.probes[1:], [bytes(32)], MARK)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.integers(64, 500))
def test_probes_are_distinct_samples_drawn_by_the_beacon(beacon: bytes, root: bytes, samples: int) -> None:
    drawn = probe_indices(beacon, root, samples, 64)
    assert len(set(drawn)) == 64
    assert 0 <= min(drawn) <= max(drawn) < samples
    assert drawn == probe_indices(beacon, root, samples, 64)


def test_too_few_samples_to_judge_by_are_refused() -> None:
    with pytest.raises(SpecError, match="more of them"):
        probe_indices(bytes(32), bytes(32), 63, 64)
