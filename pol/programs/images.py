"""Images as the samples of a data set store them."""

from __future__ import annotations

import torch

from pol.errors import SpecError


def as_images(values: torch.Tensor, channels: int, height: int, width: int) -> torch.Tensor:
    """``values`` (batch, ...), flattened or not, as float32 images (batch, channels, height, width).

    Bytes are divided by 255. :class:`SpecError` if a sample has another number of pixels.
    """
    if values[0].numel() != channels * height * width:
        raise SpecError(
            f"a sample of shape {tuple(values.shape[1:])} is no image of {channels} x {height} x {width} pixels, "
            "as the config says"
        )
    images = values.reshape(len(values), channels, height, width)
    return images.float() / 255 if images.dtype is torch.uint8 else images.float()
