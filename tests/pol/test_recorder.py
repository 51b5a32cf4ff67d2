"""The recorder leaves a proof of exactly what was promised, or says that there is none."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pol import Proof, Recorder, SeedSource
from pol.anchorer import NoChain
from pol.data import Dataset, digits
from pol.errors import RecordingError
from pol.proof import MANIFEST, TRANSCRIPT
from pol.relay import SPARE_BYTES
from pol.spec import TaskRef
from pol.tensors import checked_row
from pol.transcript import Anchor
from tests.runs import SEED, record, small_spec

CHOSEN = SeedSource(kind="chosen", value=SEED)


def test_the_same_run_gives_the_same_proof(tmp_path: Path, honest_run: Path, train_set: Dataset) -> None:
    record(small_spec(train_set), train_set, tmp_path / "again")
    for name in (MANIFEST, TRANSCRIPT):
        assert (tmp_path / "again" / name).read_bytes() == (honest_run / name).read_bytes()


def test_what_the_loop_does_between_steps_leaves_no_trace(tmp_path: Path, honest_run: Path, train_set: Dataset) -> None:
    spec = small_spec(train_set)
    with Recorder(spec, tmp_path / "proof", seed_source=CHOSEN) as recorder:
        state = attached(recorder)
        for batch in recorder.batches(train_set):
            recorder.step(recorder.program.train_step(state, batch))
            recorder.program.evaluate(state.model.state_dict(), spec.config, train_set)
            torch.rand(3)  # an evaluation draws too (it builds a model); the next step must not notice
    assert (tmp_path / "proof" / TRANSCRIPT).read_bytes() == (honest_run / TRANSCRIPT).read_bytes()


def test_another_seed_gives_another_run(tmp_path: Path, honest_run: Path, train_set: Dataset) -> None:
    spec = small_spec(train_set, steps=10)
    proofs = []
    for number in range(2):
        with Recorder(spec, tmp_path / str(number)) as recorder:
            state = recorder.program.build(spec.config, recorder.seed)
            recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
            for batch in recorder.batches(train_set):
                recorder.step(recorder.program.train_step(state, batch))
        proofs.append(Proof.read(tmp_path / str(number)))
    assert proofs[0].seed != proofs[1].seed
    assert proofs[0].segments[0].start_digest != proofs[1].segments[0].start_digest
    assert proofs[0].segments[0].batch_root != proofs[1].segments[0].batch_root


def test_anchors_are_made_as_training_goes_on(tmp_path: Path, train_set: Dataset) -> None:
    spec, calls = replace(small_spec(train_set), task=TaskRef(chain_id=1, arena=bytes(20), task_id=1)), []
    beacon = SeedSource(kind="beacon", value=SEED, block=1)

    class Clerk(NoChain):
        def anchor(self, first: int, count: int, root: bytes) -> Anchor:
            calls.append((first, count))
            early.set()
            return Anchor(first=first, count=count, root=root, block=len(calls), tx=bytes(32))

    early = threading.Event()
    with Recorder(spec, tmp_path / "proof", seed_source=beacon, anchorer=Clerk(), anchor_every=2) as recorder:
        state = recorder.program.build(spec.config, recorder.seed)
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
        for step, batch in enumerate(recorder.batches(train_set)):
            recorder.step(recorder.program.train_step(state, batch))
            if step == 25:
                assert early.wait(60), "the first two segments are anchored while the third is trained"
    assert calls == [(0, 2), (2, 2)]
    assert [anchor.block for anchor in Proof.read(tmp_path / "proof").anchors] == [1, 2]


@pytest.mark.parametrize("name", ["MKL_CBWR", "ATEN_CPU_CAPABILITY"])
def test_switches_that_replay_would_not_have_are_refused(
    tmp_path: Path, train_set: Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "COMPATIBLE")
    with pytest.raises(RecordingError, match=name), Recorder(small_spec(train_set), tmp_path / "proof"):
        pass


def test_autocast_is_refused(tmp_path: Path, train_set: Dataset) -> None:
    recorder = Recorder(small_spec(train_set), tmp_path / "proof")
    with torch.autocast("cpu"), pytest.raises(RecordingError, match="autocast"), recorder:
        pass


def test_ambient_precision_and_dtype_do_not_reach_a_run(tmp_path: Path, honest_run: Path, train_set: Dataset) -> None:
    torch.set_float32_matmul_precision("medium")
    torch.set_default_dtype(torch.float64)
    record(small_spec(train_set), train_set, tmp_path / "again")
    assert (tmp_path / "again" / TRANSCRIPT).read_bytes() == (honest_run / TRANSCRIPT).read_bytes()


def test_an_anchorer_without_a_task_is_refused(tmp_path: Path, train_set: Dataset) -> None:
    with pytest.raises(RecordingError, match="task"):
        Recorder(small_spec(train_set), tmp_path / "proof", anchorer=NoChain())


@pytest.fixture
def recorder(tmp_path: Path, train_set: Dataset):
    return Recorder(small_spec(train_set), tmp_path / "proof", seed_source=CHOSEN).__enter__()


def attached(recorder: Recorder):
    state = recorder.program.build(recorder.spec.config, recorder.seed)
    recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
    return state


def test_a_model_that_the_program_did_not_build_is_refused(recorder: Recorder) -> None:
    state = recorder.program.build(recorder.spec.config, recorder.seed)
    with torch.no_grad():
        next(state.model.parameters())[0, 0] += 1e-6
    with pytest.raises(RecordingError, match="model/layers"):
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)


def test_other_hyper_parameters_are_refused(recorder: Recorder) -> None:
    state = recorder.program.build(recorder.spec.config, recorder.seed)
    state.optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(RecordingError, match="scalars"):
        recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)


def test_a_loop_that_does_something_else_is_told_at_once(recorder: Recorder, train_set: Dataset) -> None:
    state = attached(recorder)
    inputs, labels = next(iter(recorder.batches(train_set)))
    with pytest.raises(RecordingError, match="computed something else"):
        recorder.step(recorder.program.train_step(state, (inputs, (labels + 1) % 10)))


def test_what_a_step_leaves_to_the_next_is_noticed(recorder: Recorder, train_set: Dataset) -> None:
    """Gradients left over from a step are in no state, so a replay that begins after it would not have them."""
    state, batches = attached(recorder), recorder.batches(train_set)
    recorder.step(recorder.program.train_step(state, next(batches)))
    next(batches)
    for parameter in state.model.parameters():
        parameter.grad = torch.ones_like(parameter)  # the leftover
    inputs, labels = train_set.batch(recorder.order.batch(1))
    with pytest.raises(RecordingError, match="step 1: the loop computed something else"):
        recorder.step(recorder.program.train_step(state, (inputs, labels)))


def test_hashing_slower_than_training_loses_nothing(
    tmp_path: Path, honest_run: Path, train_set: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one copy of a large state is not written over before it is hashed: training waits."""

    def slowly(name: str, tensor: torch.Tensor, *, where: str) -> tuple[tuple[bytes, bytes], memoryview]:
        time.sleep(0.03)
        return checked_row(name, tensor, where=where)

    monkeypatch.setattr("pol.recorder.checked_row", slowly)
    monkeypatch.setattr("pol.recorder.SPARE_BYTES", 0)
    record(small_spec(train_set), train_set, tmp_path / "proof")
    assert (tmp_path / "proof" / TRANSCRIPT).read_bytes() == (honest_run / TRANSCRIPT).read_bytes()


@pytest.mark.parametrize("in_place", [0, SPARE_BYTES])
def test_copied_or_hashed_in_place_it_is_the_same_proof(
    tmp_path: Path, honest_run: Path, train_set: Dataset, monkeypatch: pytest.MonkeyPatch, in_place: int
) -> None:
    monkeypatch.setattr("pol.recorder.SPARE_BYTES", in_place)
    record(small_spec(train_set), train_set, tmp_path / "proof")
    assert [stored.cid for stored in Proof.read(tmp_path / "proof").states] == [
        stored.cid for stored in Proof.read(honest_run).states
    ]
    assert (tmp_path / "proof" / TRANSCRIPT).read_bytes() == (honest_run / TRANSCRIPT).read_bytes()


@pytest.mark.parametrize("in_place", [0, SPARE_BYTES])
def test_a_state_that_is_not_finite_ends_the_recording(
    recorder: Recorder, train_set: Dataset, monkeypatch: pytest.MonkeyPatch, in_place: int
) -> None:
    monkeypatch.setattr("pol.recorder.SPARE_BYTES", in_place)
    state = attached(recorder)
    with pytest.raises(RecordingError, match="holds NaN or infinity; a proof of such a run is worthless"):
        for batch in recorder.batches(train_set):
            loss = recorder.program.train_step(state, batch)
            if recorder.state.step == recorder.spec.segment_length - 1:
                with torch.no_grad():
                    next(state.model.parameters())[0, 0] = torch.nan
            recorder.step(loss)
            recorder.wait()


def test_a_stop_after_the_state_has_changed_is_refused(recorder: Recorder, train_set: Dataset) -> None:
    """Its twins, which stop before, at and after a boundary, are among the tests of every loop."""
    state = attached(recorder)
    for batch in recorder.batches(train_set):
        recorder.step(recorder.program.train_step(state, batch))
        if recorder.state.step == recorder.spec.segment_length:
            break
    with torch.no_grad():
        next(state.model.parameters()).zero_()
    with pytest.raises(RecordingError, match="no longer that after step 10"):
        recorder.stop()


def test_every_batch_is_one_step(recorder: Recorder, train_set: Dataset) -> None:
    state = attached(recorder)
    batches = recorder.batches(train_set)
    recorder.step(recorder.program.train_step(state, next(batches)))
    next(batches)
    with pytest.raises(RecordingError, match="0 times"):
        next(batches)


def test_a_step_without_an_optimizer_step_is_refused(recorder: Recorder, train_set: Dataset) -> None:
    attached(recorder)
    next(recorder.batches(train_set))
    with pytest.raises(RecordingError, match="optimizer has stepped"):
        recorder.step(torch.tensor(1.0))


def test_a_loss_that_is_not_finite_is_refused(recorder: Recorder, train_set: Dataset) -> None:
    attached(recorder)
    next(recorder.batches(train_set))
    with pytest.raises(RecordingError, match="loss"):
        recorder.step(torch.tensor(float("nan")))


def test_another_data_set_is_refused(recorder: Recorder) -> None:
    attached(recorder)
    with pytest.raises(RecordingError, match="not the committed one"):
        next(recorder.batches(digits("submission-validation")))


def test_attach_comes_first(recorder: Recorder, train_set: Dataset) -> None:
    with pytest.raises(RecordingError, match="attach"):
        next(recorder.batches(train_set))


def test_stopping_early_leaves_no_proof(tmp_path: Path, train_set: Dataset) -> None:
    spec = small_spec(train_set)
    recorder = Recorder(spec, tmp_path / "proof", seed_source=CHOSEN)
    with pytest.raises(RecordingError, match="after 1 of 40"), recorder:
        state = attached(recorder)
        for batch in recorder.batches(train_set):
            recorder.step(recorder.program.train_step(state, batch))
            break
    assert not (tmp_path / "proof" / MANIFEST).exists()


def test_a_crash_in_the_loop_leaves_no_proof(tmp_path: Path, train_set: Dataset) -> None:
    recorder = Recorder(small_spec(train_set), tmp_path / "proof", seed_source=CHOSEN)
    with pytest.raises(ZeroDivisionError), recorder:
        attached(recorder)
        raise ZeroDivisionError
    assert not (tmp_path / "proof" / MANIFEST).exists()


def test_a_used_folder_is_refused(honest_run: Path, train_set: Dataset) -> None:
    with pytest.raises(RecordingError, match="not empty"), Recorder(small_spec(train_set), honest_run):
        pass


def test_another_machine_than_the_promised_one_is_refused(tmp_path: Path, train_set: Dataset) -> None:
    spec = small_spec(train_set)
    assert isinstance(spec.machine, dict)
    other = replace(spec, machine=spec.machine | {"capability": "NONE"})
    with pytest.raises(RecordingError, match="capability"), Recorder(other, tmp_path / "proof"):
        pass
