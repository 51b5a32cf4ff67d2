"""What does exactness cost? Steps of native and exact training in turn, in one process with one thread.

``python -m experiments.exact.speed`` prints and writes ``speed.json`` beside this file: medians of the seconds of
processor of a step, of each pair's ratio, and the memory at the peak of a process that does the one or the other.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from experiments.exact.run import HERE
from pol import exact
from pol.data import Batch
from pol.program import config_from, load_program, program_digest

PAIRS = 5
GPT = dict(
    vocabulary=1024, context=128, layers=4, heads=8, width=512, dropout=0.0, steps=100, warmup=0, learning_rate=1e-3,
    weight_decay=0.1, clip=1.0, micro_batches=1, ema=0.0, precision="fp32", ranks=1,
)  # fmt: skip
RESNET = dict(
    network="resnet20", channels=1, height=28, width=28, filters=16, classes=10, steps=100, learning_rate=0.1,
    momentum=0.9, weight_decay=1e-4, dropout=0.0, crop=0, flip=False, ranks=1,
)  # fmt: skip
WORK: dict[str, tuple[str, dict[str, Any], Batch]] = {
    "gpt, 4 layers of width 512, 8 x 128 tokens": (
        "pol.programs.language:LanguageModel", GPT, (torch.arange(8 * 129).reshape(8, 129) * 7 % 1024,),
    ),
    "resnet20, 64 images of 28 x 28": (
        "pol.programs.convnet:ConvNetClassifier", RESNET,
        (torch.linspace(0, 1, 64 * 28 * 28).reshape(64, 1, 28, 28), torch.arange(64) % 10),
    ),
}  # fmt: skip


def stepper(name: str) -> Callable[[bool], float]:
    """Takes one step, exact or not, and gives its seconds of processor."""
    program_name, config, batch = WORK[name]
    program = load_program(program_name, program_digest(program_name))
    state = program.build(config_from(config), bytes(32))

    def step(exactly: bool) -> float:
        began = time.process_time()
        with exact() if exactly else nullcontext():
            program.train_step(state, batch)
        return time.process_time() - began

    return step


def ratio(name: str) -> dict[str, Any]:
    """Medians over PAIRS pairs, after one that is not counted."""
    step = stepper(name)
    pairs = [(step(False), step(True)) for _ in range(PAIRS + 1)][1:]
    ratios = [slow / fast for fast, slow in pairs]
    return {
        "native": round(statistics.median(fast for fast, _ in pairs), 3),
        "exact": round(statistics.median(slow for _, slow in pairs), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratios": [round(value, 2) for value in sorted(ratios)],
        "peak MiB": {kind: peak(name, kind) for kind in ("native", "exact")},
    }


def peak(name: str, kind: str) -> int:
    """The memory of a process that takes two such steps, at its peak, in MiB."""
    result = subprocess.run(
        [sys.executable, "-m", "experiments.exact.speed", name, kind], check=True, capture_output=True, text=True
    )
    return int(result.stdout)


def main() -> None:
    """Measure everything, or, with a name and a kind, one process's peak."""
    torch.set_num_threads(1)
    if len(sys.argv) == 3:
        step = stepper(sys.argv[1])
        for _ in range(2):
            step(sys.argv[2] == "exact")
        status = Path("/proc/self/status").read_text()  # ru_maxrss would count the process that started this one
        print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
        return
    results = {name: ratio(name) for name in WORK}
    text = json.dumps(results, indent=1)
    (HERE / "speed.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
