"""The outputs channel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from experiments.attacks.attack import Kind
from experiments.attacks.networks import copied, query
from experiments.baselines.scheme import Owner, Reader, Reading
from experiments.stolen_model.channels.shared import LEAVES, Coins, beta_of, reading_of, secret
from pol.errors import SpecError
from watermark import Evidence, WatermarkKey
from watermark.outputs import OutputMark, embed_outputs, output_matches, probe_indices
from watermark.outputs.extractor import soft_values_of
from watermark.outputs.parameters import MAX_STRENGTH, MIN_IMAGES
from watermark.outputs.reading import agreeing, seen_outputs


@dataclass(frozen=True, slots=True)
class Outputs:
    """A payload in every output of an image-to-image network; all of it is opened, on probes that a beacon draws.

    The network is fine-tuned for ``steps`` steps to marked outputs, the mark of an rms of ``amplitude``; ``images``
    outputs are judged together.
    """

    steps: int
    amplitude: float
    images: int = MIN_IMAGES
    strength: float = 1.0
    black_box: ClassVar[bool] = True
    kinds: ClassVar[tuple[Kind, ...]] = ("image_to_image",)

    def applies(self, owner: Owner) -> bool:
        """To image-to-image networks."""
        return owner.kind in self.kinds

    def at(self, strength: float) -> Outputs:
        """``strength`` times the amplitude."""
        return replace(self, strength=strength)

    def mark(self, owner: Owner, model: nn.Module) -> nn.Module:
        """``model`` fine-tuned on its own marked outputs."""
        marked, mark, key = copied(model), self.parameters(owner), self._key(owner)
        steps = max(1, round(self.steps * owner.setting.effort))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(owner.seed)
            inputs = owner.private.inputs
            embed_outputs(marked, inputs, key.leaves, beta_of(owner.seed), key.root, mark, steps=steps)
        return marked.eval()

    def reader(self, owner: Owner, released: nn.Module) -> Reader:
        """Asks for outputs and reads the payload."""
        mark, key, probes = self.parameters(owner), self._key(owner), self._probes(owner)

        def read(suspect: nn.Module) -> Reading:
            both = partial(query, suspect), partial(query, owner.model)
            try:
                matches = output_matches(*both, probes, key.leaves, beta_of(owner.seed), key.root, mark)
            except SpecError:  # outputs of another shape: a miss
                matches = 0
            return reading_of(Evidence(matches, key.leaf_count, channel="outputs"))

        return read

    def null(self, owner: Owner, innocent: nn.Module, keys: range) -> Coins:
        """See :class:`Channel`."""
        mark, probes, counts = self.parameters(owner), self._probes(owner), []
        seen = list(seen_outputs(partial(query, innocent), partial(query, owner.model), probes, mark))
        for number in keys:
            key = self._key(replace(owner, seed=number))
            values = soft_values_of(seen, [leaf.seed for leaf in key.leaves])
            counts.append(agreeing(values, key.leaves, beta_of(owner.seed), key.root))
        return Coins(counts, mark.leaf_count, Fraction(1, 2))

    def _probes(self, owner: Owner) -> torch.Tensor:
        beacon, inputs = secret(owner.seed, b"opening"), owner.public.inputs
        return inputs[list(probe_indices(beacon, self._key(owner).root, len(inputs), self.parameters(owner).images))]

    def parameters(self, owner: Owner) -> OutputMark:
        """See :class:`Channel`."""
        strength = min(MAX_STRENGTH, self.amplitude * self.strength)
        return OutputMark(groups=16, leaves=LEAVES, strength=strength, images=self.images)

    def _key(self, owner: Owner) -> WatermarkKey:
        return WatermarkKey(secret(owner.seed, b"outputs"), self.parameters(owner).leaf_count)
