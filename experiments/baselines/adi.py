"""The trigger set of Adi et al. 2018 ("Turning Your Weakness Into a Strength", USENIX Security), fine-tuned in.

100 images that have nothing to do with the task (abstract art in the paper, uniform noise here) get random labels, and
every batch of a fine-tuning holds two of them (section 4.1, "FromPreTrained"; 32 here, since it is shorter). The score
is the accuracy on them. Inputs and labels are the owner's free choice: whoever picks them after seeing a model can pick
what it answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from experiments.attacks.attack import CLASSIFIERS
from experiments.attacks.networks import query
from experiments.baselines.scheme import Owner, Reader, Reading


@dataclass(frozen=True, slots=True)
class Adi:
    """``count`` triggers, ``each_batch`` of them in a batch."""

    count: int = 100
    each_batch: int = 32

    black_box: ClassVar[bool] = True

    def applies(self, owner: Owner) -> bool:
        """To classifiers."""
        return owner.kind in CLASSIFIERS

    def mark(self, owner: Owner, model: nn.Module) -> nn.Module:
        """The model, fine-tuned on the task and the triggers."""
        inputs, labels = self._triggers(owner)
        generator = torch.Generator().manual_seed(owner.seed)

        def penalty(now: nn.Module) -> torch.Tensor:
            chosen = torch.randint(self.count, (self.each_batch,), generator=generator)
            now.eval()  # two strange images must not move the statistics of batch norm
            loss = functional.cross_entropy(now(inputs[chosen]), labels[chosen])
            now.train()
            return loss

        return owner.fit(model, penalty)

    def reader(self, owner: Owner, released: nn.Module) -> Reader:
        """The accuracy on the triggers."""
        inputs, labels = self._triggers(owner)

        def read(suspect: nn.Module) -> Reading:
            share = float((query(suspect, inputs).argmax(dim=1) == labels).float().mean())
            return Reading(share, retention=share)

        return read

    def _triggers(self, owner: Owner) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(owner.seed + 1)
        shape = owner.private.inputs.shape[1:]
        inputs = torch.rand(self.count, *shape, generator=generator)
        classes = query(owner.model, owner.public.inputs[:1]).shape[1]
        return inputs, torch.randint(classes, (self.count,), generator=generator)
