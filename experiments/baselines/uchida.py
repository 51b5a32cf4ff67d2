"""The weight mark of Uchida et al. 2017 ("Embedding Watermarks into Deep Neural Networks", ICMR), fine-tuned in.

A secret matrix X of normal numbers projects the weights of one layer, averaged over its output channels (equation 2);
the signs are the bits. They are trained in with the binary cross-entropy of sigmoid(X w) as a regulariser of strength
0.01 (equations 3 and 4). There is no null hypothesis in the paper: X and the bits are the owner's free choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from experiments.baselines.scheme import Owner, Reader, Reading


@dataclass(frozen=True, slots=True)
class Uchida:
    """``bits`` bits in the middle one of the model's matrices, with a regulariser of ``strength``."""

    bits: int = 256
    strength: float = 0.01

    black_box: ClassVar[bool] = False

    def applies(self, owner: Owner) -> bool:
        """To every model whose middle matrix is wide enough."""
        return carrier(owner.model) is not None

    def mark(self, owner: Owner, model: nn.Module) -> nn.Module:
        """The model, fine-tuned with the regulariser."""
        name, project, bits = self._secret(owner)
        loss = partial(functional.binary_cross_entropy_with_logits, reduction="sum")  # over the bits, equation 3
        size = project.shape[1]
        return owner.fit(model, lambda now: self.strength * loss(project @ _mean_filter(now, name, size), bits))

    def reader(self, owner: Owner, released: nn.Module) -> Reader:
        """Counts the bits; the index of every weight must be where it was."""
        name, project, bits = self._secret(owner)

        def read(suspect: nn.Module) -> Reading:
            with torch.no_grad():
                signs = (project @ _mean_filter(suspect, name, project.shape[1])) > 0
            share = float((signs == (bits > 0.5)).float().mean())
            return Reading(share, retention=share)

        return read

    def _secret(self, owner: Owner) -> tuple[str, torch.Tensor, torch.Tensor]:
        name = carrier(owner.model)
        if name is None:
            raise ValueError("no matrix of this model can carry the bits")
        size = owner.model.get_parameter(name)[0].numel()
        generator = torch.Generator().manual_seed(owner.seed)
        count = min(self.bits, size // 2)  # more bits than weights in the mean could not all be met
        project = torch.randn(count, size, generator=generator)
        return name, project, torch.randint(2, (count,), generator=generator).float()


def carrier(model: nn.Module) -> str | None:
    """The middle one of the model's matrices, embeddings left out."""
    embeddings = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Embedding)}
    names = [n for n, p in model.named_parameters() if p.dim() >= 2 and n not in embeddings and p[0].numel() >= 16]
    return names[len(names) // 2] if names else None


def _mean_filter(model: nn.Module, name: str, size: int) -> torch.Tensor:
    """Weights [size] averaged over the output channels; a suspect of another width is cut or padded with zeros."""
    weight = dict(model.named_parameters()).get(name)
    if weight is None:
        return torch.zeros(size)
    mean = weight.flatten(1).mean(dim=0)[:size]
    return functional.pad(mean, (0, size - len(mean)))
