"""Case 27: part of a run shown as the whole, or two histories of one run, of which the convenient one is shown.

Source: chains of hashes whose end nobody promised: the first m leaves are a perfectly good log, so whatever happened
later was never said. A trainer stops when its held-out score is best, or anchors two forks and shows the one that
nobody challenges.

Here the number of steps is promised before the seed is known, anchors append on chain and nothing is ever replaced, and
the transcript digest folds all of them in order. A run may end early, but then it says so on chain: after that nothing
can be anchored, before it nothing counts as whole. (On chain: ``chain/contracts/test/attacks/TruncatedLog.t.sol``.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Proof, Recorder
from pol.data import Dataset
from pol.errors import RecordingError
from pol.proof import MANIFEST, STATES
from pol.spec import TrainingSpec
from pol.transcript import Stop, segment_tree
from tests.attacks.forging import copied, reanchored, trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.ring import SEGMENT_LENGTH, Ring, sign
from tests.chain.play import refused
from tests.runs import small_spec

KEPT = 2
"""The segments that are left of four promised ones."""


def cut(proof: Proof, *, declared: bool, spec: TrainingSpec | None = None) -> Proof:
    """The first segments of a proof as if there were no others: everything in it fits."""
    segments = proof.segments[:KEPT]
    anchors = tuple(anchor for anchor in proof.anchors if anchor.first + anchor.count <= KEPT)
    stop = Stop(segments=KEPT, block=0, tx=bytes(32)) if declared else None
    states = tuple(state for state in proof.states if state.step <= segments[-1].end_step)
    return replace(proof, segments=segments, anchors=anchors, states=states, stopped=stop, spec=spec or proof.spec)


def rewritten(folder: Path, change: Callable[[Proof], Proof]) -> Path:
    proof = change(Proof.read(folder))
    named = {state.cid for state in proof.states}
    for path in (folder / STATES).iterdir():
        if path.stem not in named:
            path.unlink()
    proof.write(folder)
    return folder


# Without a chain


def test_the_first_segments_are_not_the_run(honest_run: Path, tmp_path: Path) -> None:
    folder = rewritten(copied(honest_run, tmp_path / "proof"), lambda proof: cut(proof, declared=False))
    rejected(judged(folder), ExitCode.MALFORMED, "2 segments where the spec promises 4")


def test_nor_with_another_number_of_steps(honest_run: Path, tmp_path: Path) -> None:
    """The spec itself made shorter is another spec, and another transcript than the one that was promised.

    Without a chain nobody can say when it was promised, and every such verdict says that; with one, see below.
    """
    before = Proof.read(honest_run)
    shorter = replace(before.spec, steps=20)
    folder = rewritten(copied(honest_run, tmp_path / "proof"), lambda proof: cut(proof, declared=False, spec=shorter))
    after = Proof.read(folder)
    assert after.spec.digest != before.spec.digest and after.transcript_digest != before.transcript_digest


def test_a_declared_stop_is_told_to_whoever_reads_the_verdict(honest_run: Path, tmp_path: Path) -> None:
    """Without a chain nobody knows when it was declared, but nobody overlooks it either."""
    folder = rewritten(copied(honest_run, tmp_path / "proof"), lambda proof: cut(proof, declared=True))
    verdict = judged(folder, Policy(segments=[0, 1]))
    assert verdict.exit_code is ExitCode.VERIFIED and verdict.total_segments == KEPT
    assert any("2 of 4 promised segments were trained" in limit for limit in verdict.limits)


@pytest.mark.parametrize("segments", [1, 3, 4, 5, 65_536])
def test_a_declaration_that_does_not_fit_is_refused(honest_run: Path, tmp_path: Path, segments: int) -> None:
    stop = Stop(segments=segments, block=0, tx=bytes(32))
    cut_short = lambda proof: replace(cut(proof, declared=False), stopped=stop)  # noqa: E731
    folder = rewritten(copied(honest_run, tmp_path / "proof"), cut_short)
    assert judged(folder).exit_code is ExitCode.MALFORMED


def test_a_whole_run_cannot_be_declared_shorter(honest_run: Path, tmp_path: Path) -> None:
    stop = Stop(segments=KEPT, block=0, tx=bytes(32))
    folder = rewritten(copied(honest_run, tmp_path / "proof"), lambda proof: replace(proof, stopped=stop))
    rejected(judged(folder), ExitCode.MALFORMED, "4 segments where the spec promises 2")


def test_a_recorder_that_is_left_early_leaves_no_proof(tmp_path: Path, train_set: Dataset) -> None:
    """Cutting silently is not even possible by accident."""
    spec = small_spec(train_set)
    early = pytest.raises(RecordingError, match="declare a shorter run")
    with early, Recorder(spec, tmp_path / "proof") as recorder:
        state = recorder.program.build(spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        for step, batch in enumerate(recorder.batches(train_set)):
            recorder.step(recorder.program.train_step(state, batch))
            if step == 20:
                break
    assert not (tmp_path / "proof" / MANIFEST).exists()


# With a chain


def against(ring: Ring, folder: Path, message: str) -> None:
    verdict = judged(folder, chain=ring.world.reader)
    rejected(verdict, ExitCode.ANCHOR, message)
    assert not verdict.segments, "what is not the registered run is not run"


def signed(ring: Ring, folder: Path, change: Callable[[Proof], Proof]) -> Path:
    return sign(rewritten(folder, change), ring.alice)


def test_a_stop_that_was_never_declared(ring: Ring, alices_run: Path, tmp_path: Path) -> None:
    """Signed by the trainer, and consistent in itself: the whole run is anchored, half of it is shown."""
    folder = signed(ring, copied(alices_run, tmp_path / "proof"), lambda proof: cut(proof, declared=True))
    assert judged(folder, Policy(segments=[0])).exit_code is ExitCode.VERIFIED, "without a chain nobody can tell"
    against(ring, folder, "the early stop is not what was declared on chain")


def test_a_promise_of_fewer_steps_made_afterwards(ring: Ring, alices_run: Path, tmp_path: Path) -> None:
    spec = replace(Proof.read(alices_run).spec, steps=KEPT * SEGMENT_LENGTH)
    folder = signed(ring, copied(alices_run, tmp_path / "proof"), lambda proof: cut(proof, declared=False, spec=spec))
    verdict = judged(folder, chain=ring.world.reader)
    rejected(verdict, ExitCode.MALFORMED, "the spec is not the one registered on chain")
    rejected(verdict, ExitCode.MALFORMED, "number of steps is not the task's")


def test_the_tail_that_was_not_anchored(ring: Ring, tmp_path: Path) -> None:
    """Anchors stop in silence: what comes after the last of them was promised by nobody, however well it replays."""
    with ring.world.wound_back():
        spec = ring.spec(ring.mallory)
        source = ring.register(ring.mallory, spec)
        states = trained_states(spec, ring.samples, seed=source.seed(spec))
        folder = write_forgery(tmp_path / "proof", spec, ring.samples, states, source=source)
        root = segment_tree(Proof.read(folder).segments[:KEPT]).root
        ring.mallory.arena.anchor(ring.run_of(ring.mallory), 0, KEPT, root)
        against(ring, sign(folder, ring.mallory), "the anchors are not those on chain")


def test_the_fork_that_was_not_anchored(ring: Ring, alices_run: Path, tmp_path: Path) -> None:
    """Another history of the same run, its first half shared: signed by the same trainer, so one of them is a lie."""

    def fork(proof: Proof) -> Proof:
        other = replace(proof.segments[2], end_digest=b"\1" * 32)
        after = replace(proof.segments[3], start_digest=b"\1" * 32)
        return replace(proof, segments=(*proof.segments[:2], other, after))

    folder = copied(alices_run, tmp_path / "proof")
    before = Proof.read(folder)
    pairs = zip(reanchored(fork(before)).anchors, before.anchors, strict=True)
    receipts = tuple(replace(new, block=old.block, tx=old.tx) for new, old in pairs)
    replace(fork(before), anchors=receipts).write(folder)
    against(ring, sign(folder, ring.alice), "the anchors are not those on chain")


def test_a_second_history_cannot_be_anchored(ring: Ring, alices_run: Path) -> None:
    """Neither over the first, nor after it; beside it only as another run, of another seed and with another bond."""
    spec, arena = Proof.read(alices_run).spec, ring.alice.arena
    with ring.world.wound_back():
        for first, count in ((0, 1), (3, 1), (4, 1), (0, 4)):
            refused("BadAnchor", arena.anchor, ring.run_of(ring.alice), first, count, b"\1" * 32)
        assert ring.register(ring.alice, spec).value != Proof.read(alices_run).seed_source.value


@pytest.fixture
def stopped(ring: Ring, tmp_path: Path) -> Iterator[Path]:
    """A run of Mallory's that was declared to end after two segments, on the chain as it was then."""
    with ring.world.wound_back():
        spec = ring.spec(ring.mallory)
        source = ring.register(ring.mallory, spec)
        yield ring.train(ring.mallory, spec, source, tmp_path / "stopped", stop_after=KEPT * SEGMENT_LENGTH)


def test_the_declared_stop_is_the_honest_twin(ring: Ring, stopped: Path) -> None:
    """Declared on chain before the folder was written; nothing is anchored after it."""
    verdict = judged(stopped, chain=ring.world.reader)
    assert verdict.exit_code is ExitCode.VERIFIED, verdict.findings
    assert dict(verdict.checks)["early stop"].startswith("declared on chain: after 2 segments")
    assert any("2 of 4 promised segments were trained" in limit for limit in verdict.limits)
    refused("BadAnchor", ring.mallory.arena.anchor, ring.run_of(ring.mallory), KEPT, 1, b"\1" * 32)


def test_the_receipt_is_the_chains(ring: Ring, stopped: Path) -> None:
    declared = Proof.read(stopped).stopped
    assert declared is not None
    for lie in (replace(declared, block=declared.block - 1), replace(declared, tx=b"\1" * 32)):
        sign(stopped, ring.mallory, stopped=lie)
        against(ring, stopped, "the early stop is not what was declared on chain")


def test_a_declared_stop_is_not_hidden(ring: Ring, stopped: Path) -> None:
    """What was shown is all there is to be, says the manifest: but the spec promises more."""
    sign(stopped, ring.mallory, stopped=None)
    rejected(judged(stopped, chain=ring.world.reader), ExitCode.MALFORMED, "2 segments where the spec promises 4")
