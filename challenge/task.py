"""The public description of a task: what its CID in the Arena's event leads to."""

from __future__ import annotations

from dataclasses import dataclass

from chain.client import ArenaClient
from chain.errors import ChainError
from challenge.bounds import Bounds, check_bounds
from pol.encoding import (
    MAX_JSON_BYTES,
    Json,
    canonical_json,
    fields,
    from_hex,
    integer,
    parse_canonical_json,
    text,
    to_hex,
)
from pol.errors import ProofError
from pol.store import BlobStore

TASK_FORMAT = "aiarena.task/2"
MOST_LISTED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDescription:
    """The program to train, its configuration, and where the public data is (blobs of :class:`pol.data.Dataset`).

    Program and data are bound on chain as well, by digest and root. The configuration is what the creator asks for; a
    run is judged by the spec it registered. ``machines`` are the digests of the accepted machine classes, ``bases``
    those of the accepted base models (zeros: a run may start from its seed), ``bounds`` what configurations are
    allowed: the terms hold their roots and digest, and zeros where there are none.
    """

    program: str
    config: dict[str, Json]
    batch_size: int
    train_name: str
    train_cid: str
    evaluation_cid: str
    machines: tuple[bytes, ...] = ()
    bases: tuple[bytes, ...] = ()
    bounds: Bounds | None = None

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
                "machines": [to_hex(digest) for digest in self.machines],
                "bases": [to_hex(digest) for digest in self.bases],
                "bounds": None if self.bounds is None else dict(self.bounds),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> TaskDescription:
        """Strict inverse of :meth:`to_bytes`; :class:`ProofError` on anything else."""
        names = {"format", "program", "config", "batch_size", "train_name", "train_cid", "evaluation_cid"}
        names |= {"machines", "bases", "bounds"}
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
            machines=_digests(row["machines"], where="task.machines"),
            bases=_digests(row["bases"], where="task.bases"),
            bounds=None if row["bounds"] is None else check_bounds(row["bounds"], where="task.bounds"),
        )


def describe(chain: ArenaClient, task_id: int, blobs: BlobStore) -> TaskDescription:
    """The task's description, fetched from ``blobs`` by the CID in the event that published it.

    Raises :class:`ChainError` if the node knows no such event, :class:`CannotRun` if nobody serves it,
    :class:`ProofError` for a malformed one.
    """
    events = chain.arena.events("TaskCreated", taskId=task_id)
    if not events:
        raise ChainError(f"the node knows no task {task_id}: check its number, or use a node that keeps old events")
    return TaskDescription.from_bytes(blobs.get(str(events[0].args["metadataCid"]), limit=MAX_JSON_BYTES))


def _digests(value: Json, *, where: str) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > MOST_LISTED or len(set(map(str, value))) < len(value):
        raise ProofError(f"{where}: expected a list of at most {MOST_LISTED} digests, each once")
    return tuple(from_hex(item, where=f"{where}[{number}]") for number, item in enumerate(value))
