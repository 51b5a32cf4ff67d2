"""The process behind :mod:`pol.replay`: it starts a confined process for every span, and works out every digest.

The job is one JSON line on standard input, then a line a span; on standard output there is a JSON line a segment, and
one that ends the span. This process imports, opens the data and hashes; it never runs a program that is not part of
this package. A span runs in a child forked from it (:mod:`pol.replay_program`), so that no generator, thread pool or
tensor of one span reaches another, and the imports are paid once.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import torch
import torch._dynamo  # what torch.optim imports at its first use: here once, not in the child of every span

from pol.confine import Limits, die_with_parent, memory_of
from pol.data import batch_root
from pol.encoding import Json, from_hex, to_hex
from pol.errors import CannotRun, ProofError, SpecError
from pol.machine import MachineClass
from pol.order import DataOrder
from pol.portable import compiled
from pol.program import is_built_in, load_program
from pol.replay_program import ERROR, HEADER, HELLO, STATE, BranchTask, Task, more_memory, run_confined
from pol.sources import committed_samples
from pol.spec import EXACT, TrainingSpec
from pol.state import Tensors, from_safetensors, safetensors_chunks
from pol.tensors import tensors_digest

Row = dict[str, Json]

MAX_MESSAGE = 2**16
WATCH_SECONDS = 0.2
FAULTS = ("ProofError", "ProgramFailed", "CannotRun")


class Ended(Exception):
    """A span ended before its last segment; ``fault`` is one of FAULTS, or WorkerLost."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.row: Row = {"error": fault, "message": message}


class Child:
    """A confined process and the frames it sends. Nothing in them is believed; ``doing`` is for messages."""

    def __init__(self, pid: int, pipe: int, output: Path, limits: Limits) -> None:
        self.doing = "before its first segment"
        self._pid, self._pipe, self._output, self._limits = pid, pipe, output, limits
        self._most = memory_of(pid) + limits.memory
        self._deadline = 0.0
        self._status: int | None = None

    def frame(self, kind: bytes) -> bytes:
        """The next frame, which must be of ``kind``; raises :class:`Ended` if it is an error, or none comes in time."""
        self._deadline = time.monotonic() + self._limits.seconds
        found, size = HEADER.unpack(self._read(HEADER.size))
        if found not in (kind, ERROR) or size > (self._limits.memory if found == STATE else MAX_MESSAGE):
            raise self.meddled()
        data = self._read(size)
        if found == ERROR:
            error = self.parsed(data)
            if error.get("error") not in FAULTS or not isinstance(error.get("message"), str):
                raise self.meddled()
            raise Ended(error["error"], error["message"])
        return data

    def finish(self) -> None:
        """Wait for the end; nothing more may come."""
        self._watch()
        if os.read(self._pipe, 1):
            raise self.meddled()

    def parsed(self, data: bytes) -> dict[str, Any]:
        """A frame that must be a JSON object."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self.meddled() from error
        if not isinstance(value, dict):
            raise self.meddled()
        return value

    def meddled(self) -> Ended:
        """The program wrote what only this package may write."""
        return Ended("CannotRun", f"the program meddled with its replay process {self.doing}: read its source")

    def kill(self) -> None:
        """End it and whatever it started."""
        os.close(self._pipe)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)

    def _read(self, size: int) -> bytes:
        chunks = []
        while size:
            self._watch()
            chunk = os.read(self._pipe, min(size, 2**20))
            if not chunk:
                raise self._gone()
            chunks.append(chunk)
            size -= len(chunk)
        return b"".join(chunks)

    def _watch(self) -> None:
        """Wait until there is something to read, or the process took too much."""
        while True:
            ready = select.select([self._pipe], [], [], WATCH_SECONDS)[0]
            if time.monotonic() > self._deadline:
                taken = f"the replay took more than {self._limits.seconds:g} seconds {self.doing}"
                raise Ended("CannotRun", f"{taken}: raise --max-seconds, or replay on a faster machine")
            if memory_of(self._pid) > self._most:
                raise Ended("CannotRun", f"the replay ran out of memory {self.doing}. {more_memory(self._limits)}")
            if ready:
                return

    def _gone(self) -> Ended:
        """Why the pipe ended."""
        until = time.monotonic() + 2
        while self._status is None and time.monotonic() < until:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._status = status if pid else None
            time.sleep(0.01)
        if self._status is None:
            return self.meddled()
        last_words = self._output.read_bytes()[-300:].decode("utf-8", "replace").strip()
        said = f"; its last words: {last_words!r}" if last_words else ""
        if os.WIFSIGNALED(self._status):
            killed = f"the replay process was killed (signal {os.WTERMSIG(self._status)}) {self.doing}"
            return Ended("WorkerLost", f"{killed}; the machine may be short of memory{said}")
        code = os.waitstatus_to_exitcode(self._status)
        return Ended("CannotRun", f"the program ended its replay process (exit code {code}) {self.doing}{said}")


def replay_span(task: Task, span: dict[str, Any], out: TextIO) -> Iterator[Row]:
    """Replay one span in a child; the rows say where it ran, what every segment gave, and how it ended."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), ignore_cleanup_errors=True) as name:
        reading, writing = os.pipe()
        output = Path(name) / "output"
        pid = os.fork()
        if pid == 0:
            _detach(output, out.fileno(), reading)
            run_confined(task, span, writing, Path(name))
        os.close(writing)
        child = Child(pid, reading, output, task.limits)
        try:
            yield from _rows(task, span, child)
        except Ended as end:
            yield end.row
        finally:
            child.kill()


def _detach(output: Path, *inherited: int) -> None:
    """In the child: nothing to read, prints go to a file, no way to the parent's own pipes."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0, closefd=False)  # the parent's holds lines that it has not come to
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    for handle in inherited:
        os.close(handle)


def _rows(task: Task, span: dict[str, Any], child: Child) -> Iterator[Row]:
    yield _hello(child)
    before = b""
    for index in range(span["first"] - 1, span["last"] + 1):
        tensors, digest = _state(child)
        if str(index) in span["emit"]:
            with Path(span["emit"][str(index)]).open("wb") as file:
                file.writelines(safetensors_chunks(tensors))
        if index >= span["first"]:
            start, end = task.bounds(index)
            batches = [task.order.batch(step) for step in range(start, end)]
            yield {
                "index": index,
                "start_digest": to_hex(before),
                "end_digest": to_hex(digest),
                "batch_root": to_hex(batch_root(task.samples, batches, start)),
            }
        before = digest
        child.doing = f"in segment {index + 1}"
    child.finish()
    yield {"done": True}


def _hello(child: Child) -> Row:
    hello = child.parsed(child.frame(HELLO))
    try:
        machine = MachineClass.from_json(hello["machine"], where="replay.machine")
        return {"machine": machine.to_json(), "notes": [str(note)[:500] for note in hello["notes"]]}
    except (KeyError, TypeError, ProofError) as error:
        raise child.meddled() from error


def _state(child: Child) -> tuple[Tensors, bytes]:
    try:
        tensors = from_safetensors(child.frame(STATE), where="replay")
        return tensors, tensors_digest(tensors)
    except ProofError as error:
        raise child.meddled() from error


def task_of(job: dict[str, Any]) -> Task:
    """The job as its spans share it; raises what keeps all of them from running."""
    spec = TrainingSpec.from_json(job["spec"])
    seed = from_hex(job["seed"], where="job.seed")
    program = load_program(spec.program, spec.program_digest) if is_built_in(spec.program_digest) else None
    if spec.numerics == EXACT and job["fused"]:
        compiled.built()  # the spans run where no compiler can be started
    return Task(
        spec=spec,
        seed=seed,
        samples=committed_samples(spec, Path(job["dataset"]) if job["dataset"] else None),
        order=DataOrder(seed, spec.dataset_size, spec.batch_size),
        program=program,
        trusted=frozenset(from_hex(value, where="job.trusted") for value in job["trusted"]),
        device=job["device"],
        limits=Limits(**job["limits"]),
        branch=_branch(spec, job["branch"]) if job["branch"] else None,
        fused=job["fused"],
    )


def _branch(spec: TrainingSpec, branch: dict[str, Any]) -> BranchTask:
    """A job's branch, with the wrapper that its caller named: code of this package's user, not of a proof."""
    module, _, attribute = branch["wrapper"].partition(":")
    start = spec.bounds(branch["segment"])[1]
    return BranchTask(
        start=start,
        end=start + branch["steps"],
        wrapper=getattr(importlib.import_module(module), attribute),
        payload=branch["payload"],
    )


def failure(error: Exception) -> Row:
    """The row for an error of this process: the spec's fault or this machine's."""
    fault = "ProofError" if isinstance(error, ProofError | SpecError) else "CannotRun"
    known = isinstance(error, ProofError | SpecError | CannotRun)
    return {"error": fault, "message": str(error) if known else f"{type(error).__name__}: {error}"}


def main() -> None:
    """Run the job, then every span that comes, until there are no more."""
    die_with_parent()
    torch.set_num_threads(1)  # a thread pool would not survive the fork
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(row: Row) -> None:
        print(json.dumps(row), file=out, flush=True)

    try:
        task = task_of(json.loads(sys.stdin.readline()))
    except Exception as error:
        say(failure(error))
        return
    for line in sys.stdin:
        try:
            for row in replay_span(task, json.loads(line), out):
                say(row)
        except Exception as error:
            say(failure(error))


if __name__ == "__main__":
    main()
