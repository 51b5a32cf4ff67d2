"""Does an exact run have one digest, whatever computes it? The same training in processes that differ in one thing.

``python -m experiments.exact.run`` writes ``results.json`` beside this file, one setting after the other, and goes on
where it stopped; native training stands beside the exact one. ``--device cuda`` trains on a GPU, with TF32 and without,
and compares with the digests that a CPU left in ``results.json``: it fails if one differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from experiments.stolen_model.data import SOURCES
from pol import exact
from pol.data import Batch
from pol.order import DataOrder
from pol.program import Program, config_from, load_program, program_digest
from pol.state import TrainingState, from_safetensors, to_safetensors
from pol.tensors import tensors_digest

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
CONFIG: dict[str, Any] = tomllib.loads((HERE / "config.toml").read_text())
WORKLOADS = ["resnet20", "gpt"]
SEED = bytes(range(32))


class Workload:
    """A program with its samples, on one device."""

    def __init__(self, name: str, device: str) -> None:
        self.device, self.work = device, CONFIG[name]
        self.program: Program = load_program(self.work["program"], program_digest(self.work["program"]))
        self.config = config_from(self.work["config"])
        part = SOURCES[self.work["samples"]["source"]](self.work["samples"])
        self.inputs, self.targets = (tensor[: self.work["samples"]["count"]] for tensor in (part.inputs, part.targets))
        self.order = DataOrder(SEED, len(self.inputs), self.work["batch_size"])

    def build(self) -> TrainingState:
        """The initial state."""
        return self.program.build(self.config, SEED).to(self.device)

    def batch(self, step: int) -> Batch:
        """The samples of ``step``: (image, label), or windows of tokens."""
        rows = torch.tensor(self.order.batch(step))
        inputs, targets = self.inputs[rows], self.targets[rows]
        windows = torch.cat([inputs, targets[:, -1:]], 1) if inputs.dtype is torch.int64 else None
        parts = (inputs, targets) if windows is None else (windows,)
        return tuple(part.to(self.device) for part in parts)

    def step(self, state: TrainingState) -> float:
        """One step; its loss."""
        state.key_generators(SEED)
        loss = float(self.program.train_step(state, self.batch(state.step)))
        state.step += 1
        return loss

    def resumed(self, state: TrainingState) -> TrainingState:
        """A fresh state that continues from the bytes of ``state``."""
        tensors = from_safetensors(to_safetensors(state.capture(SEED)), where="half-way")
        fresh = self.build()
        fresh.restore(tensors, layout=state.capture(SEED), seed=SEED, step=state.step)
        return fresh


def trained(name: str, setting: dict[str, Any], *, exactly: bool, device: str, steps: int) -> dict[str, Any]:
    """Digests of weights and optimizer after the first and last step, the last loss, seconds of processor a step."""
    work = Workload(name, device)
    with exact() if exactly else nullcontext():
        state = work.build()
        if setting.get("channels_last"):
            state.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        work.step(state)
        first, began = digest(state), time.process_time()
        loss = 0.0
        while state.step < steps:
            if setting.get("resumed") and state.step == steps // 2:
                state = work.resumed(state)
            loss = work.step(state)
        return {
            "first": first, "last": digest(state), "loss": loss, "steps": steps,
            "seconds": round((time.process_time() - began) / (steps - 1), 4),
        }  # fmt: skip


def digest(state: TrainingState) -> str:
    """Of what training learned: model and optimizer."""
    tensors = state.capture(SEED)
    return tensors_digest({k: v for k, v in tensors.items() if k.startswith(("model/", "optimizer/"))}).hex()


def in_a_process(name: str, setting: dict[str, Any], *, exactly: bool, steps: int) -> dict[str, Any]:
    """:func:`trained` on the CPU, with the setting's threads, library switches and environment."""
    job = json.dumps({"name": name, "setting": setting, "exactly": exactly, "steps": steps})
    result = subprocess.run(
        [sys.executable, "-m", "experiments.exact.run", "--job", job], check=True, capture_output=True, text=True,
        env=os.environ | setting.get("environment", {}), timeout=CONFIG["seconds"],
    )  # fmt: skip
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def run_job(job: dict[str, Any]) -> None:
    """The inside of :func:`in_a_process`."""
    setting = job["setting"]
    torch.set_num_threads(setting.get("threads", 1))
    torch.backends.mkldnn.enabled = setting.get("mkldnn", True)
    print(json.dumps(trained(job["name"], setting, exactly=job["exactly"], device="cpu", steps=job["steps"])))


def on_cpu(steps: int) -> None:
    """Fill ``results.json``: every workload in every setting, exact and native."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for label, setting in CONFIG["settings"].items():
        for name in WORKLOADS:
            for kind in ("exact", "native"):
                row = results.setdefault(name, {}).setdefault(kind, {})
                if row.get(label, {}).get("steps") != steps:
                    row[label] = in_a_process(name, setting, exactly=kind == "exact", steps=steps)
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    for name, kinds in results.items():
        for kind, rows in kinds.items():
            print(f"{name}, {kind}: {len({row['last'] for row in rows.values()})} digests in {len(rows)} settings")


def on_gpu(device: str) -> int:
    """How many digests of a GPU differ from the CPU's."""
    results, different = json.loads(RESULTS.read_text()), 0
    for name in WORKLOADS:
        expected = results[name]["exact"]["one thread"]
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            found = trained(name, {}, exactly=True, device=device, steps=expected["steps"])
            same = all(found[key] == expected[key] for key in ("first", "last"))
            different += not same
            print(f"{name}, {precision} precision: {found['last'][:16]} {'as' if same else 'NOT as'} on the CPU")
    return different


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda to compare a GPU with results.json")
    parser.add_argument("--steps", type=int, default=CONFIG["steps"])
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        run_job(json.loads(arguments.job))
    elif arguments.device == "cpu":
        on_cpu(arguments.steps)
    else:
        sys.exit(on_gpu(arguments.device))


if __name__ == "__main__":
    main()
