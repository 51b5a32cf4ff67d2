"""Replay: run the program again from a committed state, in a fresh process, and report what came out.

Nothing is judged here. A :class:`ReplayProcess` is ``python -m pol.replay_worker``, which inherits no generator, flag,
thread pool or tensor of this process and runs every span in a confined child; the caller compares what it gets with
what was promised.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from pol.confine import Limits
from pol.encoding import Json, from_hex, to_hex
from pol.errors import CannotRun, PolError, ProofError
from pol.machine import MachineClass
from pol.spec import TrainingSpec

INHERITED = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "AIARENA_MODELS")


class WorkerLost(CannotRun):
    """A replay process went away before it was done; another one may get through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Consecutive segments [first, last] replayed in one process.

    ``start`` is a safetensors file of the state before ``first``, or None for the program's initial state. States
    after the segments named in ``emit`` are written to the files given there; ``first - 1`` names the start state,
    and a span with ``last = first - 1`` does nothing else.
    """

    first: int
    last: int
    start: Path | None = None
    emit: Mapping[int, Path] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """Steps that leave the trunk: the run's next ``steps``, counted on from the end of ``segment``, by another program.

    ``wrapper`` (``module:attr``) makes that program of the spec's (:data:`pol.replay_program.Wrapper`) and of
    ``payload``, which it must read as strictly as anything that comes from somebody else. It is code installed here and
    named by whoever replays, never by a proof. A job with a branch has one segment, number ``segment + 1``.
    """

    segment: int
    steps: int
    wrapper: str
    payload: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedSegment:
    """What replay computed for one segment: digests and root are 32 bytes."""

    index: int
    start_digest: bytes
    end_digest: bytes
    batch_root: bytes


@dataclass(slots=True)
class ReplayedSpan:
    """The segments of one span in order, up to a ``problem``: its start state is no state of this program, or the
    program failed. A ``malformed`` spec is a problem on every class of machine.

    ``machine`` is where it ran, ``notes`` say what the process was not confined in there."""

    span: Span
    segments: list[ReplayedSegment]
    problem: str | None = None
    malformed: bool = False
    machine: MachineClass = field(kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)


OnSegment = Callable[[ReplayedSegment], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all spans of one replay share.

    ``dataset`` is where the data set that the spec names lies; None means a built-in one. ``trusted`` lists the digests
    of programs that may run besides the built-in ones. ``device`` is ``cpu``, ``cuda`` or ``cuda:1``. With a ``branch``
    it is that branch that is replayed, and nothing of the trunk. Without ``fused`` exact numerics are computed by
    torch's operators alone (:func:`pol.exact`).
    """

    spec: TrainingSpec
    seed: bytes
    dataset: Path | None = None
    trusted: frozenset[bytes] = frozenset()
    device: str = "cpu"
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    branch: Branch | None = None
    fused: bool = True

    def to_json(self) -> dict[str, object]:
        """The first line that a worker reads."""
        return {
            "spec": self.spec.to_json(),
            "seed": to_hex(self.seed),
            "dataset": str(self.dataset.resolve()) if self.dataset else None,
            "trusted": [to_hex(value) for value in sorted(self.trusted)],
            "device": self.device,
            "limits": asdict(self.limits),
            "branch": asdict(self.branch) if self.branch else None,
            "fused": self.fused,
        }


def replay(job: Job, spans: Sequence[Span], on_segment: OnSegment | None = None) -> list[ReplayedSpan]:
    """Replay ``spans`` of ``job``, each in a fresh process, and return what came out, in the same order.

    ``on_segment`` hears of each segment as it is done. Raises :class:`ProofError` if the spec itself cannot be run,
    :class:`CannotRun` if the data set, the program or the process is not to be had, or a limit was reached.
    """
    with ReplayProcess(job) as process:
        return [process.replay(span, on_segment) for span in spans]


def import_path(*first: Path) -> str:
    """PYTHONPATH for a process in another folder: ``first``, this package's place, and this process's own entries."""
    own = [Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return os.pathsep.join(str(path.resolve()) for path in [*first, Path(__file__).parents[1], *own])


class ReplayProcess:
    """One worker process for ``job``, as a context manager; every span runs in a fresh child of it.

    ``programs`` is a folder where program modules are looked for first. The variables of ``environment`` are set
    in it: some change how the libraries there compute, or name the GPU it may use.
    """

    def __init__(
        self,
        job: Job,
        *,
        programs: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        env = {name: os.environ[name] for name in INHERITED if name in os.environ} | dict(environment or {})
        env["PYTHONPATH"] = import_path(*([programs] if programs else []))
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-B", "-m", "pol.replay_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=env, cwd=self._folder.name,
        )  # fmt: skip
        self._send(job.to_json())

    def __enter__(self) -> ReplayProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._process.pid

    def replay(self, span: Span, on_segment: OnSegment | None = None) -> ReplayedSpan:
        """Replay one span; errors as in :func:`replay`, :class:`WorkerLost` if a process went away."""
        self._send(_span_json(span))
        result: ReplayedSpan | None = None
        for row in self._rows():
            if "machine" in row:
                machine = MachineClass.from_json(row["machine"], where="replay.machine")
                result = ReplayedSpan(span, [], machine=machine, notes=tuple(row["notes"]))
            elif "error" in row:
                if result is None or row["error"] in ("CannotRun", "WorkerLost"):
                    raise _ERRORS[row["error"]](row["message"])
                result.problem, result.malformed = row["message"], row["error"] == "ProofError"
                return result
            elif result is not None and "done" in row:
                return result
            elif result is not None:
                result.segments.append(_segment(row))
                if on_segment:
                    on_segment(result.segments[-1])
        self._errors.seek(0)
        tail = self._errors.read()[-800:].decode("utf-8", "replace").strip()
        raise WorkerLost(f"the replay worker ended ({self._process.wait()}) before segment {span.last}: {tail!r}")

    def close(self) -> None:
        """End the process; from any thread, more than once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                if pipe:
                    pipe.close()
        self._folder.cleanup()

    def _send(self, line: Json | Mapping[str, object]) -> None:
        assert self._process.stdin
        with suppress(OSError, ValueError):  # a process that is gone left a row that says why
            self._process.stdin.write(json.dumps(line).encode("ascii") + b"\n")
            self._process.stdin.flush()

    def _rows(self) -> Iterator[dict[str, Any]]:
        assert self._process.stdout
        return map(json.loads, self._process.stdout)


_ERRORS: dict[str, type[PolError]] = {
    "CannotRun": CannotRun,
    "ProgramFailed": CannotRun,
    "ProofError": ProofError,
    "WorkerLost": WorkerLost,
}


def _span_json(span: Span) -> Json:
    return {
        "first": span.first,
        "last": span.last,
        "start": str(span.start.resolve()) if span.start else None,
        "emit": {str(index): str(path.resolve()) for index, path in (span.emit or {}).items()},
    }


def _segment(row: dict[str, Any]) -> ReplayedSegment:
    return ReplayedSegment(
        index=row["index"],
        start_digest=from_hex(row["start_digest"], where="replay"),
        end_digest=from_hex(row["end_digest"], where="replay"),
        batch_root=from_hex(row["batch_root"], where="replay"),
    )
