"""Marking images, and teaching a network to mark its own: the embedder H, absorbed into the network.

H adds the sum of the leaves' carriers, each with the sign of its bit, to an image. The released network has to carry
the mark in its weights, with nothing run behind it (the barrier is absorbed: Zhang et al., TPAMI 2021, section 3.5). A
small network cannot imitate H: fitted to H's images it learns their largest strokes and few bits. So it is trained to
be read: each bit has to stand as far off zero as in H's images, at the least change of the outputs, which leaves it to
the network which of all images with this payload it gives.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from pol.errors import SpecError
from watermark.bits import mark_bit
from watermark.key import Leaf
from watermark.outputs.carriers import grey, wave_numbers, waves
from watermark.outputs.extractor import Extractor, Regression, public_extractor
from watermark.outputs.fit import BATCH, outputs_of, require_images
from watermark.outputs.parameters import OutputMark

FIDELITY: Final = 0.3
"""The weight of the change of the outputs against that of missing bits."""
WARM: Final = 20
"""Steps in which the rate rises: Adam's first ones are large, and theta_ref is a minimum."""


def intact(strength: float, leaves: int) -> float:
    """The soft value that a bit has in H's images, up to its sign: an rms of ``strength``, shared by all waves."""
    return strength * math.sqrt(2 / leaves)


def mark_images(images: torch.Tensor, seeds: Sequence[bytes], bits: Sequence[int], strength: float) -> torch.Tensor:
    """``images`` [n, c, h, w] in [0, 1] with the bits (1 or -1) of these leaves in each of them, in [0, 1] again."""
    frequencies, phases = wave_numbers(seeds)
    signs = torch.tensor(bits, dtype=images.dtype) * intact(strength, len(bits))
    marks = [signs @ part for chunk in grey(images) for part in waves(chunk, frequencies, phases)]
    return (images + torch.cat(marks).reshape(images.shape)).clamp(0, 1)


class OutputLoss:
    """The loss of the bits that a batch of outputs lacks, as a term beside a task's: what a branch trains in.

    ``theta_ref`` is the network before the branch, ``leaves`` are the channel's own. The regression is made of
    theta_ref's outputs for the batch itself, so nothing of the data is needed but the batch. Draws no random numbers.
    """

    def __init__(
        self, theta_ref: nn.Module, leaves: Sequence[Leaf], beta: bytes, key_root: bytes, mark: OutputMark
    ) -> None:
        self._theta_ref = copy.deepcopy(theta_ref).eval().requires_grad_(False)
        self._seeds = [leaf.seed for leaf in leaves]
        self._bits = torch.tensor([mark_bit(beta, key_root, leaf.index, leaf.seed) for leaf in leaves])
        self._mark, self._extractor = mark, public_extractor()

    def __call__(self, network: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """The loss of ``network`` on a batch of its inputs; :class:`SpecError` where theta_ref gives no images."""
        with torch.no_grad():
            reference = self._theta_ref(inputs).float().cpu()
        require_images(reference, len(inputs), where="theta_ref")
        images = network(inputs).float().cpu()
        values = Regression(reference, self._seeds).soft_values(images, reference, self._extractor)
        return _lacking(values, self._bits, images - reference, self._mark)


def _lacking(values: torch.Tensor, bits: torch.Tensor, change: torch.Tensor, mark: OutputMark) -> torch.Tensor:
    """How far the soft ``values`` fall short of those in H's images, and how much outputs ``change`` for it."""
    missing = torch.relu(1 - bits * values / intact(mark.strength, len(bits))).square().mean()
    return missing + FIDELITY * (change.square().mean() / mark.strength**2)


def embed_outputs(
    network: nn.Module,
    inputs: torch.Tensor,
    leaves: Sequence[Leaf],
    beta: bytes,
    key_root: bytes,
    mark: OutputMark,
    *,
    steps: int,
    rate: float = 1e-3,
) -> None:
    """Train ``network`` (theta_ref) in place, so that its outputs carry the payload.

    ``inputs`` [n, channels, height, width] are training data of the task. Adam, with a rate that rises and then falls
    to 0, and batch-norm statistics held; batches come from torch's default generator. Raises :class:`SpecError` if the
    leaves are not as many as ``mark`` says, or if the network's outputs are no finite images.
    """
    if len(leaves) != mark.leaf_count:
        raise SpecError(f"{len(leaves)} leaves for outputs, and the parameters ask for {mark.leaf_count}")
    bits = torch.tensor([mark_bit(beta, key_root, leaf.index, leaf.seed) for leaf in leaves])
    reference = outputs_of(network.eval(), inputs, where="theta_ref")
    regression, plain = Regression(reference, [leaf.seed for leaf in leaves]), Extractor()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / WARM) * (1 - step / steps))
    for _ in range(steps):
        chosen = torch.randint(len(inputs), (BATCH,))
        optimizer.zero_grad()
        images = network(inputs[chosen])
        values = regression.soft_values(images, reference[chosen], plain)
        _lacking(values, bits, images - reference[chosen], mark).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
