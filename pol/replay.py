"""Replay: run the program again from a committed state, in a fresh process, and report what came out.

Nothing is judged here. :func:`replay` starts ``python -m pol.replay_worker``, which inherits no generator, flag, thread
pool or tensor of this process and forks a child a span; the caller compares what it gets with what was promised.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pol.encoding import Json, canonical_json, from_hex, to_hex
from pol.errors import CannotRun, ProofError
from pol.spec import TrainingSpec


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
class ReplayedSegment:
    """What replay computed for one segment: digests and root are 32 bytes."""

    index: int
    start_digest: bytes
    end_digest: bytes
    batch_root: bytes


@dataclass(slots=True)
class ReplayedSpan:
    """The segments of one span in order, up to a ``problem``: its start state is no state of this program, or the
    program failed. A ``malformed`` spec is a problem on every class of machine."""

    span: Span
    segments: list[ReplayedSegment]
    problem: str | None = None
    malformed: bool = False


def replay(
    spec: TrainingSpec,
    seed: bytes,
    spans: Sequence[Span],
    *,
    dataset: Path | None = None,
    trusted: frozenset[bytes] = frozenset(),
    on_segment: Callable[[ReplayedSegment], None] | None = None,
) -> list[ReplayedSpan]:
    """Replay ``spans``, each in a fresh process, and return what came out, in the same order.

    ``dataset`` is a dataset blob; None means the built-in data set the spec names. ``trusted`` lists the digests of
    programs that may run besides the built-in ones. ``on_segment`` hears of each segment as it is done. Raises
    :class:`ProofError` if the spec itself cannot be run, :class:`CannotRun` if the data set, the program or the
    process is not to be had.
    """
    job: dict[str, Json] = {
        "spec": spec.to_json(),
        "seed": to_hex(seed),
        "spans": [_span_json(span) for span in spans],
        "dataset": str(dataset.resolve()) if dataset else None,
        "trusted": [to_hex(value) for value in sorted(trusted)],
    }
    results = [ReplayedSpan(span, []) for span in spans]
    for row in _run(job):
        if "error" not in row:
            segment = _segment(row)
            results[row["span"]].segments.append(segment)
            if on_segment:
                on_segment(segment)
        elif row["error"] in ("ProofError", "ProgramFailed") and row["span"] is not None:
            results[row["span"]].problem = row["message"]
            results[row["span"]].malformed = row["error"] == "ProofError"
        else:
            raise (ProofError if row["error"] == "ProofError" else CannotRun)(row["message"])
    for result in results:
        if result.problem is None and len(result.segments) != result.span.last - result.span.first + 1:
            raise CannotRun(f"the replay process ended before segment {result.span.last}; it may need more memory")
    return results


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


def _run(job: dict[str, Json]) -> Iterator[dict[str, Any]]:
    """The rows that a worker prints for ``job``."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    env = kept | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryDirectory() as cwd:
        process = subprocess.Popen(
            [sys.executable, "-m", "pol.replay_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=env, cwd=cwd,
        )  # fmt: skip
        try:
            assert process.stdin and process.stdout
            process.stdin.write(canonical_json(job))
            process.stdin.close()
            yield from map(json.loads, process.stdout)
            process.wait()
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            errors.seek(0)
            tail = errors.read()[-800:].decode("utf-8", "replace").strip()
            raise CannotRun(f"the replay process failed ({process.returncode}): {tail}")
