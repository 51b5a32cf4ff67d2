"""``arena task create``, ``final`` and ``burn``: a task from its publication to its absent creator's deposit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chain.commitments import final_set_commitment
from chain.errors import ChainError
from chain.terms import NO_DIGEST, TaskConfig, Work
from challenge.arena.session import Session, TaskArgument, command, token_amount
from challenge.arena.terms import TaskFile, read_task_file
from challenge.bounds import Bounds, bounds_digest, check_bounds, outside
from challenge.task import TaskDescription
from pol.encoding import float_text
from pol.errors import ProofError, SpecError
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
    group = typer.Typer(no_args_is_help=True, help="Publish a task, and end it.")
    command(group, "create")(create)
    command(group, "final")(final)
    command(group, "burn")(burn)
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
    described = _description(wanted, blobs)
    metadata = blobs.put(described.to_bytes())
    config = _terms(session, wanted, described, metadata)
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


def burn(session: Session, task: TaskArgument) -> dict[str, Any]:
    """Burn the deposit of a creator who did not open the final data set, once the task is closed. Anyone may.

    Example:

        arena task burn 1
    """
    escrow = session.client.escrow
    burned = escrow.events("DepositBurned", taskId=task)
    amount = int(burned[0].args["amount"]) if burned else escrow.budget_of(task).deposit
    if not burned:
        escrow.burn_deposit(task)
    return {"task": task, "burned": token_amount(amount)}


def open_dataset(name: str) -> Dataset:
    """The data set in the file ``name``, or the built-in one of that name."""
    from pol.data import Dataset, built_in

    return Dataset.open(Path(name)) if Path(name).is_file() else built_in(name)


def _description(wanted: TaskFile, blobs: BlobStore) -> TaskDescription:
    from challenge.allowed import base_of
    from pol.program import config_from

    config, bases, bounds = config_from(wanted.config), _bases(wanted.bases), _bounds(wanted.bounds)
    if bounds is not None and (wrong := outside(config, bounds)):
        raise SpecError(f"the task's own config is out of its bounds: {wrong[0]}")
    if base_of(config) not in (bases or (NO_DIGEST,)):
        raise SpecError("bases: what the task's own config starts from is not in the list")
    return TaskDescription(
        program=wanted.program,
        config=config,
        batch_size=wanted.batch_size,
        train_name=wanted.train,
        train_cid=blobs.put(open_dataset(wanted.train).to_bytes()),
        evaluation_cid=blobs.put(open_dataset(wanted.evaluation).to_bytes()),
        machines=_machines(wanted),
        bases=bases,
        bounds=bounds,
    )


def _machines(wanted: TaskFile) -> tuple[bytes, ...]:
    from pol.machine import this_machine

    here = this_machine(threads=wanted.threads).digest
    classes = tuple(here if name == "this" else bytes.fromhex(name[2:]) for name in wanted.machines)
    if len(set(classes)) != len(classes):
        raise SpecError("machines: the same class is named twice")
    return classes


def _bases(names: tuple[str, ...]) -> tuple[bytes, ...]:
    """The digests of base models; those named by their folder here are read."""
    from pol.programs.base_model import pins

    def digest_of(name: str) -> bytes:
        if name == "seed":
            return NO_DIGEST
        text = name if re.fullmatch(r"0x[0-9a-f]{64}", name) else str(pins(name)["base_digest"])
        return bytes.fromhex(text[2:])

    bases = tuple(map(digest_of, names))
    if len(set(bases)) != len(bases):
        raise SpecError("bases: the same model is named twice")
    return bases


def _bounds(values: dict[str, Any]) -> Bounds | None:
    """The bounds that the file says, with its floats as hashed bytes hold them; ``None`` for none."""
    if not values:
        return None
    try:
        return check_bounds(_hashable(values), where="bounds")
    except ProofError as error:
        raise SpecError(str(error)) from error


def _hashable(value: Any) -> Any:
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, dict):
        return {name: _hashable(part) for name, part in value.items()}
    return [_hashable(part) for part in value] if isinstance(value, list) else value


def _terms(session: Session, wanted: TaskFile, described: TaskDescription, metadata: str) -> TaskConfig:
    from pol.program import program_digest

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
        bases_root=merkle_root(described.bases) if described.bases else NO_DIGEST,
        classes_root=merkle_root(described.machines) if described.machines else NO_DIGEST,
        config_bounds=NO_DIGEST if described.bounds is None else bounds_digest(described.bounds),
        step_verifier=wanted.step_verifier,
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
