"""What a thief does to outputs before learning from them: geometry, and coarse files.

A surrogate that learns from turned, cropped, scaled and flipped pairs loses any mark that sits in one place (Zhang et
al., "Exploring Structure Consistency for Deep Model Watermarking", 2021, section 4.3). Randomness comes from torch's
default generator.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch.nn import functional

TURN: Final = 20.0
"""The largest rotation, in degrees."""
SCALES: Final = (0.8, 1.25)
SHIFT: Final = 0.25
"""The largest shift, as a share of half the image: with the scale, this is a crop."""
BLOCK: Final = 8


def moved(inputs: torch.Tensor, outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sides of each pair, [n, ., h, w], turned, scaled, shifted and flipped alike; each pair by its own draw."""
    count = len(inputs)
    angle = (torch.rand(count) * 2 - 1) * math.radians(TURN)
    low, high = (math.log(scale) for scale in SCALES)
    scale = torch.exp(low + (high - low) * torch.rand(count))
    flip = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    shift = (torch.rand(count, 2) * 2 - 1) * SHIFT
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = [torch.stack([flip * cosine, -sine, shift[:, 0]], 1), torch.stack([flip * sine, cosine, shift[:, 1]], 1)]
    grid = torch.stack(rows, dim=1)
    return _resampled(inputs, grid), _resampled(outputs, grid)


def compressed(images: torch.Tensor, step: float = 0.04) -> torch.Tensor:
    """``images`` as a lossy file would hold them: the cosine transform of each 8 x 8 block (as in JPEG), rounded.

    ``step`` is what the lowest frequency is rounded to; it grows with the frequency, threefold for the highest.
    """
    height, width = images.shape[-2:]
    padded = functional.pad(images, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    basis, order = _cosines(), torch.arange(BLOCK)
    steps = step * (1 + (order[:, None] + order) / (BLOCK - 1))
    blocks = padded.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
    rounded = torch.round(basis @ blocks @ basis.T / steps) * steps
    restored = (basis.T @ rounded @ basis).transpose(3, 4).reshape(padded.shape)
    return restored[..., :height, :width].clamp(0, 1)


def _resampled(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    places = functional.affine_grid(grid, list(images.shape), align_corners=False)
    return functional.grid_sample(images, places, padding_mode="reflection", align_corners=False)


def _cosines() -> torch.Tensor:
    order = torch.arange(BLOCK)
    basis = torch.cos(math.pi / BLOCK * order[:, None] * (order + 0.5)) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return basis
