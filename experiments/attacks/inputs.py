"""Hosts that filter: the stolen weights stay as they are, but a query meets a changed input, or a changed answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

from experiments.attacks.attack import CLASSIFIERS, Attack, Setting
from experiments.attacks.extraction import as_pictures
from experiments.attacks.finetuning import SOK
from experiments.attacks.networks import Host, outputs_of
from experiments.attacks.training import fit, own

Filter: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


class Filtered(Host):
    """A model behind ``before``, which changes inputs of the model's own shape."""

    def __init__(self, model: nn.Module, before: Filter) -> None:
        super().__init__(model)
        self.before = before

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The model's outputs for the filtered inputs."""
        return outputs_of(self.model, self.before(inputs))


class Ensemble(Host):
    """The stolen model's answers mixed with those of ``others``: the mean of the probabilities, or a vote."""

    def __init__(self, model: nn.Module, others: list[nn.Module], *, vote: bool) -> None:
        super().__init__(model)
        self.others, self.vote = nn.ModuleList(others), vote

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Log-probabilities: of the mean, or of the answers that come first with the most models."""
        every = torch.stack([outputs_of(model, inputs).softmax(-1) for model in (self.model, *self.others)])
        if self.vote:
            every = (every == every.amax(-1, keepdim=True)).float() + 0.01 * every
        return every.mean(0).clamp(min=1e-12).log()


class Guarded(Host):
    """A language model that answers windows which look unlike its host's own text at random.

    A window is unlike if its mean bigram surprise is above ``limit``.
    """

    def __init__(self, model: nn.Module, surprise: torch.Tensor, limit: float) -> None:
        super().__init__(model)
        self.surprise, self.limit = surprise, limit

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits, which are all zero for windows that are unlike the host's text."""
        logits = outputs_of(self.model, tokens)
        strange = _surprise(self.surprise, tokens) > self.limit
        return torch.where(strange[:, None, None], torch.zeros_like(logits), logits)


def filtered(victim: nn.Module, setting: Setting, rng: torch.Generator, *, through: str, amount: float) -> nn.Module:
    """The victim behind the named image filter at ``amount``. The noise of a filter is drawn again for each query."""
    change = FILTERS[through]

    def before(inputs: torch.Tensor) -> torch.Tensor:
        pictures = as_pictures(inputs, setting)
        return change(pictures, amount, rng).clamp(0, 1).reshape(inputs.shape)

    return Filtered(victim, before)


def reconstructed(victim: nn.Module, setting: Setting, rng: torch.Generator, *, share: float) -> nn.Module:
    """The victim behind a linear autoencoder: inputs projected on the main components of the thief's own data."""
    rows = setting.inputs.flatten(1)
    mean = rows.mean(0)
    count = max(1, round(share * min(rows.shape)))
    basis = torch.linalg.svd(rows - mean, full_matrices=False).Vh[:count]

    def before(inputs: torch.Tensor) -> torch.Tensor:
        flat = inputs.flatten(1) - mean
        near: torch.Tensor = (flat @ basis.T) @ basis + mean
        return near.clamp(0, 1).reshape(inputs.shape)

    return Filtered(victim, before)


def ensembled(victim: nn.Module, setting: Setting, rng: torch.Generator, *, vote: bool, epochs: int) -> nn.Module:
    """The victim and a model that the thief trained on its half alone: averaged, or by vote."""
    other = setting.build()
    fit(other, own(other, setting), len(setting.inputs), setting, rng, epochs=epochs)
    return Ensemble(victim, [other], vote=vote)


def guarded(victim: nn.Module, setting: Setting, rng: torch.Generator, *, kept: float) -> nn.Module:
    """A perplexity filter (Jain et al. 2023): a bigram model that lets ``kept`` of the thief's own text through."""
    tokens = setting.inputs
    size = int(tokens.max()) + 1
    counts = torch.ones(size + 1, size + 1)  # the last row and column: tokens never seen
    counts.index_put_((tokens[:, :-1].flatten(), tokens[:, 1:].flatten()), torch.ones(()), accumulate=True)
    surprise = -(counts / counts.sum(1, keepdim=True)).log()
    limit = float(_surprise(surprise, tokens).quantile(kept))
    return Guarded(victim, surprise, limit)


def _surprise(table: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    known = tokens.clamp(max=len(table) - 1)
    return table[known[:, :-1], known[:, 1:]].mean(1)


def _squeezed(images: torch.Tensor, bits: float, _: torch.Generator) -> torch.Tensor:
    levels = 2**bits - 1
    return (images * levels).round() / levels


def _levels(images: torch.Tensor, levels: float, _: torch.Generator) -> torch.Tensor:
    return (images * (levels - 1)).round() / (levels - 1)


def _blurred(images: torch.Tensor, deviation: float, _: torch.Generator) -> torch.Tensor:
    places = torch.arange(-2, 3, dtype=torch.float32)
    kernel = torch.exp(-places.square() / (2 * deviation**2))
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    across = functional.pad(images, (2, 2, 2, 2), mode="replicate")
    across = functional.conv2d(across, kernel.reshape(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)
    return functional.conv2d(across, kernel.reshape(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)


def _windows(images: torch.Tensor, size: int) -> torch.Tensor:
    around = functional.pad(images, [size // 2] * 4, mode="replicate")
    return around.unfold(2, size, 1).unfold(3, size, 1).flatten(4)


def _median(images: torch.Tensor, size: float, _: torch.Generator) -> torch.Tensor:
    return _windows(images, int(size)).median(-1).values


def _mean(images: torch.Tensor, size: float, _: torch.Generator) -> torch.Tensor:
    return _windows(images, int(size)).mean(-1)


def _noise(images: torch.Tensor, deviation: float, rng: torch.Generator) -> torch.Tensor:
    return images + deviation * torch.randn(images.shape, generator=rng)


def _mirrored(images: torch.Tensor, odds: float, rng: torch.Generator) -> torch.Tensor:
    some = torch.rand(len(images), 1, 1, 1, generator=rng) < odds
    return torch.where(some, images.flip(3), images)


def _occluded(images: torch.Tensor, share: float, rng: torch.Generator) -> torch.Tensor:
    height, width = images.shape[2:]
    side = max(1, round(share * min(height, width)))
    top = torch.randint(height - side + 1, (len(images), 1, 1, 1), generator=rng)
    left = torch.randint(width - side + 1, (len(images), 1, 1, 1), generator=rng)
    rows, columns = torch.arange(height).reshape(1, 1, -1, 1), torch.arange(width).reshape(1, 1, 1, -1)
    hidden = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return torch.where(hidden, 0.0, images)


def jpeg(images: torch.Tensor, quality: float, _: torch.Generator | None = None) -> torch.Tensor:
    """``images`` in [0, 1] as JPEG's luminance would leave them at ``quality``: 8x8 cosine transforms, rounded."""
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    table = (torch.tensor(JPEG_LUMINANCE, dtype=torch.float32).reshape(8, 8) * scale).clamp(1, 255)
    places = torch.arange(8, dtype=torch.float32)
    cosine = torch.cos((2 * places[None, :] + 1) * places[:, None] * torch.pi / 16) / 2
    cosine[0] /= 2**0.5
    height, width = images.shape[2:]
    padded = functional.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate") * 255 - 128
    blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8)
    rounded = (cosine @ blocks @ cosine.T / table).round() * table
    back = cosine.T @ rounded @ cosine
    whole = back.permute(0, 1, 2, 4, 3, 5).reshape(padded.shape)
    return ((whole + 128) / 255)[:, :, :height, :width].clamp(0, 1)


JPEG_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
"""The quantisation table of ITU-T T.81, annex K.1."""

FILTERS: dict[str, Callable[[torch.Tensor, float, torch.Generator], torch.Tensor]] = {
    "squeeze": _squeezed, "levels": _levels, "blur": _blurred, "median": _median, "mean": _mean, "noise": _noise,
    "mirror": _mirrored, "occlude": _occluded, "jpeg": jpeg,
}  # fmt: skip
STRONGEST = {
    "squeeze": 4.0, "levels": 10.0, "blur": 0.7, "median": 3.0, "mean": 3.0, "noise": 0.1, "mirror": 1.0,
    "occlude": 0.3, "jpeg": 45.0,
}  # fmt: skip
IMAGES = (*CLASSIFIERS, "image_to_image")
_attack = partial(Attack, family="inputs", black_box=True)

ATTACKS = (
    *(
        _attack(
            number=12, name=f"host-{name}", source=f"Xu et al., NDSS 2018; {SOK}", published={"amount": amount},
            run={"through": name, "amount": amount}, action=filtered, kinds=IMAGES,
        )
        for name, amount in STRONGEST.items()
    ),
    _attack(
        number=12, name="host-autoencoder", source=f"Meng and Chen, CCS 2017; {SOK}", published={},
        run={"share": 0.25}, action=reconstructed, kinds=CLASSIFIERS,
    ),
    *(
        _attack(
            number=36, name=f"host-{name}", source="2026 (arXiv 2601.04261)", published={},
            run={"vote": vote, "epochs": 20}, action=ensembled, kinds=(*CLASSIFIERS, "transformer"),
        )
        for name, vote in (("ensemble", False), ("vote", True))
    ),
    _attack(
        number=36, name="host-perplexity", source="Jain et al., 2023", published={}, run={"kept": 0.99},
        action=guarded, kinds=("transformer", "lora"),
    ),
)  # fmt: skip
