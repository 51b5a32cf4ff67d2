"""A few steps of built-in programs and the digests of their states, in one process or, as a command, in another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from pol import exact
from pol.tensors import tensors_digest
from tests.pol.programs import case
from tests.runs import SEED

RUNS = ["convnet/cnn", "language/fp32"]
STEPS = 2


def digests(*, exactly: bool, channels_last: bool = False) -> dict[str, str]:
    """The digest of every run's state after ``STEPS`` steps."""
    return {name: _digest(name, exactly, channels_last) for name in RUNS}


def digests_elsewhere(*, threads: int = 1, **environment: str) -> dict[str, dict[str, str]]:
    """:func:`digests`, exact and native, of a process with ``threads`` and these environment variables."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.pol.portable.training", str(threads)], check=True, capture_output=True,
        text=True, cwd=Path(__file__).parents[3], env=os.environ | environment,
    )  # fmt: skip
    found: dict[str, dict[str, str]] = json.loads(result.stdout)
    return found


def _digest(name: str, exactly: bool, channels_last: bool) -> str:
    program = case(name)
    with exact() if exactly else nullcontext():
        state = program.build()
        if channels_last:
            state.model.to(memory_format=torch.channels_last)
        program.train(state, STEPS)
    return tensors_digest(state.capture(SEED)).hex()


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps({"exact": digests(exactly=True), "native": digests(exactly=False)}))
