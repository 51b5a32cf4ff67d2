"""``arena run register`` and ``arena run train``: promise a run, receive its seed, train it inside a recorder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from chain.anchoring import RunAnchorer
from chain.errors import ChainError
from chain.types import Bond
from challenge.arena.beacons import WaitOption, latched
from challenge.arena.runfolder import RunFolder
from challenge.arena.session import NotYet, Session, TaskArgument, command
from challenge.arena.task import StoreOption
from pol.errors import CannotRun
from pol.proof import SeedSource
from pol.store import open_store

FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the run is kept on this machine.")]
DataOption = Annotated[Path | None, typer.Option(help="The training data, where the spec names no built-in set.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Promise a run, and train it.")
    command(group, "register")(register)
    command(group, "train")(train)
    command(group, "void")(void)
    app.add_typer(group, name="run")


def register(
    session: Session,
    task: TaskArgument,
    folder: FolderArgument,
    store: StoreOption,
    spec: Annotated[
        Path | None, typer.Option(help="A run.toml, to train with a config of your own instead of the task's.")
    ] = None,
    data: DataOption = None,
    unmarked: Annotated[
        bool, typer.Option("--unmarked", help="Register although the training is too short to bear a watermark.")
    ] = False,
    wait: WaitOption = 60,
) -> dict[str, Any]:
    """Promise a run: its spec and a fresh watermark key; pay its bond, and latch the beacon that seeds it.

    The key is made here and kept in FOLDER, encrypted under AIARENA_KEY_PASSPHRASE. A spec that the task does not allow
    is refused, and so is a training that is too short to bear the mark. A run whose beacon nobody latches while its
    block's hash is in reach of the contracts is void, and its bond burns.

    Example:

        arena run register 1 runs/alice --store ipfs
    """
    from challenge.arena.promise import promised_run, registrable_base
    from challenge.task import describe

    if (folder / "run.json").is_file():
        kept = open_run(session, folder)
    else:
        kept = promised_run(session, task, folder, store, spec, data, unmarked=unmarked)
    if kept.task != task:
        raise CannotRun(f"{folder} holds a run of task {kept.task}: use a new folder for task {task}")
    arena, promise = session.client.arena, kept.spec.watermark
    assert promise is not None
    if kept.run is None:
        mine = {number: arena.run(number) for number in arena.runs_of(task, session.me)}
        promised = (kept.spec.digest, promise.key_root)
        found = (number for number, run in mine.items() if (run.spec_digest, run.key_root) == promised)
        number = next(found, None)
        if number is None:
            described, bond = describe(session.client, task, open_store(store)), arena.task_config(task).pay.run_bond
            base = registrable_base(session, task, kept.spec, described)
            number = arena.register_run(task, kept.spec.digest, promise.key_root, bond, base)
        kept = kept.knowing(run=number)
    seed = kept.seed or _seed(session, kept.number, wait)
    kept.knowing(seed=seed)
    return {
        "task": task,
        "run": kept.number,
        "folder": str(folder),
        "beacon_block": seed.block,
    }


def void(
    session: Session, number: Annotated[int, typer.Argument(metavar="RUN", min=1, help="The run's number.")]
) -> dict[str, Any]:
    """Burn the bond of a run that came to nothing, whoever's it is: its beacon expired, or nothing of it stands.

    Example:

        arena run void 3
    """
    arena = session.client.arena
    held = arena.run(number)
    if held.bond is Bond.RETURNED:
        raise ChainError(f"the bond of run {number} went back to its trainer: there is nothing to burn")
    if held.bond is Bond.HELD:
        arena.void_run(number)
    return {"run": number, "task": held.task_id, "trainer": held.trainer, "bond": arena.run(number).bond.name.lower()}


def train(
    session: Session,
    folder: FolderArgument,
    data: DataOption = None,
    stop_after: Annotated[
        int | None, typer.Option(min=1, help="End the run early, at the first segment's end after so many steps.")
    ] = None,
) -> dict[str, Any]:
    """Train a registered run as its program does, recorded and anchored as it goes. Goes on where it was interrupted.

    Meanwhile `arena submit` can be typed elsewhere: models are submitted in each round, and training goes on. Whoever
    submits must let the run reach its end, or declare an early one, while the task takes submissions: without it there
    is no proof to answer a case with. A run that ends early is declared so on chain, for good. A loop of your own does
    the same with `pol.Recorder` and `chain.RunAnchorer`.

    Example:

        arena run train runs/alice --yes
    """
    from pol import Recorder
    from pol.journal import JOURNAL
    from pol.proof import MANIFEST
    from pol.sources import committed_samples

    kept = open_run(session, folder)
    if kept.seed is None:
        raise CannotRun(f"{folder}: the run's beacon is not latched yet: repeat `arena run register`")
    session.ask("send about eight anchors while training?", "the run")
    session.asks = False
    if (kept.proof / JOURNAL).exists() or not (kept.proof / MANIFEST).is_file():  # killed in between, it goes on
        samples = committed_samples(kept.spec, data or (kept.data if kept.data.is_file() else None))
        anchorer = RunAnchorer(session.client, kept.number)
        with (
            session.promises.lent(),
            Recorder(kept.spec, kept.proof, seed_source=kept.seed, anchorer=anchorer) as recorder,
        ):
            state = recorder.program.build(kept.spec.config, recorder.seed)
            recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
            for batch in recorder.batches(samples):
                recorder.step(recorder.program.train_step(state, batch))
                if stop_after is not None and recorder.state.step >= stop_after:
                    recorder.stop()
    anchored = session.client.arena.run(kept.number).anchored
    return {"run": kept.number, "proof": str(kept.proof), "anchored": anchored}


def open_run(session: Session, folder: Path) -> RunFolder:
    """The account's run in ``folder``; raises :class:`CannotRun` if it is another account's, or of another arena."""
    kept = RunFolder.load(folder)
    deployment, place = session.client.deployment, kept.spec.task
    assert place is not None
    if kept.spec.trainer != bytes.fromhex(session.me[2:]):
        raise CannotRun(f"{folder}: this run is of 0x{kept.spec.trainer.hex()}, you act as {session.me}")
    if (place.chain_id, place.arena) != (deployment.chain_id, bytes.fromhex(deployment.arena[2:])):
        raise CannotRun(f"{folder}: this run is of the arena 0x{place.arena.hex()} on chain {place.chain_id}")
    return kept


def _seed(session: Session, run: int, wait: float) -> SeedSource:
    """The run's beacon as its seed source, latched if nobody has; raises :class:`NotYet` if its block is not there."""
    arena = session.client.arena
    beacon = latched(lambda: arena.run(run).beacon, lambda: arena.latch_beacon(run), wait)
    if beacon is None:
        raise NotYet(f"run {run} is registered, but its beacon's block is not there yet")
    return SeedSource(kind="beacon", value=beacon.value, block=beacon.block)
