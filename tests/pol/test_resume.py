"""An interrupted recording resumes to the root it would have had, or says why it cannot."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pol import Proof, Recorder, SeedSource
from pol.anchorer import NoChain
from pol.data import Dataset
from pol.errors import RecordingError, Unreachable
from pol.journal import JOURNAL
from pol.proof import MANIFEST, TRANSCRIPT, states_of
from pol.spec import TaskRef, TrainingSpec
from pol.state import TrainingState
from pol.store import LocalStore
from pol.transcript import Anchor, Stop
from tests.runs import SEED, record, small_spec

CHOSEN = SeedSource(kind="chosen", value=SEED)
BEACON = SeedSource(kind="beacon", value=SEED, block=1)


class Interrupted(Exception):
    """Stands for whatever ends a loop in the middle."""


def train(recorder: Recorder, data: Dataset, before_step: Callable[[int, TrainingState], None] | None = None) -> None:
    state = recorder.program.build(recorder.spec.config, recorder.seed)
    recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
    for batch in recorder.batches(data):
        if before_step:
            before_step(recorder.state.step, state)
        recorder.step(recorder.program.train_step(state, batch))


def interrupt(spec: TrainingSpec, data: Dataset, out: Path, at: int, **options) -> None:
    def stop_here(step: int, _: TrainingState) -> None:
        if step == at:
            raise Interrupted

    with pytest.raises(Interrupted), Recorder(spec, out, **({"seed_source": CHOSEN} | options)) as recorder:
        train(recorder, data, stop_here)


def same_proof(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in (MANIFEST, TRANSCRIPT))


@pytest.mark.parametrize("at", [0, 5, 10, 19, 20, 25, 39])
def test_an_interrupted_run_resumes_to_the_same_proof(
    tmp_path: Path, honest_run: Path, train_set: Dataset, at: int
) -> None:
    spec = small_spec(train_set)
    interrupt(spec, train_set, tmp_path / "proof", at)
    assert not (tmp_path / "proof" / MANIFEST).exists()
    record(spec, train_set, tmp_path / "proof")
    assert same_proof(tmp_path / "proof", honest_run)


def test_it_goes_on_from_the_latest_kept_state(tmp_path: Path, train_set: Dataset) -> None:
    interrupt(small_spec(train_set), train_set, tmp_path / "proof", 35)
    steps: list[int] = []
    with Recorder(small_spec(train_set), tmp_path / "proof") as recorder:  # the seed is the journal's
        train(recorder, train_set, lambda step, _: steps.append(step))
    assert recorder.seed == SEED
    assert steps == list(range(20, 40))


def test_a_resumed_loop_that_does_something_else_is_told_at_once(tmp_path: Path, train_set: Dataset) -> None:
    """Its code, or what compiles its kernels, may have changed while it was down."""
    interrupt(small_spec(train_set), train_set, tmp_path / "proof", 35)

    def decayed(step: int, state: TrainingState) -> None:
        with torch.no_grad():
            next(state.model.parameters()).mul_(1 - 1e-6)

    with (
        pytest.raises(RecordingError, match="step 20: the loop computed something else"),
        Recorder(small_spec(train_set), tmp_path / "proof") as recorder,
    ):
        train(recorder, train_set, decayed)


def test_a_resumed_loop_that_cannot_be_compared_goes_on(
    tmp_path: Path, honest_run: Path, train_set: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device may have no room for two whole states, and what was anchored cannot be begun again."""

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    interrupt(small_spec(train_set), train_set, tmp_path / "proof", 35)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "_take_steps_of", full)
        with pytest.warns(UserWarning, match="no memory to compare"):
            record(small_spec(train_set), train_set, tmp_path / "proof")
        with pytest.raises(torch.OutOfMemoryError):
            record(small_spec(train_set), train_set, tmp_path / "from the start")
    assert same_proof(tmp_path / "proof", honest_run)


def test_a_state_that_is_changed_after_it_was_resumed_is_refused(tmp_path: Path, train_set: Dataset) -> None:
    spec = small_spec(train_set)
    interrupt(spec, train_set, tmp_path / "proof", 35)
    with pytest.raises(Interrupted), Recorder(spec, tmp_path / "proof") as recorder:
        state = recorder.program.build(spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        with torch.no_grad():
            next(state.model.parameters()).add_(1e-6)
        with pytest.raises(RecordingError, match="not the resumed one"):
            next(iter(recorder.batches(train_set)))
        raise Interrupted


def test_a_kept_state_that_is_damaged_is_not_trusted(tmp_path: Path, honest_run: Path, train_set: Dataset) -> None:
    interrupt(small_spec(train_set), train_set, tmp_path / "proof", 35)
    (kept,) = (tmp_path / "proof" / "states").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"\xff")
    kept.with_name(".partial-x").write_bytes(b"torn")
    record(small_spec(train_set), train_set, tmp_path / "proof")
    assert same_proof(tmp_path / "proof", honest_run)
    for state in Proof.read(tmp_path / "proof").states:
        states_of(tmp_path / "proof").get(state.cid)  # has the CID in its name again


def test_a_state_of_another_step_is_not_resumed_from(tmp_path: Path, honest_run: Path, train_set: Dataset) -> None:
    """The journal names a whole file with the right CID, but of another state: only the digest tells."""
    interrupt(small_spec(train_set), train_set, tmp_path / "proof", 35)
    wrong = Proof.read(honest_run).states[-1]  # the state after step 40
    journal, states = tmp_path / "proof" / JOURNAL, tmp_path / "proof" / "states"
    (kept,) = states.iterdir()
    journal.write_text(journal.read_text().replace(kept.stem, wrong.cid))
    kept.unlink()
    LocalStore(states, suffix=".safetensors").put(states_of(honest_run).get(wrong.cid))
    record(small_spec(train_set), train_set, tmp_path / "proof")
    assert same_proof(tmp_path / "proof", honest_run)


@pytest.mark.parametrize("torn", [1, 17, 200])
def test_a_torn_last_row_is_cut_off(tmp_path: Path, honest_run: Path, train_set: Dataset, torn: int) -> None:
    interrupt(small_spec(train_set), train_set, tmp_path / "proof", 35)
    journal = tmp_path / "proof" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-torn])
    record(small_spec(train_set), train_set, tmp_path / "proof")
    assert same_proof(tmp_path / "proof", honest_run)


def test_a_damaged_journal_is_said_so(tmp_path: Path, train_set: Dataset) -> None:
    interrupt(small_spec(train_set), train_set, tmp_path / "proof", 35)
    journal = tmp_path / "proof" / JOURNAL
    journal.write_bytes(journal.read_bytes().replace(b'"end_step":10', b'"end_step":1x'))
    with pytest.raises(RecordingError, match="damaged"):
        Recorder(small_spec(train_set), tmp_path / "proof")


def test_another_run_does_not_resume_here(tmp_path: Path, train_set: Dataset) -> None:
    interrupt(small_spec(train_set), train_set, tmp_path / "proof", 35)
    for spec, source in (
        (small_spec(train_set, steps=50), CHOSEN),
        (small_spec(train_set), replace(CHOSEN, value=bytes(32))),
    ):
        with pytest.raises(RecordingError, match="another run"):
            Recorder(spec, tmp_path / "proof", seed_source=source)


def test_a_run_that_comes_out_otherwise_says_so(tmp_path: Path, train_set: Dataset) -> None:
    interrupt(small_spec(train_set), train_set, tmp_path / "proof", 35)

    def drift(step: int, state: TrainingState) -> None:
        if step == 25:
            with torch.no_grad():
                next(state.model.parameters())[0, 0] += 1e-3

    again = Recorder(small_spec(train_set), tmp_path / "proof")
    with pytest.raises(RecordingError, match="segment 2 came out otherwise"), again as recorder:
        train(recorder, train_set, drift)
    assert not (tmp_path / "proof" / MANIFEST).exists()


class Chain:
    """A chain that can be away, and that keeps what it was told."""

    def __init__(self, *, away: Callable[[int], bool] = lambda call: False) -> None:
        self.kept: list[Anchor] = []
        self.stopped: Stop | None = None
        self.calls, self.away = 0, away

    def anchor(self, first: int, count: int, root: bytes) -> Anchor:
        self.calls += 1
        if self.away(self.calls):
            raise Unreachable("no answer")
        receipt = Anchor(first=first, count=count, root=root, block=self.calls, tx=bytes(32))
        for held in self.kept:
            if (held.first, held.count, held.root) == (first, count, root):
                return held
        assert first == sum(held.count for held in self.kept), "anchors arrive in order, once each"
        self.kept.append(receipt)
        return receipt

    def held(self) -> Sequence[Anchor]:
        return list(self.kept)

    def stop(self, segments: int) -> Stop:
        self.stopped = self.stopped or Stop(segments=segments, block=99, tx=bytes(32))
        return self.stopped


@pytest.fixture
def task_spec(train_set: Dataset) -> TrainingSpec:
    return replace(small_spec(train_set), task=TaskRef(chain_id=1, arena=bytes(20), task_id=1))


def test_an_outage_is_waited_out_in_order(tmp_path: Path, train_set: Dataset, task_spec, monkeypatch) -> None:
    monkeypatch.setattr("pol.anchorer.FIRST_RETRY_SECONDS", 0.01)
    chain = Chain(away=lambda call: call % 3 != 0)
    with Recorder(task_spec, tmp_path / "proof", seed_source=BEACON, anchorer=chain, anchor_every=1) as recorder:
        train(recorder, train_set)
    assert [(a.first, a.count) for a in chain.kept] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert Proof.read(tmp_path / "proof").anchors == tuple(chain.kept)


def test_an_outage_that_lasts_leaves_a_recording_that_finishes_later(
    tmp_path: Path, train_set: Dataset, task_spec
) -> None:
    gone = Chain(away=lambda call: call > 1)
    options = dict(seed_source=BEACON, anchorer=gone, anchor_every=1)
    impatient = Recorder(task_spec, tmp_path / "proof", patience=0.1, **options)
    with pytest.raises(RecordingError, match="3 anchors could not be sent"), impatient as recorder:
        train(recorder, train_set)
    assert not (tmp_path / "proof" / MANIFEST).exists()
    gone.away = lambda call: False
    with Recorder(task_spec, tmp_path / "proof", **options) as recorder:
        train(recorder, train_set, lambda *_: pytest.fail("nothing is left to train"))
    assert Proof.read(tmp_path / "proof").anchors == tuple(gone.kept)


def test_an_anchor_whose_receipt_was_lost_is_taken_from_the_chain(
    tmp_path: Path, train_set: Dataset, task_spec
) -> None:
    chain = Chain()
    options = dict(seed_source=BEACON, anchorer=chain, anchor_every=2)
    interrupt(task_spec, train_set, tmp_path / "proof", 35, **options)
    journal = tmp_path / "proof" / JOURNAL
    rows = [row for row in journal.read_bytes().splitlines(keepends=True) if not row.startswith(b'{"anchor"')]
    journal.write_bytes(b"".join(rows))
    with Recorder(task_spec, tmp_path / "proof", **(options | {"anchor_every": 1})) as recorder:
        train(recorder, train_set)
    assert [(a.first, a.count) for a in chain.kept] == [(0, 2), (2, 1), (3, 1)], "the chain's grouping stands"
    assert Proof.read(tmp_path / "proof").anchors == tuple(chain.kept)


def test_a_folder_that_lags_behind_the_chain_of_another_run_is_refused(
    tmp_path: Path, train_set: Dataset, task_spec
) -> None:
    chain = Chain()
    interrupt(task_spec, train_set, tmp_path / "proof", 35, seed_source=BEACON, anchorer=chain, anchor_every=2)
    chain.kept[0] = replace(chain.kept[0], root=bytes(32))
    with pytest.raises(RecordingError, match="other anchors"):
        Recorder(task_spec, tmp_path / "proof", seed_source=BEACON, anchorer=chain).__enter__()


def test_a_refused_anchor_stops_the_recording(tmp_path: Path, train_set: Dataset, task_spec) -> None:
    class Refusing(NoChain):
        def anchor(self, first: int, count: int, root: bytes) -> Anchor:
            raise ValueError("reverted: window closed")

    with (
        pytest.raises(ValueError, match="window closed"),
        Recorder(task_spec, tmp_path / "proof", seed_source=BEACON, anchorer=Refusing(), anchor_every=1) as recorder,
    ):
        train(recorder, train_set)
    assert not (tmp_path / "proof" / MANIFEST).exists()


def test_nothing_is_anchored_after_a_refusal(tmp_path: Path, train_set: Dataset, task_spec) -> None:
    class RefusingOnce(Chain):
        def anchor(self, first: int, count: int, root: bytes) -> Anchor:
            calls.append(first)
            if first == 1:
                release.wait(30)
                raise ValueError("reverted")
            return super().anchor(first, count, root)

    calls: list[int] = []
    release = threading.Event()
    recorder = Recorder(task_spec, tmp_path / "proof", seed_source=BEACON, anchorer=RefusingOnce(), anchor_every=1)
    with pytest.raises(ValueError, match="reverted"), recorder:
        state = recorder.program.build(task_spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        for batch in recorder.batches(train_set):
            recorder.step(recorder.program.train_step(state, batch))
            if recorder.ended:
                recorder.wait()  # all four are in line by now
                release.set()
    assert calls == [0, 1]


def test_anchors_by_seconds(tmp_path: Path, train_set: Dataset, task_spec) -> None:
    chain = Chain()
    with Recorder(task_spec, tmp_path / "proof", seed_source=BEACON, anchorer=chain, anchor_seconds=3600) as recorder:
        train(recorder, train_set)
    assert [(a.first, a.count) for a in chain.kept] == [(0, 4)]
    with Recorder(
        task_spec, tmp_path / "again", seed_source=BEACON, anchorer=(often := Chain()), anchor_seconds=1e-9
    ) as recorder:
        train(recorder, train_set)
    assert [(a.first, a.count) for a in often.kept] == [(0, 1), (1, 1), (2, 1), (3, 1)]


@pytest.mark.parametrize("at", [0, 13, 20])
def test_a_declared_stop_is_part_of_the_proof(tmp_path: Path, train_set: Dataset, task_spec, at: int) -> None:
    chain = Chain()
    with Recorder(task_spec, tmp_path / "proof", seed_source=BEACON, anchorer=chain) as recorder:
        state = recorder.program.build(task_spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        for batch in recorder.batches(train_set):
            recorder.step(recorder.program.train_step(state, batch))
            if recorder.state.step == max(at, 1):
                recorder.stop()
    proof = Proof.read(tmp_path / "proof")
    assert proof.stopped == chain.stopped == Stop(segments=-(-max(at, 1) // 10), block=99, tx=bytes(32))
    assert proof.steps == proof.segment_count * 10 == proof.segments[-1].end_step == proof.states[-1].step


def test_a_stop_is_declared_when_the_account_is_free_again(
    tmp_path: Path, train_set: Dataset, task_spec, monkeypatch
) -> None:
    """Another process submits a model meanwhile."""
    monkeypatch.setattr("pol.anchorer.FIRST_RETRY_SECONDS", 0.01)
    chain, refusals = Chain(), iter([Unreachable("busy"), Unreachable("busy")])
    declare = chain.stop

    def busy(segments: int) -> Stop:
        if refusal := next(refusals, None):
            raise refusal
        return declare(segments)

    chain.stop = busy  # type: ignore[method-assign]
    with Recorder(task_spec, tmp_path / "proof", seed_source=BEACON, anchorer=chain) as recorder:
        train(recorder, train_set, lambda step, _: recorder.stop() if step == 15 else None)
    assert Proof.read(tmp_path / "proof").stopped == chain.stopped is not None


def test_a_stop_interrupted_before_its_receipt_is_declared_again(
    tmp_path: Path, train_set: Dataset, task_spec, monkeypatch
) -> None:
    monkeypatch.setattr("pol.anchorer.FIRST_RETRY_SECONDS", 0.01)
    chain = Chain()
    chain.stop = lambda segments: (_ for _ in ()).throw(Unreachable("no answer"))  # type: ignore[method-assign]

    def run() -> None:
        with Recorder(task_spec, tmp_path / "proof", seed_source=BEACON, anchorer=chain, patience=1) as recorder:
            train(recorder, train_set, lambda step, _: recorder.stop() if step == 15 else None)

    with pytest.raises(Unreachable):
        run()
    assert not (tmp_path / "proof" / MANIFEST).exists()
    del chain.stop
    run()
    assert Proof.read(tmp_path / "proof").stopped == chain.stopped


def test_stopping_at_the_last_step_is_no_early_stop(tmp_path: Path, train_set: Dataset) -> None:
    with Recorder(small_spec(train_set), tmp_path / "proof", seed_source=CHOSEN) as recorder:
        train(recorder, train_set, lambda step, _: recorder.stop() if step == 35 else None)
    assert Proof.read(tmp_path / "proof").stopped is None
