"""What a scheme is: it makes a released model out of a trained one, and later says how stolen a suspect looks.

Our own channels and the baselines have this one shape, so that one experiment compares them on the same thieves and the
same innocents.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import nn

from experiments.attacks.attack import Kind, Setting
from experiments.attacks.networks import query

Penalty: TypeAlias = Callable[[nn.Module], torch.Tensor]
"""What is added to the loss of a step, from the model being trained."""

Fit: TypeAlias = Callable[[nn.Module, Penalty], nn.Module]
"""The owner's fine-tuning: a copy of the model, trained on with a penalty beside the task's loss."""


@dataclass(frozen=True, eq=False)
class Part:
    """``inputs`` [n, ...] and ``targets`` [n, ...]: one part of the data."""

    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, count: int) -> Part:
        """The first ``count`` rows."""
        return Part(self.inputs[:count], self.targets[:count])

    @classmethod
    def join(cls, *parts: Part) -> Part:
        """The rows of all ``parts``, in order."""
        return cls(torch.cat([part.inputs for part in parts]), torch.cat([part.targets for part in parts]))


@dataclass(frozen=True, eq=False)
class Owner:
    """What the owner of a model has: the model as trained, the data it was trained on, and data that it never saw.

    ``setting`` says how it is trained, with ``private`` as its labelled data. Everything that a scheme draws comes
    from ``seed``.
    """

    model: nn.Module
    private: Part
    public: Part
    setting: Setting
    seed: int
    fit: Fit = field(repr=False)

    @property
    def kind(self) -> Kind:
        """The kind of model."""
        return self.setting.kind


@dataclass(frozen=True, slots=True)
class Reading:
    """How stolen a suspect looks: ``score`` rises with suspicion and is finite.

    ``retention`` is the share of the mark that was found (where there is a mark), ``log2_p`` the exact p-value,
    ``found`` the decision at 2^-64, and ``trials`` how many bits or labels it rests on (where the scheme has an exact
    null hypothesis).
    """

    score: float
    retention: float | None = None
    log2_p: float | None = None
    found: bool | None = None
    trials: int | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.score):
            raise ValueError(f"a score of {self.score}: schemes answer a finite number to whatever they are shown")


Reader: TypeAlias = Callable[[nn.Module], Reading]


class Scheme(Protocol):
    """A way to tell stolen models from others."""

    @property
    def black_box(self) -> bool:
        """Whether it looks at answers only, so that filters around a model matter to it."""
        ...

    def applies(self, owner: Owner) -> bool:
        """Whether the scheme can be used for this owner's task and model."""
        ...

    def mark(self, owner: Owner, model: nn.Module) -> nn.Module:
        """``model`` (the owner's, or that with other marks) with the mark in it; itself where nothing is embedded."""
        ...

    def reader(self, owner: Owner, released: nn.Module) -> Reader:
        """What reads suspects, given the model that :meth:`mark` made."""
        ...


def finite(value: float, otherwise: float = 0.0) -> float:
    """``value``, or ``otherwise`` where it is not a finite number."""
    return value if math.isfinite(value) else otherwise


def features(model: nn.Module, inputs: torch.Tensor, *, batch: int = 256) -> torch.Tensor:
    """What enters the last module with parameters [n, d], in float64: pixels are averaged, tokens are rows."""
    seen: list[tuple[nn.Module, torch.Tensor]] = []
    leaves = [part for part in model.modules() if not list(part.children()) and list(part.parameters(recurse=False))]
    hooks = [part.register_forward_hook(lambda module, given, _: seen.append((module, given[0]))) for part in leaves]
    rows = []
    try:
        for part in torch.split(inputs, batch):
            seen.clear()
            query(model, part)
            value = seen[-1][1].double()
            rows.append(value.mean(dim=(2, 3)) if value.dim() == 4 else value.reshape(-1, value.shape[-1]))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.nan_to_num(torch.cat(rows), nan=0.0, posinf=0.0, neginf=0.0)
