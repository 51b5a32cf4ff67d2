"""A hostile program in a replay: it may fail or be stopped, but not crash, hang or pass."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pol import Proof, confine
from pol.confine import Limits
from pol.data import Dataset
from pol.encoding import to_hex
from pol.errors import CannotRun
from pol.order import DataOrder
from pol.program import program_digest
from pol.replay import Job, ReplayedSpan, Span, replay
from pol.replay_program import Task
from pol.replay_worker import replay_span
from pol.tensors import tensors_digest

HOSTILE = """
import ctypes, faulthandler, mmap, os, signal, socket, struct, sys, threading, time
import torch
from pol.programs.classifier import ImageClassifier

class Program(ImageClassifier):
    def train_step(self, state, batch):
        deed()
        return super().train_step(state, batch)

def deed():
"""
ROW = json.dumps(
    {"index": 0, "start_digest": to_hex(bytes(32)), "end_digest": to_hex(bytes(32)), "batch_root": to_hex(bytes(32))}
)
EVERYWHERE = "for fd in range(3, 256):\n    try: os.write(fd, {})\n    except OSError: pass"
PATIENT = Limits(seconds=120)

Run = Callable[..., list[dict]]


@pytest.fixture
def run(honest_run: Path, train_set: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Replays the honest run's first segment with a program that does ``deed`` before every step; returns the rows."""
    proof = Proof.read(honest_run)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def rows(deed: str, limits: Limits = PATIENT, source: str = HOSTILE, device: str = "cpu") -> list[dict]:
        (tmp_path / "hostile.py").write_text(source + "".join(f"    {line}\n" for line in deed.splitlines()))
        digest = program_digest("hostile:Program")
        task = Task(
            spec=replace(proof.spec, program="hostile:Program", program_digest=digest),
            seed=proof.seed,
            samples=train_set,
            order=DataOrder(proof.seed, proof.spec.dataset_size, proof.spec.batch_size),
            program=None,
            trusted=frozenset({digest}),
            device=device,
            limits=limits,
        )
        with (tmp_path / "rows").open("w") as out:
            found = list(replay_span(task, {"first": 0, "last": 0, "start": None, "emit": {}}, out))
        assert (tmp_path / "rows").read_text() == ""
        return found

    return rows


def passed(rows: list[dict], honest_run: Path) -> bool:
    promised = Proof.read(honest_run).segments[0]
    return rows[-1] == {"done": True} and [row["end_digest"] for row in rows[1:-1]] == [to_hex(promised.end_digest)]


@pytest.mark.parametrize(
    "deed",
    [
        "pass",
        "print('{\"index\": 0}'); sys.stdout.flush(); os.write(1, b'x'); os.write(2, b'x')",
        "assert sys.stdin.read() == '' and os.read(0, 1) == b''",
        "threading.Thread(target=lambda: time.sleep(10**6)).start()",
        "open('scratch', 'w').write('x')",
        "open('/dev/null', 'w').write('x')",
    ],
)
def test_what_does_no_harm_passes(run: Run, honest_run: Path, deed: str) -> None:
    assert passed(run(deed), honest_run)


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("os._exit(0)", "exit code 0"),
        ("os._exit(3)", "exit code 3"),
        ("os.fork()", "starts no process"),
        ("while True: os.fork()", "starts no process"),
        ("os.posix_spawn('/bin/true', ['true'], {})", "starts no process"),
        ("os.execv('/bin/true', ['true'])", "starts no process"),
        ("socket.socket(socket.AF_UNIX)", "no network"),
        ("os.kill(os.getppid(), signal.SIGKILL)", "not permitted"),
        ("os.killpg(0, signal.SIGKILL)", "not permitted"),
        ("os.kill(-1, signal.SIGKILL)", "not permitted"),
        ("open(f'/proc/{os.getppid()}/mem', 'wb')", "Permission denied"),
        ("open('/tmp/out-of-bounds', 'w')", "Permission denied"),
        ("open('../rows', 'a')", "Permission denied"),
        ("open('huge', 'wb').write(bytes(2**21))", "File too large"),
        ("[os.dup(1) for _ in range(10**6)]", "Too many open files"),
        ("torch.empty(25 * 10**9)", "--max-memory"),
        ("bytearray(10**11)", "--max-memory"),
        ("block = mmap.mmap(-1, 2**29)\nfor i in range(0, 2**29, 4096): block[i] = 1\ntime.sleep(60)", "--max-memory"),
        ("os.closerange(0, 1000); time.sleep(10**6)", "meddled"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_ends_the_replay(run: Run, deed: str, message: str) -> None:
    limits = Limits(seconds=120, memory=2**28, file_size=2**20)
    end = run(deed, limits)[-1]
    assert end["error"] == "CannotRun", "this machine's limit is not the trainer's fraud"
    assert message in end["message"]


@pytest.mark.parametrize(
    ("deed", "limits", "option"),
    [
        ("pass", Limits(seconds=1e-3), "--max-seconds"),
        ("torch.zeros(2**26)", Limits(memory=2**20), "--max-memory"),
    ],
)
def test_a_limit_that_an_honest_program_reaches_is_this_machines(
    run: Run, deed: str, limits: Limits, option: str
) -> None:
    assert "error" not in run(deed)[-1]
    end = run(deed, limits)[-1]
    assert end["error"] == "CannotRun" and option in end["message"]


def test_a_device_that_is_not_here_is_this_machines(run: Run) -> None:
    (end,) = run("pass", device="cuda:999")
    assert end["error"] == "CannotRun" and "is not here" in end["message"]


UNSPEAKABLE = "class Unspeakable(Exception):\n    def __str__(self):\n        while True: pass\nraise Unspeakable"


@pytest.mark.parametrize(
    "deed", ["while True: pass", "time.sleep(10**6)", "os.kill(os.getpid(), signal.SIGSTOP)", UNSPEAKABLE]
)
def test_what_never_ends_is_ended(run: Run, deed: str) -> None:
    end = run(deed, Limits(seconds=1))[-1]
    assert end["error"] == "CannotRun" and "--max-seconds" in end["message"]


@pytest.mark.parametrize("deed", ["raise SystemExit(0)", "raise KeyboardInterrupt", "1 / 0", "sys.exit()"])
def test_a_program_that_raises_is_the_proofs_problem(run: Run, deed: str) -> None:
    assert run(deed)[-1]["error"] == "ProgramFailed"


@pytest.mark.parametrize(
    "deed", ["os.kill(os.getpid(), signal.SIGKILL)", "faulthandler.disable(); ctypes.string_at(0)"]
)
def test_a_killed_process_is_a_lost_one(run: Run, deed: str) -> None:
    assert run(deed)[-1]["error"] == "WorkerLost"


def test_what_runs_while_the_module_loads_is_confined_too(run: Run) -> None:
    for line, message in (("socket.socket()", "no"), ("os._exit(0)", "exit code 0"), ("sys.exit()", "exits")):
        (end,) = run("pass", source=HOSTILE.replace("import torch", line))
        assert end["error"] == "CannotRun" and message in end["message"]


def test_no_connection_leaves_the_process(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        end = run(f"socket.create_connection(('127.0.0.1', {port}), 5)")[-1]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
        with socket.create_connection(("127.0.0.1", port), 5):
            server.setblocking(True)
            server.accept()
    assert end["error"] == "CannotRun"


def replay_with(deed: str, honest_run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ReplayedSpan:
    """The whole way, in a worker process that holds nothing but its own pipes."""
    (folder / "hostile.py").write_text(HOSTILE + "".join(f"    {line}\n" for line in deed.splitlines()))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    digest = program_digest("hostile:Program")
    proof = Proof.read(honest_run)
    spec = replace(proof.spec, program="hostile:Program", program_digest=digest)
    (span,) = replay(
        Job(spec=spec, seed=proof.seed, trusted=frozenset({digest}), limits=PATIENT), [Span(first=0, last=0)]
    )
    return span


def test_a_program_cannot_write_results(honest_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deed = EVERYWHERE.format(f"{ROW!r}.encode() * 100")
    with pytest.raises(CannotRun, match="meddled"):
        replay_with(deed, honest_run, tmp_path, monkeypatch)


def test_a_state_is_all_that_a_program_hands_over(
    honest_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest is worked out elsewhere, so a program that is no training is found out like any other training."""
    state = "from safetensors.torch import save\nstate = save({'model/x': torch.zeros(1)})\n"
    deed = state + EVERYWHERE.format("struct.pack('<cQ', b's', len(state)) + state") + "\nos._exit(0)"
    (segment,) = replay_with(deed, honest_run, tmp_path, monkeypatch).segments
    assert segment.end_digest == tensors_digest({"model/x": torch.zeros(1)})


@pytest.mark.parametrize("name", ["filter_system_calls", "_leave_network", "_keep_out_of_files"])
def test_what_the_kernel_refuses_is_said(
    run: Run, honest_run: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert run("pass")[0]["notes"] == []
    monkeypatch.setattr(confine, name, lambda *_: "refused in this test")
    rows = run("pass")
    assert passed(rows, honest_run)
    network_left = name == "_leave_network"  # the filter of system calls is enough
    assert ("refused in this test" in str(rows[0]["notes"])) != network_left
