"""Data parallelism by logical ranks: the same bits from one process as from one process a rank.

A step's batch is cut into ``ranks`` equal shards. Every logical rank runs forward and backward on its shard, with
generators of its own and from the same buffers; the gradients are added in the order of the ranks, element by element,
and divided once. A sum whose order is fixed does not depend on where its terms were computed, so a run recorded by
several processes replays in a single one. (An all-reduce adds in an order of its own, and is not used.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pol.data import Batch
from pol.encoding import u256
from pol.errors import CannotRun, SpecError
from pol.machine import seed_everything

_one_process = ContextVar("one_process", default=False)


def rank() -> int:
    """This process's rank in the process group, 0 where there is none."""
    return dist.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """How many processes compute a step together: 1 without a process group, or inside :func:`alone`."""
    grouped = dist.is_available() and dist.is_initialized() and not _one_process.get()
    return dist.get_world_size() if grouped else 1


@contextmanager
def alone() -> Iterator[None]:
    """Compute all logical ranks in this process, without the others: a step in here is the one that replay takes."""
    token = _one_process.set(True)
    try:
        yield
    finally:
        _one_process.reset(token)


def shared(value: bytes) -> bytes:
    """Rank 0's ``value``, in every process of the group; all must call it, the others' own values are ignored."""
    if world_size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    size = torch.tensor(len(value), device=device)
    dist.broadcast(size, 0)
    held = torch.zeros(int(size), dtype=torch.uint8, device=device)
    if rank() == 0 and value:
        held.copy_(torch.frombuffer(bytearray(value), dtype=torch.uint8))
    dist.broadcast(held, 0)
    return held.cpu().numpy().tobytes()


def shard(batch: Batch, index: int, ranks: int) -> Batch:
    """The shard of logical rank ``index``: the batch's rows [index * n, (index + 1) * n), n = rows / ranks.

    Raises :class:`SpecError` if the rows do not divide.
    """
    rows, rest = divmod(len(batch[0]), ranks)
    if rest:
        raise SpecError(f"a batch of {len(batch[0])} samples does not divide among {ranks} ranks")
    # Copied: a kernel may choose another path for memory that begins in the middle of a batch.
    return tuple(value[index * rows : (index + 1) * rows].clone() for value in batch)


def local_shard(batch: Batch) -> Batch:
    """This process's shard of a step's batch, with the generators keyed for its rank: for loops with torch's DDP."""
    _key_generators(torch.initial_seed(), rank())
    return shard(batch, rank(), world_size())


def backward(model: nn.Module, batch: Batch, ranks: int, run: Callable[[Batch], torch.Tensor]) -> torch.Tensor:
    """The mean loss over all logical ranks, detached, with the mean gradients left in ``model``'s ``grad`` fields.

    ``run`` takes a shard, runs forward and backward, and returns the detached loss. The buffers are those of logical
    rank 0 afterwards, and the generators are keyed anew, alike everywhere. With ``ranks`` = 1 this is ``run(batch)``.
    A parameter that got no gradient on a rank counts as zeros there.

    Runs all ranks in turn, or this process's one if the process group has ``ranks`` processes; in any other group it
    raises :class:`CannotRun`.
    """
    if world_size() not in (1, ranks):
        raise CannotRun(f"the config says {ranks} ranks, this group has {world_size()} processes: start {ranks}, or 1")
    if ranks == 1:
        return run(batch)
    step_key = torch.initial_seed()
    together = _in_turn if world_size() == 1 else _together
    loss, *gradients = together(model, batch, ranks, run, step_key)
    for parameter, total in zip(_trained(model), gradients, strict=True):
        parameter.grad = _share(total, ranks)
    _key_generators(step_key, ranks)
    return _share(loss, ranks)


def average_in_order(model: DistributedDataParallel) -> None:
    """Make torch's DDP average gradients as :func:`backward` does, bucket by bucket, instead of by an all-reduce."""
    model.register_comm_hook(None, lambda _, bucket: _ordered_mean(bucket.buffer()))


def _key_generators(step_key: int, index: int) -> None:
    """Key the generators for a logical rank of the step whose torch generator was keyed by ``step_key``.

    Rank 0 goes on with the step's own, so that one rank draws what a run without ranks draws.
    """
    if index:
        seed_everything(u256(step_key), index)


def _in_turn(
    model: nn.Module, batch: Batch, ranks: int, run: Callable[[Batch], torch.Tensor], step_key: int
) -> list[torch.Tensor]:
    before = [buffer.clone() for buffer in model.buffers()]
    totals = [run(shard(batch, 0, ranks)), *_take_gradients(model)]
    after = [buffer.clone() for buffer in model.buffers()]
    for index in range(1, ranks):
        _key_generators(step_key, index)
        _set_buffers(model, before)
        values = [run(shard(batch, index, ranks)), *_take_gradients(model)]
        totals = [_ordered_sum(pair) for pair in zip(totals, values, strict=True)]
    _set_buffers(model, after)
    return totals


def _together(
    model: nn.Module, batch: Batch, ranks: int, run: Callable[[Batch], torch.Tensor], step_key: int
) -> list[torch.Tensor]:
    _key_generators(step_key, rank())
    values = [run(shard(batch, rank(), ranks)), *_take_gradients(model)]
    totals = []
    for value in values:
        parts, work = _all_gather(value)
        work.wait()
        totals.append(_ordered_sum(parts))
    for buffer in model.buffers():
        dist.broadcast(buffer, 0)
    return totals


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _take_gradients(model: nn.Module) -> list[torch.Tensor]:
    taken = []
    for parameter in _trained(model):
        taken.append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.contiguous())
        parameter.grad = None
    return taken


def _set_buffers(model: nn.Module, values: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), values, strict=True):
            buffer.copy_(value)


def _all_gather(value: torch.Tensor) -> tuple[list[torch.Tensor], dist.Work]:
    parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    work = dist.all_gather(parts, value, async_op=True)
    assert work is not None
    return parts, work


def _ordered_mean(value: torch.Tensor) -> torch.futures.Future[torch.Tensor]:
    parts, work = _all_gather(value)
    return work.get_future().then(lambda _: _share(_ordered_sum(parts), len(parts)))


def _share(total: torch.Tensor, ranks: int) -> torch.Tensor:
    """A mean, divided by a tensor: CUDA multiplies by the inverse of a number, but not everywhere inside pol.exact."""
    return total / torch.full((), ranks, dtype=total.dtype, device=total.device)


def _ordered_sum(parts: list[torch.Tensor] | tuple[torch.Tensor, ...]) -> torch.Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
