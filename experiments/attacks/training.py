"""The one training loop of the attacks, and the losses that several of them train with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

from experiments.attacks.attack import Setting
from experiments.attacks.networks import batches, outputs_of

Loss: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""From the row numbers [b] of a batch to the loss of that batch."""


def fit(
    network: nn.Module,
    loss: Loss,
    rows: int,
    setting: Setting,
    rng: torch.Generator,
    *,
    epochs: int,
    rate: float = 1.0,
    parameters: Iterable[nn.Parameter] | None = None,
    after: Callable[[], None] | None = None,
) -> nn.Module:
    """Train ``network`` in place for ``epochs`` over ``rows`` rows, at ``rate`` times the owner's learning rate.

    Only ``parameters`` change (by default all that are trainable). ``after`` is called behind every step.
    """
    chosen = [p for p in parameters or network.parameters() if p.requires_grad]
    optimizer = setting.optimizer(chosen, rate * setting.rate)
    for _ in range(max(1, round(epochs * setting.effort))):
        for batch in batches(torch.randperm(rows, generator=rng), setting.batch):
            if rows > 1 and len(batch) == 1:  # batch norm has no statistics of one sample
                continue
            network.train()
            optimizer.zero_grad()
            loss(batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if after:
                after()
    network.zero_grad()
    return network.eval()


def supervised(network: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, setting: Setting) -> Loss:
    """The task's loss against ``targets``."""
    return lambda rows: setting.loss(outputs_of(network, inputs[rows]), targets[rows])


def own(network: nn.Module, setting: Setting) -> Loss:
    """The task's loss on the thief's labelled half."""
    return supervised(network, setting.inputs, setting.targets, setting)


def distilled(outputs: torch.Tensor, taught: torch.Tensor, temperature: float, setting: Setting) -> torch.Tensor:
    """The loss of a student against the outputs it is taught (Hinton et al. 2015, section 2); images: their error."""
    if setting.kind == "image_to_image":
        return functional.l1_loss(outputs, taught)
    soft = (taught / temperature).softmax(-1).flatten(0, -2)
    told = (outputs / temperature).log_softmax(-1).flatten(0, -2)
    return temperature**2 * functional.kl_div(told, soft, reduction="batchmean")


def asked(teacher: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The outputs of a model that is only queried."""
    with torch.no_grad():
        return outputs_of(teacher.eval(), inputs)
