"""The journal of a recording: what is safe on disk, row by row, so that a killed run resumes where it was."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pol.encoding import Json, canonical_json, fields, parse_canonical_json
from pol.errors import ProofError, RecordingError
from pol.proof import SeedSource, StoredState, parse_seed, parse_states
from pol.spec import TrainingSpec
from pol.transcript import Anchor, Segment, Stop

JOURNAL = "journal.jsonl"
JOURNAL_FORMAT = "aiarena.journal/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a journal says was done: closed segments, kept states, anchors, and whether the run was being stopped."""

    spec: TrainingSpec
    seed_source: SeedSource
    segments: tuple[Segment, ...]
    states: tuple[StoredState, ...]
    anchors: tuple[Anchor, ...]
    stopped: Stop | None


class Journal:
    """Rows appended to one file, each a line of canonical JSON. A row is on disk when :meth:`append` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered: what a full disk refuses must not be written later, behind the back of whoever was told.
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    @classmethod
    def start(cls, path: Path, spec: TrainingSpec, seed_source: SeedSource) -> Journal:
        """A new journal at ``path`` for a run of ``spec``."""
        journal = cls(path)
        journal.append("run", {"format": JOURNAL_FORMAT, "spec": spec.to_json(), "seed": seed_source.to_json()})
        return journal

    @classmethod
    def resume(cls, path: Path) -> tuple[Journal, Progress]:
        """Continue the journal at ``path``; a last line that a crash tore is cut off first."""
        lines, whole = _whole_lines(path)
        progress = _progress(lines, path)
        os.truncate(path, whole)
        return cls(path), progress

    @staticmethod
    def read(path: Path) -> Progress | None:
        """What the journal at ``path`` says, unchanged; None if there is none, or not even its first row.

        Raises :class:`RecordingError` if it is damaged.
        """
        lines, _ = _whole_lines(path)
        return _progress(lines, path) if lines else None

    def append(self, kind: str, value: Json) -> None:
        """Add the row ``{kind: value}``, from any thread.

        Raises :class:`OSError` if the disk does not take it, and then no part of it is there.
        """
        row = memoryview(canonical_json({kind: value}) + b"\n")
        with self._lock:
            end = os.fstat(self._file).st_size
            try:
                while row:
                    row = row[os.write(self._file, row) :]
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, end)
                raise

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def remove(self) -> None:
        """Close and delete the journal: the proof is written."""
        self.close()
        self._path.unlink()


def _whole_lines(path: Path) -> tuple[list[bytes], int]:
    """The complete lines of a file, and how many bytes they are."""
    if not path.is_file():
        return [], 0
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    return data[:whole].split(b"\n")[:-1], whole


def _progress(lines: Sequence[bytes], path: Path) -> Progress:
    rows: dict[str, list[Json]] = {"run": [], "segment": [], "state": [], "anchor": [], "stop": []}
    try:
        for number, line in enumerate(lines, start=1):
            value = parse_canonical_json(line, where=f"{path}:{number}")
            if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in rows:
                raise ProofError(f"{path}:{number}: not a row of a journal")
            ((kind, row),) = value.items()
            rows[kind].append(row)
        if len(rows["run"]) != 1:
            raise ProofError(f"{path}: not the journal of one run")
        run = fields(rows["run"][0], {"format", "spec", "seed"}, where=f"{path}: run")
        if run["format"] != JOURNAL_FORMAT:
            raise ProofError(f"{path}: this version reads {JOURNAL_FORMAT}")
        stops = [Stop.from_json(row, where=f"{path}: stop") for row in rows["stop"]]
        return Progress(
            spec=TrainingSpec.from_json(run["spec"], where=f"{path}: spec"),
            seed_source=parse_seed(run["seed"], where=f"{path}: seed"),
            segments=tuple(Segment.from_json(row, where=f"{path}: segment") for row in rows["segment"]),
            states=parse_states(rows["state"], where=f"{path}: state"),
            anchors=tuple(Anchor.from_json(row, where=f"{path}: anchor") for row in rows["anchor"]),
            stopped=stops[-1] if stops else None,
        )
    except ProofError as error:
        raise RecordingError(f"the journal is damaged ({error}); record into a new folder") from error
