"""The forger's workshop: whatever a proof holds can be changed here, and all that commits to it is made right again.

A forger of files can compute every digest, tree and anchor; what it cannot have without training are states that
replay. An edit that changes nothing gives back a proof that verifies, so a rejection is never the fault of the tools.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from pol import Proof, SeedSource, TrainingSpec
from pol.anchorer import NoChain
from pol.data import Samples, batch_root
from pol.machine import make_deterministic
from pol.order import DataOrder
from pol.program import Program, load_program
from pol.proof import StoredState, states_of
from pol.state import Tensors, TrainingState, from_safetensors, to_safetensors
from pol.tensors import tensors_digest
from pol.transcript import Anchor, Segment, segment_tree
from tests.runs import SEED, Cheat

Batches = Callable[[int], Sequence[int]]
"""The sample indices that a forger commits to for a step."""


def copied(folder: Path, target: Path) -> Path:
    """A copy of a proof folder that may be changed."""
    return Path(shutil.copytree(folder, target))


def reanchored(proof: Proof) -> Proof:
    """The proof with the roots of its anchors worked out anew."""
    return replace(proof, anchors=tuple(_anchor(proof.segments, a.first, a.count) for a in proof.anchors))


def edit_proof(folder: Path, change: Callable[[Proof], Proof]) -> None:
    """Change anything in the manifest or the transcript, then anchor it anew."""
    reanchored(change(Proof.read(folder))).write(folder)


def edit_segment(folder: Path, index: int, **changes: object) -> None:
    """Change one line of the transcript."""

    def change(proof: Proof) -> Proof:
        segments = list(proof.segments)
        segments[index] = replace(segments[index], **changes)  # type: ignore[arg-type]
        return replace(proof, segments=tuple(segments))

    edit_proof(folder, change)


def edit_boundary(folder: Path, segment: int, digest: bytes) -> None:
    """Promise another state at the end of ``segment``, where the next one begins."""

    def change(proof: Proof) -> Proof:
        segments = list(proof.segments)
        segments[segment] = replace(segments[segment], end_digest=digest)
        if segment + 1 < len(segments):
            segments[segment + 1] = replace(segments[segment + 1], start_digest=digest)
        return replace(proof, segments=tuple(segments))

    edit_proof(folder, change)


def edit_state(folder: Path, segment: int, change: Callable[[Tensors], None]) -> None:
    """Change the stored state at the end of ``segment``, and its digests on both sides."""
    proof, store = Proof.read(folder), states_of(folder)
    stored = proof.stored_at(proof.spec.bounds(segment)[1])
    tensors = from_safetensors(store.get(stored.cid), where="forged")
    change(tensors)
    store.path(stored.cid).unlink()
    cid, digest = store.put(to_safetensors(tensors)), tensors_digest(tensors)
    segments = list(proof.segments)
    segments[segment] = replace(segments[segment], end_digest=digest)
    if segment + 1 < len(segments):
        segments[segment + 1] = replace(segments[segment + 1], start_digest=digest)
    states = tuple(replace(s, cid=cid) if s.step == stored.step else s for s in proof.states)
    reanchored(replace(proof, segments=tuple(segments), states=states)).write(folder)


def program_of(spec: TrainingSpec) -> Program:
    """The program that ``spec`` names; a forger trusts it."""
    return load_program(spec.program, spec.program_digest, trusted=frozenset({spec.program_digest}))


def built(spec: TrainingSpec, seed: bytes = SEED) -> TrainingState:
    """The initial state as the program builds it."""
    return program_of(spec).build(spec.config, seed)


def made_up_state(spec: TrainingSpec, step: int, fill: Callable[[TrainingState], None], seed: bytes = SEED) -> Tensors:
    """A state after ``step`` steps that was not trained: right in all that can be worked out, the rest is ``fill``'s.

    Hyper-parameters, schedule and generators are the program's. ``fill`` sets weights, buffers and moments; Adam's
    moments are zero, and its count is the step's, unless it says otherwise.
    """
    state = built(spec, seed)
    for group in state.optimizer.param_groups:
        for parameter in group["params"] if isinstance(state.optimizer, torch.optim.Adam) else []:
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            state.optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    fill(state)
    state.advance_schedule(step)
    return state.capture(seed)


def write_forgery(
    out: Path,
    spec: TrainingSpec,
    samples: Samples,
    states: Sequence[Tensors],
    *,
    seed: bytes = SEED,
    source: SeedSource | None = None,
    batches: Batches | None = None,
) -> Path:
    """A whole proof out of made-up states, one at every boundary (the initial one first), all of them stored.

    The batches are those of the data order unless ``batches`` names others. ``source`` is where the seed of a task's
    run comes from; any other run's is chosen.
    """
    source = source or SeedSource(kind="chosen", value=seed)
    seed = source.seed(spec)
    order = DataOrder(seed, spec.dataset_size, spec.batch_size)
    digests = [tensors_digest(state) for state in states]
    segments = []
    for index, (before, after) in enumerate(pairwise(digests)):
        start, end = spec.bounds(index)
        indices = [(batches or order.batch)(step) for step in range(start, end)]
        root = batch_root(samples, indices, start)
        segments.append(
            Segment(index=index, start_step=start, end_step=end, start_digest=before, end_digest=after, batch_root=root)
        )
    store = states_of(out)
    kept = [
        StoredState(step=segment.end_step, cid=store.put(to_safetensors(state)))
        for segment, state in zip(segments, states[1:], strict=True)
    ]
    Proof(
        spec=spec,
        seed_source=source,
        segments=tuple(segments),
        anchors=(_anchor(segments, 0, len(segments)),),
        states=tuple(kept),
    ).write(out)
    return out


def trained_states(
    spec: TrainingSpec,
    samples: Samples,
    seed: bytes = SEED,
    cheat: Cheat | None = None,
    start: Tensors | None = None,
) -> list[Tensors]:
    """The states at every boundary of a run: what a forger has who does train.

    ``cheat`` may tamper with the state or the batch before any step; ``start`` is a model to begin with instead of the
    initial one. Without both the run is honest.
    """
    make_deterministic(1)  # fixtures of wider scope run before the one that does this for every test
    state, order = built(spec, seed), DataOrder(seed, spec.dataset_size, spec.batch_size)
    program = program_of(spec)
    if start:
        state.model.load_state_dict(start)
    states = [state.capture(seed)]
    for index in range(spec.segments):
        for step in range(*spec.bounds(index)):
            state.key_generators(seed)
            batch = list(samples.batch(order.batch(step)))
            if cheat:
                cheat(step, state, batch)
            program.train_step(state, tuple(batch))
            state.step = step + 1
        states.append(state.capture(seed))
    return states


def _anchor(segments: Sequence[Segment], first: int, count: int) -> Anchor:
    return NoChain().anchor(first, count, segment_tree(segments[first : first + count]).root)
