"""Rehearsals: a few steps of a program in a process of its own, to see whether a run of it could be replayed.

Nothing is judged here. :class:`Interpreters` starts ``python -m pol.rehearsal_worker``, one process for each set of
circumstances that a verifier's machine need not share with the trainer's; each trains in children forked from it
before anything ran, and says step by step what came out.

A rehearsed program runs as the user, on the user's machine. It must be one that the user trusts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from pol.encoding import Json, to_hex
from pol.errors import CannotRun
from pol.replay import INHERITED, import_path
from pol.spec import TrainingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What decides nothing about an honest run: python's hash seed, the byte that fresh memory is filled with, and
    whether the process has the trainer's environment and folder, or is ``confined`` as a verifier's replay is.

    ``process`` tells interpreters apart that share all of this; their memory has other addresses.
    """

    hash_seed: int
    memory: int
    confined: bool
    process: int = 0


TRAINER = Circumstances(hash_seed=1, memory=0x55, confined=False)
VERIFIER = Circumstances(hash_seed=2, memory=0xAA, confined=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """``steps`` steps of ``spec`` with ``seed`` on the data set at ``data`` (None: the built-in one it names).

    ``middle`` is a boundary where the state is kept, or from whose kept state ``start`` the run begins. ``traced``
    is a step to follow operator by operator, -1 for the building of the state. ``rebuilt`` builds the program once more
    at the end, to see whether it builds the same.
    """

    spec: TrainingSpec
    seed: bytes
    data: Path | None
    steps: int
    threads: int
    middle: int
    device: str = "cpu"
    start: Path | None = None
    traced: int | None = None
    rebuilt: bool = False


@dataclass(frozen=True, slots=True)
class Boundary:
    """The state after so many steps: its digest, each tensor's, and the loss of the step before as ``float.hex()``."""

    digest: str
    tensors: dict[str, str]
    loss: str | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something about the program that no proof survives, of a ``kind`` that :mod:`pol.rehearsal_program` lists.

    ``step`` is -1 while the state is built.
    """

    kind: str
    step: int
    message: str
    at: str | None = None
    details: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Rehearsed:
    """What came out: boundaries by the number of steps done, troubles, and files in the interpreters' folder."""

    model: str = ""
    modules: dict[str, str] = field(default_factory=dict)
    loss_bound_schedule: bool = False
    boundaries: dict[int, Boundary] = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)
    census: dict[str, str] = field(default_factory=dict)
    state: Path
    trace: Path

    def trouble(self, kind: str) -> Trouble | None:
        """The trouble of this ``kind``, if there is one."""
        return next((trouble for trouble in self.troubles if trouble.kind == kind), None)


class Interpreters:
    """Fresh interpreters, one for each circumstances, ended with the ``with`` block.

    The two that every examination needs are started at once, others when they are first asked for. An interpreter
    never trains: each rehearsal runs in a child forked from it, which imports the program anew.
    """

    def __init__(self) -> None:
        self._running: dict[Circumstances, subprocess.Popen[bytes]] = {}
        self._count = 0

    def __enter__(self) -> Interpreters:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._errors = tempfile.TemporaryFile()
        for circumstances in (TRAINER, VERIFIER):
            self._start(circumstances)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()
        self._errors.close()
        self._folder.cleanup()

    def rehearse(self, circumstances: Circumstances, rehearsal: Rehearsal) -> Rehearsed:
        """Run ``rehearsal`` in a fresh process; :class:`CannotRun` if its data or program are not to be had."""
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        done = Rehearsed(state=folder / "state", trace=folder / "trace")
        process = self._running.get(circumstances) or self._start(circumstances)
        assert process.stdin and process.stdout
        job = _job(circumstances, rehearsal, folder)
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
            ended = process.stdout.readline()
        except BrokenPipeError:
            ended = b""
        if ended != b"0\n":
            raise CannotRun(
                f"the rehearsal's process died ({ended.decode().strip() or 'at once'}): {self._last_words()}"
            )
        for row in _rows(folder / "rows"):
            _add(done, row)
        return done

    def _start(self, circumstances: Circumstances) -> subprocess.Popen[bytes]:
        kept = INHERITED if circumstances.confined else tuple(os.environ)
        env = {name: os.environ[name] for name in kept if name in os.environ} | {
            "PYTHONPATH": import_path(),
            "PYTHONHASHSEED": str(circumstances.hash_seed),
            "MALLOC_PERTURB_": str(circumstances.memory),
        }
        self._running[circumstances] = subprocess.Popen(
            [sys.executable, "-P", "-B", "-m", "pol.rehearsal_worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=env,
            cwd=self._folder.name if circumstances.confined else None,
        )  # fmt: skip
        return self._running[circumstances]

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-800:].decode("utf-8", "replace").strip()


def _job(circumstances: Circumstances, rehearsal: Rehearsal, folder: Path) -> dict[str, Json]:
    return {
        "spec": rehearsal.spec.to_json(),
        "seed": to_hex(rehearsal.seed),
        "data": str(rehearsal.data.resolve()) if rehearsal.data else None,
        "steps": rehearsal.steps,
        "threads": rehearsal.threads,
        "middle": rehearsal.middle,
        "device": rehearsal.device,
        "start": str(rehearsal.start) if rehearsal.start else None,
        "traced": rehearsal.traced,
        "rebuilt": rehearsal.rebuilt,
        "confined": circumstances.confined,
        "folder": str(folder),
    }


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _add(done: Rehearsed, row: dict[str, Any]) -> None:
    kind = row.pop("row")
    if kind == "error":
        raise CannotRun(row["message"])
    if kind == "built":
        done.model, done.modules, done.loss_bound_schedule = row["model"], row["modules"], row["loss_bound_schedule"]
    elif kind == "boundary":
        step = row.pop("step")
        done.boundaries[step] = Boundary(**row)
    elif kind == "census":
        done.census = row["found"]
    else:
        done.troubles.append(Trouble(**row))
