"""The public description of a task: what its CID in the Arena's event leads to."""

from __future__ import annotations

from dataclasses import dataclass

from pol.encoding import Json, canonical_json, fields, integer, parse_canonical_json, text
from pol.errors import ProofError

TASK_FORMAT = "aiarena.task/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDescription:
    """The program to train, its configuration, and where the public data is (blobs of :class:`pol.data.Dataset`).

    Program and data are bound on chain as well, by digest and root. The configuration is what the creator asks for; a
    run is judged by the spec it registered.
    """

    program: str
    config: dict[str, Json]
    batch_size: int
    train_name: str
    train_cid: str
    evaluation_cid: str

    def to_bytes(self) -> bytes:
        """The canonical JSON blob."""
        return canonical_json(
            {
                "format": TASK_FORMAT,
                "program": self.program,
                "config": self.config,
                "batch_size": self.batch_size,
                "train_name": self.train_name,
                "train_cid": self.train_cid,
                "evaluation_cid": self.evaluation_cid,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> TaskDescription:
        """Strict inverse of :meth:`to_bytes`; :class:`ProofError` on anything else."""
        names = {"format", "program", "config", "batch_size", "train_name", "train_cid", "evaluation_cid"}
        row = fields(parse_canonical_json(data, where="task"), names, where="task")
        if row["format"] != TASK_FORMAT or not isinstance(row["config"], dict):
            raise ProofError(f"task: not a description of format {TASK_FORMAT}")
        return cls(
            program=text(row["program"], where="task.program", limit=200),
            config=row["config"],
            batch_size=integer(row["batch_size"], where="task.batch_size", low=1),
            train_name=text(row["train_name"], where="task.train_name", limit=200),
            train_cid=text(row["train_cid"], where="task.train_cid", limit=80),
            evaluation_cid=text(row["evaluation_cid"], where="task.evaluation_cid", limit=80),
        )
