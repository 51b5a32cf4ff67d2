"""Real processes, really killed: every recording resumes to the proof it would have had.

A process is killed with SIGKILL at a random moment, again and again, until it happens to finish. The moments are drawn
from a fixed seed, over the time an undisturbed recording takes here, so they fall anywhere: inside a step, a copy, a
hash, a half-written state, a row of the journal, an anchor whose receipt is not yet written down.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from pol import Proof, Recorder, SeedSource, TrainingSpec
from pol.anchorer import NoChain
from pol.data import Dataset, Samples
from pol.errors import RecordingError
from pol.journal import JOURNAL
from pol.machine import make_deterministic
from pol.proof import MANIFEST, TRANSCRIPT
from pol.relay import SPARE_BYTES
from pol.spec import TaskRef
from pol.store import write_atomically
from pol.transcript import Anchor
from tests.pol.programs import case
from tests.runs import SEED, small_spec

BEACON = SeedSource(kind="beacon", value=SEED, block=1)
RUNS = ["classifier", "convnet/cnn", "convnet/resnet20", "language/fp32", "language/fp16", "image-to-image/l1"]
KILLS_AT_LEAST = 300


class FileChain(NoChain):
    """A chain that outlives the processes: its anchors are in a file, written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def held(self) -> Sequence[Anchor]:
        rows = json.loads(self.path.read_bytes()) if self.path.exists() else []
        return [Anchor.from_json(row, where="chain") for row in rows]

    def anchor(self, first: int, count: int, root: bytes) -> Anchor:
        held = list(self.held())
        for anchor in held:
            if (anchor.first, anchor.count, anchor.root) == (first, count, root):
                return anchor
        assert first == sum(anchor.count for anchor in held), "never reordered, never twice"
        held.append(Anchor(first=first, count=count, root=root, block=10 + len(held), tx=bytes(32)))
        write_atomically(self.path, json.dumps([anchor.to_json() for anchor in held]).encode())
        return held[-1]


def the_run(name: str, data: Dataset) -> tuple[TrainingSpec, Samples]:
    task = TaskRef(chain_id=1, arena=bytes(20), task_id=1)
    if name == "classifier":
        return replace(small_spec(data, steps=48, segment_length=4), task=task), data
    which = case(name)
    return replace(which.spec(24, 2), task=task), which.samples


def record(spec: TrainingSpec, samples: Samples, folder: Path) -> None:
    """Language models are copied at boundaries as large ones are, the others are hashed in place as small ones are."""
    chain = FileChain(folder.with_suffix(".chain"))
    in_place = 0 if "language" in spec.program else SPARE_BYTES
    with (
        patch("pol.recorder.SPARE_BYTES", in_place),
        Recorder(spec, folder, seed_source=BEACON, anchorer=chain, anchor_every=2) as recorder,
    ):
        state = recorder.program.build(spec.config, recorder.seed)
        recorder.attach(
            model=state.model, optimizer=state.optimizer, scheduler=state.scheduler, scaler=state.scaler, ema=state.ema
        )
        for batch in recorder.batches(samples):
            recorder.step(recorder.program.train_step(recorder.state, batch))


def in_child(action: Callable[[], None], kill_after: float | None = None) -> int:
    """Run ``action`` in a forked process; returns its status: 0, 1 after an exception, or minus the signal's number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            make_deterministic(1)
            action()
            status = 0
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def files(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in (MANIFEST, TRANSCRIPT)]


def kill_until_done(run: Callable[[Path], None], folder: Path, span: float, moments: random.Random) -> int:
    """Record into ``folder``, killed at random moments at most five times, then left alone; returns the kills."""
    kills = 0
    while kills < 5:
        status = in_child(lambda: run(folder), kill_after=moments.uniform(0, 1.1 * span))
        assert status in (0, -signal.SIGKILL), "what was left did not resume"
        finished = (folder / MANIFEST).exists() and not (folder / JOURNAL).exists()
        if status == 0 or finished:
            return kills
        kills += 1
    assert in_child(lambda: run(folder)) == 0
    return kills


def killed(name: str, data: Dataset, folder: Path, kills: int) -> int:
    """Kill recordings of one program until at least ``kills`` were killed; each must end in the undisturbed proof."""
    spec, samples = the_run(name, data)
    assert samples.root

    def run(out: Path) -> None:
        record(spec, samples, out)

    start = time.monotonic()
    assert in_child(lambda: run(folder / "whole")) == 0
    span, moments, done, number = time.monotonic() - start, random.Random(name), 0, 0
    while done < kills:
        number += 1
        done += kill_until_done(run, folder / str(number), span, moments)
        assert files(folder / str(number)) == files(folder / "whole")
        Proof.read(folder / str(number))
    return done


@pytest.mark.parametrize("name", ["classifier", "language/fp16"])
def test_a_few_kills(name: str, train_set: Dataset, tmp_path: Path) -> None:
    assert killed(name, train_set, tmp_path, 6) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_three_hundred_kills(name: str, train_set: Dataset, tmp_path: Path) -> None:
    """Over all programs together."""
    assert killed(name, train_set, tmp_path, KILLS_AT_LEAST // len(RUNS)) >= KILLS_AT_LEAST // len(RUNS)


def too_large(limit: int, action: Callable[[], None]) -> None:
    """Run ``action`` where no file may grow over ``limit`` bytes, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with pytest.raises(RecordingError, match="cannot be written"):
        action()


@pytest.mark.parametrize("limit", [10, 1_500, 3_000, 20_000])
def test_what_cannot_be_written_is_said_and_resumed(train_set: Dataset, tmp_path: Path, limit: int) -> None:
    spec, samples = the_run("classifier", train_set)
    whole, folder = tmp_path / "whole", tmp_path / "proof"
    assert in_child(lambda: record(spec, samples, whole)) == 0
    assert in_child(lambda: too_large(limit, lambda: record(spec, samples, folder))) == 0
    assert not (folder / MANIFEST).exists()
    assert in_child(lambda: record(spec, samples, folder)) == 0
    assert files(folder) == files(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 160 KB, which the kept states do not fit into."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(folder)], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_that_is_made_larger(train_set: Dataset, tmp_path: Path, small_disk: Path) -> None:
    spec, samples = the_run("classifier", train_set)
    assert in_child(lambda: record(spec, samples, tmp_path / "whole")) == 0

    def full() -> None:
        with pytest.raises(RecordingError, match="No space left"):
            record(spec, samples, small_disk / "proof")

    assert in_child(full) == 0
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert in_child(lambda: record(spec, samples, small_disk / "proof")) == 0
    assert files(small_disk / "proof") == files(tmp_path / "whole")
