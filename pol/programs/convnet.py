"""Built-in program: convolutional image classifiers, trained with SGD, momentum and a cosine schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from pol.data import Batch, Samples
from pol.encoding import Json
from pol.parallel import backward
from pol.programs.config import count, number, one_of, parse, switch, whole
from pol.programs.images import as_images
from pol.programs.scoring import batches, fitted
from pol.seed import draw
from pol.state import TrainingState


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvNetConfig:
    """``network`` on images of (``channels``, ``height``, ``width``), its first layer ``filters`` wide.

    The learning rate falls to zero over ``steps``. Augmentation shifts an image by up to ``crop`` pixels and, with
    ``flip``, mirrors every other one. ``dropout`` comes before the last layer. A batch is computed as ``ranks`` equal
    shards (:mod:`pol.parallel`).
    """

    network: str = one_of("cnn", "resnet20")
    channels: int = whole(1, 64)
    height: int = whole(4, 1024)
    width: int = whole(4, 1024)
    filters: int = whole(1, 512)
    classes: int = whole(2, 2**16)
    steps: int = count()
    learning_rate: float = number(2**-40, 10)
    momentum: float = number(0, 0.999)
    weight_decay: float = number(0, 1)
    dropout: float = number(0, 0.95)
    crop: int = whole(0, 64)
    flip: bool = switch()
    ranks: int = whole(1, 1024)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A: every second pixel, padded with zeros)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, after - before
        self.residual = nn.Sequential(*_convolution(before, after, stride), nn.ReLU(), *_convolution(after, after, 1))

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Features of shape (batch, after, height / stride, width / stride), rounded up."""
        kept = value[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(kept, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return torch.relu(self.residual(value) + shortcut)


class ConvNet(nn.Module):
    """Convolutional features, their mean over the image, and a linear layer.

    ``resnet20`` is the CIFAR network of He et al. 2016 (section 4.2, n = 3): 269,722 parameters with 3 channels, 16
    filters and 10 classes. ``cnn`` is three convolutions with batch norm, the last two with stride 2.
    """

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.filters, 2 * config.filters, 4 * config.filters]
        self.features = nn.Sequential(*_convolution(config.channels, widths[0], 1), nn.ReLU())
        if config.network == "resnet20":
            path = [widths[0], *(width for width in widths for _ in range(3))]
            self.features.extend(Block(a, b, b // a) for a, b in pairwise(path))
        else:
            self.features.extend(nn.Sequential(*_convolution(a, b, 2), nn.ReLU()) for a, b in pairwise(widths))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(widths[-1], config.classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, channels, height, width)."""
        return self.head(self.dropout(self.features(images).mean(dim=(2, 3))))  # type: ignore[no-any-return]


class ConvNetClassifier:
    """Cross-entropy training of :class:`ConvNet`; the score is the share of samples classified right.

    Samples are (input, label). An input is a float image, or a uint8 one that is divided by 255, of shape (channels,
    height, width) or flattened.
    """

    def build(self, config: Mapping[str, Json], seed: bytes) -> TrainingState:
        """The initial state, keyed by the run's seed."""
        parsed = parse(ConvNetConfig, config)
        torch.manual_seed(draw(seed, "init"))
        model = ConvNet(parsed)
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=parsed.learning_rate,
            momentum=parsed.momentum,
            weight_decay=parsed.weight_decay,
            foreach=False,
        )
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=parsed.steps)
        return TrainingState(model=model, optimizer=optimizer, scheduler=scheduler)

    def train_step(self, state: TrainingState, batch: Batch) -> torch.Tensor:
        """Augment, forward, backward, SGD, schedule, zero_grad."""
        model = cast(ConvNet, state.model)
        config = model.config

        def run(shard: Batch) -> torch.Tensor:
            inputs, labels = shard
            images = as_images(inputs, config.channels, config.height, config.width)
            loss = functional.cross_entropy(model(augmented(images, config)), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        model.train()
        loss = backward(model, batch, config.ranks, run)
        state.optimizer.step()
        if state.scheduler:
            state.scheduler.step()
        state.optimizer.zero_grad()
        return loss

    def evaluate(self, model: Mapping[str, torch.Tensor], config: Mapping[str, Json], samples: Samples) -> float:
        """Accuracy in [0, 1]; :class:`SpecError` if the tensors do not fit the config's network."""
        parsed = parse(ConvNetConfig, config)
        network = fitted(ConvNet(parsed), model)
        right = 0
        with torch.no_grad():
            for inputs, labels in batches(samples):
                images = as_images(inputs, parsed.channels, parsed.height, parsed.width)
                right += int((network(images).argmax(dim=1) == labels).sum())
        return right / len(samples)


def augmented(images: torch.Tensor, config: ConvNetConfig) -> torch.Tensor:
    """Every image shifted by up to ``crop`` pixels each way (zeros come in), and mirrored at even odds.

    Drawn from torch's CPU generator, which is keyed by the step, whatever the images' device.
    """
    count = len(images)
    if config.crop:
        rows, columns = torch.randint(2 * config.crop + 1, (2, count, 1)).to(images.device)
        padded = functional.pad(images, [config.crop] * 4)
        rows = rows + torch.arange(config.height, device=images.device)
        columns = columns + torch.arange(config.width, device=images.device)
        which = torch.arange(count, device=images.device)
        images = padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if config.flip:
        mirrored = torch.randint(2, (count, 1, 1, 1)).bool().to(images.device)
        images = torch.where(mirrored, images.flip(3), images)
    return images.contiguous()


def _convolution(before: int, after: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """A 3x3 convolution and its batch norm."""
    return nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after)
