"""Where proofs meet the chain: a recorder anchors through `RunAnchorer`, a verifier reads by `read_run`."""

from __future__ import annotations

from dataclasses import dataclass

from chain.client import ArenaClient
from chain.contract import Event
from chain.errors import ChainError
from chain.types import Beacon
from pol.transcript import Anchor


class RunAnchorer:
    """Anchors the segments of the client's run in a task; the anchoring protocol of ``pol.Recorder``."""

    def __init__(self, client: ArenaClient, task_id: int) -> None:
        self._client = client
        self._task_id = task_id

    def anchor(self, first: int, count: int, root: bytes) -> Anchor:
        """Promise segments [first, first + count) by their Merkle root (32 bytes); returns once it is mined."""
        receipt = self._client.arena.anchor(self._task_id, first, count, root)
        return Anchor(first=first, count=count, root=root, block=receipt.block, tx=receipt.tx)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a trainer promised and showed. The model's digest and CID are ``None`` until it is revealed.

    ``order`` is its place among all commitments of the task, from 1; ``struck`` means that an earlier commitment to
    the same model came to light.
    """

    commitment: bytes
    order: int
    round: int
    struck: bool
    model_digest: bytes | None
    model_cid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRun:
    """Everything the chain holds of a run, for a verifier to compare a proof with.

    ``beacon`` seeds the run, ``mark`` draws the watermark's bits. ``reference_segment`` and ``reference_digest`` are
    ``None`` until the trainer has named the state that the watermark goes into, ``submission`` until it has committed.
    """

    chain_id: int
    arena: str
    task_id: int
    trainer: str
    spec_digest: bytes
    key_root: bytes
    beacon: Beacon
    mark: Beacon
    anchors: tuple[Anchor, ...]
    transcript_digest: bytes
    reference_segment: int | None
    reference_digest: bytes | None
    submission: Submission | None


def read_run(client: ArenaClient, task_id: int, trainer: str) -> ChainRun:
    """Read a run and the transactions of its anchors; raises :class:`ChainError` if the trainer registered none."""
    run = client.arena.run(task_id, trainer)
    if not run.registered:
        raise ChainError(f"{trainer} has registered no run in task {task_id}: check the task, trainer and deployment")
    anchors = _anchors(client, task_id, trainer)
    referenced = run.mark.block != 0
    submission = None
    if run.commit_order:
        submission = Submission(
            commitment=run.commitment,
            order=run.commit_order,
            round=run.round,
            struck=run.struck,
            model_digest=run.model_digest if run.revealed else None,
            model_cid=_model_cid(client, task_id, trainer, anchors[-1].block) if run.revealed else None,
        )
    return ChainRun(
        chain_id=client.deployment.chain_id,
        arena=client.deployment.arena,
        task_id=task_id,
        trainer=trainer,
        spec_digest=run.spec_digest,
        key_root=run.key_root,
        beacon=run.beacon,
        mark=run.mark,
        anchors=anchors,
        transcript_digest=run.transcript_digest,
        reference_segment=run.reference_segment if referenced else None,
        reference_digest=run.reference_digest if referenced else None,
        submission=submission,
    )


def _anchors(client: ArenaClient, task_id: int, trainer: str) -> tuple[Anchor, ...]:
    held = client.arena.anchors(task_id, trainer)
    if not held:
        return ()
    # The contract keeps the blocks, so only those between the first and the last are searched for transactions.
    events = client.arena.events(
        "Anchored", first_block=held[0].block, last_block=held[-1].block, taskId=task_id, trainer=trainer
    )
    txs = {event.args["anchorIndex"]: event.tx for event in events}
    if set(txs) != set(range(len(held))):
        raise ChainError(f"the node knows {len(txs)} of {len(held)} anchor transactions: use one that keeps old events")
    return tuple(
        Anchor(first=anchor.first, count=anchor.count, root=anchor.root, block=anchor.block, tx=txs[index])
        for index, anchor in enumerate(held)
    )


def _model_cid(client: ArenaClient, task_id: int, trainer: str, first_block: int) -> str:
    events: list[Event] = client.arena.events(
        "SubmissionRevealed", first_block=first_block, taskId=task_id, trainer=trainer
    )
    if not events:
        raise ChainError(f"the node knows no reveal of {trainer}: use one that keeps old events")
    return str(events[-1].args["modelCid"])
