"""Where proofs meet the chain: a recorder anchors through `RunAnchorer`, a verifier reads by `read_run`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from chain.client import ArenaClient
from chain.contract import Event
from chain.errors import ChainError
from chain.types import Beacon, Run
from pol.transcript import Anchor, Stop

T = TypeVar("T")


class RunAnchorer:
    """Anchors the segments of one of the client's runs; the anchoring protocol of ``pol.Recorder``.

    A call whose answer was lost can simply be made again: each looks first at what the chain holds, and nothing is
    anchored or declared twice. :class:`NetworkUnavailable` (a :class:`pol.errors.Unreachable`) says to call again
    later; any other :class:`ChainError` is a refusal. Send nothing else from the account at the same time, unless
    through the same client, which takes turns, or one with the same journal.
    """

    def __init__(self, client: ArenaClient, run_id: int) -> None:
        self._client = client
        self._run_id = run_id

    def anchor(self, first: int, count: int, root: bytes) -> Anchor:
        """Promise segments [first, first + count) by their Merkle root (32 bytes); returns once it is mined."""

        def find() -> Anchor | None:
            if self._run().anchored <= first:
                return None
            wanted = (first, count, root)
            return next((held for held in self.held() if (held.first, held.count, held.root) == wanted), None)

        def send() -> Anchor:
            receipt = self._client.arena.anchor(self._run_id, first, count, root)
            return Anchor(first=first, count=count, root=root, block=receipt.block, tx=receipt.tx)

        return self._once(find, send)

    def held(self) -> tuple[Anchor, ...]:
        """The anchors that the chain holds of the run, oldest first."""
        return _anchors(self._client, self._run_id)

    def stop(self, segments: int) -> Stop:
        """Declare that the run ends early, with the ``segments`` anchored so far; returns once it is mined."""

        def find() -> Stop | None:
            stop = _stop(self._client, self._run_id, self._run())
            return stop if stop and stop.segments == segments else None

        def send() -> Stop:
            receipt = self._client.arena.declare_stop(self._run_id, segments)
            return Stop(segments=segments, block=receipt.block, tx=receipt.tx)

        return self._once(find, send)

    def _run(self) -> Run:
        return self._client.arena.run(self._run_id)

    def _once(self, find: Callable[[], T | None], send: Callable[[], T]) -> T:
        """What ``find`` sees on chain, or else what ``send`` puts there.

        While a transaction of the account is on its way, it may be the wanted one, and no other can overtake it. A
        failed ``send`` says little: its answer may be lost, or speak of an earlier one that came through after all. So
        the chain is asked again.
        """
        found = find()
        if found is not None:
            return found
        self._client.resume()
        try:
            return send()
        except ChainError:
            found = find()
            if found is None:
                self._client.resume()
                found = find()
            if found is None:
                raise
            return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedModel:
    """What a trainer promised in a round, and showed: branch, digest and CID are ``None`` until it is revealed.

    ``order`` is its place among all commitments of the task, from 1; ``struck`` means that an earlier commitment to
    the same model came to light.
    """

    round: int
    order: int
    commitment: bytes
    struck: bool
    branch: int | None
    model_digest: bytes | None
    model_cid: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRun:
    """Everything the chain holds of a run, for a verifier to compare a proof with.

    ``beacon`` seeds the run, ``mark`` draws the watermark's bits. ``stopped`` is ``None`` unless the trainer declared
    that the run ends early, ``reference_segment`` and ``reference_digest`` are ``None`` until it has named the state
    that the watermark goes into. ``submissions`` are those of the run, at most one a round, oldest first.
    """

    chain_id: int
    arena: str
    task_id: int
    run_id: int
    trainer: str
    spec_digest: bytes
    key_root: bytes
    base_digest: bytes
    beacon: Beacon
    mark: Beacon
    anchors: tuple[Anchor, ...]
    transcript_digest: bytes
    stopped: Stop | None
    reference_segment: int | None
    reference_digest: bytes | None
    submissions: tuple[SubmittedModel, ...]


def read_run(client: ArenaClient, run_id: int) -> ChainRun:
    """Read a run, the transactions of its anchors and its submissions; refused with ``UnknownRun``."""
    run = client.arena.run(run_id)
    referenced = run.mark.block != 0
    return ChainRun(
        chain_id=client.deployment.chain_id,
        arena=client.deployment.arena,
        task_id=run.task_id,
        run_id=run_id,
        trainer=run.trainer,
        spec_digest=run.spec_digest,
        key_root=run.key_root,
        base_digest=run.base_digest,
        beacon=run.beacon,
        mark=run.mark,
        anchors=_anchors(client, run_id),
        transcript_digest=run.transcript_digest,
        stopped=_stop(client, run_id, run),
        reference_segment=run.reference_segment if referenced else None,
        reference_digest=run.reference_digest if referenced else None,
        submissions=tuple(_submissions(client, run_id, run)),
    )


def _submissions(client: ArenaClient, run_id: int, run: Run) -> Iterator[SubmittedModel]:
    rounds = client.arena.task_config(run.task_id).clock.rounds
    for round_ in range(1, min(rounds, client.arena.current_round(run.task_id)) + 1):
        held = client.arena.submission(run.task_id, run.trainer, round_)
        if held.committed and held.run_id == run_id:
            yield SubmittedModel(
                round=round_,
                order=held.order,
                commitment=held.commitment,
                struck=held.struck,
                branch=held.branch if held.revealed else None,
                model_digest=held.model_digest if held.revealed else None,
                model_cid=_model_cid(client, run, round_) if held.revealed else None,
            )


def _anchors(client: ArenaClient, run_id: int) -> tuple[Anchor, ...]:
    held = client.arena.anchors(run_id)
    if not held:
        return ()
    # The contract keeps the blocks, so only those between the first and the last are searched for transactions.
    events = client.arena.events("Anchored", first_block=held[0].block, last_block=held[-1].block, runId=run_id)
    txs = {event.args["anchorIndex"]: event.tx for event in events}
    if set(txs) != set(range(len(held))):
        raise ChainError(f"the node knows {len(txs)} of {len(held)} anchor transactions: use one that keeps old events")
    return tuple(
        Anchor(first=anchor.first, count=anchor.count, root=anchor.root, block=anchor.block, tx=txs[index])
        for index, anchor in enumerate(held)
    )


def _stop(client: ArenaClient, run_id: int, run: Run) -> Stop | None:
    if not run.stopped:
        return None
    block = run.stop_block
    events = client.arena.events("RunStopped", first_block=block, last_block=block, runId=run_id)
    if not events:
        raise ChainError(f"the node knows no transaction in which run {run_id} stopped: use one that keeps old events")
    return Stop(segments=run.stopped, block=block, tx=events[0].tx)


def _model_cid(client: ArenaClient, run: Run, round_: int) -> str:
    events: list[Event] = client.arena.events(
        "SubmissionRevealed", first_block=run.beacon.block, taskId=run.task_id, trainer=run.trainer, round=round_
    )
    if not events:
        raise ChainError(f"the node knows no reveal of {run.trainer}: use one that keeps old events")
    return str(events[-1].args["modelCid"])
