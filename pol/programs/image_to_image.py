"""Built-in program: a residual network that turns images into images, trained with Adam and a linear decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from pol.data import Batch, Samples
from pol.encoding import Json
from pol.programs.config import count, number, one_of, parse, whole
from pol.programs.images import as_images
from pol.programs.scoring import batches, fitted
from pol.seed import draw
from pol.state import TrainingState

LOSSES = {"l1": functional.l1_loss, "l2": functional.mse_loss}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageToImageConfig:
    """From ``inputs`` to ``outputs`` channels of ``height`` x ``width``, by ``blocks`` of ``filters``.

    ``loss`` is the mean absolute (``l1``) or squared (``l2``) error; the learning rate falls to zero over ``steps``.
    """

    inputs: int = whole(1, 64)
    outputs: int = whole(1, 64)
    height: int = whole(1, 4096)
    width: int = whole(1, 4096)
    filters: int = whole(1, 512)
    blocks: int = whole(1, 64)
    loss: str = one_of(*LOSSES)
    steps: int = count()
    learning_rate: float = number(2**-40, 1)
    weight_decay: float = number(0, 1)


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their input."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU(),
            nn.Conv2d(filters, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters),
        )  # fmt: skip

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Features of the shape of ``value``."""
        return value + self.residual(value)  # type: ignore[no-any-return]


class Translator(nn.Module):
    """A convolution in, residual blocks at full resolution, a convolution out."""

    def __init__(self, config: ImageToImageConfig) -> None:
        super().__init__()
        self.config = config
        self.head = nn.Conv2d(config.inputs, config.filters, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(config.filters) for _ in range(config.blocks)))
        self.tail = nn.Conv2d(config.filters, config.outputs, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images of shape (batch, outputs, height, width) from (batch, inputs, height, width)."""
        return self.tail(self.blocks(torch.relu(self.head(images))))  # type: ignore[no-any-return]


class ImageToImage:
    """Regression of images on images with :class:`Translator`.

    Samples are (input, label), float images or uint8 ones that are divided by 255, of shape (channels, height, width)
    or flattened. The score is the share of the labels' variance that the model explains (R squared, at least 0).
    """

    def build(self, config: Mapping[str, Json], seed: bytes) -> TrainingState:
        """The initial state, keyed by the run's seed."""
        parsed = parse(ImageToImageConfig, config)
        torch.manual_seed(draw(seed, "init"))
        model = Translator(parsed)
        optimizer = torch.optim.Adam(
            model.parameters(), lr=parsed.learning_rate, weight_decay=parsed.weight_decay, foreach=False
        )
        scheduler = torch.optim.lr_scheduler.LinearLR(
            optimizer, start_factor=1.0, end_factor=0.0, total_iters=parsed.steps
        )
        return TrainingState(model=model, optimizer=optimizer, scheduler=scheduler)

    def train_step(self, state: TrainingState, batch: Batch) -> torch.Tensor:
        """Forward, backward, Adam, schedule, zero_grad."""
        model = cast(Translator, state.model)
        model.train()
        inputs, labels = _images(batch, model.config)
        loss = LOSSES[model.config.loss](model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        if state.scheduler:
            state.scheduler.step()
        state.optimizer.zero_grad()
        return loss.detach()

    def evaluate(self, model: Mapping[str, torch.Tensor], config: Mapping[str, Json], samples: Samples) -> float:
        """R squared in [0, 1]; :class:`SpecError` if the tensors do not fit the config's network."""
        parsed = parse(ImageToImageConfig, config)
        network = fitted(Translator(parsed), model)
        error = total = squares = 0.0
        elements = 0
        with torch.no_grad():
            for batch in batches(samples):
                inputs, labels = _images(batch, parsed)
                error += float((network(inputs) - labels).double().square().sum())
                total += float(labels.double().sum())
                squares += float(labels.double().square().sum())
                elements += labels.numel()
        variance = squares - total * total / elements
        return max(0.0, 1 - error / variance) if variance > 0 else 0.0


def _images(batch: Batch, config: ImageToImageConfig) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = batch
    return (
        as_images(inputs, config.inputs, config.height, config.width),
        as_images(labels, config.outputs, config.height, config.width),
    )
