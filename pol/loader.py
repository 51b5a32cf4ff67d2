"""Batches in the committed order, fetched ahead by any number of worker processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader

from pol.data import Batch, Samples
from pol.errors import SpecError
from pol.order import DataOrder


class _Steps(torch.utils.data.Dataset[Batch]):
    """Item i is part ``i % parts`` of the batch of step ``first + i // parts``."""

    def __init__(self, samples: Samples, order: DataOrder, first: int, last: int, parts: int) -> None:
        self.samples, self.order, self.first, self.last, self.parts = samples, order, first, last, parts

    def __len__(self) -> int:
        return (self.last - self.first) * self.parts

    def __getitem__(self, item: int) -> Batch:
        step, part = divmod(item, self.parts)
        indices = self.order.batch(self.first + step)
        rows = len(indices) // self.parts
        return self.samples.batch(indices[part * rows : (part + 1) * rows])


def step_loader(
    samples: Samples,
    order: DataOrder,
    first: int,
    last: int,
    *,
    workers: int = 0,
    parts: int = 1,
    convert: Callable[[Any], Any] | None = None,
) -> DataLoader[Any]:
    """A loader of the batches of steps [first, last), in order, each in ``parts`` equal parts, ``convert``ed.

    What it yields is a function of data and order alone: workers only read ahead. It has a generator of its own, so
    that starting it does not draw from torch's. Raises :class:`SpecError` if a batch does not divide.
    """
    if order.batch_size % parts:
        raise SpecError(f"a batch of {order.batch_size} samples does not divide into {parts} parts")
    ahead: dict[str, Any] = {"prefetch_factor": 2, "multiprocessing_context": "fork"} if workers else {}
    samples.root  # noqa: B018 - worked out once, before workers inherit it
    return DataLoader(
        _Steps(samples, order, first, last, parts),
        batch_size=None,
        collate_fn=convert,
        num_workers=workers,
        generator=torch.Generator(),
        **ahead,
    )
