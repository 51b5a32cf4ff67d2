"""Trigger inputs, drawn from a leaf's seed alone by a fixed public rule: nobody chooses them, not even the owner.

Images are smooth random fields: a grid of 8 x 8 random bytes a channel, stretched over the image by linear
interpolation and scaled to the whole range 0 to 255. Coarser fields resemble each other too much to be told apart by a
small network. All of it is integer arithmetic: a seed gives the same image on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from pol.encoding import digest
from watermark.triggers.parameters import Images, TriggerMark, Windows

INPUT_DOMAIN: Final = "aiarena/watermark-trigger/v1"
KNOTS: Final = 8
"""Random bytes a side of an image."""
WORD_BYTES: Final = 8

Integers: TypeAlias = npt.NDArray[np.int64]


def trigger_inputs(seeds: Sequence[bytes], mark: TriggerMark) -> torch.Tensor:
    """The inputs of these leaves, stacked: float32 [n, channels, height, width] in [0, 1], or int64 [n, context]."""
    if isinstance(mark.inputs, Windows):
        return torch.stack([torch.from_numpy(_window(seed, mark.inputs)) for seed in seeds])
    return torch.stack([torch.from_numpy(_image(seed, mark.inputs)) for seed in seeds]).float() / 255


def candidates(seed: bytes, mark: TriggerMark) -> list[int]:
    """The outputs [classes] that a label chooses from: all of a classifier's, or tokens that the seed names.

    The tokens are the first ``classes`` places of a shuffle of the vocabulary (Fisher and Yates), drawn from the words
    that follow those of the window.
    """
    if isinstance(mark.inputs, Images):
        return list(range(mark.classes))
    words = _words(seed, mark.inputs.context + mark.classes)[mark.inputs.context :]
    moved: dict[int, int] = {}
    chosen = []
    for place, word in enumerate(words):
        other = place + word % (mark.inputs.vocabulary - place)
        chosen.append(moved.get(other, other))
        moved[other] = moved.get(place, place)
    return chosen


def _window(seed: bytes, windows: Windows) -> Integers:
    return np.array([word % windows.vocabulary for word in _words(seed, windows.context)], dtype=np.int64)


def _image(seed: bytes, images: Images) -> npt.NDArray[np.uint8]:
    stream = _stream(seed, images.channels * KNOTS * KNOTS)
    knots = np.frombuffer(stream, np.uint8).reshape(images.channels, KNOTS, KNOTS).astype(np.int64)
    field = _stretch(images.height) @ knots @ _stretch(images.width).T
    low, high = int(field.min()), int(field.max())
    return ((field - low) * 255 // max(1, high - low)).astype(np.uint8)


def _stretch(length: int) -> Integers:
    """Linear interpolation of the knots at ``length`` places, [length, 8], in units of 1 / (length - 1)."""
    unit = max(1, length - 1)
    position = np.arange(length) * (KNOTS - 1)
    left = np.minimum(position // unit, KNOTS - 2)
    share = position - left * unit
    weights = np.zeros((length, KNOTS), dtype=np.int64)
    weights[np.arange(length), left] = unit - share
    weights[np.arange(length), left + 1] = share
    return weights


def _words(seed: bytes, count: int) -> list[int]:
    """``count`` unsigned words of 64 bits, big-endian; their remainders need no rejection, for labels alone must."""
    words: list[int] = np.frombuffer(_stream(seed, count * WORD_BYTES), ">u8").tolist()
    return words


def _stream(seed: bytes, length: int) -> bytes:
    """The ChaCha20 key stream under ``SHA256("aiarena/watermark-trigger/v1" || seed)`` with a zero nonce."""
    cipher = Cipher(algorithms.ChaCha20(digest(INPUT_DOMAIN, seed), bytes(16)), mode=None)
    return cipher.encryptor().update(bytes(length))
