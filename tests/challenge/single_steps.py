"""Runs that tier T2 can judge: segments of one step, with every state opened, as a trainer does on request.

As a script it records one on the class of machine that the environment makes of this one::

    ATEN_CPU_CAPABILITY=avx2 python -m tests.challenge.single_steps FOLDER
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from pol import Proof
from pol.data import Dataset, digits
from pol.machine import DECIDING_VARIABLES, MachineClass, make_deterministic, this_machine
from pol.proof import StoredState, states_of, write_openings
from pol.state import TrainingState, to_safetensors
from tests.runs import SEED, Cheat, record, small_spec


def record_single_steps(
    folder: Path, train_set: Dataset, machine: MachineClass, steps: int, cheat: Cheat | None = None
) -> None:
    """Record ``steps`` segments of one step into ``folder`` and open all states."""
    states = {}

    def before(step: int, state: TrainingState, batch: list[torch.Tensor]) -> None:
        if step:
            held = TrainingState(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler, step=step)
            states[step] = held.capture(SEED)
        if cheat:
            cheat(step, state, batch)

    spec = small_spec(train_set, steps=steps, segment_length=1, dropout=0.0, batch_norm=False)
    record(replace(spec, machine=machine.to_json()), train_set, folder, before)
    proof, store = Proof.read(folder), states_of(folder)
    missing = [step for step in states if proof.find_stored(step) is None]
    write_openings(folder, [StoredState(step=step, cid=store.put(to_safetensors(states[step]))) for step in missing])


if __name__ == "__main__":
    machine = this_machine()  # what the libraries read from the environment they have read now
    for name in DECIDING_VARIABLES:
        os.environ.pop(name, None)
    make_deterministic(1)
    record_single_steps(Path(sys.argv[1]), digits("train"), machine, int(sys.argv[2]))
