"""What does verification cost? One recorded run, verified in several ways, each against the training itself.

``python -m experiments.verification.run`` writes ``results.json`` beside this file.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from challenge.executors import parse_executor
from challenge.segments import Policy, Watcher
from challenge.verdict import Outcome
from challenge.verify import verify
from pol import Proof, Recorder, SeedSource, TrainingSpec
from pol.data import Dataset
from pol.machine import make_deterministic, this_machine
from pol.opening import open_segments
from pol.program import config_from, program_digest

HERE = Path(__file__).parent
CONFIG = tomllib.loads((HERE / "config.toml").read_text())


def processor_seconds() -> float:
    """The processor time of this process and of those it waited for (not of a Ray cluster's)."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def timed(action: Callable[[], object]) -> dict[str, float]:
    """Seconds on the wall and of processors."""
    wall, cpu = time.perf_counter(), processor_seconds()
    action()
    return {"wall": time.perf_counter() - wall, "cpu": processor_seconds() - cpu}


def random_images() -> Dataset:
    """Random samples: only time is measured."""
    generator, config = np.random.default_rng(0), CONFIG["config"]
    shape = (2048, config["channels"], config["height"], config["width"])
    images = torch.from_numpy(generator.random(shape, dtype=np.float32))
    return Dataset(images, torch.from_numpy(generator.integers(0, config["classes"], shape[0])))


def record(data: Dataset, folder: Path) -> dict[str, float]:
    """Record the run; returns what training it cost."""
    make_deterministic(CONFIG["threads"])
    spec = TrainingSpec(
        program=CONFIG["program"],
        program_digest=program_digest(CONFIG["program"]),
        config=config_from(CONFIG["config"]),
        dataset="random",
        dataset_root=data.root,
        dataset_size=len(data),
        batch_size=CONFIG["batch_size"],
        steps=CONFIG["segments"] * CONFIG["segment_length"],
        segment_length=CONFIG["segment_length"],
        machine=this_machine(threads=CONFIG["threads"]).to_json(),
        trainer=bytes(20),
    )

    def train() -> None:
        with Recorder(spec, folder, seed_source=SeedSource(kind="chosen", value=bytes(32))) as recorder:
            state = recorder.program.build(spec.config, recorder.seed)
            recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
            for batch in track(recorder.batches(data), "training", total=spec.steps):
                recorder.step(recorder.program.train_step(state, batch))

    return timed(train)


def verified(folder: Path, data: Path, executor: str) -> dict[str, Any]:
    """Verify the sample; returns its cost and how many segments were replayed for it."""
    replayed: list[int] = []
    policy = Policy(segments=CONFIG["sample"], dataset=data, executor=parse_executor(executor))

    def check() -> None:
        verdict = verify(folder, policy, watcher=Watcher(replayed=lambda index, matched: replayed.append(index)))
        assert verdict.outcome is Outcome.VERIFIED, verdict.findings

    print(f"verification: {executor}", file=sys.stderr)
    return {"executor": executor} | timed(check) | {"replayed": len(replayed)}


def main() -> None:
    """Measure everything and write the results."""
    data = random_images()
    with tempfile.TemporaryDirectory() as name:
        blob, folder = Path(name) / "data.safetensors", Path(name) / "proof"
        blob.write_bytes(data.to_bytes())
        results: dict[str, Any] = {"machine": this_machine(threads=CONFIG["threads"]).to_json()}
        results |= {"segments": CONFIG["segments"], "sample": len(CONFIG["sample"])}
        results["training"] = record(data, folder)
        results["states_kept"] = len(Proof.read(folder).states)
        results["sparse"] = verified(folder, blob, "process")
        results["opening"] = timed(lambda: open_segments(folder, CONFIG["sample"], dataset=blob))
        results["opened"] = [verified(folder, blob, executor) for executor in CONFIG["executors"]]
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
