"""Small recorded runs that tests share: a narrow perceptron on the real digits, recorded with or without a cheat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pol import Recorder, SeedSource, Submission, TrainingSpec, recorded
from pol.cid import cid_of
from pol.data import Dataset
from pol.machine import this_machine
from pol.program import config_from, program_digest
from pol.proof import states_of
from pol.state import Tensors, TrainingState, from_safetensors, model_tensors, to_safetensors
from pol.tensors import tensors_digest

PROGRAM = "pol.programs.classifier:ImageClassifier"
SEED = bytes(range(32))

Cheat = Callable[[int, TrainingState, list[torch.Tensor]], None]


def small_spec(dataset: Dataset, *, steps: int = 40, segment_length: int = 10, **config: object) -> TrainingSpec:
    """A narrow perceptron with batch norm and dropout, so that buffers and generators matter."""
    values = dict(
        inputs=64, width=32, hidden=2, classes=10, steps=steps,
        learning_rate=1e-3, weight_decay=0.01, dropout=0.1, batch_norm=True,
    )  # fmt: skip
    return TrainingSpec(
        program=PROGRAM,
        program_digest=program_digest(PROGRAM),
        config=config_from(values | config),
        dataset="digits/train",
        dataset_root=dataset.root,
        dataset_size=len(dataset),
        batch_size=32,
        steps=steps,
        segment_length=segment_length,
        machine=this_machine(threads=1).to_json(),
        trainer=bytes(20),
    )


def record(spec: TrainingSpec, dataset: Dataset, out: Path, cheat: Cheat | None = None) -> None:
    """Train inside a recorder; ``cheat`` may tamper with the state or the batch before any step."""
    with Recorder(spec, out, seed_source=SeedSource(kind="chosen", value=SEED)) as recorder:
        state = recorder.program.build(spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        for step, (inputs, labels) in enumerate(recorder.batches(dataset)):
            batch = [inputs, labels]
            if cheat:
                cheat(step, state, batch)
            recorder.step(recorder.program.train_step(state, (batch[0], batch[1])))


def trunk_model(folder: Path, segment: int) -> Tensors:
    """The trunk's model after a segment, whose state is kept."""
    proof = recorded(folder)
    kept = proof.stored_at(proof.spec.bounds(segment)[1])
    return model_tensors(from_safetensors(states_of(folder).get(kept.cid), where="test"))


def submitted(model: Tensors, segment: int) -> tuple[Submission, bytes]:
    """The model as it is submitted after a segment, and its bytes."""
    blob = to_safetensors(model)
    return Submission(model_digest=tensors_digest(model), model_cid=cid_of(blob), reference_segment=segment), blob


def branch(folder: Path, segment: int) -> tuple[Submission, bytes]:
    """The trunk's own model, submitted unmarked."""
    return submitted(trunk_model(folder, segment), segment)
