"""Case 37: nobody attacks, and an honest trainer is convicted: by a verifier that carries something from one check to
the next.

Source: a bug that bit in the measurements behind this project. ``optimizer.load_state_dict`` keeps the tensors it is
given, so replaying twice from one loaded checkpoint changed the checkpoint, and an honest run showed an error of 2.7.
The same happens with generators, thread counts, TF32, default dtypes and environment variables that an earlier replay,
or whoever calls the verifier, left behind. A trainer who can provoke it has a verifier that convicts the innocent.

Here every span is replayed in a process of its own, which inherits no generator, flag, tensor or variable; loaded
tensors are copied before anything trains on them; and the start state is hashed from what was loaded, in that process.
The honest twin is the same verdict from a clean process.
"""

from __future__ import annotations

import copy
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from challenge.segments import Policy
from challenge.verdict import ExitCode, Verdict
from challenge.verify import verify
from pol import Proof
from pol.data import Dataset
from pol.machine import DECIDING_VARIABLES, make_deterministic
from pol.order import DataOrder
from pol.program import program_digest
from pol.proof import MANIFEST, TRANSCRIPT, states_of
from pol.spec import TrainingSpec
from pol.state import Tensors, from_safetensors
from pol.tensors import tensors_digest
from tests.attacks.forging import built, copied, program_of, trained_states, write_forgery
from tests.attacks.judging import judged
from tests.runs import SEED, record, small_spec


def soil(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Leave this process as badly as an earlier check, or a careless caller, can leave it."""
    random.seed(666)
    np.random.seed(666)
    torch.manual_seed(666)
    np.seterr(all="raise")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(False)
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True
    for name in (*DECIDING_VARIABLES, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONOPTIMIZE", "PYTHONHASHSEED"):
        monkeypatch.setenv(name, {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}.get(name, "1"))
    for name in ("json", "random", "torch", "safetensors", "sitecustomize"):
        (folder / f"{name}.py").write_text("raise SystemExit('a module of the working folder was imported')")
    monkeypatch.chdir(folder)


@pytest.fixture
def soiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "cwd"
    folder.mkdir()
    errors = np.geterr()
    soil(monkeypatch, folder)
    yield
    np.seterr(**errors)
    make_deterministic(1)


def test_whatever_the_caller_left_behind_the_verdict_is_the_same(
    soiled: None, honest_run: Path, honest_verdict: Verdict
) -> None:
    """By the product's own worker, started from the soiled process."""
    verdict = verify(honest_run, Policy(segments=None))
    assert verdict.exit_code is ExitCode.VERIFIED, verdict.findings or verdict.undecided
    assert verdict.reproduction == honest_verdict.reproduction
    assert torch.get_default_dtype() is torch.float64 and torch.get_num_threads() == 2, "and it is left as it was"


def test_a_recorder_does_not_believe_its_process_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, honest_run: Path, train_set: Dataset
) -> None:
    """The same run out of a soiled process gives the same proof, byte for byte; what it cannot undo, it refuses."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    with monkeypatch.context() as patch:
        soil(patch, folder)
        for name in DECIDING_VARIABLES:
            patch.delenv(name)
        np.seterr(all="warn")
        record(small_spec(train_set), train_set, tmp_path / "proof")
    for name in (MANIFEST, TRANSCRIPT):
        assert (tmp_path / "proof" / name).read_bytes() == (honest_run / name).read_bytes()


def test_a_verification_changes_nothing_that_it_reads(honest_run: Path, tmp_path: Path) -> None:
    """Not a byte of the proof, which may be the only copy, and which the next verifier reads."""
    folder = copied(honest_run, tmp_path / "proof")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
    assert judged(folder).exit_code is ExitCode.VERIFIED
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    assert {path for path in folder.rglob("*") if path.is_file()} == set(before)


# In one process


@pytest.fixture(scope="module")
def checkpoint(honest_run: Path) -> Tensors:
    return from_safetensors(states_of(honest_run).get(Proof.read(honest_run).states[0].cid), where="test")


def replayed(spec: TrainingSpec, dataset: Dataset, tensors: Tensors, steps: int = 3) -> bytes:
    """The digest after a few steps from ``tensors``, which stand for a state in memory."""
    state, order, program = built(spec), DataOrder(SEED, len(dataset), spec.batch_size), program_of(spec)
    state.restore(tensors, layout=tensors, seed=SEED, step=20)
    for step in range(20, 20 + steps):
        state.key_generators(SEED)
        program.train_step(state, dataset.batch(order.batch(step)))
        state.step = step + 1
    return tensors_digest(state.capture(SEED))


def test_an_optimizer_keeps_what_it_is_given(train_set: Dataset) -> None:
    """The control: torch's own loading lets the next step write into the caller's checkpoint."""
    spec = small_spec(train_set)
    trained, loaded = built(spec), built(spec)
    program_of(spec).train_step(trained, train_set.batch(range(32)))
    kept = trained.optimizer.state_dict()
    before = copy.deepcopy(kept["state"][0]["exp_avg"])
    loaded.optimizer.load_state_dict(kept)
    program_of(spec).train_step(loaded, train_set.batch(range(32, 64)))
    assert not torch.equal(kept["state"][0]["exp_avg"], before), "one replay, and the checkpoint is another one"


def test_a_state_can_be_replayed_twice_from_memory(train_set: Dataset, checkpoint: Tensors) -> None:
    spec, before = small_spec(train_set), tensors_digest(checkpoint)
    first, again = (replayed(spec, train_set, checkpoint) for _ in range(2))
    assert first == again
    assert tensors_digest(checkpoint) == before, "the start state, hashed again after two replays"


def test_what_was_drawn_before_a_step_leaves_no_trace(train_set: Dataset, checkpoint: Tensors) -> None:
    """An evaluation, a plot, another replay: generators are keyed by (seed, step) before every step."""
    spec = small_spec(train_set)
    first = replayed(spec, train_set, checkpoint)
    random.random(), np.random.rand(7), torch.rand(1000)
    assert replayed(spec, train_set, checkpoint) == first


# In one worker

LEAKY = """
import os, random
import torch
from pol.programs.classifier import ImageClassifier

class Leaky(ImageClassifier):
    def build(self, config, seed):
        if hasattr(torch, "leaked") or "LEAKED" in os.environ or os.path.exists("leaked"):
            raise RuntimeError("an earlier span is still here")
        return super().build(config, seed)

    def train_step(self, state, batch):
        loss = super().train_step(state, batch)
        torch.leaked, os.environ["LEAKED"] = True, "1"
        open("leaked", "w").close()
        random.random = lambda: 4
        return loss
"""


@pytest.fixture
def leaky(tmp_path: Path, train_set: Dataset, monkeypatch: pytest.MonkeyPatch) -> Iterator[TrainingSpec]:
    (tmp_path / "leaky_program.py").write_text(LEAKY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    name = "leaky_program:Leaky"
    yield replace(small_spec(train_set, steps=6, segment_length=1), program=name, program_digest=program_digest(name))
    sys.modules.pop("leaky_program", None)


def test_a_program_leaves_nothing_to_the_next_span(leaky: TrainingSpec, train_set: Dataset, tmp_path: Path) -> None:
    """Patched modules, variables and files of one span: six spans, one worker, and each of them is the first."""
    plain = "pol.programs.classifier:ImageClassifier"
    honest = trained_states(replace(leaky, program=plain, program_digest=program_digest(plain)), train_set)
    folder = write_forgery(tmp_path / "proof", leaky, train_set, honest)
    verdict = judged(folder, Policy(segments=None, trusted=frozenset({leaky.program_digest})))
    assert verdict.exit_code is ExitCode.VERIFIED, verdict.findings
    assert not hasattr(torch, "leaked") and "LEAKED" not in os.environ


@pytest.mark.parametrize("segments", [[3], [0], [2, 3], [3, 0]], ids=str)
def test_the_order_of_checks_does_not_matter(honest_run: Path, segments: list[int]) -> None:
    """Again and again in one worker, from the middle and from the start: each verdict as if it were the first."""
    first, again = (judged(honest_run, Policy(segments=segments)) for _ in range(2))
    assert first.exit_code is again.exit_code is ExitCode.VERIFIED
    assert first.reproduction == again.reproduction
