"""What a trainer keeps of a run: what it promised, the secret key of its watermark, and the proof that grows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pol.encoding import Json, canonical_json, fields, integer, parse_canonical_json
from pol.errors import CannotRun, ProofError
from pol.proof import SeedSource, parse_seed
from pol.spec import TrainingSpec
from pol.store import LocalStore, write_atomically

FORMAT = "aiarena.run/1"
TRAINING_DATA = "train.data"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """The folder ``path``: ``run.json``, ``watermark.key`` (encrypted), ``models/``, and ``proof/``, which alone is
    published.

    ``run`` is the number that the Arena gave it, ``None`` until it is registered; ``seed`` is ``None`` until the beacon
    is latched.
    """

    path: Path
    task: int
    spec: TrainingSpec
    run: int | None = None
    seed: SeedSource | None = None

    @property
    def key(self) -> Path:
        """The watermark key's file."""
        return self.path / "watermark.key"

    @property
    def data(self) -> Path:
        """The task's training data, where it had to be fetched."""
        return self.path / TRAINING_DATA

    @property
    def proof(self) -> Path:
        """The proof's folder."""
        return self.path / "proof"

    @property
    def models(self) -> LocalStore:
        """The models to submit: while the run is recorded, nothing else may be in its proof."""
        return LocalStore(self.path / "models", suffix=".safetensors")

    @property
    def number(self) -> int:
        """The run's number; raises :class:`CannotRun` before it is registered."""
        if self.run is None:
            raise CannotRun(f"{self.path}: this run is not registered yet: `arena run register` first")
        return self.run

    def knowing(self, **values: Any) -> RunFolder:
        """The same with ``run`` or ``seed`` known, written down."""
        known = replace(self, **values)
        known.save()
        return known

    def save(self) -> None:
        """Write ``run.json``, whole or not at all."""
        seed = None if self.seed is None else self.seed.to_json()
        row: dict[str, Json] = {"format": FORMAT, "task": self.task, "run": self.run, "seed": seed}
        write_atomically(self.path / "run.json", canonical_json(row | {"spec": self.spec.to_json()}))

    @classmethod
    def load(cls, path: Path) -> RunFolder:
        """The run in ``path``; raises :class:`CannotRun` if there is none, :class:`ProofError` if it is damaged."""
        try:
            data = (path / "run.json").read_bytes()
        except OSError as error:
            raise CannotRun(f"{path}: there is no run here ({error.strerror}): `arena run register` first") from error
        where = str(path / "run.json")
        row = fields(parse_canonical_json(data, where=where), {"format", "task", "run", "spec", "seed"}, where=where)
        if row["format"] != FORMAT:
            raise ProofError(f"{where}: this version reads {FORMAT}")
        return cls(
            path=path,
            task=integer(row["task"], where=f"{where}.task", low=1),
            spec=TrainingSpec.from_json(row["spec"], where=f"{where}.spec"),
            run=None if row["run"] is None else integer(row["run"], where=f"{where}.run", low=1),
            seed=None if row["seed"] is None else parse_seed(row["seed"], where=f"{where}.seed"),
        )
