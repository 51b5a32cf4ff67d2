"""The training spec: everything promised before the beacon is drawn. Torch-free."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pol.encoding import Json, canonical_json, digest, fields, from_hex, integer, text, to_hex
from pol.errors import CannotRun, ProofError, SpecError

SPEC_FORMAT = "aiarena.spec/1"
SPEC_DOMAIN = "aiarena/training-spec/v1"
ADDRESS_BYTES = 20
MAX_STEPS = 2**32
MAX_SEGMENT_LENGTH = 2**16
NATIVE = "native"
EXACT = "exact/1"
"""The arithmetic of :func:`pol.exact`, as the golden files fix it: other bits are another version."""
NUMERICS = frozenset({NATIVE, EXACT})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRef:
    """The task a run belongs to: EIP-155 chain id, the Arena's address (20 bytes) and the task's number."""

    chain_id: int
    arena: bytes
    task_id: int

    def to_json(self) -> dict[str, Json]:
        """The object stored in the spec."""
        return {"chain_id": self.chain_id, "arena": to_hex(self.arena), "task_id": self.task_id}

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> TaskRef | None:
        """Strict inverse of :meth:`to_json`, and None for null; raises :class:`ProofError`."""
        if value is None:
            return None
        row = fields(value, {"chain_id", "arena", "task_id"}, where=where)
        return cls(
            chain_id=integer(row["chain_id"], where=f"{where}.chain_id"),
            arena=from_hex(row["arena"], where=f"{where}.arena", length=ADDRESS_BYTES),
            task_id=integer(row["task_id"], where=f"{where}.task_id"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WatermarkPromise:
    """The watermark's commitment: the Merkle root over the key's leaves, and the public embedding parameters."""

    key_root: bytes
    parameters: Json

    def to_json(self) -> dict[str, Json]:
        """The object stored in the spec."""
        return {"key_root": to_hex(self.key_root), "parameters": self.parameters}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """One run's promise. Digests, roots and addresses are bytes; ``config`` holds integers, strings and booleans.

    ``machine`` is a :class:`pol.machine.MachineClass` as JSON (that class needs torch, this module does not).
    ``trainer`` is a 20-byte address; ``task`` is None for a run recorded without a chain. ``numerics`` is NATIVE, the
    arithmetic of that class of machine, or EXACT, which gives the same bits on any.
    """

    program: str
    program_digest: bytes
    config: dict[str, Json]
    dataset: str
    dataset_root: bytes
    dataset_size: int
    batch_size: int
    steps: int
    segment_length: int
    machine: Json
    trainer: bytes
    task: TaskRef | None = None
    watermark: WatermarkPromise | None = None
    numerics: str = NATIVE

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.dataset_size:
            raise SpecError(f"batch_size {self.batch_size} does not fit {self.dataset_size} samples")
        if self.steps < 1 or self.segment_length < 1 or self.segments > 2**16:
            raise SpecError("steps and segment_length must be positive and give at most 65536 segments")
        if self.numerics not in NUMERICS:
            raise SpecError(f"numerics {self.numerics!r} is unknown: use one of {', '.join(sorted(NUMERICS))}")

    @property
    def exact(self) -> bool:
        """Whether the run computes with the arithmetic that gives the same bits on any machine."""
        return self.numerics != NATIVE

    @property
    def segments(self) -> int:
        """The number of segments of the whole run."""
        return -(-self.steps // self.segment_length)

    @property
    def digest(self) -> bytes:
        """The commitment that is registered on chain (32 bytes)."""
        return digest(SPEC_DOMAIN, canonical_json(self.to_json()))

    def bounds(self, segment: int) -> tuple[int, int]:
        """The steps [start, end) of ``segment``."""
        return segment * self.segment_length, min((segment + 1) * self.segment_length, self.steps)

    def to_json(self) -> dict[str, Json]:
        """The canonical object whose digest is the promise."""
        return {
            "format": SPEC_FORMAT,
            "program": self.program,
            "program_digest": to_hex(self.program_digest),
            "config": self.config,
            "dataset": self.dataset,
            "dataset_root": to_hex(self.dataset_root),
            "dataset_size": self.dataset_size,
            "batch_size": self.batch_size,
            "steps": self.steps,
            "segment_length": self.segment_length,
            "machine": self.machine,
            "numerics": self.numerics,
            "trainer": to_hex(self.trainer),
            "task": self.task.to_json() if self.task else None,
            "watermark": self.watermark.to_json() if self.watermark else None,
        }

    @classmethod
    def from_json(cls, value: Json, *, where: str = "spec") -> TrainingSpec:
        """Strict inverse of :meth:`to_json`; raises :class:`ProofError`, also for values no spec may hold."""
        row = fields(value, _FIELDS, where=where)
        if row["format"] != SPEC_FORMAT:
            raise ProofError(f"{where}.format: this version reads {SPEC_FORMAT}, found {str(row['format'])[:40]!r}")
        config = row["config"]
        if not isinstance(config, dict):
            raise ProofError(f"{where}.config: expected an object")
        try:
            return cls(
                program=text(row["program"], where=f"{where}.program", limit=200),
                program_digest=from_hex(row["program_digest"], where=f"{where}.program_digest"),
                config=config,
                dataset=text(row["dataset"], where=f"{where}.dataset", limit=200),
                dataset_root=from_hex(row["dataset_root"], where=f"{where}.dataset_root"),
                dataset_size=integer(row["dataset_size"], where=f"{where}.dataset_size", low=1),
                batch_size=integer(row["batch_size"], where=f"{where}.batch_size", low=1),
                steps=integer(row["steps"], where=f"{where}.steps", low=1, high=MAX_STEPS),
                segment_length=integer(
                    row["segment_length"], where=f"{where}.segment_length", low=1, high=MAX_SEGMENT_LENGTH
                ),
                machine=row["machine"],
                numerics=text(row["numerics"], where=f"{where}.numerics", limit=40),
                trainer=from_hex(row["trainer"], where=f"{where}.trainer", length=ADDRESS_BYTES),
                task=TaskRef.from_json(row["task"], where=f"{where}.task"),
                watermark=_watermark(row["watermark"], where=f"{where}.watermark"),
            )
        except SpecError as error:
            raise ProofError(f"{where}: {error}") from error

    @classmethod
    def load(cls, path: Path | str, *, data: Path | None = None, device: str = "cpu") -> TrainingSpec:
        """Read a ``run.toml`` with the fields of docs/spec/proof-format.md section 3.

        Floats in ``[config]`` are written as numbers. The digests of program, data set and machine are those of what
        is installed here: the data set at ``data`` (None: a built-in one), the machine's class on ``device``. Raises
        :class:`SpecError` or :class:`CannotRun`.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CannotRun(f"{path}: cannot be read ({error.strerror}); give the path of a run.toml") from error
        except tomllib.TOMLDecodeError as error:
            raise SpecError(f"{path}: not TOML ({error})") from error
        return cls.from_values(values, where=str(path), data=data, device=device)

    @classmethod
    def from_values(
        cls, values: dict[str, Any], *, where: str, data: Path | None = None, device: str = "cpu"
    ) -> TrainingSpec:
        """What :meth:`load` makes of a file that says ``values``; errors name ``where``."""
        return _from_values(values, where, data, device)


_VERSIONS = {"exact": EXACT}  # what a run file may leave to the installation

_FIELDS = {
    "format", "program", "program_digest", "config", "dataset", "dataset_root", "dataset_size", "batch_size",
    "steps", "segment_length", "machine", "numerics", "trainer", "task", "watermark",
}  # fmt: skip


def _watermark(value: Json, *, where: str) -> WatermarkPromise | None:
    if value is None:
        return None
    row = fields(value, {"key_root", "parameters"}, where=where)
    return WatermarkPromise(key_root=from_hex(row["key_root"], where=f"{where}.key_root"), parameters=row["parameters"])


def _from_values(values: dict[str, Any], where: str, data: Path | None, device: str) -> TrainingSpec:
    # Imported here: these need torch, and reading a proof's spec does not.
    from pol.machine import this_machine
    from pol.program import config_from, program_digest
    from pol.sources import open_data

    needed = {"program", "dataset", "batch_size", "steps", "segment_length", "config"}
    unknown, missing = set(values) - needed - {"numerics", "threads", "trainer"}, needed - set(values)
    if unknown or missing:
        raise SpecError(f"{where}: missing {sorted(missing)}, unknown {sorted(unknown)}")
    try:
        samples = open_data(values["dataset"], data)
        return TrainingSpec(
            program=values["program"],
            program_digest=program_digest(values["program"]),
            config=config_from(values["config"]),
            dataset=values["dataset"],
            dataset_root=samples.root,
            dataset_size=len(samples),
            batch_size=values["batch_size"],
            steps=values["steps"],
            segment_length=values["segment_length"],
            machine=this_machine(threads=values.get("threads", 1), device=device).to_json(),
            numerics=_VERSIONS.get(values.get("numerics", NATIVE), values.get("numerics", NATIVE)),
            trainer=bytes.fromhex(values.get("trainer", "0x" + "00" * ADDRESS_BYTES).removeprefix("0x")),
        )
    except (TypeError, AttributeError, ValueError) as error:
        raise SpecError(f"{where}: a field has the wrong type ({error})") from error
