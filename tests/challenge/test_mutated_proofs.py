"""Broken proofs by the thousand: no crash, no hang, little memory, and never a pass."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account import Account

from challenge import verify as engine
from challenge.segments import Policy
from challenge.signing import sign_proof
from challenge.verdict import ExitCode
from pol import Recorder, SeedSource, seal
from pol.data import Dataset
from pol.opening import open_segments
from pol.spec import TaskRef
from tests.challenge.mutators import MUTATORS, Files
from tests.runs import SEED, branch, small_spec

SECONDS_A_PROOF = 20
MEMORY_BYTES = 512 * 2**20
ROOT = Path(__file__).resolve().parents[2]


class ReachedReplayError(Exception):
    """Every check before replay was passed."""


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, train_set: Dataset) -> Path:
    """A proof with everything in it: a task, a signature, two submissions, opened states."""
    account, folder = Account.from_key(b"\1" * 32), tmp_path_factory.mktemp("signed") / "proof"
    spec = replace(
        small_spec(train_set, steps=10, segment_length=2, width=8),
        task=TaskRef(chain_id=1, arena=bytes(20), task_id=1),
        trainer=bytes.fromhex(account.address[2:]),
    )
    source = SeedSource(kind="beacon", value=SEED, block=1)
    with Recorder(spec, folder, seed_source=source) as recorder:
        state = recorder.program.build(spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        for batch in recorder.batches(train_set):
            recorder.step(recorder.program.train_step(state, batch))
    first, last = (branch(folder, segment) for segment in (2, 4))
    seal(folder, *last, lambda proof: sign_proof(proof, account), earlier=[first])
    open_segments(folder, [1])
    return folder


def read(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder: Path, files: Files, before: Files) -> None:
    """Make ``folder`` hold ``files``, knowing that it holds ``before``."""
    for name in before.keys() - files.keys():
        (folder / name).unlink()
    for name, data in files.items():
        if before.get(name) != data:
            (folder / name).write_bytes(data)


@contextmanager
def in_time() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError("a broken proof took too long")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS_A_PROOF)
    try:
        yield
    finally:
        signal.alarm(0)


def mutate_many(signed: Path, folder: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Verify ``count`` broken copies up to their replay, and count what came out."""

    def stop(*_: object) -> None:
        raise ReachedReplayError

    monkeypatch.setattr(engine, "replay_sample", stop)
    whole, draw, outcomes = read(signed), random.Random(count), Counter[str]()
    (folder / "states").mkdir(parents=True)
    held: Files = {}
    for _ in range(count):
        files = dict(whole)
        for _ in range(draw.choice([1, 1, 1, 2, 3])):
            draw.choice(MUTATORS)(files, draw)
        write(folder, files, held)
        held = files
        with in_time():
            try:
                verdict = engine.verify(folder, Policy())
            except ReachedReplayError:
                # Only the unsigned list of opened states may differ, and then in nothing but which it names.
                assert {name: files[name] for name in files if name != "openings.json"}.items() <= whole.items()
                outcomes["unbroken"] += 1
                continue
        assert verdict.exit_code is ExitCode.MALFORMED
        assert verdict.findings and all(finding.message for finding in verdict.findings)
        outcomes["malformed"] += 1
    return outcomes


def test_the_unbroken_proof_reaches_its_replay(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "replay_sample", lambda *_: (_ for _ in ()).throw(ReachedReplayError))
    with pytest.raises(ReachedReplayError):
        engine.verify(signed, Policy())


def test_broken_proofs_are_malformed(signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = mutate_many(signed, tmp_path / "proof", 1_000, monkeypatch)
    assert outcomes["malformed"] > 900


@pytest.mark.slow
def test_a_hundred_thousand_broken_proofs(signed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = mutate_many(signed, tmp_path / "proof", 100_000, monkeypatch)
    assert outcomes["malformed"] > 90_000
    status = Path("/proc/self/status").read_text()
    assert int(status.partition("VmHWM:")[2].split()[0]) * 1024 < 2 * MEMORY_BYTES, "nothing of them stays"


WITH_PEAK = """
import atexit, sys
from pathlib import Path

@atexit.register
def peak():
    print("PEAK", Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0], file=sys.stderr)

from challenge.cli import main
main()
"""


def whole_command(folder: Path) -> tuple[int, str, int]:
    """``challenge verify --json``: its exit code, what it printed, its peak memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", WITH_PEAK, "verify", str(folder), "--json", "--segments", "2"],
        check=False, capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    peak = int(done.stderr.rpartition("PEAK ")[2].split()[0]) * 1024
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, peak


def command_many(signed: Path, folder: Path, count: int) -> None:
    whole, draw = read(signed), random.Random(-count)
    (folder / "states").mkdir(parents=True)
    held: Files = {}
    for _ in range(count):
        files = dict(whole)
        while files == whole or "openings.json" not in files or files["openings.json"] != whole["openings.json"]:
            files = dict(whole)
            draw.choice(MUTATORS)(files, draw)
        write(folder, files, held)
        held = files
        code, printed, peak = whole_command(folder)
        assert code == ExitCode.MALFORMED
        assert json.loads(printed)["exit_code"] == ExitCode.MALFORMED
        assert peak < MEMORY_BYTES


def test_a_few_broken_proofs_through_the_command(signed: Path, tmp_path: Path) -> None:
    command_many(signed, tmp_path / "proof", 3)


@pytest.mark.slow
def test_three_hundred_broken_proofs_through_the_command(signed: Path, tmp_path: Path) -> None:
    command_many(signed, tmp_path / "proof", 300)


def test_the_unbroken_proof_passes_the_command(signed: Path) -> None:
    code, _, _ = whole_command(signed)
    assert code == ExitCode.VERIFIED
