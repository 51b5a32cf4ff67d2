"""Does an exact run have one digest, whatever computes it? The same training in processes that differ in one thing.

``python -m experiments.exact.run`` writes ``results.json`` beside this file, one setting after the other, and goes on
where it stopped; native training stands beside the exact one. ``--device cuda`` trains on a GPU, with TF32 and without,
compares with the digests that a CPU left in ``results.json``, and writes ``gpu.json``: it fails if one differs.
A workload whose samples or base model are not on this machine is left out, and said so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from experiments.exact.workload import CONFIG, Workload, elsewhere
from pol import exact
from pol.errors import CannotRun
from pol.state import TrainingState

HERE = Path(__file__).parent
RESULTS, GPU_RESULTS = HERE / "results.json", HERE / "gpu.json"
SEED = bytes(range(32))
REFERENCE = "one thread"
DIFFERENT = 2  # exit status


def trained(name: str, setting: dict[str, Any], *, exactly: bool, device: str) -> dict[str, Any]:
    """Digests of weights and optimizer after the first and last step, the last loss, seconds of processor a step."""
    work = Workload(name, device, SEED)
    strided, steps = setting.get("layout") == "elsewhere", work.work["steps"]
    with exact() if exactly else nullcontext():
        state = work.build()
        lay_out(state, setting.get("layout"))
        loss = work.step(state, strided=strided)
        first, began = work.digest(state), time.process_time()
        while state.step < steps:
            if setting.get("resumed") and state.step == steps // 2:
                state = work.resumed(state)
            loss = work.step(state, strided=strided)
        return {
            "first": first, "last": work.digest(state), "loss": loss,
            "seconds": round((time.process_time() - began) / (steps - 1), 4),
        }  # fmt: skip


def lay_out(state: TrainingState, layout: str | None) -> None:
    """Move the model's tensors in memory, without a change of their numbers."""
    if layout == "channels last":
        state.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    elif layout == "elsewhere":
        for tensor in (*state.model.parameters(), *state.model.buffers()):
            tensor.data = elsewhere(tensor.data)


def in_a_process(name: str, setting: dict[str, Any], *, exactly: bool) -> dict[str, Any]:
    """:func:`trained` on the CPU, with the setting's threads, library switches and environment."""
    job = json.dumps({"name": name, "setting": setting, "exactly": exactly})
    result = subprocess.run(
        [sys.executable, "-m", "experiments.exact.run", "--job", job], check=True, stdout=subprocess.PIPE, text=True,
        env=os.environ | setting.get("environment", {}), timeout=CONFIG["seconds"],
    )  # fmt: skip
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def run_job(job: dict[str, Any]) -> None:
    """The inside of :func:`in_a_process`."""
    setting = job["setting"]
    torch.set_num_threads(setting.get("threads", 1))
    torch.backends.mkldnn.enabled = setting.get("mkldnn", True)
    print(json.dumps(trained(job["name"], setting, exactly=job["exactly"], device="cpu")))


def left_out(name: str) -> bool:
    """Whether this machine lacks what the workload needs, which is said."""
    try:
        Workload(name, "cpu", SEED).build()
    except CannotRun as error:
        print(f"{name}: left out: {error}", file=sys.stderr)
        return True
    return False


def on_cpu(names: list[str]) -> None:
    """Fill ``results.json``: every one of the workloads ``names`` in every setting, exact and native."""
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    here = [name for name in names if not left_out(name)]
    for label, setting in CONFIG["settings"].items():
        for name in (name for name in here if name in setting.get("only", here)):
            what = described(name, setting)
            for kind in ("exact", "native"):
                row = results.setdefault(name, {}).setdefault(kind, {})
                if row.get(label, {}).get("what") != what:
                    row[label] = in_a_process(name, setting, exactly=kind == "exact") | {"what": what}
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    for name, kinds in results.items():
        for kind, rows in kinds.items():
            print(f"{name}, {kind}: {len({row['last'] for row in rows.values()})} digests in {len(rows)} settings")


def described(name: str, setting: dict[str, Any]) -> str:
    """A digest of what config.toml says of a workload and a setting: a result of anything else is out of date."""
    return hashlib.sha256(json.dumps([CONFIG["workloads"][name], setting], sort_keys=True).encode()).hexdigest()[:16]


def on_gpu(names: list[str], device: str) -> int:
    """Fill ``gpu.json``; how many digests of the GPU differ from the CPU's, a missing one counted as different."""
    results, different = json.loads(RESULTS.read_text()), 0
    GPU_RESULTS.unlink(missing_ok=True)
    name_of_device = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    found: dict[str, Any] = {"device": name_of_device, "torch": torch.__version__, "workloads": {}}
    for name in names:
        if left_out(name):
            continue
        expected = results.get(name, {}).get("exact", {}).get(REFERENCE, {})
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            row = trained(name, {}, exactly=True, device=device)
            same = all(row[key] == expected.get(key) for key in ("first", "last"))
            different += not same
            found["workloads"].setdefault(name, {})[precision] = row | {"as on the CPU": same}
            print(f"{name}, {precision} precision: {row['last'][:16]} {'as' if same else 'NOT as'} on the CPU")
    GPU_RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    return different


def main() -> None:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda to compare a GPU with results.json")
    parser.add_argument("--only", choices=CONFIG["workloads"], help="one workload")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(CONFIG["workloads"])
    if arguments.job:
        run_job(json.loads(arguments.job))
    elif arguments.device == "cpu":
        on_cpu(names)
    else:
        sys.exit(DIFFERENT if on_gpu(names, arguments.device) else 0)


if __name__ == "__main__":
    main()
