"""The inside of a replay: the confined process in which the program runs, and from which only states come out.

Whatever the program does to this process, the digests are worked out in another one (:mod:`pol.replay_worker`), so a
program can hand over a wrong state, as it can train wrongly, but no result. What comes out are frames: a kind, a
length and that many bytes. First ``hello`` (JSON), then the start state and the state after every segment
(safetensors); an ``error`` (JSON) is the last frame, wherever it comes.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from pol.confine import Limits, confine, die_with_parent
from pol.data import Samples
from pol.errors import CannotRun, PolError, ProofError, SpecError
from pol.machine import MachineClass, make_deterministic, this_machine
from pol.numerics import arithmetic
from pol.order import DataOrder
from pol.portable.mode import RefusedOperator
from pol.program import Program, load_program
from pol.spec import TrainingSpec
from pol.state import Tensors, TrainingState, from_safetensors, safetensors_chunks
from pol.tensors import tensor_header

HEADER = struct.Struct("<cQ")
HELLO, STATE, ERROR = b"h", b"s", b"e"

Wrapper: TypeAlias = Callable[[Program, TrainingState, int, Any], Program]
"""What makes a branch's program: of the trunk's, the restored state that it leaves from, the number of the step after
its last one, and the payload. Raises ProofError for a payload that is not sound."""


class ProgramFailed(Exception):
    """The program raised on what the spec or a stored state gave it: the proof's fault on a machine of its class."""


@dataclass(frozen=True, kw_only=True)
class BranchTask:
    """A job's branch: its steps [``start``, ``end``), and what makes the program that takes them."""

    start: int
    end: int
    wrapper: Wrapper
    payload: Any


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all spans of a job share. ``program`` is None for one that must not be loaded outside its confinement."""

    spec: TrainingSpec
    seed: bytes
    samples: Samples
    order: DataOrder
    program: Program | None
    trusted: frozenset[bytes]
    device: str
    limits: Limits
    branch: BranchTask | None = None
    fused: bool = True

    def bounds(self, segment: int) -> tuple[int, int]:
        """The steps [start, end) of ``segment``: the trunk's, or the branch where there is one."""
        return (self.branch.start, self.branch.end) if self.branch else self.spec.bounds(segment)


def run_confined(task: Task, span: dict[str, Any], pipe: int, folder: Path) -> NoReturn:
    """Confine this process, replay ``span`` in it, write the frames into ``pipe`` and end it."""
    try:
        notes = _enter(task, folder)
        machine = this_machine(threads=_threads(task.spec), device=task.device)
        program = task.program or _load(task)
        make_deterministic(machine.threads)
        _send(pipe, HELLO, [json.dumps({"machine": machine.to_json(), "notes": notes}).encode()])
        with arithmetic(task.spec, fused=task.fused):
            for tensors in Replay(task, program).states(span):
                _send_state(pipe, tensors)
    except BaseException as error:
        _send(pipe, ERROR, [json.dumps(blame(error, task.limits)).encode()])
    finally:
        os._exit(0)


class Replay:
    """The steps of one span."""

    def __init__(self, task: Task, program: Program) -> None:
        self.task, self.program = task, program
        self.spec, self.seed = task.spec, task.seed

    def states(self, span: dict[str, Any]) -> Iterator[Tensors]:
        """The start state and the state after every segment; the memory of one is used again for the next."""
        state = self._built()
        if span["start"]:
            loaded = from_safetensors(Path(span["start"]).read_bytes(), where="start state")
            step = self.task.bounds(span["first"])[0]
            state.restore(loaded, layout=self._layout(), seed=self.seed, step=step)
        tensors = state.capture(self.seed)
        yield tensors
        if branch := self.task.branch:
            with program_runs():
                self.program = branch.wrapper(self.program, state, branch.end, branch.payload)
        for index in range(span["first"], span["last"] + 1):
            for step in range(*self.task.bounds(index)):
                self._step(state, step)
            tensors = state.capture(self.seed, reuse=tensors)
            yield tensors

    def _built(self) -> TrainingState:
        with program_runs():
            return self.program.build(self.spec.config, self.seed).to(self.task.device)

    def _step(self, state: TrainingState, step: int) -> None:
        batch = self.task.samples.batch(self.task.order.batch(step))
        moved = tuple(value.to(self.task.device) for value in batch)
        state.key_generators(self.seed)
        with program_runs():
            self.program.train_step(state, moved)
        state.step = step + 1

    def _layout(self) -> Tensors:
        """A state as the program captures it after a step: what names, dtypes and shapes a stored state must have."""
        state = self._built()
        self._step(state, 0)
        return state.capture(self.seed)


@contextmanager
def program_runs() -> Iterator[None]:
    """Tell the program's own failures from this machine's (memory, files, what it may not do here)."""
    try:
        yield
    except RefusedOperator as error:  # which operators there are is torch's, and the device's
        raise ProgramFailed(str(error)) from error
    except (MemoryError, OSError, PolError):
        raise
    except BaseException as error:
        if _is_memory(error):
            raise
        raise ProgramFailed(f"the program failed: {type(error).__name__}: {str(error)[:200]!r}") from error


def blame(error: BaseException, limits: Limits) -> dict[str, str]:
    """The error as a frame carries it: the proof's fault (its spec's included), the program's or this machine's."""
    fault, message = "CannotRun", str(error)
    if isinstance(error, ProofError | SpecError):
        fault = "ProofError"
    elif isinstance(error, ProgramFailed):
        fault = "ProgramFailed"
    elif isinstance(error, CannotRun):
        pass
    elif _is_memory(error):
        message = f"the replay ran out of memory ({message[:200]!r}). {more_memory(limits)}"
    else:
        message = f"{type(error).__name__}: {message[:200]!r}, in a replay process, which has no network, starts no "
        message += "process and writes only into a folder of its own"
    return {"error": fault, "message": message}


def more_memory(limits: Limits) -> str:
    """What to do when ``limits.memory`` was not enough."""
    return f"It may take {limits.memory / 2**30:g} GiB: raise --max-memory, or replay on a larger machine"


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "alloc" in str(error) or "memory" in str(error)


def _enter(task: Task, folder: Path) -> list[str]:
    """Confine this process; its working folder and temporary folder is ``folder``."""
    os.chdir(folder)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    notes = confine(task.limits, folder, device="cpu" if task.device == "cpu" else "cuda")
    die_with_parent()
    return notes


def _load(task: Task) -> Program:
    try:
        return load_program(task.spec.program, task.spec.program_digest, trusted=task.trusted)
    except SystemExit as error:
        raise CannotRun(f"program {task.spec.program} does not load here: it exits") from error


def _threads(spec: TrainingSpec) -> int:
    return MachineClass.from_json(spec.machine, where="spec.machine").threads


def _send_state(pipe: int, tensors: Tensors) -> None:
    for name, value in tensors.items():
        tensor_header(name, value)  # raises ProofError for what has no canonical bytes
    _send(pipe, STATE, list(safetensors_chunks(tensors)))


def _send(pipe: int, kind: bytes, chunks: list[bytes] | list[bytes | memoryview]) -> None:
    for chunk in (HEADER.pack(kind, sum(len(chunk) for chunk in chunks)), *chunks):
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(pipe, rest) :]
