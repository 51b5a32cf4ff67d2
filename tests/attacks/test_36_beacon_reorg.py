"""Case 36: randomness that was read too early, from a block that the chain afterwards takes back.

Source: every chain reorganises at its end. A trainer who reads a beacon before it is final can train for it, and, if
the block goes away, has a run of a seed that nobody drew; one who can make the chain take blocks back chooses among
several.

The half that is seen here: nobody's word counts for a beacon, an anchor or a stop. A verdict compares each with what
the chain holds now, value and block, before anything is run; what a reorganisation took away is exit code 13, however
well it replays. When a beacon may be latched is the contract's affair (``Beacons.t.sol``; ``Runs.t.sol``:
``test_theSeedIsTheHashOfThePromisedBlock``): its block is fixed at registration, lies ahead then, and is read once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chain.commitments import run_beacon
from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Proof, Recorder, SeedSource
from pol.errors import ProofError, RecordingError
from pol.spec import TrainingSpec
from tests.attacks.forging import copied
from tests.attacks.judging import judged, rejected
from tests.attacks.ring import KEY_ROOT, SEGMENT_LENGTH, Ring, sign
from tests.chain.play import refused


class Interrupted(Exception):
    """Stands for whatever ends a loop in the middle."""


@pytest.fixture
def job(ring: Ring) -> Iterator[Ring]:
    """The task, in which Mallory has not registered yet; whatever a test does to the chain is taken back."""
    with ring.world.wound_back():
        yield ring


def not_on_chain(job: Ring, folder: Path, *messages: str) -> None:
    verdict = judged(folder, chain=job.world.reader)
    for message in messages:
        rejected(verdict, ExitCode.ANCHOR, message)
    assert not verdict.segments, "and nothing was run"


def trained(job: Ring, spec: TrainingSpec, source: SeedSource, folder: Path, **options: int) -> Path:
    return job.train(job.mallory, spec, source, folder, **options)


def anchored_again(job: Ring, folder: Path) -> None:
    """The same roots, in the blocks that came instead."""
    job.world.chain.mine(1)
    for anchor in Proof.read(folder).anchors:
        job.mallory.arena.anchor(job.run_of(job.mallory), anchor.first, anchor.count, anchor.root)


def test_the_beacon_was_taken_back(job: Ring, tmp_path: Path) -> None:
    """The run is registered before and after: the same spec, another block, another seed."""
    spec = job.spec(job.mallory)
    with job.world.wound_back():
        early = job.register(job.mallory, spec)
        folder = trained(job, spec, early, tmp_path / "proof")
        assert judged(folder, Policy(segments=[0]), chain=job.world.reader).exit_code is ExitCode.VERIFIED
    job.world.chain.mine(1)  # the chain goes another way
    late = job.register(job.mallory, spec)
    assert late.value != early.value
    not_on_chain(job, folder, "the seed's beacon is not the one latched", "the anchors are not those on chain")
    again = trained(job, spec, late, tmp_path / "again")
    verdict = judged(again, Policy(segments=[0]), chain=job.world.reader)
    assert verdict.exit_code is ExitCode.VERIFIED, "the honest twin"


def test_the_registration_was_taken_back(job: Ring, tmp_path: Path) -> None:
    spec = job.spec(job.mallory)
    with job.world.wound_back():
        folder = trained(job, spec, job.register(job.mallory, spec), tmp_path / "proof")
    not_on_chain(job, folder, "has registered no run")


@pytest.mark.parametrize("stop_after", [None, 2 * SEGMENT_LENGTH], ids=["anchors", "a stop"])
def test_what_followed_the_beacon_was_taken_back(job: Ring, tmp_path: Path, stop_after: int | None) -> None:
    """The beacon stands, what was promised after it does not, or came back in other blocks."""
    spec = job.spec(job.mallory)
    source = job.register(job.mallory, spec)
    with job.world.wound_back():
        folder = trained(job, spec, source, tmp_path / "proof", stop_after=stop_after)
    not_on_chain(job, folder, "the anchors are not those on chain")
    anchored_again(job, folder)
    not_on_chain(job, folder, "the anchors are not those on chain")
    if stop_after:
        not_on_chain(job, folder, "the early stop is not what was declared on chain")


def test_the_block_is_part_of_the_beacon(ring: Ring, alices_run: Path, tmp_path: Path) -> None:
    """The right value under another block is a lie about when it was drawn."""
    folder, source = copied(alices_run, tmp_path / "proof"), Proof.read(alices_run).seed_source
    for block in (source.block - 1, source.block + 1, 0):
        sign(folder, ring.alice, seed_source=replace(source, block=block))
        not_on_chain(ring, folder, "the seed's beacon is not the one latched on chain")


def test_nobody_latches_a_block_that_is_not_there(job: Ring) -> None:
    """Registered now, seeded by a block ahead: there is nothing to read early, and nothing to read twice."""
    arena, chain = job.mallory.arena, job.world.chain
    digest, bond = job.spec(job.mallory).digest, job.task.config.pay.run_bond
    run_id = arena.register_run(job.task.id, digest, KEY_ROOT, bond)
    registered = chain.block()
    refused("BeaconNotReady", arena.latch_beacon, run_id)
    chain.mine(2)
    value = arena.latch_beacon(run_id)
    block = arena.run(run_id).beacon.block
    assert block > registered and value == run_beacon(bytes(chain.web3.eth.get_block(block)["hash"]), run_id)
    refused("BeaconAlreadyRequested", arena.latch_beacon, run_id)


def test_a_run_without_its_beacon_cannot_be_recorded(job: Ring, tmp_path: Path) -> None:
    """A trainer who would begin before the draw has no seed to begin with."""
    with pytest.raises(ProofError, match="a run of a task has a beacon"):
        Recorder(job.spec(job.mallory), tmp_path / "proof", seed_source=SeedSource(kind="chosen", value=bytes(32)))


@pytest.mark.parametrize("left", [1, 0])
def test_a_trainer_hears_that_its_anchors_are_gone(job: Ring, tmp_path: Path, left: int) -> None:
    """A recording that resumes compares what it has promised with what the chain still holds."""
    spec = job.spec(job.mallory)
    source, anchorer = job.register(job.mallory, spec), job.anchorer(job.mallory)

    def train(anchors: int) -> None:
        """Until so many segments are anchored."""
        with Recorder(spec, tmp_path / "proof", seed_source=source, anchorer=anchorer, anchor_every=1) as recorder:
            state = recorder.program.build(spec.config, recorder.seed)
            recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
            for batch in recorder.batches(job.samples):
                if recorder.state.step == anchors * SEGMENT_LENGTH + 1:
                    while len(recorder.proof.anchors) < anchors:
                        time.sleep(0.01)
                    raise Interrupted
                recorder.step(recorder.program.train_step(state, batch))

    if left:
        with pytest.raises(Interrupted):
            train(left)
    with job.world.wound_back(), pytest.raises(Interrupted):
        train(3)
    assert len(job.world.reader.arena.anchors(job.run_of(job.mallory))) == left
    with pytest.raises(RecordingError, match="the chain holds other anchors"):
        train(4)
