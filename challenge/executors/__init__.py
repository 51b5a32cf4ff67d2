"""Where segments are replayed: in local processes or on a Ray cluster, with the same result.

Spans are independent, so :mod:`challenge.executors.schedule` hands them to however many workers there are and puts the
results back in order; a worker that is lost is replaced a bounded number of times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from challenge.executors.cluster import RayExecutor
from challenge.executors.pool import ProcessPool
from pol.errors import SpecError
from pol.replay import Job, OnSegment, ReplayedSpan, Span

__all__ = ["Executor", "ProcessPool", "RayExecutor", "parse_executor"]

MAX_WORKERS = 1024


class Executor(Protocol):
    """Replays spans somewhere."""

    def replay(self, job: Job, spans: Sequence[Span], on_segment: OnSegment | None = None) -> list[ReplayedSpan]:
        """As :func:`pol.replay.replay`: the same arguments, errors and results, in the order of ``spans``.

        ``on_segment`` may be called from any thread, by one at a time. With the device ``cuda`` every replay has a GPU
        to itself.
        """
        ...


def parse_executor(text: str) -> Executor:
    """The executor that a command line names; :class:`SpecError` lists what there is."""
    if text == "process":
        return ProcessPool(1)
    if re.fullmatch(r"pool:\d{1,4}", text) and 1 <= int(text[5:]) <= MAX_WORKERS:
        return ProcessPool(int(text[5:]))
    if text == "ray":
        return RayExecutor(None)
    if re.fullmatch(r"ray://[^\s/]+:\d{1,5}", text):
        return RayExecutor(text)
    raise SpecError(f"no executor {text!r}: use process, pool:4 (that many workers), ray (here) or ray://host:port")
