"""Likeness to the released model, with nothing embedded: the cosine of the parameters, and linear CKA of features.

CKA is that of Kornblith et al. 2019 ("Similarity of Neural Network Representations Revisited", ICML, equation 4 with a
linear kernel), as REEF (Zhang et al. 2025) uses it to recognise language models. Neither has a null hypothesis: models
that were trained independently on the same data look alike too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from experiments.baselines.scheme import Owner, Reader, Reading, features, finite


@dataclass(frozen=True, slots=True)
class ParameterCosine:
    """The cosine of all parameters, taken as one vector; a parameter of another shape counts as orthogonal."""

    black_box: ClassVar[bool] = False

    def applies(self, owner: Owner) -> bool:
        """To every model."""
        return True

    def mark(self, owner: Owner, model: nn.Module) -> nn.Module:
        """Nothing is embedded."""
        return model

    def reader(self, owner: Owner, released: nn.Module) -> Reader:
        """Compares with the released model."""

        def read(suspect: nn.Module) -> Reading:
            return Reading(finite(_cosine(dict(suspect.named_parameters()), dict(released.named_parameters()))))

        return read


@dataclass(frozen=True, slots=True)
class LinearCKA:
    """Linear CKA of what enters the last layer, on ``probes`` inputs that nobody trained on."""

    probes: int = 400

    black_box: ClassVar[bool] = False

    def applies(self, owner: Owner) -> bool:
        """To every model."""
        return True

    def mark(self, owner: Owner, model: nn.Module) -> nn.Module:
        """Nothing is embedded."""
        return model

    def reader(self, owner: Owner, released: nn.Module) -> Reader:
        """Compares with the released model."""
        inputs = owner.public.inputs[: self.probes]
        ours = features(released, inputs)
        return lambda suspect: Reading(finite(linear_cka(ours, features(suspect, inputs))))


def linear_cka(left: torch.Tensor, right: torch.Tensor) -> float:
    """||Y'X||^2 / (||X'X|| ||Y'Y||) of the centred features X [n, a] and Y [n, b] (Frobenius norms), in [0, 1].

    Where n is the smallest of the three numbers the same is worked out from the n x n Gram matrices.
    """
    x, y = (side - side.mean(dim=0) for side in (left, right))
    if len(x) < max(x.shape[1], y.shape[1]):
        gram_x, gram_y = x @ x.T, y @ y.T
        return float((gram_x * gram_y).sum() / (gram_x.norm() * gram_y.norm()))
    return float((y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))


def _cosine(left: dict[str, nn.Parameter], right: dict[str, nn.Parameter]) -> float:
    shared = [name for name in right if name in left and left[name].shape == right[name].shape]
    with torch.no_grad():
        dot = sum(float((left[name].double() * right[name].double()).sum()) for name in shared)
        norms = [sum(float(value.double().square().sum()) for value in side.values()) for side in (left, right)]
    return dot / max(math.sqrt(norms[0] * norms[1]), 1e-300)
