"""Exact numerics hold for ever: the digests on file come out on every machine, with any number of threads.

The proof in tests/golden/exact-v1 is replayed, and the built-in programs are trained for some steps. A change of any
bit is a change of what runs promised, and needs another version of the numerics (pol.spec.EXACT).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from challenge.segments import Policy
from challenge.verdict import ExitCode, Tier
from challenge.verify import verify
from pol import Proof, exact
from pol.encoding import to_hex
from pol.machine import EXACT_RELEASES, release_of
from pol.program import program_digest
from pol.spec import EXACT
from pol.state import model_tensors
from pol.tensors import tensors_digest
from tests.pol.programs import NAMES, case, tiny_base
from tests.runs import SEED

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests/golden/exact-v1"
DIGESTS = json.loads((ROOT / "tests/golden/exact-v1.json").read_text())
STEPS = 3

other_release = pytest.mark.skipif(
    release_of(torch.__version__) not in EXACT_RELEASES, reason="another release of torch than the numerics bind"
)


def trained(name: str) -> str:
    """The digest of the model's tensors after some exact steps, from data that exact() made too."""
    with exact():
        one = case(name)
        state = one.train(one.build(), STEPS)
        return to_hex(tensors_digest(model_tensors(state.capture(SEED))))


def adapted(folder: Path) -> str:
    """The same of LoRA adapters, of a base model that exact() drew into ``folder``."""
    with exact():
        tiny_base(folder)
    return trained("lora/tiny-llama")


@other_release
@pytest.mark.parametrize("name", DIGESTS["models"])
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_program_trains_to_the_digest_on_file(name: str, threads: int) -> None:
    torch.set_num_threads(threads)
    assert trained(name) == DIGESTS["models"][name]


@other_release
@pytest.mark.slow
@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_it_does_so_on_another_class_of_machine(capability: str) -> None:
    script = "import sys; from tests.pol.test_exact_golden import trained; print(*map(trained, sys.argv[1:]))"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "3", "MKL_CBWR": "COMPATIBLE"}
    command = [sys.executable, "-c", script, *DIGESTS["models"]]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(DIGESTS["models"].values())


@other_release
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_adapters_of_a_base_model_train_to_the_digest_on_file(threads: int, tmp_path: Path) -> None:
    torch.set_num_threads(threads)
    assert adapted(tmp_path) == DIGESTS["adapters"]["lora/tiny-llama"]


def test_every_program_that_needs_no_base_model_is_on_file() -> None:
    assert list(DIGESTS["models"]) == [name for name in NAMES if not name.startswith("lora/")]


@other_release
@pytest.mark.slow
def test_the_golden_proof_replays_anywhere() -> None:
    spec = Proof.read(FOLDER).spec
    if program_digest(spec.program) != spec.program_digest:
        pytest.skip("the built-in program has another source digest than the one the golden proof was recorded with")
    assert spec.numerics == EXACT
    verdict = verify(FOLDER, Policy(segments=None))
    assert (verdict.exit_code, verdict.tier) == (ExitCode.VERIFIED, Tier.EXACT), verdict.to_json()
    assert verdict.reproduction == DIGESTS["reproduction"]
