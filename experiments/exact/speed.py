"""What does exactness cost? Steps of native and exact training in turn, in one process with one thread.

``python -m experiments.exact.speed`` prints and writes ``speed.json`` beside this file: medians of the seconds of
processor of a step (native, exact through torch alone, and exact with compiled kernels), of each round's ratios, the
memory at the peak of a process that does the one or the other, and where the time of a step goes.

``python -m experiments.exact.speed cuda`` writes ``gpu-speed.json``: the same steps on a GPU, native with TF32 off, in
seconds of the wall, with the GPU's memory at its peak.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pol import exact
from pol.data import Batch
from pol.portable import slices
from pol.portable.mode import way
from pol.portable.table import REPLACED, name_of
from pol.program import config_from, load_program, program_digest
from pol.state import model_tensors
from pol.tensors import tensors_digest

HERE = Path(__file__).parent
SEED = bytes(32)
ROUNDS = 5
KINDS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "native": nullcontext, "exact, eager": partial(exact, fused=False), "exact, fused": exact,
}  # fmt: skip
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
GROUPS = {
    **dict.fromkeys(REPLACED["products"][1], "products"),
    **dict.fromkeys(REPLACED["functions"][1], "functions"),
    **dict.fromkeys(REPLACED["statistics"][1], "norms, softmax, losses"),
    **dict.fromkeys(REPLACED["sums"][1], "sums"),
}


class Groups(TorchDispatchMode):
    """Inside :func:`pol.exact`: the seconds of processor of the operators, by what they are for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch for every operator."""
        apart, run = way(func)
        if apart:
            with self:
                return run(*args, **(kwargs or {}))
        name, began = name_of(func), time.process_time()
        result = func(*args, **(kwargs or {}))
        update = torch._C._current_autograd_node() is None and not torch.is_grad_enabled()
        self.seconds["update" if update else GROUPS.get(name, "the rest")] += time.process_time() - began
        return result


def now(device: str) -> float:
    """Seconds of processor; on a GPU, seconds of the wall once it has done what it was given."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def stepper(name: str, device: str = "cpu") -> Callable[..., float]:
    """Takes one step of a kind, and gives its seconds."""
    program_name, config, samples = WORK[name]
    program = load_program(program_name, program_digest(program_name))
    state = program.build(config_from(config), SEED).to(device)
    batch = tuple(part.to(device) for part in samples)

    def step(*contexts: AbstractContextManager[Any]) -> float:
        began = now(device)
        for context in contexts:
            context.__enter__()
        program.train_step(state, batch)
        for context in reversed(contexts):
            context.__exit__(None, None, None)
        return now(device) - began

    return step


def digest_after(name: str, steps: int, *, fused: bool) -> bytes:
    """The digest of the model after some exact steps."""
    program_name, config, batch = WORK[name]
    program = load_program(program_name, program_digest(program_name))
    with exact(fused=fused):
        state = program.build(config_from(config), SEED)
        for _ in range(steps):
            program.train_step(state, batch)
    return tensors_digest(model_tensors(state.capture(SEED)))


def measured(name: str) -> dict[str, Any]:
    """Medians over ROUNDS rounds, after one that is not counted."""
    step = stepper(name)
    rounds = [[step(context()) for context in KINDS.values()] for _ in range(ROUNDS + 1)][1:]
    columns = dict(zip(KINDS, zip(*rounds, strict=True), strict=True))
    groups = {kind: profile(step, KINDS[kind]) for kind in list(KINDS)[1:]}
    return {
        "seconds": {kind: [round(value, 3) for value in values] for kind, values in columns.items()},
        "ratio": {
            kind: round(statistics.median(a / b for a, b in zip(values, columns["native"], strict=True)), 2)
            for kind, values in columns.items()
        },
        "where": groups,
        "peak MiB": {kind: peak(name, kind) for kind in KINDS},
        "digest, fused and eager": sorted({digest_after(name, 2, fused=fused).hex() for fused in (True, False)}),
    }


def profile(step: Callable[..., float], context: Callable[[], AbstractContextManager[None]]) -> dict[str, float]:
    """The seconds of one step by group of operators; what autograd, torch and Python take is none of them."""
    groups = Groups()
    total = step(context(), groups)
    found = {
        group: round(seconds, 3) for group, seconds in sorted(groups.seconds.items(), key=itemgetter(1), reverse=True)
    }
    return found | {"around them": round(total - sum(groups.seconds.values()), 3)}


def peak(name: str, kind: str) -> int:
    """The memory of a process that takes two such steps, at its peak, in MiB."""
    result = subprocess.run(
        [sys.executable, "-m", "experiments.exact.speed", name, kind], check=True, capture_output=True, text=True
    )
    return int(result.stdout)


def on_gpu(device: str) -> dict[str, Any]:
    """Seconds of native and exact steps in turn, ROUNDS of them after one that is not counted, and peaks of memory."""
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    found = {}
    for name in WORK:
        step = stepper(name, device)
        rounds = [[watched(step, context(), device) for context in (nullcontext, exact)] for _ in range(ROUNDS + 1)]
        kinds = dict(zip(("native", "exact"), zip(*rounds[1:], strict=True), strict=True))
        found[name] = {
            "seconds": {kind: [round(seconds, 4) for seconds, _ in steps] for kind, steps in kinds.items()},
            "peak MiB": {kind: max(peak for _, peak in steps) >> 20 for kind, steps in kinds.items()},
        }
    index = torch.device(device).index or 0
    return {
        "device": torch.cuda.get_device_name(index), "torch": torch.__version__,
        "int8 slices": slices.faster(torch.device("cuda", index)), "workloads": found,
    }  # fmt: skip


def watched(step: Callable[..., float], context: AbstractContextManager[None], device: str) -> tuple[float, int]:
    """The seconds of a step on a GPU, and the most bytes of its memory that tensors took."""
    torch.cuda.reset_peak_memory_stats(device)
    return step(context), torch.cuda.max_memory_allocated(device)


def main() -> None:
    """Measure everything, or, with a name and a kind, one process's peak."""
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["cuda"]:
        (HERE / "gpu-speed.json").write_text(json.dumps(on_gpu("cuda"), indent=1) + "\n")
        return
    if len(sys.argv) == 3:
        step = stepper(sys.argv[1])
        for _ in range(2):
            step(KINDS[sys.argv[2]]())
        status = Path("/proc/self/status").read_text()  # ru_maxrss would count the process that started this one
        print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
        return
    results = {name: measured(name) for name in WORK}
    text = json.dumps(results, indent=1)
    (HERE / "speed.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
