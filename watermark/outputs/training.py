"""How an extractor is trained for everybody: ``python -m watermark.outputs.training extractor.safetensors``.

Images are drawn (no data set has a say), the task is to sharpen and clean them. A target network learns it; surrogates
learn from the target's outputs, marked with keys and payloads of their own, some of them from pairs that were turned,
cropped, scaled, flipped and compressed; others learn from unmarked outputs. The extractor then learns to read the
payloads out of the surrogates' outputs (surrogate in the loop: Zhang et al., TPAMI 2021, section 3.4), and to read coin
flips where there is none (their clean loss). Everything comes from one fixed seed; another machine's arithmetic rounds
differently, so what is to be public is shipped as a file, its digest pinned by :mod:`watermark.outputs.extractor`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import torch
from safetensors.torch import save_file
from torch.nn import functional

from pol.encoding import digest, u64
from pol.programs.image_to_image import LOSSES, ImageToImageConfig, Translator
from watermark.outputs.carriers import blurred
from watermark.outputs.distort import compressed, moved
from watermark.outputs.embed import intact, mark_images
from watermark.outputs.extractor import Extractor, Regression
from watermark.outputs.fit import Images, fit, outputs_of

SEED: Final = 2020
SEED_DOMAIN: Final = "aiarena/watermark-extractor-training/v1"
SIZE: Final = 24
LEAVES: Final = 128
STRENGTH: Final = 0.03
READ: Final = 16
"""Images that the extractor sees at a time."""


class Surrogate(NamedTuple):
    """A thief's network: its width, the loss it learns by, and what it is shown."""

    filters: int
    loss: str
    marked: bool
    distorted: bool


SURROGATES: Final = (
    Surrogate(16, "l2", marked=True, distorted=False),
    Surrogate(16, "l1", marked=True, distorted=True),
    Surrogate(24, "l2", marked=True, distorted=True),
    Surrogate(24, "l1", marked=True, distorted=False),
    Surrogate(12, "l2", marked=True, distorted=True),
    Surrogate(16, "l2", marked=False, distorted=False),
    Surrogate(24, "l1", marked=False, distorted=True),
)


@dataclass(frozen=True)
class Lesson:
    """A surrogate's outputs for held-out inputs beside the target's unmarked ones; ``bits`` is None for a clean one."""

    outputs: Images
    reference: Images
    regression: Regression
    bits: torch.Tensor | None


def train_extractor(seed: int = SEED, *, images: int = 160, steps: int = 150) -> Extractor:
    """The extractor that this seed gives; minutes on one core.

    ``images`` are learned from and as many held out; ``steps`` are taken by the target, by each surrogate and by the
    extractor. Seeds torch's default generator.
    """
    torch.manual_seed(seed)
    clean = scenes(2 * images, SIZE)
    inputs = degraded(clean)
    target = network(16)
    fit(target, inputs[:images], clean[:images], steps=steps, rate=2e-3)
    reference = outputs_of(target.eval(), inputs, where="target")
    lessons = [_lesson(number, inputs, reference, steps) for number in range(len(SURROGATES))]
    extractor = Extractor()
    optimizer = torch.optim.Adam(extractor.parameters(), lr=1e-3)
    for step in range(steps):
        optimizer.zero_grad()
        _loss(extractor, lessons[step % len(lessons)]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return extractor.eval()


def network(filters: int, size: int = SIZE) -> Translator:
    """A fresh network from grey images to grey images, in training mode."""
    config = ImageToImageConfig(
        inputs=1, outputs=1, height=size, width=size, filters=filters, blocks=2,
        loss="l2", steps=1, learning_rate=1.0, weight_decay=0.0,
    )  # fmt: skip
    return Translator(config).train()


def scenes(count: int, size: int) -> Images:
    """Grey images [count, 1, size, size] in [0, 1]: soft shapes on a smooth ground, with a little texture."""
    images = 0.5 + 0.15 * _field(count, 4, size) + 0.03 * _field(count, size // 2, size)
    place = torch.linspace(-1, 1, size)
    down, across = torch.meshgrid(place, place, indexing="ij")
    for _ in range(6):
        x, y, wide, high, turn, shade, soft = torch.rand(7, count, 1, 1, 1)
        cosine, sine = torch.cos(6.3 * turn), torch.sin(6.3 * turn)
        left, up = across - 2 * x + 1, down - 2 * y + 1
        distance = ((cosine * left + sine * up) / (0.1 + wide)).square()
        distance = distance + ((cosine * up - sine * left) / (0.1 + high / 2)).square()
        inside = torch.sigmoid((1 - distance) * (2 + 10 * soft))
        images = images + inside * (shade - images)
    return images.clamp(0, 1)


def degraded(images: Images) -> Images:
    """``images`` blurred, with noise: what a network has to undo."""
    return blurred(images, 2) + 0.03 * torch.randn(images.shape)


def _lesson(number: int, inputs: Images, reference: Images, steps: int) -> Lesson:
    thief, learned = SURROGATES[number], len(inputs) // 2
    seeds = [digest(SEED_DOMAIN, u64(number), u64(leaf)) for leaf in range(LEAVES)]
    bits = torch.randint(2, (LEAVES,)) * 2 - 1
    wanted = reference[:learned]
    if thief.marked:
        wanted = mark_images(wanted, seeds, bits.tolist(), STRENGTH)
    if thief.distorted:
        wanted = compressed(wanted)
    surrogate, distort = network(thief.filters), moved if thief.distorted else None
    fit(surrogate, inputs[:learned], wanted, steps=steps, rate=2e-3, loss=LOSSES[thief.loss], distort=distort)
    outputs = outputs_of(surrogate.eval(), inputs[learned:], where="surrogate")
    return Lesson(outputs, reference[learned:], Regression(reference[learned:], seeds), bits if thief.marked else None)


def _loss(extractor: Extractor, lesson: Lesson) -> torch.Tensor:
    """Cross-entropy of the payload; of fresh coin flips for a clean surrogate, which is least for values near 0."""
    chosen = torch.randint(len(lesson.outputs), (READ,))
    values = lesson.regression.soft_values(lesson.outputs[chosen], lesson.reference[chosen], extractor)
    bits = torch.randint(2, (LEAVES,)) * 2 - 1 if lesson.bits is None else lesson.bits
    return functional.softplus(-4 * bits * values / intact(STRENGTH, LEAVES)).mean()


def _field(count: int, grid: int, size: int) -> Images:
    coarse = torch.randn(count, 1, grid, grid)
    return functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)


if __name__ == "__main__":
    save_file(train_extractor().state_dict(), Path(sys.argv[1]))
