"""``arena score commit``, ``reveal`` and ``settle``: validators' scores, and the rewards that follow from them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chain.commitments import MAX_SCORE, scores_commitment
from chain.errors import ChainError, ContractReverted, Overtaken
from chain.types import Role
from challenge.arena.session import Session, TaskArgument, TrustOption, command
from challenge.arena.task import StoreOption
from challenge.console import say
from pol.errors import PolError, Unreachable
from pol.store import BlobStore, open_store

if TYPE_CHECKING:
    from challenge.task import TaskDescription
    from pol.data import Dataset

SCORES = "scores"
CHUNK = 64
RoundOption = Annotated[
    int | None, typer.Option("--round", min=1, help="The round; by default the one whose window it is.")
]


def _row(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"\d{1,5}(,\d{1,5}){0,511}", text):
        raise typer.BadParameter(f"{text[:40]!r}: give basis points such as 9100,0,8000")
    if text is not None and max(map(int, text.split(","))) > MAX_SCORE:
        raise typer.BadParameter(f"{text[:40]!r}: give basis points, each at most {MAX_SCORE}")
    return text


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Score models; settle rounds.")
    command(group, "commit")(commit)
    command(group, "reveal")(reveal)
    command(group, "settle")(settle)
    app.add_typer(group, name="score")


def commit(
    session: Session,
    task: TaskArgument,
    store: StoreOption,
    round_: RoundOption = None,
    scores: Annotated[
        str | None,
        typer.Option(callback=_row, help="Your own scores instead: bps, one a staked trainer, such as 9100,0,8000."),
    ] = None,
    trust_program: TrustOption = None,
) -> dict[str, Any]:
    """Score every standing model on the round's data set and promise the scores; nobody sees them yet.

    The task's program runs here: only built-in ones, and those you trust.

    Example:

        arena score commit 1 --store ipfs
    """
    number, scoring = round_ or _scored_round(session, task), session.client.scoring
    if scoring.scores_commitment(task, number, session.me) == bytes(32):
        trusted = frozenset(bytes.fromhex(text[2:]) for text in trust_program or [])
        row = (
            [int(score) for score in scores.split(",")]
            if scores is not None
            else _scores(session, task, number, open_store(store), trusted)
        )
        trainers = session.client.vault.totals(task, Role.TRAINER)[1]
        if len(row) != trainers:  # or it could never be shown
            raise ChainError(f"{len(row)} scores for {trainers} trainers: give one a staked trainer, in staking order")
        content = {"scoring": scoring.address, "task": task, "round": number, "scores": row}
        scoring.commit_scores(task, number, row, session.promises.salt(SCORES, content))
    row, _ = _promised(session, task, number)
    return {"task": task, "round": number, "scores": row}


def reveal(session: Session, task: TaskArgument, round_: RoundOption = None) -> dict[str, Any]:
    """Show the scores you promised, in the window after.

    Example:

        arena score reveal 1
    """
    number, scoring = round_ or _scored_round(session, task), session.client.scoring
    row, salt = _promised(session, task, number)
    if not scoring.scores_of(task, number, session.me):
        scoring.reveal_scores(task, number, row, salt)
    return {"task": task, "round": number, "scores": row}


def settle(
    session: Session,
    task: TaskArgument,
    chunk: Annotated[int, typer.Option(min=1, help="Operators dealt with in one transaction.")] = CHUNK,
) -> dict[str, Any]:
    """Settle every round whose time has come, in order: rank the models and allot the rewards. Anyone may.

    Example:

        arena score settle 1
    """
    arena, scoring = session.client.arena, session.client.scoring
    last = arena.task_config(task).clock.final_round
    now = session.web3.eth.get_block("latest")["timestamp"]
    for number in range(scoring.settled_rounds(task) + 1, last + 1):
        if now < arena.round_times(task, number).settle_from:
            break
        _settle(session, task, number, chunk)
    return {"task": task, "settled_rounds": scoring.settled_rounds(task), "rounds": last}


def _settle(session: Session, task: int, round_: int, chunk: int) -> None:
    """Settle one round, even while others do the same."""
    scoring = session.client.scoring
    while not scoring.progress(task, round_).settled:
        try:
            scoring.settle_round(task, round_, chunk=chunk)
        except ContractReverted as error:
            if error.name != "Done" and not isinstance(error, Overtaken):
                raise


def _scored_round(session: Session, task: int) -> int:
    """The round whose scores are committed or revealed now: the last whose window of scores has begun, or the first."""
    arena = session.client.arena
    last = arena.task_config(task).clock.final_round
    now = session.web3.eth.get_block("latest")["timestamp"]
    begun = [number for number in range(1, last + 1) if arena.round_times(task, number).scores_from <= now]
    return begun[-1] if begun else 1


def _promised(session: Session, task: int, round_: int) -> tuple[list[int], bytes]:
    """The scores and the salt under the commitment that the chain holds, from the journal."""
    scoring = session.client.scoring
    held = scoring.scores_commitment(task, round_, session.me)
    if held == bytes(32):
        raise ChainError(
            f"{session.me} promised no scores of round {round_} of task {task}: `arena score commit` first"
        )
    for content, salt in session.promises.salted(SCORES):
        row = content["scores"]
        if (content["task"], content["round"]) == (task, round_) and held == scores_commitment(
            scoring.site, task, round_, session.me, scores=row, salt=salt
        ):
            return row, salt
    raise ChainError(
        f"this machine's journal has no salt for the scores of round {round_}: reveal on the machine that promised"
    )


def _scores(session: Session, task: int, round_: int, blobs: BlobStore, trusted: frozenset[bytes]) -> list[int]:
    """Basis points in the order of the staked trainers; 0 where no submission stands or none can be had."""
    from challenge.scoring import score_model
    from challenge.task import describe

    client, described = session.client, describe(session.client, task, blobs)
    work, dataset = client.arena.task_config(task).work, _dataset(session, task, round_, described, blobs)
    row = []
    for trainer, order in zip(
        client.vault.operators(task, Role.TRAINER), client.arena.standing_orders(task, round_), strict=True
    ):
        model = _model(session, task, trainer, order, blobs) if order else None
        score = model and score_model(
            *model,
            program=described.program,
            program_digest=work.program_digest,
            config=described.config,
            dataset=dataset,
            trusted=trusted,
        )
        row.append(score or 0)
        say(f"{'score':<14}{trainer}: {row[-1] / 100:.2f} %{'' if order else ' (no model stands)'}")
    return row


def _model(session: Session, task: int, trainer: str, order: int, blobs: BlobStore) -> tuple[bytes, bytes] | None:
    """The published weights and the promised digest of the submission with this commit order; ``None`` if nobody
    serves them, which is the trainer's affair."""
    arena = session.client.arena
    rounds = range(1, arena.task_config(task).clock.rounds + 1)
    held = {number: arena.submission(task, trainer, number) for number in rounds}
    number = next(number for number, submission in held.items() if submission.order == order)
    events = arena.events("SubmissionRevealed", taskId=task, trainer=trainer, round=number)
    try:
        return blobs.get(str(events[-1].args["modelCid"])), held[number].model_digest
    except Unreachable:
        raise
    except PolError as error:
        say(f"{'note':<14}the model of {trainer} cannot be had: {error}", "yellow")
        return None


def _dataset(session: Session, task: int, round_: int, described: TaskDescription, blobs: BlobStore) -> Dataset:
    """The data set that the round is scored on, and is the promised one."""
    from pol.data import Dataset

    arena, scoring = session.client.arena, session.client.scoring
    config = arena.task_config(task)
    cid, root = described.evaluation_cid, config.work.eval_root
    if round_ == config.clock.final_round:
        opened = scoring.events("FinalSetOpened", taskId=task)
        if not opened:
            raise ChainError(f"the creator has not opened the final data set of task {task}: there is nothing to score")
        cid, root = str(opened[0].args["cid"]), scoring.final_set_root(task)
    dataset = Dataset.from_bytes(blobs.get(cid))
    if dataset.root != root:
        raise ChainError(f"the data set {cid} of task {task} is not the one that was promised: score nothing on it")
    return dataset
