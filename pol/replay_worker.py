"""The process behind :mod:`pol.replay`: reads one job from standard input, writes one JSON line a segment."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pol.data import Dataset, batch_root, built_in
from pol.encoding import Json, from_hex, to_hex
from pol.errors import CannotRun, ProofError, SpecError
from pol.machine import MachineClass, make_deterministic
from pol.order import DataOrder
from pol.program import load_program
from pol.spec import TrainingSpec
from pol.state import from_safetensors, to_safetensors
from pol.tensors import tensors_digest


def _work(job: dict[str, Any]) -> Iterator[dict[str, Json]]:
    spec = TrainingSpec.from_json(job["spec"])
    seed = from_hex(job["seed"], where="job.seed")
    trusted = frozenset(from_hex(value, where="job.trusted") for value in job["trusted"])
    make_deterministic(MachineClass.from_json(spec.machine, where="spec.machine").threads)
    program = load_program(spec.program, spec.program_digest, trusted=trusted)
    dataset = Dataset.from_bytes(Path(job["dataset"]).read_bytes()) if job["dataset"] else built_in(spec.dataset)
    if dataset.root != spec.dataset_root:
        raise CannotRun(f"the data set {spec.dataset} here is not the one the spec commits to; give the right one")
    if len(dataset) != spec.dataset_size:
        raise ProofError(
            f"spec: dataset_size is {spec.dataset_size}, the committed data set has {len(dataset)} samples"
        )
    order = DataOrder(seed, spec.dataset_size, spec.batch_size)
    state = program.build(spec.config, seed)
    if job["start"]:
        loaded = from_safetensors(Path(job["start"]).read_bytes(), where="start state")
        state.restore(loaded, seed=seed, step=spec.bounds(job["first"])[0])
    started = state.capture(seed)
    digest_now = started_digest = tensors_digest(started)
    if str(job["first"] - 1) in job["emit"]:
        Path(job["emit"][str(job["first"] - 1)]).write_bytes(to_safetensors(started))
    for index in range(job["first"], job["last"] + 1):
        start, end = spec.bounds(index)
        for step in range(start, end):
            state.key_generators(seed)
            program.train_step(state, dataset.batch(order.batch(step)))
            state.step = step + 1
        tensors = state.capture(seed)
        before, digest_now = digest_now, tensors_digest(tensors)
        if str(index) in job["emit"]:
            Path(job["emit"][str(index)]).write_bytes(to_safetensors(tensors))
        root = batch_root(dataset, [order.batch(step) for step in range(start, end)], start)
        yield {
            "index": index,
            "start_digest": to_hex(before),
            "end_digest": to_hex(digest_now),
            "batch_root": to_hex(root),
        }
    if tensors_digest(started) != started_digest or (job["start"] and tensors_digest(loaded) != started_digest):
        raise CannotRun("the replay changed its own start state (a tensor is shared); report this as a bug")


def _main() -> None:
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr  # a program that prints must not be able to write results
    try:
        for row in _work(cast(dict[str, Any], json.load(sys.stdin))):
            print(json.dumps(row), file=out, flush=True)
    except SpecError as error:
        print(json.dumps({"error": "ProofError", "message": f"spec: {error}"}), file=out, flush=True)
    except (ProofError, CannotRun) as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}), file=out, flush=True)
    except Exception as error:
        print(json.dumps({"error": "CannotRun", "message": f"{type(error).__name__}: {error}"}), file=out, flush=True)


if __name__ == "__main__":
    _main()
