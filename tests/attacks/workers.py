"""Replay workers that cost little to start, because attacks need many.

Starting the product's worker takes seconds, nearly all of them importing torch. Here workers are forked from a process
that has imported it, and kept for as long as the tests run. Every span is replayed in a fresh child of its worker
either way.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from pol import replay_worker
from pol.errors import PolError
from pol.replay import Job, ReplayedSpan, ReplayProcess, Span

NURSERY = multiprocessing.get_context("forkserver")
NURSERY.set_forkserver_preload(["tests.attacks.workers", "sklearn.datasets"])


class Worker(ReplayProcess):
    """The product's worker and its protocol; only how it starts is different."""

    def __init__(self, job: Job) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        jobs, self._jobs = NURSERY.Pipe(duplex=False)
        self._answers, answers = NURSERY.Pipe(duplex=False)
        self._process = NURSERY.Process(target=_work, args=(jobs, answers, self._folder.name), daemon=True)
        self._process.start()
        self._process.stdin = os.fdopen(os.dup(self._jobs.fileno()), "wb")
        self._process.stdout = os.fdopen(os.dup(self._answers.fileno()), "rb")
        self._process.wait = self._process.join
        for end in (jobs, answers, self._jobs, self._answers):
            end.close()
        self._send(job.to_json())


def _work(jobs: Connection, answers: Connection, folder: str) -> None:
    os.dup2(jobs.fileno(), 0)
    os.dup2(answers.fileno(), 1)
    jobs.close()
    answers.close()
    os.chdir(folder)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    replay_worker.main()


class KeptWorkers:
    """An executor with one worker for every job it has seen."""

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], Worker] = {}

    def replay(self, job: Job, spans: Sequence[Span], on_segment: Any = None) -> list[ReplayedSpan]:
        """As :func:`pol.replay.replay`."""
        key = (job.spec.digest, str(job.to_json() | {"spec": None}))
        if key not in self._held:
            self._held[key] = Worker(job)
        try:
            return [self._held[key].replay(span, on_segment) for span in spans]
        except PolError:  # a worker that could not take its job has ended
            self._held.pop(key).close()
            raise

    def close(self) -> None:
        """End the workers."""
        while self._held:
            self._held.popitem()[1].close()
