"""A new model taught by the stolen one. Its weights are its own, so no mark in weights can be in them."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional

from experiments.attacks.attack import BUILT, CLASSIFIERS, Attack, Build, Setting
from experiments.attacks.finetuning import SOK
from experiments.attacks.networks import outputs_of
from experiments.attacks.training import asked, distilled, fit, own


def retrained(victim: nn.Module, setting: Setting, rng: torch.Generator, *, epochs: int, rate: float) -> nn.Module:
    """A fresh network of the victim's architecture, trained on the victim's answers (Tramer et al. 2016)."""
    return _taught(victim, setting, rng, setting.build, epochs=epochs, rate=rate)


def crossed(victim: nn.Module, setting: Setting, rng: torch.Generator, *, epochs: int, rate: float) -> nn.Module:
    """The same into another architecture."""
    return _taught(victim, setting, rng, setting.student, epochs=epochs, rate=rate)


def distil(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, temperature: float, epochs: int, rate: float
) -> nn.Module:
    """A fresh network, trained on the victim's probabilities at ``temperature`` and on nothing else (alpha 1)."""
    student = setting.build()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        inputs = setting.queries[rows]
        return distilled(outputs_of(student, inputs), asked(victim, inputs), temperature, setting)

    return fit(student, loss, len(setting.queries), setting, rng, epochs=epochs, rate=rate)


def smooth_retrained(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, splits: int, noise: float, epochs: int, rate: float
) -> nn.Module:
    """Trained on the victim's probabilities, averaged over ``splits`` copies of each query with noise of its own."""
    student = setting.build()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        inputs = setting.queries[rows]
        moved = [inputs + noise * (2 * torch.rand(inputs.shape, generator=rng) - 1) for _ in range(splits)]
        told = torch.stack([asked(victim, part.clamp(0, 1)).softmax(-1) for part in moved]).mean(0)
        return setting.loss(outputs_of(student, inputs), told)

    return fit(student, loss, len(setting.queries), setting, rng, epochs=epochs, rate=rate)


def knockoff(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, blends: int, epochs: int, rate: float
) -> nn.Module:
    """Trained on the victim's probabilities for inputs of another distribution (Orekondy et al. 2019).

    The other distribution is made of ``blends`` random blends for each query: half of one and half of a second.
    """
    count = len(setting.queries)
    pairs = torch.randint(count, (2, blends * count), generator=rng)
    share = torch.rand(blends * count, generator=rng).reshape(-1, *[1] * (setting.queries.dim() - 1))
    inputs = share * setting.queries[pairs[0]] + (1 - share) * setting.queries[pairs[1]]
    student = setting.build()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        return distilled(outputs_of(student, inputs[rows]), asked(victim, inputs[rows]), 1.0, setting)

    return fit(student, loss, len(inputs), setting, rng, epochs=epochs, rate=rate)


def transferred(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, before: int, epochs: int, rate: float
) -> nn.Module:
    """A network trained without the victim for ``before`` epochs, then on its answers at a tenth of the rate."""
    student = setting.build()
    fit(student, own(student, setting), len(setting.inputs), setting, rng, epochs=before)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        inputs = setting.queries[rows]
        return setting.loss(outputs_of(student, inputs), setting.answers(asked(victim, inputs)))

    return fit(student, loss, len(setting.queries), setting, rng, epochs=epochs, rate=rate)


def surrogate(
    victim: nn.Module, setting: Setting, rng: torch.Generator, *, geometry: bool, epochs: int, rate: float
) -> nn.Module:
    """A fresh network trained on the victim's images; with ``geometry`` both images are turned, mirrored and resized.

    That breaks what Zhang et al. 2020 hide in the outputs (Zhang et al. 2021, "structure consistency").
    """
    student = setting.build()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        inputs = setting.queries[rows]
        told = asked(victim, inputs)
        if geometry:
            both = moved(torch.cat([as_pictures(inputs, setting), as_pictures(told, setting)], dim=1), rng)
            channels = both.shape[1] - told.shape[1]
            inputs, told = both[:, :channels], both[:, channels:]
        return setting.loss(outputs_of(student, inputs), told)

    return fit(student, loss, len(setting.queries), setting, rng, epochs=epochs, rate=rate)


def as_pictures(inputs: torch.Tensor, setting: Setting) -> torch.Tensor:
    """Inputs as images [n, channels, height, width], by the setting's ``shape`` where they are flat."""
    return inputs if inputs.dim() == 4 else inputs.reshape(-1, *(setting.shape or (1, 1, inputs.shape[1])))


def moved(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Images turned by up to 30 degrees, resized by 0.8 to 1.25 and mirrored at even odds, all of a batch alike."""
    turn, size, flip = torch.rand(3, generator=rng).tolist()
    angle, scale = torch.tensor((2 * turn - 1) * torch.pi / 6), 0.8 * (1.25 / 0.8) ** size
    sign = 1.0 if flip < 0.5 else -1.0
    cosine, sine = float(angle.cos()) / scale, float(angle.sin()) / scale
    matrix = torch.tensor([[[sign * cosine, -sine, 0.0], [sign * sine, cosine, 0.0]]]).expand(len(images), 2, 3)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _taught(
    victim: nn.Module, setting: Setting, rng: torch.Generator, build: Build, *, epochs: int, rate: float
) -> nn.Module:
    student = build()

    def loss(rows: torch.Tensor) -> torch.Tensor:
        inputs = setting.queries[rows]
        return setting.loss(outputs_of(student, inputs), setting.answers(asked(victim, inputs)))

    return fit(student, loss, len(setting.queries), setting, rng, epochs=epochs, rate=rate)


_attack = partial(Attack, family="extraction")
LONG = {"epochs": 60}

ATTACKS = (
    _attack(
        number=13, name="retrain", source=f"Tramer et al., USENIX Security 2016; {SOK}", published=LONG,
        run={"epochs": 30, "rate": 1.0}, action=retrained, kinds=BUILT,
    ),
    _attack(
        number=14, name="distil", source=f"Hinton et al., 2015; {SOK}",
        published={"temperature": 3.0, "alpha": 1.0, **LONG},
        run={"temperature": 3.0, "epochs": 30, "rate": 1.0}, action=distil, kinds=(*CLASSIFIERS, "transformer"),
    ),
    _attack(
        number=15, name="smooth-retrain", source=SOK, published={"splits": 3, "noise": 0.2, **LONG},
        run={"splits": 3, "noise": 0.2, "epochs": 30, "rate": 1.0}, action=smooth_retrained, kinds=CLASSIFIERS,
    ),
    _attack(
        number=16, name="cross-architecture", source=SOK, published={"student": "DenseNet", **LONG},
        run={"epochs": 30, "rate": 1.0}, action=crossed, kinds=BUILT,
    ),
    _attack(
        number=17, name="knockoff", source=f"Orekondy et al., CVPR 2019; {SOK}",
        published={"queries": "1.25 M OpenImages", "epochs": 4}, run={"blends": 4, "epochs": 8, "rate": 1.0},
        action=knockoff, kinds=CLASSIFIERS,
    ),
    _attack(
        number=18, name="transfer-learning", source=SOK,
        published={"start": "ImageNet ResNet-34", "epochs": 5, "rate": 0.001},
        run={"before": 20, "epochs": 5, "rate": 0.1}, action=transferred, kinds=BUILT,
    ),
    *(
        _attack(
            number=37, name=f"surrogate{'-geometry' if geometry else ''}",
            source="Zhang et al., AAAI 2020; Zhang et al., 2021", published={"loss": "L1, L2, GAN, perceptual"},
            run={"geometry": geometry, "epochs": 30, "rate": 1.0}, action=surrogate, kinds=("image_to_image",),
        )
        for geometry in (False, True)
    ),
)  # fmt: skip
