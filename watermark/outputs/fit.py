"""Running an image-to-image network, and fitting one to given outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from pol.errors import SpecError

Images: TypeAlias = torch.Tensor
Predict: TypeAlias = Callable[[Images], Images]
Distort: TypeAlias = Callable[[Images, Images], tuple[Images, Images]]
BATCH: Final = 32


def outputs_of(predict: Predict, inputs: Images, *, where: str) -> Images:
    """``predict`` on ``inputs`` [n, ...] in batches: float32 images [n, c, h, w], clipped to [0, 1].

    Raises :class:`SpecError` naming ``where`` if these are no images, one for each input, or not finite.
    """
    parts = []
    with torch.no_grad():
        for batch in torch.split(inputs, BATCH):
            images = predict(batch)
            require_images(images, len(batch), where=where)
            parts.append(images.float().clamp(0, 1))
    return torch.cat(parts)


def require_images(images: Images, count: int, *, where: str) -> None:
    """Raise :class:`SpecError` naming ``where`` unless these are ``count`` finite images [n, c, h, w]."""
    if images.dim() != 4 or len(images) != count or images.numel() == 0:
        raise SpecError(f"{where}: outputs of shape {tuple(images.shape)} are not {count} images")
    if not bool(torch.isfinite(images).all()):
        raise SpecError(f"{where}: outputs that are not finite")


def fit(
    network: nn.Module,
    inputs: Images,
    targets: Images,
    *,
    steps: int,
    rate: float,
    loss: Callable[[Images, Images], torch.Tensor] = functional.mse_loss,
    distort: Distort | None = None,
) -> None:
    """Fit ``network`` to ``targets`` with Adam, its rate falling to 0; batches come from torch's default generator.

    ``distort`` changes each batch of pairs first. Batch-norm uses its statistics or the batch's, as the network's mode
    says.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=steps)
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (BATCH,))
        pair = (inputs[chosen], targets[chosen])
        given, wanted = distort(*pair) if distort else pair
        optimizer.zero_grad()
        loss(network(given), wanted).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
