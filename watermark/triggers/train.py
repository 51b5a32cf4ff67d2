"""Training a model to give its triggers' labels: a part of any training loop, recorded or not.

The labels are learnt beside the task, as in Adi et al. (USENIX Security 2018), but with the weights shaken by noise
while the triggers' gradient is taken, so that what is learnt lies in a flat place: fine-tuning, pruning and rounding
move the weights too, and shall not move the answers (random noise as in Bansal et al., ICML 2022). Margins counted from
theta_ref's answers were tried: they survived fine-tuning and distillation less.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import torch
from torch.nn import functional

from pol.data import Batch
from watermark.triggers.reading import Answers, Triggers

NOISE: Final = 0.1
"""How much the weights are shaken, in units of each tensor's rms."""


def train_triggers(
    answers: Answers,
    optimizer: torch.optim.Optimizer,
    triggers: Triggers,
    batches: Iterable[Batch],
    task_loss: Callable[[Batch], torch.Tensor],
    *,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    noise: float = NOISE,
    weight: float = 1.0,
) -> None:
    """One step of ``optimizer`` a batch: on the task's loss, and ``weight`` times that of as many triggers' labels.

    ``answers`` gives logits, with gradients, of the model that ``optimizer`` trains, in evaluation mode (so that
    triggers leave no trace in the statistics of batch norms); ``task_loss`` may use another mode. Let the learning rate
    fall to zero. Random numbers come from torch's generator, so a recorded run replays.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    triggers = replace(triggers, inputs=triggers.inputs.to(parameters[0].device))
    for batch in batches:
        some = triggers.part(torch.randperm(len(triggers.labels))[: len(batch[0])])
        task_loss(batch).backward()  # type: ignore[no-untyped-call]
        with shaken(parameters, noise):
            (weight * label_loss(answers, some)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if scheduler:
            scheduler.step()
        optimizer.zero_grad()


def label_loss(answers: Answers, triggers: Triggers) -> torch.Tensor:
    """The cross-entropy of a model's answers on the triggers' labels, among the candidates only."""
    logits = triggers.chosen(answers(triggers.inputs))
    return functional.cross_entropy(logits, triggers.labels.to(logits.device))


@contextmanager
def shaken(parameters: Iterable[torch.Tensor], noise: float) -> Iterator[None]:
    """Gaussian noise of ``noise`` times its rms on each parameter within the block, taken back to the bit."""
    kept = [(parameter, parameter.detach().clone()) for parameter in parameters]
    with torch.no_grad():
        for parameter, value in kept:
            parameter.add_(torch.randn_like(value) * (noise * value.square().mean().sqrt()))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)
