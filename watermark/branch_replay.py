"""The branch of a recorded run, in a replay process: how its trainer takes it, and how whoever has the key repeats it.

Where a mark is trained in, both do the same: they restore theta_ref from the proof's folder in a fresh confined process
(:mod:`pol.replay`) and take the promised number of steps with :func:`marked_program`. So what a trainer submits is what
a verifier gets. A mark in the weights alone takes no steps and no process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from pol.confine import Limits
from pol.encoding import Json, fields, from_hex, to_hex
from pol.errors import CannotRun, SpecError
from pol.numerics import arithmetic
from pol.program import Program, load_program
from pol.proof import Proof, states_of
from pol.replay import Branch, Job, ReplayedSpan, Span, replay
from pol.sealing import recorded
from pol.state import Tensors, TrainingState, from_safetensors, model_tensors
from watermark.branch import MarkedProgram, Marking
from watermark.key import SECRET_BYTES, OpenedKey, WatermarkKey, WholeKey
from watermark.mark import embed
from watermark.parameters import MarkParameters

WRAPPER: Final = "watermark.branch_replay:marked_program"
Replays: TypeAlias = Callable[[Job, Sequence[Span]], list[ReplayedSpan]]


def branch_of(segment: int, key: WholeKey, beta: bytes, parameters: MarkParameters) -> Branch:
    """The branch that leaves the trunk at the end of ``segment`` and trains the mark in."""
    payload: dict[str, Json] = {
        "beta": to_hex(beta),
        "leaves": to_hex(OpenedKey(key.leaves).to_bytes()),
        "parameters": parameters.to_json(),
    }
    return Branch(segment=segment, steps=parameters.branch_steps, wrapper=WRAPPER, payload=payload)


def marked_program(program: Program, theta_ref: TrainingState, end: int, payload: Json) -> MarkedProgram:
    """What takes the branch's steps up to ``end`` from ``theta_ref``, restored: a :data:`pol.replay_program.Wrapper`.

    Raises :class:`ProofError` unless ``payload`` is one of :func:`branch_of`, and :class:`SpecError` for a mark that
    does not fit the model.
    """
    where = "branch"
    item = fields(payload, {"beta", "leaves", "parameters"}, where=where)
    parameters = MarkParameters.from_json(item["parameters"], where=f"{where}.parameters")
    size = parameters.leaf_count * 2 * SECRET_BYTES
    key = OpenedKey.from_bytes(from_hex(item["leaves"], where=f"{where}.leaves", length=size))
    beta = from_hex(item["beta"], where=f"{where}.beta")
    return MarkedProgram(program, Marking(theta_ref, key, beta, parameters), end)


def replay_branch(folder: Path, proof: Proof, job: Job, replays: Replays = replay) -> tuple[ReplayedSpan, Tensors]:
    """Take the branch of ``job`` from the state that the proof in ``folder`` stores; returns what ended it, and where.

    The second is the model's tensors after the last step, none if there was a ``problem``. Raises :class:`ProofError`
    if that state is not stored, and what ``replays`` raises.
    """
    assert job.branch is not None
    reference, number = job.branch.segment, job.branch.segment + 1
    start = states_of(folder).path(proof.stored_at(proof.spec.bounds(reference)[1]).cid)
    with tempfile.TemporaryDirectory() as name:  # nobody else can look into it
        end = Path(name) / "end.safetensors"
        (result,) = replays(job, [Span(first=number, last=number, start=start, emit={number: end})])
        if result.problem is None and result.segments[0].start_digest != proof.segments[reference].end_digest:
            result.problem = "it does not start from the promised state"
        if result.problem:
            return result, {}
        return result, model_tensors(from_safetensors(end.read_bytes(), where="branch"))


def mark_run(
    folder: Path,
    segment: int,
    key: WatermarkKey,
    beta: bytes,
    *,
    dataset: Path | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
) -> Tensors:
    """The marked model to submit for the run recorded in ``folder``: its branch off the trunk after ``segment``.

    The recording need not be finished: it goes on from the unmarked trunk. The run's spec promises the key's root and
    the mark; ``beta`` was drawn after the run's first branch, or this one, and the state at the end of ``segment`` must
    be stored. A mark that is trained in takes the promised steps, on ``dataset`` where the data are not
    built in. Raises :class:`SpecError` if nothing of the kind is promised, or a mark in the weights is too strong for
    so short a training; :class:`CannotRun` if the program does not take the steps.
    """
    proof = recorded(folder)
    promise = proof.spec.watermark
    if promise is None or promise.key_root != key.root:
        raise SpecError("the run's spec does not promise a mark of this key")
    parameters = MarkParameters.from_json(promise.parameters, where="spec.watermark.parameters")
    if not parameters.trained_in:
        stored = states_of(folder).get(proof.stored_at(proof.spec.bounds(segment)[1]).cid)
        theta_ref = model_tensors(from_safetensors(stored, where="theta_ref"))
        return embed(theta_ref, key, beta, parameters, theta_0=_initial(proof))
    if not parameters.branch_steps:
        raise SpecError("the run's spec promises no number of steps for the branch that trains its mark in")
    if parameters.outputs and proof.spec.exact:
        raise SpecError("a mark in outputs is not trained in under exact numerics: submit the model unmarked")
    job = Job(
        spec=proof.spec,
        seed=proof.seed,
        dataset=dataset,
        trusted=frozenset({proof.spec.program_digest}),
        device=device,
        limits=limits or Limits(),
        branch=branch_of(segment, key, beta, parameters),
    )
    result, model = replay_branch(folder, proof, job)
    if result.problem:
        raise CannotRun(f"the mark cannot be trained in: {result.problem}")
    return model


def _initial(proof: Proof) -> Tensors:
    """The model's tensors before the first step, as the trainer's own program builds them."""
    source = proof.spec.program_digest
    program = load_program(proof.spec.program, source, trusted=frozenset({source}))
    with arithmetic(proof.spec):
        return model_tensors(program.build(proof.spec.config, proof.seed).capture(proof.seed))
