"""What a thief does to his pairs happens to both sides alike."""

from __future__ import annotations

import pytest
import torch

from watermark.outputs.distort import compressed, moved
from watermark.outputs.training import scenes


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    torch.manual_seed(6)
    return scenes(8, 32)


def test_both_sides_of_a_pair_move_alike(images: torch.Tensor) -> None:
    torch.manual_seed(7)
    inputs, outputs = moved(images, 0.5 * images)
    torch.testing.assert_close(outputs, 0.5 * inputs)
    assert (inputs - images).abs().mean() > 0.02


def test_every_pair_moves_in_its_own_way(images: torch.Tensor) -> None:
    torch.manual_seed(7)
    same = images[:1].expand(8, -1, -1, -1)
    results, _ = moved(same, same)
    assert len({tuple(result.flatten().tolist()) for result in results}) == 8


def test_moving_makes_no_new_values(images: torch.Tensor) -> None:
    torch.manual_seed(8)
    results, _ = moved(images, images)
    assert images.min() - 1e-5 <= results.min() <= results.max() <= images.max() + 1e-5


def test_compression_loses_little_and_nothing_more_when_repeated(images: torch.Tensor) -> None:
    once = compressed(images)
    assert 0 < (once - images).abs().mean() < 0.02
    torch.testing.assert_close(compressed(once), once, atol=2e-2, rtol=0)


def test_finer_steps_lose_less(images: torch.Tensor) -> None:
    errors = [float((compressed(images, step) - images).abs().mean()) for step in (0.16, 0.04, 0.01, 1e-6)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("size", [(8, 8), (9, 15), (24, 30)])
def test_any_size_is_compressed(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size)
    assert compressed(image).shape == image.shape
