"""Keyed carriers that follow the structure of an image, drawn from a leaf's seed alone.

The classic mark of an image-to-image network is one picture added to every output (Zhang et al., AAAI 2020). A network
that learns from outputs which were turned, cropped or scaled never sees it twice in one place, and forgets it (Zhang et
al., "Exploring Structure Consistency for Deep Model Watermarking", 2021). So here a mark says nothing about a place: it
is a function of what the image looks like around a pixel, by features that a quarter turn or a flip leaves as they are.
Whoever learns the image's structure from such outputs learns the mark with it.

A leaf's carrier is the wave ``cos(w . f + phase)`` of the features f of a pixel (random Fourier features: Rahimi and
Recht, 2007), with w and phase from its seed. Channels of colour are marked one by one, like grey images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch.nn import functional

from pol.encoding import digest

WAVE_DOMAIN: Final = "aiarena/watermark-output-wave/v1"
FEATURES: Final = 6
REACH: Final = 5.0
"""The highest frequency of a wave along one feature, in radians for a unit of it."""
PIXELS: Final = 1 << 14
"""How many pixels are looked at together, so that memory does not grow with the image."""
_NUMBER_BYTES: Final = 4


def structure(images: torch.Tensor) -> torch.Tensor:
    """The features of every pixel, each in [-1, 1]: [n, FEATURES, h, w] of grey ``images`` [n, 1, h, w] in [0, 1].

    Brightness, detail at three scales (what a blur takes away), and steepness at two. Unchanged by flips and quarter
    turns of the image, nearly so by other turns.
    """
    fine = blurred(images)
    middle = blurred(fine, 2)
    coarse = blurred(middle, 4)
    parts = [
        2 * fine - 1,
        torch.tanh((images - fine) / 0.04),
        torch.tanh((fine - middle) / 0.08),
        torch.tanh((middle - coarse) / 0.08),
        2 * torch.tanh(_steepness(fine) / 0.1) - 1,
        2 * torch.tanh(_steepness(coarse) / 0.05) - 1,
    ]
    return torch.cat(parts, dim=1)


def visibility(images: torch.Tensor) -> torch.Tensor:
    """How much of a mark an eye forgives, in [0, 1): 0 on flat parts, 1/2 where neighbours differ by 0.03."""
    busy = blurred(_steepness(blurred(images)))
    return busy / (busy + 0.03)


def wave_numbers(seeds: Sequence[bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    """Frequencies [leaves, FEATURES] and phases [leaves] of the leaves' carriers, float32.

    They are uniform in [-REACH, REACH) and [0, 2 pi): little-endian words of 32 bits of the ChaCha20 key stream under
    ``SHA256("aiarena/watermark-output-wave/v1" || seed)`` with a zero nonce, the frequencies first.
    """
    rows = np.stack([_words(seed) for seed in seeds]) / 2.0**32
    numbers = torch.from_numpy(rows)
    frequencies, phases = (2 * numbers[:, :FEATURES] - 1) * REACH, numbers[:, FEATURES] * (2 * math.pi)
    return frequencies.float(), phases.float()


def waves(images: torch.Tensor, frequencies: torch.Tensor, phases: torch.Tensor) -> Iterator[torch.Tensor]:
    """The carriers on grey ``images`` [n, 1, h, w], faded by :func:`visibility`.

    [leaves, at most PIXELS] at a time, in the order of the pixels.
    """
    for features, fading in surroundings(images):
        yield waves_there(features, fading, frequencies, phases)


def surroundings(images: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What carriers depend on, whatever their leaves: :func:`structure` [FEATURES, k] and :func:`visibility` [k].

    Of the pixels of grey ``images`` [n, 1, h, w] in their order, at most PIXELS at a time.
    """
    features, fading = structure(images).transpose(0, 1).flatten(1), visibility(images).flatten()
    yield from zip(torch.split(features, PIXELS, dim=1), torch.split(fading, PIXELS), strict=True)


def waves_there(
    features: torch.Tensor, fading: torch.Tensor, frequencies: torch.Tensor, phases: torch.Tensor
) -> torch.Tensor:
    """The carriers [leaves, k] on k pixels with these :func:`surroundings`."""
    return (frequencies @ features).add_(phases[:, None]).cos_().mul_(fading)


def grey(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Every channel of every image of [n, c, h, w] as a grey image, in chunks [k, 1, h, w] of about PIXELS pixels."""
    return torch.split(images.flatten(0, 1)[:, None], max(1, PIXELS // images[0, 0].numel()))


def blurred(images: torch.Tensor, times: int = 1) -> torch.Tensor:
    """``images`` [n, 1, h, w] after ``times`` binomial blurs of 3 x 3 pixels, edges repeated."""
    row = torch.tensor([0.25, 0.5, 0.25], dtype=images.dtype)
    kernel = (row[:, None] * row)[None, None]
    for _ in range(times):
        images = functional.conv2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), kernel)
    return images


def _steepness(images: torch.Tensor) -> torch.Tensor:
    wide = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    across = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) / 2
    down = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) / 2
    return torch.sqrt(across.square() + down.square())


def _words(seed: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    cipher = Cipher(algorithms.ChaCha20(digest(WAVE_DOMAIN, seed), bytes(16)), mode=None)
    stream = cipher.encryptor().update(bytes(_NUMBER_BYTES * (FEATURES + 1)))
    return np.frombuffer(stream, dtype="<u4")
