"""Small recorded runs that tests share: a narrow perceptron on the real digits, recorded with or without a cheat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from pol import Recorder, SeedSource, TrainingSpec
from pol.data import Dataset
from pol.machine import this_machine
from pol.program import config_from, program_digest
from pol.state import TrainingState

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
