"""``arena task create`` and ``arena task final``: publishing a task, and opening its hidden data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chain.commitments import final_set_commitment
from chain.errors import ChainError
from chain.terms import NO_DIGEST, TaskConfig, Work
from challenge.arena.session import Session, TaskArgument, command, token_amount
from challenge.arena.terms import TaskFile, read_task_file
from challenge.task import TaskDescription
from pol.errors import SpecError
from pol.merkle import merkle_root
from pol.store import BlobStore, open_store

if TYPE_CHECKING:
    from pol.data import Dataset

StoreOption = Annotated[
    str, typer.Option("--store", help="Where blobs are kept: a folder, 'ipfs', or the address of an IPFS node.")
]
FINAL_SET = "final-set"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Publish a task; open its final data set.")
    command(group, "create")(create)
    command(group, "final")(final)
    app.add_typer(group, name="task")


def create(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The task's TOML file.")],
    store: StoreOption,
) -> dict[str, Any]:
    """Publish the task in a TOML file, once, and pay its budget and deposit in. Nobody can change it afterwards.

    The file is as examples/task.toml: program, data sets and terms. The final data set stays hidden until `arena task
    final`; the salt that opens it is in this machine's journal, and nowhere else.

    Example:

        arena task create task.toml --store ipfs
    """
    wanted = read_task_file(file)
    blobs = open_store(store)
    metadata = blobs.put(_description(wanted, blobs).to_bytes())
    config = _terms(session, wanted, metadata)
    task = _published(session, config) or session.client.arena.create_task(config, metadata)
    return {
        "task": task,
        "metadata": metadata,
        "budget": token_amount(config.budget),
        "paid": token_amount(config.cost),
    }


def final(
    session: Session,
    task: TaskArgument,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="The final data set: its file, or a built-in one's name.")
    ],
    store: StoreOption,
) -> dict[str, Any]:
    """Open the hidden final data set, as the task's creator: publish it, and show that it is the promised one.

    Example:

        arena task final 1 digits/final-validation --store ipfs
    """
    dataset, scoring = open_dataset(data), session.client.scoring
    promised = session.client.arena.task_config(task).work.final_set_commitment
    if scoring.final_set_root(task) == NO_DIGEST:
        salts = [salt for content, salt in session.promises.salted(FINAL_SET) if content["root"] == dataset.root.hex()]
        salt = next((salt for salt in salts if final_set_commitment(dataset.root, salt) == promised), None)
        if salt is None:
            raise ChainError(
                f"this machine's journal has no salt that makes {data} the final set of task {task}: use the data set "
                "and the machine that the task was created with"
            )
        scoring.open_final_set(task, dataset.root, salt, open_store(store).put(dataset.to_bytes()))
    return {"task": task, "final_root": "0x" + scoring.final_set_root(task).hex()}


def open_dataset(name: str) -> Dataset:
    """The data set in the file ``name``, or the built-in one of that name."""
    from pol.data import Dataset, built_in

    return Dataset.open(Path(name)) if Path(name).is_file() else built_in(name)


def describe(session: Session, task: int, blobs: BlobStore) -> TaskDescription:
    """The task's description, fetched by the CID in the event that published it."""
    (event,) = session.client.arena.events("TaskCreated", taskId=task)
    return TaskDescription.from_bytes(blobs.get(str(event.args["metadataCid"])))


def _description(wanted: TaskFile, blobs: BlobStore) -> TaskDescription:
    from pol.program import config_from

    return TaskDescription(
        program=wanted.program,
        config=config_from(wanted.config),
        batch_size=wanted.batch_size,
        train_name=wanted.train,
        train_cid=blobs.put(open_dataset(wanted.train).to_bytes()),
        evaluation_cid=blobs.put(open_dataset(wanted.evaluation).to_bytes()),
    )


def _terms(session: Session, wanted: TaskFile, metadata: str) -> TaskConfig:
    from pol.machine import this_machine
    from pol.program import program_digest

    here = this_machine(threads=wanted.threads).digest
    classes = [here if name == "this" else bytes.fromhex(name[2:]) for name in wanted.machines]
    if len(set(classes)) != len(classes):
        raise SpecError("machines: the same class is named twice")
    final_root = open_dataset(wanted.final).root
    # The same file again is the same task: its salt is the one that was made the first time.
    salt = session.promises.salt(
        FINAL_SET, {"root": final_root.hex(), "metadata": metadata, "start": wanted.clock.start}
    )  # fmt: skip
    work = Work(
        program_digest=program_digest(wanted.program),
        train_root=open_dataset(wanted.train).root,
        eval_root=open_dataset(wanted.evaluation).root,
        final_set_commitment=final_set_commitment(final_root, salt),
        classes_root=merkle_root(classes) if classes else NO_DIGEST,
        numerics=wanted.numerics,
        steps=wanted.steps,
        segment_length=wanted.segment_length,
    )
    return TaskConfig(clock=wanted.clock, work=work, pay=wanted.pay, court=wanted.court)


def _published(session: Session, config: TaskConfig) -> int | None:
    """The number of the task with exactly these terms, if there is one: the salted commitment makes them unique."""
    arena = session.client.arena
    newest_first = range(arena.task_count(), 0, -1)
    mine = (task for task in newest_first if arena.creator_of(task) == session.me)
    return next((task for task in mine if arena.task_config(task) == config), None)
