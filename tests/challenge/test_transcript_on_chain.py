"""A proof's transcript against the chain's: early stops, dropped tails, forks, and receipts of another job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from chain.anchoring import RunAnchorer
from chain.client import ArenaClient
from chain.terms import Numerics
from chain.types import tokens
from challenge.onchain import check_run_on_chain
from challenge.verdict import ExitCode, Outcome, Verdict
from pol import Proof, SeedSource, TrainingSpec
from pol.machine import this_machine
from pol.merkle import merkle_root
from pol.proof import StoredState
from pol.spec import TaskRef, WatermarkPromise
from pol.transcript import Anchor, Segment, Stop, segment_tree
from tests.chain.play import Task, World, digest


@dataclass
class Job:
    """A task in its submission phase, and what its trainers record and anchor: made-up states, honest structure."""

    task: Task

    def record(self, index: int, *, anchored: int, stopped: bool) -> Proof:
        """Register trainer ``index``'s run, anchor its first segments, one at a time, and perhaps declare the stop."""
        client, config = self.task.world.clients[index], self.task.config
        spec = self._spec(client)
        run_id = client.arena.register_run(self.task.id, spec.digest, spec.watermark.key_root, config.pay.run_bond)
        self.task.chain.mine(2)
        client.arena.latch_beacon(run_id)
        beacon = client.arena.run(run_id).beacon
        segments = [_segment(spec, i, f"{client.address}") for i in range(anchored)]
        anchorer = RunAnchorer(client, run_id)
        anchors = [anchorer.anchor(i, 1, segment_tree(segments[i : i + 1]).root) for i in range(anchored)]
        stop = anchorer.stop(anchored) if stopped else None
        return Proof(
            spec=spec,
            seed_source=SeedSource(kind="beacon", value=beacon.value, block=beacon.block),
            segments=tuple(segments),
            anchors=tuple(anchors),
            states=(StoredState(step=min(anchored * config.work.segment_length, config.work.steps), cid="bafy"),),
            stopped=stop,
        )

    def verdict(self, proof: Proof) -> Verdict:
        verdict = Verdict()
        check_run_on_chain(proof, self.task.reader, verdict)
        return verdict

    def _spec(self, client: ArenaClient) -> TrainingSpec:
        deployment, work = self.task.world.deployment, self.task.config.work
        return TrainingSpec(
            program="made:up",
            program_digest=work.program_digest,
            config={},
            dataset="made/up",
            dataset_root=work.train_root,
            dataset_size=100,
            batch_size=10,
            steps=work.steps,
            segment_length=work.segment_length,
            machine=this_machine(threads=1).to_json(),
            trainer=bytes.fromhex(client.address[2:]),
            task=TaskRef(chain_id=deployment.chain_id, arena=bytes.fromhex(deployment.arena[2:]), task_id=self.task.id),
            watermark=WatermarkPromise(key_root=digest("key", client.address), parameters={}),
        )


def _segment(spec: TrainingSpec, index: int, label: str) -> Segment:
    start, end = spec.bounds(index)
    return Segment(
        index=index,
        start_step=start,
        end_step=end,
        start_digest=digest("state", label, index),
        end_digest=digest("state", label, index + 1),
        batch_root=digest("batches", label, index),
    )


@pytest.fixture(scope="module")
def job() -> Job:
    classes = merkle_root([this_machine(threads=1).digest])
    task = World().task(numerics=Numerics.MACHINE, classes_root=classes)  # four segments of ten steps
    for index in (1, 2, 3):
        task.trainer(index, tokens(1_000))
    task.to_submission()
    return Job(task)


@pytest.fixture(scope="module")
def stopped(job: Job) -> Proof:
    """Declared on chain after two segments of four."""
    return job.record(1, anchored=2, stopped=True)


@pytest.fixture(scope="module")
def whole(job: Job) -> Proof:
    """All four segments."""
    return job.record(2, anchored=4, stopped=False)


@pytest.fixture(scope="module")
def cut(job: Job) -> Proof:
    """Two segments anchored, and then silence."""
    return job.record(3, anchored=2, stopped=False)


def test_a_declared_stop_and_a_whole_run_are_what_the_chain_says(job: Job, stopped: Proof, whole: Proof) -> None:
    verdict = job.verdict(stopped)
    assert verdict.outcome is Outcome.VERIFIED and verdict.anchors_checked
    assert dict(verdict.checks)["early stop"].startswith("declared on chain: after 2 segments")
    verdict = job.verdict(whole)
    assert verdict.outcome is Outcome.VERIFIED
    assert "early stop" not in dict(verdict.checks)


SILENT: Stop | None = None


@pytest.mark.parametrize(
    "change",
    [
        lambda stop: SILENT,
        lambda stop: replace(stop, segments=stop.segments + 1),
        lambda stop: replace(stop, segments=stop.segments - 1),
        lambda stop: replace(stop, block=stop.block - 1),
        lambda stop: replace(stop, tx=bytes(32)),
    ],
    ids=["silent", "longer", "shorter", "earlier", "other transaction"],
)
def test_another_stop_than_the_declared_one_is_an_anchor_finding(
    job: Job, stopped: Proof, change: Callable[[Stop], Stop | None]
) -> None:
    assert stopped.stopped is not None
    verdict = job.verdict(replace(stopped, stopped=change(stopped.stopped)))
    assert verdict.exit_code is ExitCode.ANCHOR
    (finding,) = verdict.findings
    assert "early stop" in finding.message and not verdict.checks


def claimed(proof: Proof, segments: int) -> Proof:
    """The proof cut down to its first segments, with a stop in the transaction of their last anchor."""
    last = proof.anchors[segments - 1]
    return replace(
        proof,
        segments=proof.segments[:segments],
        anchors=proof.anchors[:segments],
        stopped=Stop(segments=segments, block=last.block, tx=last.tx),
    )


def test_a_stop_nobody_declared_is_an_anchor_finding(job: Job, cut: Proof) -> None:
    """Anchors and all are those on chain; only the declaration is missing there."""
    verdict = job.verdict(claimed(cut, 2))
    assert verdict.exit_code is ExitCode.ANCHOR
    (finding,) = verdict.findings
    assert "early stop" in finding.message and finding.message.endswith("chain: none)")


@pytest.mark.parametrize("segments", [1, 2, 3])
def test_a_dropped_tail_is_an_anchor_finding(job: Job, whole: Proof, segments: int) -> None:
    """Log truncation: a proof that is right in itself, of the first part of a longer run."""
    verdict = job.verdict(claimed(whole, segments))
    assert verdict.exit_code is ExitCode.ANCHOR
    messages = [finding.message for finding in verdict.findings]
    assert any("anchors" in message for message in messages) and any("early stop" in message for message in messages)


def fork(proof: Proof) -> Proof:
    """The last segment's other history, with anchors that fit: two roots for one job."""
    other = (*proof.segments[:-1], replace(proof.segments[-1], end_digest=digest("other")))
    anchors = (*proof.anchors[:-1], replace(proof.anchors[-1], root=segment_tree(other[-1:]).root))
    return replace(proof, segments=other, anchors=anchors)


def test_the_other_history_of_a_run_is_an_anchor_finding(job: Job, whole: Proof) -> None:
    verdict = job.verdict(fork(whole))
    assert verdict.exit_code is ExitCode.ANCHOR
    assert [finding.message for finding in verdict.findings] == ["the anchors are not those on chain"]


def stale(anchors: tuple[Anchor, ...], proof: Proof) -> Proof:
    """The proof under another run's receipts: blocks and transactions of anchors made for another job."""
    pairs = zip(proof.anchors, anchors, strict=True)
    return replace(proof, anchors=tuple(replace(mine, block=old.block, tx=old.tx) for mine, old in pairs))


def test_stale_anchors_of_another_run_are_an_anchor_finding(job: Job, stopped: Proof, cut: Proof) -> None:
    verdict = job.verdict(stale(cut.anchors, stopped))
    assert verdict.exit_code is ExitCode.ANCHOR
    assert [finding.message for finding in verdict.findings] == ["the anchors are not those on chain"]
    assert job.verdict(stale(stopped.anchors, stopped)).outcome is Outcome.VERIFIED


@pytest.mark.parametrize(
    "place", [{"chain_id": 1}, {"arena": bytes(20)}, {"task_id": 999}], ids=["chain", "arena", "task"]
)
def test_a_run_of_another_place_is_an_anchor_finding(job: Job, whole: Proof, place: dict[str, object]) -> None:
    """Stale-anchor replay: the same run and receipts, passed off as another job's."""
    assert whole.spec.task is not None
    elsewhere = replace(whole.spec, task=replace(whole.spec.task, **place))
    verdict = job.verdict(replace(whole, spec=elsewhere))
    assert verdict.exit_code is ExitCode.ANCHOR and not verdict.anchors_checked
