"""Carriers are drawn from a seed alone and follow the image, whichever way it is turned."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from watermark.outputs import mark_images
from watermark.outputs.carriers import FEATURES, PIXELS, REACH, grey, structure, visibility, wave_numbers, waves
from watermark.outputs.training import scenes

GOLDEN = [2.7068, 1.0282, -3.5592, 4.0298, 1.7973, 3.5536, 0.881]
SEEDS = [bytes([number]) * 32 for number in range(4)]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    torch.manual_seed(3)
    return scenes(4, 24)


def turned(images: torch.Tensor, quarters: int, flip: bool) -> torch.Tensor:
    images = torch.rot90(images, quarters, (2, 3))
    return images.flip(3) if flip else images


def test_numbers_of_a_seed_are_fixed_for_ever() -> None:
    frequencies, phases = wave_numbers([bytes(32)])
    assert frequencies.shape == (1, FEATURES)
    assert [round(value, 4) for value in frequencies[0].tolist()] == GOLDEN[:-1]
    assert round(phases.item(), 4) == GOLDEN[-1]


def test_seeds_give_carriers_of_their_own() -> None:
    frequencies, phases = wave_numbers([bytes([number, seed]) * 16 for number in range(256) for seed in range(16)])
    assert len(set(phases.tolist())) == len(phases)
    assert frequencies.abs().max() <= REACH
    assert float(frequencies.std()) == pytest.approx(REACH / math.sqrt(3), rel=0.02)
    assert float(phases.mean()) == pytest.approx(math.pi, rel=0.02)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_features_turn_with_the_image(images: torch.Tensor, quarters: int, flip: bool) -> None:
    for law in (structure, visibility):
        torch.testing.assert_close(law(turned(images, quarters, flip)), turned(law(images), quarters, flip))


def test_features_stay_in_range(images: torch.Tensor) -> None:
    for extreme in (images, torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8), torch.eye(9)[None, None]):
        assert structure(extreme).abs().max() <= 1
        assert 0 <= visibility(extreme).min() <= visibility(extreme).max() < 1


def test_marking_turns_with_the_image(images: torch.Tensor) -> None:
    def marked(images: torch.Tensor) -> torch.Tensor:
        return mark_images(images, SEEDS, [1, -1, -1, 1], 0.05)

    torch.testing.assert_close(marked(turned(images, 1, True)), turned(marked(images), 1, True))


def test_flat_images_carry_nothing() -> None:
    flat = torch.full((1, 1, 16, 16), 0.4)
    torch.testing.assert_close(mark_images(flat, SEEDS, [1, 1, 1, 1], 0.1), flat)


def test_large_images_are_read_in_parts_that_fit_together() -> None:
    image = scenes(1, 160)
    parts = list(waves(image, *wave_numbers(SEEDS)))
    assert [part.shape[1] for part in parts] == [PIXELS, 160 * 160 - PIXELS]
    whole = torch.cat(parts, dim=1).reshape(4, 160, 160)
    frequencies, phases = wave_numbers(SEEDS)
    angle = torch.einsum("lf,fhw->lhw", frequencies, structure(image)[0]) + phases[:, None, None]
    torch.testing.assert_close(whole, torch.cos(angle) * visibility(image)[0], atol=1e-5, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(4, 9), st.integers(4, 9))
def test_channels_are_grey_images_in_order(count: int, channels: int, height: int, width: int) -> None:
    images = torch.rand(count, channels, height, width)
    chunks = grey(images)
    assert all(chunk.shape[1] == 1 for chunk in chunks)
    assert torch.equal(torch.cat(chunks).reshape(images.shape), images)
    assert len(grey(torch.rand(2, 3, 160, 160))) == 6
