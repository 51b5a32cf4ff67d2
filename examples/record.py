"""Record a small training run without a chain, then check it: ``challenge verify proof/``.

Run it from this folder: ``python record.py``. The whole configuration is in ``run.toml``.
"""

from __future__ import annotations

from pathlib import Path

from pol import Recorder, TrainingSpec
from pol.data import built_in

here = Path(__file__).parent
spec = TrainingSpec.load(here / "run.toml")
dataset = built_in(spec.dataset)

with Recorder(spec, out="proof") as recorder:
    state = recorder.program.build(spec.config, recorder.seed)
    recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
    for batch in recorder.batches(dataset):
        loss = recorder.program.train_step(state, batch)
        recorder.step(loss)

print(f"{len(recorder.proof.segments)} segments recorded, last loss {float(loss):.3f}: challenge verify proof")
