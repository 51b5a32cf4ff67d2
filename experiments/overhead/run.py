"""What does recording cost? The same training side by side, plain and recorded, in one process; memory in two.

``python -m experiments.overhead.run`` writes ``results.json`` beside this file. A pair is one segment trained plainly
and one trained inside the recorder, a few steps of each in turn, so that both see the same disturbances; the recorder's
work behind the training is waited for and counted in full. A round compares what a training loop itself notices: the
same few steps plainly, inside the recorder, right after a boundary (whose work goes on behind them), and right after
``torch.save``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Generator, Sequence
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


def timed(action: Callable[[], object]) -> Cost:
    """What ``action`` costs."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def added(costs: Sequence[Cost]) -> dict[str, float]:
    """The sum, for the results."""
    return {"wall": sum(cost.wall for cost in costs), "cpu": sum(cost.cpu for cost in costs)}


class Pair:
    """One plain training and one recorded one, of the same program on the same data."""

    def __init__(self, work: dict[str, Any], folder: Path, *, segments: int, segment_length: int) -> None:
        make_deterministic(CONFIG["threads"])
        self.samples = samples_of(work["program"], work["config"], folder)
        self.spec = spec_of(work, self.samples, segments=segments, segment_length=segment_length)
        self.recorder = Recorder(self.spec, folder / "proof", seed_source=SEED)
        self.plain = self.recorder.program.build(self.spec.config, self.recorder.seed)
        self.folder = folder
        self.recorded = self._record()

    def train(self, steps: int) -> None:
        """Plain steps."""
        state, start = self.plain, self.plain.step
        for step in range(start, start + steps):
            self.recorder.program.train_step(state, self.samples.columns(self.recorder.order.batch(step)))
            state.step += 1

    def record(self, steps: int) -> None:
        """Recorded steps. The last one ends when the next call begins, and a segment with it."""
        for _ in range(steps):
            next(self.recorded)

    def record_in_full(self, steps: int) -> None:
        """Recorded steps, and the work that they left behind."""
        self.record(steps)
        self.recorder.wait()

    def save(self) -> int:
        """Save the plain training as usual; returns the number of bytes."""
        path = self.folder / "checkpoint.pt"
        save_with_torch(self.plain, path)
        return path.stat().st_size

    @property
    def state_bytes(self) -> int:
        """The size of the training state."""
        return sum(value.numel() * value.element_size() for value in self.plain.view(bytes(32)).values())

    def _record(self) -> Generator[None]:
        with self.recorder as recorder:
            state = recorder.program.build(self.spec.config, recorder.seed)
            recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
            for batch in recorder.batches(self.samples):
                loss = recorder.program.train_step(state, batch)
                yield
                recorder.step(loss)


def save_with_torch(state: TrainingState, path: Path) -> None:
    """The usual checkpoint: model, optimizer, schedule, generator."""
    checkpoint = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict() if state.scheduler else None,
        "rng": torch.get_rng_state(),
    }
    torch.save(checkpoint, path)


def pairs(work: dict[str, Any]) -> list[dict[str, Any]]:
    """Whole segments, a turn of each training after the other, after one of each to warm up."""
    with tempfile.TemporaryDirectory() as name:
        length, turn = work["segment_length"], work["turn"]
        pair = Pair(work, Path(name), segments=CONFIG["pairs"] + 2, segment_length=length)
        pair.record(length)  # the first segment, which also holds the comparison with the program
        pair.train(length)
        rows = []
        for _ in track(range(CONFIG["pairs"]), "pairs"):
            plain, ours = [], []
            for _ in range(length // turn):
                plain.append(timed(lambda: pair.train(turn)))
                ours.append(timed(lambda: pair.record_in_full(turn)))
            costs = {"plain": plain, "recorded": ours}
            rows.append(
                {kind: {"wall": sum(c.wall for c in cs), "cpu": sum(c.cpu for c in cs)} for kind, cs in costs.items()}
            )
        pair.recorded.close()
    return rows


def rounds(work: dict[str, Any], count: int) -> dict[str, Any]:
    """The same few steps of each kind, in turn and in changing order, the work behind one done before the next."""
    with tempfile.TemporaryDirectory() as name:
        turn = work["turn"]
        pair = Pair(work, Path(name), segments=count + 3, segment_length=2 * turn)
        pair.record(2 * turn)  # up to a boundary, which the next recorded step begins with
        pair.train(2 * turn)
        pair.save()

        def saved() -> None:
            pair.save()
            pair.train(turn)

        kinds = {"plain": lambda: pair.train(turn), "boundary": lambda: pair.record(turn), "torch_save": saved}
        rows: dict[str, list[float]] = {kind: [] for kind in [*kinds, "inside"]}
        for number in track(range(count), "rounds"):
            order = list(kinds)[number % 3 :] + list(kinds)[: number % 3]
            for kind in order:
                rows[kind].append(timed(kinds[kind]).wall)
                pair.recorder.wait()
            rows["inside"].append(timed(lambda: pair.record(turn)).wall)
        pair.recorded.close()
    return {"turn": turn, "state_bytes": pair.state_bytes, "seconds": rows}


def growth(work: dict[str, Any]) -> list[dict[str, Any]]:
    """The rounds for states of several sizes."""
    sizes = CONFIG["growth"]["widths"]
    return [rounds(work | {"config": work["config"] | {"width": width}}, CONFIG["growth"]["rounds"]) for width in sizes]


def disk(work: dict[str, Any]) -> dict[str, Any]:
    """The folder of a recorded run against a checkpoint at every boundary: both open the same segments."""
    with tempfile.TemporaryDirectory() as name:
        pair = Pair(work, Path(name), segments=CONFIG["disk_segments"], segment_length=2)
        for _ in pair.recorded:
            pass
        pair.train(2)
        ours = sum(path.stat().st_size for path in (Path(name) / "proof").rglob("*") if path.is_file())
        return {"segments": CONFIG["disk_segments"], "proof": ours, "torch_save": pair.save() * CONFIG["disk_segments"]}


def memory(workload: str) -> dict[str, int]:
    """Peak memory of a plain and of a recorded run, each in a process of its own (bytes).

    Large blocks go back to the system when they are freed, so that gaps in the heap are not counted.
    """
    peaks = {}
    for kind in ("plain", "recorded"):
        done = subprocess.run(
            [sys.executable, "-m", "experiments.overhead.run", "--peak", kind, workload],
            check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"},
        )  # fmt: skip
        peaks[kind] = int(done.stdout)
    return peaks


def peak(kind: str, workload: str) -> int:
    """The peak memory of this process after training four short segments."""
    with tempfile.TemporaryDirectory() as name:
        pair = Pair(CONFIG["workloads"][workload], Path(name), segments=4, segment_length=CONFIG["memory_steps"])
        if kind == "plain":
            pair.train(4 * CONFIG["memory_steps"])
        else:
            del pair.plain
            for _ in pair.recorded:
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
        results["workloads"][name] = {
            "segment_length": work["segment_length"],
            "pairs": pairs(work),
            "rounds": rounds(work, CONFIG["rounds"]),
            "disk": disk(work),
            "memory": memory(name),
        }
    results["growth"] = growth(CONFIG["workloads"]["gpt-10m"])
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
