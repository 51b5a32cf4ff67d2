"""``arena run register`` and ``arena run train``: promise a run, receive its seed, train it inside a recorder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.anchoring import RunAnchorer
from challenge.arena.beacons import WaitOption, latched
from challenge.arena.runfolder import TRAINING_DATA, RunFolder
from challenge.arena.session import NotYet, Session, TaskArgument, command
from challenge.arena.task import StoreOption, describe
from pol.errors import CannotRun, SpecError
from pol.proof import SeedSource
from pol.spec import TaskRef, TrainingSpec, WatermarkPromise
from pol.store import open_store

FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the run is kept on this machine.")]
DataOption = Annotated[Path | None, typer.Option(help="The training data, where the spec names no built-in set.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    group = typer.Typer(no_args_is_help=True, help="Promise a run, and train it.")
    command(group, "register")(register)
    command(group, "train")(train)
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
    wait: WaitOption = 60,
) -> dict[str, Any]:
    """Promise a run: its spec and a fresh watermark key; pay its bond, and latch the beacon that seeds it.

    The key is made here and kept in FOLDER, encrypted under AIARENA_KEY_PASSPHRASE. A run whose beacon nobody latches
    while its block's hash is in reach of the contracts is void, and its bond burns.

    Example:

        arena run register 1 runs/alice --store ipfs
    """
    if (folder / "run.json").is_file():
        kept = open_run(session, folder)
    else:
        plain = TrainingSpec.load(spec, data=data) if spec else _asked_for(session, task, folder, store, data)
        kept = _promise(session, task, plain, folder)
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
            bond = arena.task_config(task).pay.run_bond
            number = arena.register_run(task, kept.spec.digest, promise.key_root, bond)
        kept = kept.knowing(run=number)
    seed = kept.seed or _seed(session, kept.number, wait)
    kept.knowing(seed=seed)
    return {
        "task": task,
        "run": kept.number,
        "folder": str(folder),
        "beacon_block": seed.block,
    }


def train(session: Session, folder: FolderArgument, data: DataOption = None) -> dict[str, Any]:
    """Train a registered run as its program does, recorded and anchored as it goes. Goes on where it was interrupted.

    A loop of your own does the same with `pol.Recorder` and `chain.RunAnchorer`.

    Example:

        arena run train runs/alice --yes
    """
    from pol import Recorder
    from pol.proof import MANIFEST
    from pol.sources import committed_samples

    kept = open_run(session, folder)
    if kept.seed is None:
        raise CannotRun(f"{folder}: the run's beacon is not latched yet: repeat `arena run register`")
    session.ask("send about eight anchors while training?", "the run")
    session.asks = False
    if not (kept.proof / MANIFEST).is_file():
        samples = committed_samples(kept.spec, data or (kept.data if kept.data.is_file() else None))
        anchorer = RunAnchorer(session.client, kept.number)
        with Recorder(kept.spec, kept.proof, seed_source=kept.seed, anchorer=anchorer) as recorder:
            state = recorder.program.build(kept.spec.config, recorder.seed)
            recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
            for batch in recorder.batches(samples):
                recorder.step(recorder.program.train_step(state, batch))
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


def _asked_for(session: Session, task: int, folder: Path, store: str, data: Path | None) -> TrainingSpec:
    """The spec that the task's description asks for, on this machine; its data set is fetched if it is not built in."""
    from pol.data import BUILT_IN

    blobs = open_store(store)
    wanted, work = describe(session, task, blobs), session.client.arena.task_config(task).work
    if data is None and wanted.train_name not in BUILT_IN:
        folder.mkdir(parents=True, exist_ok=True)
        data = folder / TRAINING_DATA
        blobs.get_file(wanted.train_cid, data)
    values = {
        "program": wanted.program, "dataset": wanted.train_name, "batch_size": wanted.batch_size,
        "steps": work.steps, "segment_length": work.segment_length, "config": wanted.config,
    }  # fmt: skip
    return TrainingSpec.from_values(values, where=f"task {task}", data=data)


def _promise(session: Session, task: int, plain: TrainingSpec, folder: Path) -> RunFolder:
    """The spec ``plain`` for this task, trainer and key, in a new folder."""
    from pol.program import load_program
    from watermark import WatermarkKey, suggested_parameters

    _require_terms(session, task, plain)
    program = load_program(plain.program, plain.program_digest, trusted=frozenset({plain.program_digest}))
    parameters = suggested_parameters(program.build(plain.config, bytes(32)).model.state_dict())
    kept = RunFolder(path=folder, task=task, spec=plain)
    if kept.key.is_file():
        key = WatermarkKey.load(kept.key)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        key = WatermarkKey.generate(parameters.leaf_count)
        key.save(kept.key)
    deployment = session.client.deployment
    place = TaskRef(chain_id=deployment.chain_id, arena=bytes.fromhex(deployment.arena[2:]), task_id=task)
    whole = replace(
        plain,
        trainer=bytes.fromhex(session.me[2:]),
        task=place,
        watermark=WatermarkPromise(key_root=key.root, parameters=parameters.to_json()),
    )
    kept = replace(kept, spec=whole)
    kept.save()
    return kept


def _require_terms(session: Session, task: int, spec: TrainingSpec) -> None:
    """Insist that the task accepts such a spec, before a bond is paid for it."""
    work = session.client.arena.task_config(task).work
    pairs = {
        "program": (spec.program_digest, work.program_digest),
        "data set": (spec.dataset_root, work.train_root if any(work.train_root) else spec.dataset_root),
        "steps": (spec.steps, work.steps),
        "segment_length": (spec.segment_length, work.segment_length),
    }
    for name, (mine, wanted) in pairs.items():
        if mine != wanted:
            raise SpecError(f"the spec's {name} is not the one of task {task}: change the spec, or find another task")


def _seed(session: Session, run: int, wait: float) -> SeedSource:
    """The run's beacon as its seed source, latched if nobody has; raises :class:`NotYet` if its block is not there."""
    arena = session.client.arena
    beacon = latched(lambda: arena.run(run).beacon, lambda: arena.latch_beacon(run), wait)
    if beacon is None:
        raise NotYet(f"run {run} is registered, but its beacon's block is not there yet")
    return SeedSource(kind="beacon", value=beacon.value, block=beacon.block)
