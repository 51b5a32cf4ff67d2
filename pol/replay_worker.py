"""The process behind :mod:`pol.replay`: one job from standard input, one JSON line a segment on standard output.

The parent only imports, checks the program and loads the data; it never computes. Every span then runs in a child
forked from it, so that no generator, thread pool or tensor of one span reaches another, and the imports are paid once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from pol.data import Dataset, batch_root, built_in
from pol.encoding import Json, from_hex, to_hex
from pol.errors import CannotRun, ProofError, SpecError
from pol.machine import MachineClass, make_deterministic
from pol.order import DataOrder
from pol.program import Program, load_program
from pol.spec import TrainingSpec
from pol.state import Tensors, TrainingState, from_safetensors, to_safetensors
from pol.tensors import tensors_digest


class ProgramFailed(Exception):
    """The program raised on what the spec or a stored state gave it: the proof's fault on a machine of its class."""


@contextmanager
def program_runs() -> Iterator[None]:
    """Tell the program's own failures from this machine's (memory, files)."""
    try:
        yield
    except (MemoryError, OSError, ProofError, SpecError, CannotRun):
        raise
    except Exception as error:
        if "alloc" in str(error) or "memory" in str(error):
            raise
        raise ProgramFailed(f"the program failed: {type(error).__name__}: {str(error)[:200]!r}") from error


class Worker:
    """What all spans of a job share: the spec, the seed, the program and the data."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.spec = TrainingSpec.from_json(job["spec"])
        self.seed = from_hex(job["seed"], where="job.seed")
        make_deterministic(MachineClass.from_json(self.spec.machine, where="spec.machine").threads)
        trusted = frozenset(from_hex(value, where="job.trusted") for value in job["trusted"])
        self.program: Program = load_program(self.spec.program, self.spec.program_digest, trusted=trusted)
        self.dataset = self._dataset(job["dataset"])
        self.order = DataOrder(self.seed, self.spec.dataset_size, self.spec.batch_size)

    def run(self, span: dict[str, Any]) -> Iterator[dict[str, Json]]:
        """Replay one span and yield a row a segment."""
        with program_runs():
            state = self.program.build(self.spec.config, self.seed)
        loaded = self._restore(state, span)
        started = state.capture(self.seed)
        end_digest = start_digest = tensors_digest(started)
        emit(span, span["first"] - 1, started)
        for index in range(span["first"], span["last"] + 1):
            start, end = self.spec.bounds(index)
            batches = [self.order.batch(step) for step in range(start, end)]
            for step, indices in enumerate(batches, start=start):
                state.key_generators(self.seed)
                with program_runs():
                    self.program.train_step(state, self.dataset.batch(indices))
                state.step = step + 1
            tensors = state.capture(self.seed)
            before, end_digest = end_digest, tensors_digest(tensors)
            emit(span, index, tensors)
            yield {
                "index": index,
                "start_digest": to_hex(before),
                "end_digest": to_hex(end_digest),
                "batch_root": to_hex(batch_root(self.dataset, batches, start)),
            }
        if {start_digest} != {tensors_digest(value) for value in (started, loaded) if value}:
            raise CannotRun("the replay changed its own start state (a tensor is shared); report this as a bug")

    def _dataset(self, path: str | None) -> Dataset:
        try:  # which data set is here is this machine's affair, whatever the spec calls it
            dataset = Dataset.from_bytes(Path(path).read_bytes()) if path else built_in(self.spec.dataset)
        except (ProofError, SpecError, OSError) as error:
            raise CannotRun(f"the data set {self.spec.dataset!r} is not to be had here: {error}") from error
        if dataset.root != self.spec.dataset_root:
            raise CannotRun(f"the data set {self.spec.dataset!r} here is not the committed one; pass the right one")
        if len(dataset) != self.spec.dataset_size:
            raise ProofError(f"spec: dataset_size is {self.spec.dataset_size}, the data set has {len(dataset)} samples")
        return dataset

    def _restore(self, state: TrainingState, span: dict[str, Any]) -> Tensors | None:
        if not span["start"]:
            return None
        loaded = from_safetensors(Path(span["start"]).read_bytes(), where="start state")
        step = self.spec.bounds(span["first"])[0]
        state.restore(loaded, layout=self._layout(), seed=self.seed, step=step)
        return loaded

    def _layout(self) -> Tensors:
        """A state as the program captures it after a step: what names, dtypes and shapes a stored state must have."""
        state = self.program.build(self.spec.config, self.seed)
        state.key_generators(self.seed)
        with program_runs():
            self.program.train_step(state, self.dataset.batch(self.order.batch(0)))
        state.step = 1
        return state.capture(self.seed)


def emit(span: dict[str, Any], index: int, tensors: Tensors) -> None:
    """Write the state after segment ``index``, if the job asks for it."""
    if str(index) in span["emit"]:
        Path(span["emit"][str(index)]).write_bytes(to_safetensors(tensors))


def in_child(worker: Worker, number: int, span: dict[str, Any], out: TextIO) -> None:
    """Replay ``span`` in a forked child; rows and errors carry the span's number."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if status:
            report(out, CannotRun(f"the replay process died (status {status}); it may need more memory"), number)
        return
    try:
        for row in worker.run(span):
            print(json.dumps(row | {"span": number}), file=out, flush=True)
    except Exception as error:
        report(out, error, number)
    os._exit(0)


def report(out: TextIO, error: Exception, number: int | None = None) -> None:
    """One line for an error: the proof's fault (its spec's included) or this machine's."""
    fault = "ProofError" if isinstance(error, ProofError | SpecError) else "CannotRun"
    if isinstance(error, ProgramFailed):
        fault = "ProgramFailed"
    known = isinstance(error, ProofError | SpecError | CannotRun | ProgramFailed)
    message = str(error) if known else f"{type(error).__name__}: {error}"
    print(json.dumps({"error": fault, "message": message, "span": number}), file=out, flush=True)


def main() -> None:
    """Run the job."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a program that prints must not be able to write results
    try:
        job = json.load(sys.stdin)
        worker = Worker(job)
    except Exception as error:
        report(out, error)
        return
    for number, span in enumerate(job["spans"]):
        in_child(worker, number, span, out)


if __name__ == "__main__":
    main()
