"""What does recording cost? The same training side by side, plain and recorded, in one process; memory in two.

``python -m experiments.overhead.run`` writes ``results.json`` beside this file. A pair is one segment trained plainly
and one trained inside the recorder, with the recorder's work behind the training waited for and counted in full.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

from pol import Recorder, SeedSource, TrainingSpec
from pol.data import Dataset, Samples
from pol.machine import make_deterministic, this_machine
from pol.program import config_from, program_digest
from pol.sources import TokenFile
from pol.state import TrainingState

HERE = Path(__file__).parent
CONFIG = tomllib.loads((HERE / "config.toml").read_text())
SEED = SeedSource(kind="chosen", value=bytes(range(32)))


@dataclass(frozen=True)
class Cost:
    """Seconds on the wall, and seconds of all processors together (which other programs do not disturb)."""

    wall: float
    cpu: float


def samples_of(program: str, config: dict[str, Any], folder: Path) -> Samples:
    """Random samples that fit the program."""
    generator = np.random.default_rng(0)
    if "vocabulary" in config:
        path = folder / "tokens.bin"
        generator.integers(0, config["vocabulary"], 500_000, dtype=np.uint16).tofile(path)
        return TokenFile(path, dtype="uint16", length=config["context"])
    shape = (2048, config["channels"], config["height"], config["width"])
    images = torch.from_numpy(generator.random(shape, dtype=np.float32))
    return Dataset(images, torch.from_numpy(generator.integers(0, config["classes"], shape[0])))


def spec_of(work: dict[str, Any], samples: Samples, *, segments: int, segment_length: int) -> TrainingSpec:
    """The promise of a run of ``segments`` segments."""
    return TrainingSpec(
        program=work["program"],
        program_digest=program_digest(work["program"]),
        config=config_from(work["config"]),
        dataset="random",
        dataset_root=samples.root,
        dataset_size=len(samples),
        batch_size=work["batch_size"],
        steps=segments * segment_length,
        segment_length=segment_length,
        machine=this_machine(threads=CONFIG["threads"]).to_json(),
        trainer=bytes(20),
    )


def end_step(recorder: Recorder, loss: torch.Tensor) -> None:
    """The recorder's part of a step, with its work behind the training waited for."""
    recorder.step(loss)
    recorder.wait()


def timed(action: Callable[[], object]) -> Cost:
    """What ``action`` costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


class Pair:
    """One plain training and one recorded one, of the same program on the same data."""

    def __init__(self, work: dict[str, Any], folder: Path, *, segments: int, segment_length: int) -> None:
        make_deterministic(CONFIG["threads"])
        self.samples = samples_of(work["program"], work["config"], folder)
        self.spec = spec_of(work, self.samples, segments=segments, segment_length=segment_length)
        self.recorder = Recorder(self.spec, folder / "proof", seed_source=SEED)
        self.plain = self.recorder.program.build(self.spec.config, self.recorder.seed)
        self.folder = folder

    def record(self) -> Iterator[Cost]:
        """Train a recorded segment each time it is advanced, hashed and written when it yields its boundary's cost."""
        with self.recorder as recorder:
            state = recorder.program.build(self.spec.config, recorder.seed)
            recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
            for batch in recorder.batches(self.samples):
                loss = recorder.program.train_step(state, batch)
                cost = timed(lambda: end_step(recorder, loss))  # noqa: B023
                if recorder.state.step % self.spec.segment_length == 0:
                    yield cost

    def train(self) -> None:
        """Train a plain segment."""
        state, start = self.plain, self.plain.step
        for step in range(start, start + self.spec.segment_length):
            self.recorder.program.train_step(state, self.samples.columns(self.recorder.order.batch(step)))
            state.step += 1

    def save(self) -> int:
        """Save the plain training as usual; returns the number of bytes."""
        path = self.folder / "checkpoint.pt"
        save_with_torch(self.plain, path)
        return path.stat().st_size


def save_with_torch(state: TrainingState, path: Path) -> None:
    """The usual checkpoint: model, optimizer, schedule, generator."""
    checkpoint = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict() if state.scheduler else None,
        "rng": torch.get_rng_state(),
    }
    torch.save(checkpoint, path)


def overhead(work: dict[str, Any]) -> dict[str, Any]:
    """Pairs of segments, after one of each to warm up (which also holds the comparison with the program)."""
    with tempfile.TemporaryDirectory() as name:
        length = work["segment_length"]
        pair = Pair(work, Path(name), segments=CONFIG["pairs"] + 1, segment_length=length)
        recorded = pair.record()
        start = timed(lambda: next(recorded))
        pair.train()
        rows = []
        for _ in track(range(CONFIG["pairs"]), "pairs"):
            plain = timed(pair.train)
            boundaries: list[Cost] = []
            ours = timed(lambda: boundaries.append(next(recorded)))  # noqa: B023
            theirs = timed(pair.save)
            costs = {"plain": plain, "recorded": ours, "boundary": boundaries[0], "torch_save": theirs}
            rows.append({kind: vars(cost) for kind, cost in costs.items()})
        next(recorded, None)
    state = sum(value.numel() * value.element_size() for value in pair.plain.view(bytes(32)).values())
    return {"segment_length": length, "state_bytes": state, "pairs": rows, "warm_up": vars(start)}


def growth(work: dict[str, Any]) -> list[dict[str, Any]]:
    """What one boundary costs, copied and hashed and written, against a step, for states of several sizes."""
    rows = []
    for width in CONFIG["growth"]["widths"]:
        sized = work | {"config": work["config"] | {"width": width}}
        steps, boundaries = CONFIG["growth"]["steps"], CONFIG["growth"]["boundaries"]
        with tempfile.TemporaryDirectory() as name:
            pair = Pair(sized, Path(name), segments=boundaries + 1, segment_length=steps)
            recorded = pair.record()
            next(recorded)
            pair.train()
            costs = [(timed(pair.train), next(recorded), timed(pair.save)) for _ in range(boundaries)]
            next(recorded, None)
        state = sum(value.numel() * value.element_size() for value in pair.plain.view(bytes(32)).values())
        rows.append(
            {
                "state_bytes": state,
                "step": [plain.wall / steps for plain, _, _ in costs],
                "boundary": [ours.wall for _, ours, _ in costs],
                "torch_save": [theirs.wall for _, _, theirs in costs],
            }
        )
    return rows


def disk(work: dict[str, Any]) -> dict[str, Any]:
    """The folder of a recorded run against a checkpoint at every boundary: both open the same segments."""
    with tempfile.TemporaryDirectory() as name:
        pair = Pair(work, Path(name), segments=CONFIG["disk_segments"], segment_length=2)
        for _ in pair.record():
            pass
        pair.train()
        ours = sum(path.stat().st_size for path in (Path(name) / "proof").rglob("*") if path.is_file())
        return {"segments": CONFIG["disk_segments"], "proof": ours, "torch_save": pair.save() * CONFIG["disk_segments"]}


def memory(workload: str) -> dict[str, int]:
    """Peak memory of a plain and of a recorded run, each in a process of its own (bytes)."""
    peaks = {}
    for kind in ("plain", "recorded"):
        done = subprocess.run(
            [sys.executable, "-m", "experiments.overhead.run", "--peak", kind, workload],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        peaks[kind] = int(done.stdout)
    return peaks


def peak(kind: str, workload: str) -> int:
    """The peak memory of this process after training four short segments."""
    with tempfile.TemporaryDirectory() as name:
        pair = Pair(CONFIG["workloads"][workload], Path(name), segments=4, segment_length=CONFIG["memory_steps"])
        if kind == "plain":
            for _ in range(4):
                pair.train()
        else:
            del pair.plain
            for _ in pair.record():
                pass
    status = Path("/proc/self/status").read_text()  # getrusage would count the parent's memory too
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Measure everything and write the results."""
    if sys.argv[1:2] == ["--peak"]:
        print(peak(*sys.argv[2:4]))
        return
    results: dict[str, Any] = {"machine": this_machine(threads=CONFIG["threads"]).to_json(), "workloads": {}}
    for name, work in CONFIG["workloads"].items():
        print(f"overhead: {name}", file=sys.stderr)
        results["workloads"][name] = overhead(work) | {"disk": disk(work), "memory": memory(name)}
    results["growth"] = growth(CONFIG["workloads"]["gpt-10m"])
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
