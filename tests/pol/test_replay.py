"""Replay is bitwise, happens elsewhere, and runs only what it is told to trust."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pol import Proof
from pol.data import Dataset, digits
from pol.errors import CannotRun, ProofError, SpecError
from pol.machine import this_machine
from pol.program import load_program, program_digest
from pol.proof import states_of
from pol.replay import Branch, Job, ReplayProcess, Span, WorkerLost, replay
from pol.state import from_safetensors, to_safetensors
from pol.tensors import tensors_digest

FOREIGN = """
import os
os.environ["UNTRUSTED_CODE_RAN"] = "1"
from pol.programs.classifier import ImageClassifier as Program
"""

ENDLESS = """
from pol.programs.classifier import ImageClassifier
class Program(ImageClassifier):
    def train_step(self, state, batch):
        while True: pass
"""


def test_replay_reaches_every_promised_digest(honest_run: Path, tmp_path: Path) -> None:
    proof, heard = Proof.read(honest_run), []
    middle = states_of(honest_run).path(proof.states[0].cid)
    emitted = tmp_path / "state"
    spans = [Span(first=0, last=3, emit={1: emitted}), Span(first=2, last=3, start=middle)]
    whole, half = replay(
        Job(spec=proof.spec, seed=proof.seed), spans, on_segment=lambda segment: heard.append(segment.index)
    )
    assert (whole.machine, whole.notes) == (this_machine(), ())
    assert heard == [0, 1, 2, 3, 2, 3]
    for result in (*whole.segments, *half.segments):
        promised = proof.segments[result.index]
        assert result.start_digest == promised.start_digest
        assert result.end_digest == promised.end_digest
        assert result.batch_root == promised.batch_root
    state = from_safetensors(emitted.read_bytes(), where="test")
    assert tensors_digest(state) == proof.segments[1].end_digest
    assert emitted.read_bytes() == middle.read_bytes()


def test_a_branch_of_the_trunks_own_program_is_the_trunk(honest_run: Path, tmp_path: Path) -> None:
    """It begins at the stored state after segment 1, and goes on in number from there."""
    proof = Proof.read(honest_run)
    length, start = proof.spec.segment_length, states_of(honest_run).path(proof.states[0].cid)
    branch = Branch(
        segment=1, steps=2 * length, wrapper="tests.pol.programs:unchanged",
        payload={"allowed": [2 * length, 4 * length]},
    )  # fmt: skip
    job, span = Job(spec=proof.spec, seed=proof.seed, branch=branch), Span(first=2, last=2, start=start)
    ((result,),) = [found.segments for found in replay(job, [span])]
    assert (result.start_digest, result.end_digest) == (proof.segments[2].start_digest, proof.segments[3].end_digest)
    (refused,) = replay(replace(job, branch=replace(branch, payload={"allowed": []})), [span])
    assert refused.problem == "not allowed" and not refused.segments
    with pytest.raises(CannotRun, match="nowhere"):
        replay(replace(job, branch=replace(branch, wrapper="nowhere:at_all")), [span])


def test_another_seed_replays_to_something_else(honest_run: Path) -> None:
    proof = Proof.read(honest_run)
    (result,) = replay(Job(spec=proof.spec, seed=bytes(32)), [Span(first=0, last=0)])
    assert result.segments[0].start_digest != proof.segments[0].start_digest
    assert result.segments[0].batch_root != proof.segments[0].batch_root


def test_a_state_of_another_step_is_a_problem_of_its_span_alone(honest_run: Path) -> None:
    proof = Proof.read(honest_run)
    path = states_of(honest_run).path(proof.states[0].cid)
    bad, good = replay(
        Job(spec=proof.spec, seed=proof.seed), [Span(first=1, last=1, start=path), Span(first=0, last=0)]
    )
    assert bad.problem and not bad.segments
    assert good.problem is None and good.segments[0].end_digest == proof.segments[0].end_digest


def test_the_data_set_must_be_the_committed_one(honest_run: Path, tmp_path: Path, train_set: Dataset) -> None:
    proof = Proof.read(honest_run)
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_bytes(train_set.to_bytes())
    wrong.write_bytes(digits("submission-validation").to_bytes())
    (result,) = replay(Job(spec=proof.spec, seed=proof.seed, dataset=right), [Span(first=0, last=0)])
    assert result.segments[0].end_digest == proof.segments[0].end_digest
    with pytest.raises(CannotRun, match="not the committed one"):
        replay(Job(spec=proof.spec, seed=proof.seed, dataset=wrong), [Span(first=0, last=0)])


def test_a_spec_that_cannot_be_built_is_the_provers_fault(honest_run: Path) -> None:
    proof = Proof.read(honest_run)
    spec = replace(proof.spec, config=proof.spec.config | {"width": 10**9})
    (result,) = replay(Job(spec=spec, seed=proof.seed), [Span(first=0, last=0)])
    assert result.problem and "too large" in result.problem
    with pytest.raises(ProofError, match="dataset_size"):
        replay(Job(spec=replace(proof.spec, dataset_size=999), seed=proof.seed), [Span(first=0, last=0)])


@pytest.mark.parametrize("change", [{"inputs": 63}, {"classes": 2}], ids=str)
def test_a_program_that_fails_on_its_spec_is_a_problem_not_an_accident(honest_run: Path, change: dict) -> None:
    proof = Proof.read(honest_run)
    spec = replace(proof.spec, config=proof.spec.config | change)
    (result,) = replay(Job(spec=spec, seed=proof.seed), [Span(first=0, last=0)])
    assert result.problem and "the program failed" in result.problem and not result.malformed


def test_a_data_set_that_is_not_here_is_not_the_provers_fault(honest_run: Path, tmp_path: Path) -> None:
    proof = Proof.read(honest_run)
    with pytest.raises(CannotRun, match="not to be had"):
        replay(
            Job(spec=replace(proof.spec, dataset="imagenet", dataset_root=bytes(32)), seed=proof.seed),
            [Span(first=0, last=0)],
        )
    (tmp_path / "junk").write_bytes(b"junk")
    with pytest.raises(CannotRun, match="not to be had"):
        replay(Job(spec=proof.spec, seed=proof.seed, dataset=tmp_path / "junk"), [Span(first=0, last=0)])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bits_twice(honest_run: Path) -> None:
    proof = Proof.read(honest_run)
    once, again = replay(Job(spec=proof.spec, seed=proof.seed, device="cuda"), [Span(first=0, last=3)] * 2)
    assert once.problem is None and once.machine == this_machine(device="cuda")
    assert once.segments == again.segments and len(once.segments) == 4


def test_nothing_outlives_a_killed_worker(honest_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "endless_program.py").write_text(ENDLESS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    proof, digest = Proof.read(honest_run), program_digest("endless_program:Program")
    spec = replace(proof.spec, program="endless_program:Program", program_digest=digest)
    with ReplayProcess(Job(spec=spec, seed=proof.seed, trusted=frozenset({digest}))) as process:
        children: list[int] = []

        def kill() -> None:
            children.extend(wait_for(lambda: children_of(process.pid)))
            os.kill(process.pid, signal.SIGKILL)

        with ThreadPoolExecutor(1) as threads:
            killing = threads.submit(kill)
            with pytest.raises(WorkerLost, match="-9"):
                process.replay(Span(first=0, last=0))
            killing.result()
    assert children and wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # processes come and go
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def wait_for(ready: Callable[[], Any]) -> Any:
    """What ``ready`` gives once it is true; a minute is for ever."""
    until = time.monotonic() + 60
    while not (found := ready()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "foreign_program.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("UNTRUSTED_CODE_RAN", raising=False)
    sys.modules.pop("foreign_program", None)
    return "foreign_program:Program"


def test_an_untrusted_program_is_not_even_imported(foreign: str) -> None:
    with pytest.raises(CannotRun, match="--trust-program 0x"):
        load_program(foreign, bytes(32))
    with pytest.raises(CannotRun, match="source digest"):
        load_program(foreign, bytes(32), trusted=frozenset({bytes(32)}))
    assert "UNTRUSTED_CODE_RAN" not in os.environ, "code ran before its digest was compared"


def test_a_program_in_a_package_is_refused_because_the_package_would_run_first() -> None:
    with pytest.raises(SpecError, match="top-level"):
        load_program("os.path:join", bytes(32), trusted=frozenset({bytes(32)}))


def test_a_trusted_program_replays(foreign: str, honest_run: Path) -> None:
    proof = Proof.read(honest_run)
    digest = program_digest(foreign)
    spec = replace(proof.spec, program=foreign, program_digest=digest)
    with pytest.raises(CannotRun, match="not trusted"):
        replay(Job(spec=spec, seed=proof.seed), [Span(first=0, last=0)])
    (result,) = replay(Job(spec=spec, seed=proof.seed, trusted=frozenset({digest})), [Span(first=0, last=0)])
    assert result.segments[0].end_digest == proof.segments[0].end_digest


def test_a_built_in_program_of_another_version_is_not_run() -> None:
    with pytest.raises(CannotRun, match="source digest"):
        load_program("pol.programs.classifier:ImageClassifier", bytes(32))


def test_states_are_written_the_same_way_twice(honest_run: Path) -> None:
    proof = Proof.read(honest_run)
    blob = states_of(honest_run).get(proof.states[0].cid)
    assert to_safetensors(from_safetensors(blob, where="test")) == blob
