"""How a task's network answers what a channel asks it: logits of a classifier or of the next token, or images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import nn

Answers: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Inputs [n, ...] to logits [n, outputs], or to images [n, channels, height, width]."""


def answers_of(network: nn.Module) -> Answers:
    """The function of ``network``, in whatever mode it is.

    Inputs go to the network's device, and images as rows [n, pixels] into a network whose first parameter is the weight
    of a linear layer. Of a language model's answers [n, length, vocabulary] the last is taken: the token that follows
    the window.
    """
    first = next(network.parameters(), None)
    takes_rows = first is not None and first.dim() == 2

    def answers(inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs.flatten(1) if takes_rows and inputs.dim() == 4 else inputs
        outputs = network(rows if first is None else rows.to(first.device))
        logits: torch.Tensor = getattr(outputs, "logits", outputs)
        return logits[:, -1] if logits.dim() == 3 else logits

    return answers
