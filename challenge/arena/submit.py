"""``arena submit commit`` and ``arena submit reveal``: a trained model, promised and then shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from chain.commitments import submission_commitment
from chain.errors import ChainError
from challenge.arena.beacons import WaitOption, latched
from challenge.arena.run import FolderArgument, open_run
from challenge.arena.runfolder import RunFolder
from challenge.arena.session import NotYet, Session, TaskArgument, command
from challenge.arena.task import StoreOption
from pol.store import open_store

if TYPE_CHECKING:
    from pol import Proof

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
    """Mark a trained run's model, sign its proof, and promise the model in the current round. Nothing is shown yet.

    The salt that shows it is in this machine's journal, and nowhere else. The model goes into the store: use one that
    others cannot read before the round is over.

    Example:

        arena submit commit runs/alice --store runs/store
    """
    from pol import Proof
    from pol.proof import states_of

    kept, arena = open_run(session, folder), session.client.arena
    proof = Proof.read(kept.proof)
    if proof.submission is None:
        proof = _sealed(session, kept, proof, wait, unmarked)
    model = proof.submission
    assert model is not None
    open_store(store).put(states_of(kept.proof).get(model.model_cid))
    round_ = _committed_in(session, kept)
    if round_ is None:
        round_ = arena.current_round(kept.task)
        promise = {
            "arena": arena.address, "task": kept.task, "round": round_, "run": kept.number,
            "branch": model.reference_segment, "model_digest": model.model_digest.hex(), "model_cid": model.model_cid,
            "transcript_digest": arena.run(kept.number).transcript_digest.hex(),
        }  # fmt: skip
        arena.commit_submission(
            kept.number,
            branch=model.reference_segment,
            model_digest=model.model_digest,
            model_cid=model.model_cid,
            salt=session.promises.salt(SUBMISSION, promise),
        )
    order = arena.submission(kept.task, session.me, round_).order
    return {"task": kept.task, "run": kept.number, "round": round_, "order": order, "model": model.model_cid}


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
        promise, salt = _promise(session, task, round_, held.commitment)
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


def _promise(session: Session, task: int, round_: int, commitment: bytes) -> tuple[Any, bytes]:
    """What was promised under ``commitment``, from the journal."""
    for promise, salt in session.promises.salted(SUBMISSION):
        if (promise["task"], promise["round"]) == (task, round_) and commitment == _commitment(session, promise, salt):
            return promise, salt
    raise ChainError(
        f"this machine's journal has no salt for the submission of round {round_}: reveal on the machine that promised"
    )


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


def _committed_in(session: Session, kept: RunFolder) -> int | None:
    """The round in which this run's model was promised before, by what the chain holds."""
    arena = session.client.arena
    rounds = range(arena.task_config(kept.task).clock.rounds, 0, -1)
    held = ((round_, arena.submission(kept.task, session.me, round_)) for round_ in rounds)
    return next((round_ for round_, submission in held if submission.run_id == kept.number), None)


def _sealed(session: Session, kept: RunFolder, proof: Proof, wait: float, unmarked: bool) -> Proof:
    """The proof with the model at the end of its trunk, the run's watermark in it unless ``unmarked``, signed."""
    from challenge.dispute import open_segments
    from challenge.signing import sign_proof
    from pol import Submission, seal
    from pol.cid import cid_of
    from pol.proof import states_of
    from pol.state import from_safetensors, model_tensors, to_safetensors
    from pol.tensors import tensors_digest
    from watermark import WatermarkKey, mark_run

    arena, end = session.client.arena, proof.segment_count - 1
    if not any(arena.run(kept.number).reference_digest):
        (opening,) = open_segments(proof, [end])
        arena.anchor_reference(kept.number, opening)
    mark = latched(lambda: arena.run(kept.number).mark, lambda: arena.latch_mark(kept.number), wait)
    if mark is None:
        raise NotYet("the block that draws the watermark is not there yet")
    assert session.signer is not None
    signer = session.signer
    if unmarked:
        model = model_tensors(from_safetensors(states_of(kept.proof).get(proof.states[-1].cid), where="trunk"))
    else:
        model = mark_run(kept.proof, end, WatermarkKey.load(kept.key), mark.value)
    blob = to_safetensors(model)
    submission = Submission(
        model_digest=tensors_digest(model),
        model_cid=cid_of(blob),
        reference_segment=end,
        beta=mark.value,
        beta_block=mark.block,
    )
    return seal(kept.proof, submission, blob, lambda unsigned: sign_proof(unsigned, signer))
