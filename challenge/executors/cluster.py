"""Replay on a Ray cluster: start states, program source and results travel by its object store.

Every worker is an actor that starts confined processes on its node as a local replay would. A data set travels by
reference: a file must be at the same path on every node.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pol
import watermark
from challenge.executors.schedule import NoRoom, run
from pol.errors import CannotRun, PolError
from pol.machine import MachineClass
from pol.program import is_built_in, program_source
from pol.replay import Job, OnSegment, ReplayedSpan, ReplayProcess, Span, WorkerLost

START_SECONDS = 300.0


class RayExecutor:
    """As many replays at once as the cluster at ``address`` (None: one started here) has processors, or GPUs.

    A process that is connected to Ray already uses that connection.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address

    def replay(self, job: Job, spans: Sequence[Span], on_segment: OnSegment | None = None) -> list[ReplayedSpan]:
        """See :class:`challenge.executors.Executor`. ``on_segment`` hears of a span's segments when it is done."""
        job = replace(job, dataset=job.dataset.resolve() if job.dataset else None)
        with self._connected() as ray:
            seats, options = _resources(ray, job)
            shared = ray.put((job, _source(job)))
            return run(spans, [partial(RaySeat, ray, shared, options)] * seats, on_segment)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        try:
            import ray
        except ImportError as error:
            raise CannotRun("replay on Ray needs the extra 'ray': pip install 'aiarena[ray]'") from error
        if ray.is_initialized():
            yield ray
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            ray.init(address=self.address or "local", **quiet | ({} if self.address else {"include_dashboard": False}))
        except Exception as error:  # Ray has no type of its own for it
            raise CannotRun(f"no Ray cluster at {self.address or 'this machine'}: {error}") from error
        try:
            yield ray
        finally:
            ray.shutdown()


class RaySeat:
    """One actor of the cluster, as a seat of the schedule."""

    def __init__(self, ray: Any, shared: Any, options: dict[str, Any]) -> None:
        self._ray = ray
        self._actor = ray.remote(**options)(Replayer).remote(shared)
        self._ready = False

    def replay(self, span: Span, on_segment: OnSegment) -> ReplayedSpan:
        """Replay ``span`` on the actor's node, write the states it gives back, then tell of its segments."""
        self._wait_until_ready()
        start = span.start.read_bytes() if span.start else None
        asked = self._actor.replay.remote(span.first, span.last, start, sorted(span.emit or {}))
        result, states = self._get(asked)
        for index, path in (span.emit or {}).items():
            if index in states:
                path.write_bytes(states[index])
        result.span = span
        for segment in result.segments:
            on_segment(segment)
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """Kill the actor."""
        self._ray.kill(self._actor)

    def _wait_until_ready(self) -> None:
        if self._ready:
            return
        theirs = self._get(self._actor.package.remote(), timeout=START_SECONDS)
        if theirs != package_digest():
            versions = f"here {package_digest()[:12]}, there {theirs[:12]}"
            raise CannotRun(f"a Ray worker has another version of this package ({versions}): install one everywhere")
        self._ready = True

    def _get(self, reference: Any, timeout: float | None = None) -> Any:
        """What an actor's method returned or raised; an actor that is gone is a lost worker."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=timeout)
        except errors.GetTimeoutError as error:
            raise NoRoom(f"no Ray node was free within {timeout:g} seconds: try again, or add nodes") from error
        except errors.RayTaskError as error:
            if isinstance(error.cause, PolError):
                raise error.cause from None
            raise CannotRun(f"a Ray worker failed: {error.cause!r:.300}") from error
        except errors.RayError as error:
            raise WorkerLost(f"a Ray worker is gone: {str(error)[:300]}") from error


class Replayer:
    """The actor: one replay process on the node it runs on."""

    def __init__(self, shared: tuple[Job, tuple[str, bytes] | None]) -> None:
        job, source = shared
        self._folder = tempfile.TemporaryDirectory()
        if source is not None:
            name, text = source
            Path(self._folder.name, name).write_bytes(text)
        self._process = ReplayProcess(job, programs=Path(self._folder.name))

    def package(self) -> str:
        """What :func:`package_digest` gives on this node."""
        return package_digest()

    def replay(
        self, first: int, last: int, start: bytes | None, emit: list[int]
    ) -> tuple[ReplayedSpan, dict[int, bytes]]:
        """Replay a span from the bytes of its start state; returns the states after the segments in ``emit`` too."""
        with tempfile.TemporaryDirectory() as name:
            begin = Path(name, "start")
            if start is not None:
                begin.write_bytes(start)
            paths = {index: Path(name, f"state{index}") for index in emit}
            span = Span(first=first, last=last, start=begin if start is not None else None, emit=paths)
            result = self._process.replay(span)
            return result, {index: path.read_bytes() for index, path in paths.items() if path.exists()}


def package_digest() -> str:
    """The digest of the sources that replay, in hex: what driver and workers must have in common."""
    folders = (Path(pol.__file__).parent, Path(watermark.__file__).parent)
    sources = [path for folder in folders for path in sorted(folder.rglob("*.py"))]
    text = b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sources)
    return hashlib.sha256(text).hexdigest()


def _source(job: Job) -> tuple[str, bytes] | None:
    """File name and source of a program that the nodes do not have as part of this package."""
    if is_built_in(job.spec.program_digest) or job.spec.program_digest not in job.trusted:
        return None
    return f"{job.spec.program.partition(':')[0]}.py", program_source(job.spec.program)


def _resources(ray: Any, job: Job) -> tuple[int, dict[str, Any]]:
    """How many replays run at once, and what each asks of its node."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if job.device not in ("cpu", "cuda"):
        raise CannotRun(f"on Ray every replay has a GPU of its own: say cuda, not {job.device}")
    if job.device == "cuda":
        gpus = int(sum(node.get("GPU", 0) for node in nodes))
        if gpus == 0:
            raise CannotRun("this Ray cluster has no GPU: add a node with one, or replay on cpu")
        return gpus, {"num_cpus": 1, "num_gpus": 1}
    threads = MachineClass.from_json(job.spec.machine, where="spec.machine").threads
    each = min(threads, max((int(node.get("CPU", 0)) for node in nodes), default=1)) or 1
    return max(1, sum(int(node.get("CPU", 0)) // each for node in nodes)), {"num_cpus": each}
