"""The public extractor: what an output of a suspect has that theta_ref's output for the same input has not.

A small network R estimates the mark in an image; then one regression over all images says how much of each leaf's
carrier is in it. R is part of this package: its digest is pinned here and named by every :class:`OutputMark`. So what
is read from a suspect is a function of the suspect, theta_ref, the inputs and the leaves' seeds, never of the bits.

The R that is pinned is the plain difference of the images: a correction of zeros. What
:mod:`watermark.outputs.training` gives in a minute was worse than that: of 128 bits it read 123 where the difference
reads 128 in marked images, 110 for 127 in compressed ones, and 78 for 96 in the outputs of a network that absorbed the
mark. A longer training may do better; it changes the file and the digest, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pol.errors import CannotRun, ProofError
from pol.state import from_safetensors
from pol.tensors import tensors_digest
from watermark.outputs.carriers import PIXELS, blurred, grey, surroundings, visibility, wave_numbers, waves_there

PUBLIC_EXTRACTOR: Final = bytes.fromhex("3dad55a250509e9997d2de5b5900dfe3fe4e74a207d5ecd55ea1bf2bf7f28b1b")
FILE: Final = Path(__file__).with_name("extractor.safetensors")
FILTERS: Final = 16
RIDGE: Final = 1e-3
"""Of the mean power of a carrier: carriers that are nearly the same share what they find, instead of fighting."""


class Extractor(nn.Module):
    """R: the difference of two images, and a learned correction to it."""

    def __init__(self) -> None:
        super().__init__()
        self.correction = nn.Sequential(
            nn.Conv2d(3, FILTERS, 3, padding=1), nn.ReLU(),
            nn.Conv2d(FILTERS, FILTERS, 3, padding=1), nn.ReLU(),
            nn.Conv2d(FILTERS, 1, 3, padding=1),
        )  # fmt: skip
        for parameter in self.correction[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, suspect: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """The mark [n, 1, h, w] that grey ``suspect`` images seem to have over ``reference``, both [n, 1, h, w]."""
        difference = suspect - reference
        seen = torch.cat([10 * difference, reference, visibility(reference)], dim=1)
        return difference + self.correction(seen) / 10  # type: ignore[no-any-return]


@cache
def public_extractor() -> Extractor:
    """The extractor of this package; raises :class:`CannotRun` if its file is not the one whose digest is pinned."""
    return load_extractor(FILE)


def load_extractor(path: Path) -> Extractor:
    """The public extractor, read from ``path``; raises :class:`CannotRun` if another or no extractor is there."""
    try:
        tensors = from_safetensors(path.read_bytes(), where=str(path))
        public = tensors_digest(tensors) == PUBLIC_EXTRACTOR
    except (OSError, ProofError) as error:
        raise CannotRun(f"{path}: the public extractor cannot be read ({error}); install aiarena again") from error
    if not public:
        raise CannotRun(f"{path} is not the public extractor of this version; install aiarena again")
    with torch.random.fork_rng(devices=[]):  # whoever loads it has the same random numbers afterwards
        extractor = Extractor()
    extractor.load_state_dict(tensors)
    return extractor.eval().requires_grad_(False)


class Pixels(NamedTuple):
    """k pixels of theta_ref's images as a regression sees them, whatever the leaves.

    ``features`` [., k] and ``fading`` [k] make the carriers (:func:`watermark.outputs.carriers.surroundings`);
    ``edits`` [., k] is what edits of an image bring about.
    """

    features: torch.Tensor
    fading: torch.Tensor
    edits: torch.Tensor

    def regressors(self, frequencies: torch.Tensor, phases: torch.Tensor) -> torch.Tensor:
        """The carriers with these numbers, then the edits: float64 [leaves + edits, k]."""
        return torch.cat([waves_there(self.features, self.fading, frequencies, phases), self.edits]).double()


class Regression:
    """A regression of R's estimate on the carriers of some leaves, as they lie in the images of theta_ref.

    The same regression absorbs what any edit of an image brings about (its brightness, contrast, sharpness), so that
    this is not taken for a mark. ``reference`` [n, c, h, w] are theta_ref's images.
    """

    def __init__(self, reference: torch.Tensor, seeds: Sequence[bytes]) -> None:
        self.numbers = wave_numbers(seeds)
        gram = torch.zeros((), dtype=torch.float64)
        for pixels in pixels_of(reference):
            known = pixels.regressors(*self.numbers)
            gram = gram + known @ known.T
        self.inverse = _inverse(gram / len(reference), len(seeds))

    def soft_values(self, suspect: torch.Tensor, reference: torch.Tensor, extractor: Extractor) -> torch.Tensor:
        """How much of each leaf's carrier ``suspect`` has over ``reference``, both [n, c, h, w]: float64 [leaves].

        Added up over the images, which may be some of those that the regression was made with. Differentiable in
        ``suspect`` and in the parameters of ``extractor``.
        """
        moment = torch.zeros((), dtype=torch.float64)
        for pixels, found in compared(suspect, reference, extractor):
            moment = moment + checkpoint(  # or else the carriers of all pixels would be kept for the gradients
                lambda pixels, found: pixels.regressors(*self.numbers) @ found,
                pixels, found, use_reentrant=False, preserve_rng_state=False,
            )  # fmt: skip
        values: torch.Tensor = self.inverse @ moment / len(reference)
        return values


def pixels_of(images: torch.Tensor) -> Iterator[Pixels]:
    """The pixels of ``images`` [n, c, h, w], at most PIXELS at a time."""
    for chunk in grey(images):
        fine = blurred(chunk)
        edits = [torch.ones_like(chunk), chunk, chunk.square(), chunk - fine, fine - blurred(fine, 4)]
        edited = torch.cat(edits, dim=1).transpose(0, 1).flatten(1)
        for (features, fading), part in zip(surroundings(chunk), torch.split(edited, PIXELS, dim=1), strict=True):
            yield Pixels(features, fading, part)


def compared(
    suspect: torch.Tensor, reference: torch.Tensor, extractor: Extractor
) -> Iterator[tuple[Pixels, torch.Tensor]]:
    """The pixels of ``reference`` with what ``extractor`` finds there in ``suspect``, both [n, c, h, w]: float64 [k].

    No leaf comes in here, so a list of it serves any number of keys (:func:`soft_values_of`).
    """
    estimates = (extractor(*pair).flatten().double() for pair in zip(grey(suspect), grey(reference), strict=True))
    parts = (part for estimate in estimates for part in torch.split(estimate, PIXELS))
    yield from zip(pixels_of(reference), parts, strict=True)


def soft_values_of(seen: Iterable[tuple[Pixels, torch.Tensor]], seeds: Sequence[bytes]) -> torch.Tensor:
    """How much of the carrier of each of ``seeds`` there is in what was :func:`compared`: float64 [leaves].

    The regression is made of the same images that it is applied to.
    """
    numbers = wave_numbers(seeds)
    gram = moment = torch.zeros((), dtype=torch.float64)
    for pixels, found in seen:
        known = pixels.regressors(*numbers)
        gram, moment = gram + known @ known.T, moment + known @ found
    return _inverse(gram, len(seeds)) @ moment


def _inverse(gram: torch.Tensor, leaves: int) -> torch.Tensor:
    """The rows of the leaves [leaves, leaves + edits] of the inverse of a Gram matrix, with a ridge."""
    power = gram.diagonal()[:leaves].mean()
    ridge = RIDGE * power if power > 0 else torch.ones(())  # flat images have no structure to carry anything
    rows: torch.Tensor = torch.linalg.inv(gram + ridge * torch.eye(len(gram), dtype=torch.float64))[:leaves]
    return rows
