"""What a trainer promises of a run before its seed is known: the task's training, the machine, and a watermark key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from chain.terms import Numerics
from chain.types import BaseModel
from challenge.allowed import accepted_base, objections
from challenge.arena.runfolder import TRAINING_DATA, RunFolder
from challenge.arena.session import Session
from challenge.task import TaskDescription, describe
from pol.errors import CannotRun, SpecError
from pol.spec import EXACT, NATIVE, TaskRef, TrainingSpec, WatermarkPromise
from pol.store import open_store
from watermark import MarkParameters, WatermarkKey, suggested_parameters
from watermark.trial import require_bearable


def promised_run(
    session: Session, task: int, folder: Path, store: str, file: Path | None, data: Path | None, *, unmarked: bool
) -> RunFolder:
    """The run to register, written down in a new ``folder``: its spec for this task and trainer, and its key.

    ``file`` is a run.toml with a config of the trainer's own; without it the task's is taken. Unless ``unmarked``, a
    training that is too short to bear the mark is refused. Raises :class:`SpecError` for what the task does not allow,
    and :class:`CannotRun`.
    """
    described = describe(session.client, task, open_store(store))
    if file is None:
        data = data or _fetched_data(described, folder, store)
        plain = _asked_for(session, task, described, data)
    else:
        plain = TrainingSpec.load(file, data=data)
    registrable_base(session, task, plain, described)
    return _with_key(session, task, plain, _mark(plain, data, unmarked=unmarked), folder)


def registrable_base(session: Session, task: int, spec: TrainingSpec, described: TaskDescription) -> BaseModel:
    """The base model that a run of ``spec`` is registered with.

    Raises :class:`SpecError` if the task does not allow such a spec, :class:`CannotRun` if that cannot be told: a bond
    would be paid for nothing.
    """
    work = session.client.arena.task_config(task).work
    found = objections(spec, work, lambda: described)
    if found.forbidden:
        raise SpecError(f"task {task} does not allow this spec: {found.forbidden[0]}; change it, or find another task")
    if found.unknown:
        raise CannotRun(f"task {task}: {found.unknown[0]}")
    return accepted_base(spec, work, lambda: described)


def _fetched_data(described: TaskDescription, folder: Path, store: str) -> Path | None:
    """The task's training data in ``folder``; ``None`` where they are built in."""
    from pol.data import BUILT_IN

    if described.train_name in BUILT_IN:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    open_store(store).get_file(described.train_cid, folder / TRAINING_DATA)
    return folder / TRAINING_DATA


def _asked_for(session: Session, task: int, wanted: TaskDescription, data: Path | None) -> TrainingSpec:
    """The spec that the task's description asks for, on this machine."""
    work = session.client.arena.task_config(task).work
    values = {
        "program": wanted.program, "dataset": wanted.train_name, "batch_size": wanted.batch_size,
        "steps": work.steps, "segment_length": work.segment_length, "config": wanted.config,
        "numerics": EXACT if work.numerics is Numerics.EXACT else NATIVE,
    }  # fmt: skip
    return TrainingSpec.from_values(values, where=f"task {task}", data=data)


def _mark(spec: TrainingSpec, data: Path | None, *, unmarked: bool) -> MarkParameters:
    """The mark that is suggested for the model of ``spec``, if its training can bear it."""
    from pol.program import load_program
    from pol.sources import committed_samples

    program = load_program(spec.program, spec.program_digest, trusted=frozenset({spec.program_digest}))
    parameters = suggested_parameters(program.build(spec.config, bytes(32)).model.state_dict())
    if not unmarked:
        try:
            require_bearable(spec, program, committed_samples(spec, data), parameters)
        except SpecError as error:
            raise SpecError(f"{error}; or give --unmarked, and submit the model without a mark") from error
    return parameters


def _with_key(session: Session, task: int, plain: TrainingSpec, mark: MarkParameters, folder: Path) -> RunFolder:
    kept = RunFolder(path=folder, task=task, spec=plain)
    if kept.key.is_file():
        key = WatermarkKey.load(kept.key)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        key = WatermarkKey.generate(mark.leaf_count)
        key.save(kept.key)
    deployment = session.client.deployment
    place = TaskRef(chain_id=deployment.chain_id, arena=bytes.fromhex(deployment.arena[2:]), task_id=task)
    promise = WatermarkPromise(key_root=key.root, parameters=mark.to_json())
    whole = replace(plain, trainer=bytes.fromhex(session.me[2:]), task=place, watermark=promise)
    kept = replace(kept, spec=whole)
    kept.save()
    return kept
