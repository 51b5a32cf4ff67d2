"""What the built-in programs share when they score a submitted model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import nn

from pol.data import Batch, Samples
from pol.errors import SpecError

BATCH = 256

Network = TypeVar("Network", bound=nn.Module)


def fitted(network: Network, tensors: Mapping[str, torch.Tensor]) -> Network:
    """``network`` with the submitted ``tensors`` in it, ready to be scored; :class:`SpecError` if they do not fit."""
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise SpecError(f"the model does not fit the task's program: {error}") from error
    return network.eval()


def batches(samples: Samples) -> Iterator[Batch]:
    """All of ``samples``, once and in order."""
    for start in range(0, len(samples), BATCH):
        yield samples.batch(range(start, min(start + BATCH, len(samples))))


def inverse_perplexity(loss_of: Callable[[torch.Tensor], torch.Tensor], samples: Samples) -> float:
    """The geometric mean of the probabilities given to the tokens that follow, in [0, 1].

    ``samples`` are windows (tokens,); ``loss_of`` gives the mean cross-entropy over all but a window's first token.
    """
    total, tokens = 0.0, 0
    with torch.no_grad():
        for (windows,) in batches(samples):
            predicted = windows[:, 1:].numel()
            total += float(loss_of(windows)) * predicted
            tokens += predicted
    return math.exp(-total / tokens)
