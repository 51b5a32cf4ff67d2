"""Replay in local worker processes, several at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import torch

from challenge.executors.schedule import run
from pol.replay import Job, OnSegment, ReplayedSpan, ReplayProcess, Span


class ProcessPool:
    """``workers`` processes at once on this machine, on CUDA at most one a GPU."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def replay(self, job: Job, spans: Sequence[Span], on_segment: OnSegment | None = None) -> list[ReplayedSpan]:
        """See :class:`challenge.executors.Executor`."""
        openers = [partial(ReplayProcess, job, environment=own) for own in environments(job.device, self.workers)]
        return run(spans, openers, on_segment)


def environments(device: str, workers: int) -> list[dict[str, str]]:
    """What is set for each of the processes that may run at once, at most ``workers``.

    ``cuda`` means any GPU, so every process sees one of its own; ``cuda:1`` means that one, for one process.
    """
    if device == "cpu":
        return [{}] * workers
    count = torch.cuda.device_count() if device == "cuda" else 0
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    gpus = [*(named or map(str, range(count)))][: min(count, workers)]
    return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus] or [{}]
