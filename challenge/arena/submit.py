"""``arena submit commit`` and ``arena submit reveal``: a trained model, promised and then shown."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chain.commitments import submission_commitment
from chain.errors import ChainError
from challenge.arena.beacons import WaitOption
from challenge.arena.run import FolderArgument, open_run
from challenge.arena.runfolder import RunFolder
from challenge.arena.session import NotYet, Session, TaskArgument, command
from challenge.arena.task import StoreOption
from pol.store import open_store

if TYPE_CHECKING:
    from pol import Submission

SUBMISSION = "submission"
UnmarkedOption = Annotated[
    bool,
    typer.Option(
        "--unmarked", help="Leave the watermark out: for a training too short to bear it. Copies go unnoticed."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Promise a trained model, and show it.")
    command(group, "commit")(commit)
    command(group, "reveal")(reveal)
    app.add_typer(group, name="submit")


def commit(
    session: Session,
    folder: FolderArgument,
    store: StoreOption,
    wait: WaitOption = 60,
    unmarked: UnmarkedOption = False,
) -> dict[str, Any]:
    """Mark a model of a run, and promise it in the current round. Nothing is shown yet.

    While `arena run train` still runs, or was interrupted, the model is that of the latest state that was kept and
    anchored, and training goes on without the mark. At the run's end it is the last state's, and the proof is signed,
    with all models of the run. The salt that shows it is in this machine's journal, and nowhere else. The model goes
    into the store: use one that others cannot read before the round is over.

    Example:

        arena submit commit runs/alice --store runs/store
    """
    from challenge.arena.models import Models

    kept, blobs = open_run(session, folder), open_store(store)
    with alone(kept.path):
        model, round_ = Models(session, kept, blobs).next(wait, unmarked)
        if round_ is None:
            round_ = _promise(session, kept, model)
    order = session.client.arena.submission(kept.task, session.me, round_).order
    return {"task": kept.task, "run": kept.number, "round": round_, "order": order, "model": model.model_cid}


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within the block no other process submits from this run's folder; :class:`NotYet` while one does.

    While a model is made, others may act for the account. What is sealed must know all that was promised, and a proof
    is sealed once.
    """
    file = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NotYet(f"{folder}: another `arena submit commit` is at work here: wait until it has ended") from error
        yield
    finally:
        os.close(file)


def _promise(session: Session, kept: RunFolder, model: Submission) -> int:
    """Promise the model in the current round, which is returned."""
    arena = session.client.arena
    round_ = arena.current_round(kept.task)
    promise = {
        "arena": arena.address, "task": kept.task, "round": round_, "run": kept.number,
        "branch": model.reference_segment, "model_digest": model.model_digest.hex(), "model_cid": model.model_cid,
        "transcript_digest": arena.run(kept.number).transcript_digest.hex(),
    }  # fmt: skip
    arena.commit_submission(
        kept.number,
        round_=round_,
        branch=model.reference_segment,
        model_digest=model.model_digest,
        model_cid=model.model_cid,
        salt=session.promises.salt(SUBMISSION, promise),
    )
    return round_


def reveal(session: Session, task: TaskArgument) -> dict[str, Any]:
    """Show what you promised in the round that just ended, in its reveal window; then anyone can fetch the model.

    Example:

        arena submit reveal 1
    """
    arena = session.client.arena
    round_ = _ended_round(session, task)
    held = arena.submission(task, session.me, round_)
    if held.commitment == bytes(32):
        raise ChainError(f"{session.me} promised nothing in round {round_} of task {task}: there is nothing to show")
    if not held.revealed:
        found = promised(session, task, round_, held.commitment)
        if found is None:
            raise ChainError(
                f"this machine's journal has no salt for the submission of round {round_}: reveal on the machine that "
                "promised"
            )
        promise, salt = found
        arena.reveal_submission(
            task,
            round_,
            branch=promise["branch"],
            model_digest=bytes.fromhex(promise["model_digest"]),
            model_cid=promise["model_cid"],
            salt=salt,
        )
        held = arena.submission(task, session.me, round_)
    digest = "0x" + held.model_digest.hex()
    return {"task": task, "round": round_, "model_digest": digest, "stands": not held.struck}


def _ended_round(session: Session, task: int) -> int:
    """The submission round that ended last; the first one while it is still going on."""
    arena = session.client.arena
    return max(1, arena.current_round(task) - 1)


def promised(session: Session, task: int, round_: int, commitment: bytes) -> tuple[Any, bytes] | None:
    """What was promised under ``commitment``, and its salt, from the journal; ``None`` if that is another machine's."""
    for promise, salt in session.promises.salted(SUBMISSION):
        if (promise["task"], promise["round"]) == (task, round_) and commitment == _commitment(session, promise, salt):
            return promise, salt
    return None


def _commitment(session: Session, promise: Any, salt: bytes) -> bytes:
    return submission_commitment(
        session.client.arena.site,
        promise["task"],
        session.me,
        run_id=promise["run"],
        round_=promise["round"],
        branch=promise["branch"],
        model_digest=bytes.fromhex(promise["model_digest"]),
        transcript_digest=bytes.fromhex(promise["transcript_digest"]),
        model_cid=promise["model_cid"],
        salt=salt,
    )
