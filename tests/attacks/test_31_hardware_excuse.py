"""Case 31: "my hardware computes differently", as an excuse for whatever does not replay.

Source: every check with a tolerance, because floating-point sums do differ from one machine to another. A prover names
an exotic machine, or none, and no verifier can ever say that it lied.

Here the class of machine is promised in the spec, before the seed. On that class equal bits are expected and a mismatch
convicts. On another class nothing can be said of a mismatch, and nothing is: neither a pass nor an accusation. Who
hides behind a class that nobody has is outside the classes a task lists, which is malformed; and a recorder does not
let anybody promise a class that the machine is not.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from challenge.onchain import check_run_on_chain
from challenge.segments import Policy
from challenge.task import TaskDescription
from challenge.verdict import ExitCode, Outcome, Verdict
from pol import Proof, TrainingSpec
from pol.data import Dataset
from pol.errors import RecordingError
from pol.machine import MachineClass, this_machine
from pol.merkle import merkle_root
from pol.store import LocalStore
from tests.attacks.forging import copied, trained_states, write_forgery
from tests.attacks.judging import judged, rejected
from tests.attacks.ring import Ring
from tests.runs import record, small_spec

EXOTIC = {"processor": "an abacus", "capability": "ten fingers"}
LENGTH = 2


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def spec_of(dataset: Dataset, **machine: object) -> TrainingSpec:
    spec = small_spec(dataset, steps=8, segment_length=LENGTH)
    return replace(spec, machine=dict(spec.machine) | machine)


def proof_of(dataset: Dataset, folder: Path, *, lie: bool, **machine: object) -> Path:
    """Four segments; with a lie the second one ends with weights that training did not give."""
    spec = spec_of(dataset, **machine)
    states = trained_states(spec, dataset)
    if lie:
        states[2]["model/layers.0.weight"] += 1.0
    return write_forgery(folder, spec, dataset, states)


def test_on_the_promised_class_there_is_no_excuse(train_set: Dataset, tmp_path: Path) -> None:
    verdict = judged(proof_of(train_set, tmp_path / "proof", lie=True), Policy(segments=[0, 1]))
    assert rejected(verdict, ExitCode.REPLAY_MISMATCH, "does not replay to the promised state") == {1}
    assert not verdict.undecided


def test_on_another_class_nothing_is_said(train_set: Dataset, tmp_path: Path) -> None:
    """Not a pass either, although three of four segments match; and what would decide it is named."""
    verdict = judged(proof_of(train_set, tmp_path / "proof", lie=True, **EXOTIC))
    assert (verdict.outcome, verdict.exit_code) == (Outcome.INCONCLUSIVE, ExitCode.INCONCLUSIVE)
    assert not verdict.findings
    assert all("processor: " in line and "/ an abacus" in line for line in verdict.undecided)
    assert any("replay on a machine of the spec's class" in line for line in verdict.undecided)


def test_equal_bits_need_no_class(train_set: Dataset, tmp_path: Path) -> None:
    """The honest twin: the same excuse and nothing to excuse. What replays bit for bit is proven anywhere."""
    verdict = judged(proof_of(train_set, tmp_path / "proof", lie=False, **EXOTIC), Policy(segments=[0, 3]))
    assert verdict.exit_code is ExitCode.VERIFIED


def test_the_excuse_covers_arithmetic_only(train_set: Dataset, tmp_path: Path) -> None:
    """NaN, other boundaries or a state that was not promised are nobody's rounding."""
    folder = proof_of(train_set, tmp_path / "proof", lie=False, **EXOTIC)
    proof = Proof.read(folder)
    replace(proof, segments=proof.segments[:-1]).write(folder)
    assert judged(folder).exit_code is ExitCode.MALFORMED


@pytest.mark.parametrize("field", ["torch", "device", "processor", "capability", "blas", "threads"])
def test_every_part_of_the_class_makes_another_one(field: str) -> None:
    here = this_machine(threads=1)
    other = replace(here, **{field: 2 if field == "threads" else "another"})
    assert len(here.differences(other)) == 1 and here.differences(other)[0].startswith(f"{field}: ")
    assert here.digest != other.digest and here.differences(replace(here)) == []


@pytest.mark.parametrize(
    "machine",
    [
        {"deterministic": False}, {"deterministic": 1}, {"threads": 0}, {"threads": "1"}, {"threads": 10**9},
        {"processor": None}, {"torch": "x" * 300}, {"tolerance": 1}, {},
    ],
    ids=str,
)  # fmt: skip
def test_no_class_is_no_excuse_at_all(honest_run: Path, tmp_path: Path, machine: dict) -> None:
    """A class that says nothing, or that bits need not be equal on, is malformed: before anything is replayed."""
    folder = copied(honest_run, tmp_path / "proof")
    proof = Proof.read(folder)
    changed = dict(proof.spec.machine) | machine if machine else {}
    replace(proof, spec=replace(proof.spec, machine=changed)).write(folder)
    verdict = judged(folder)
    assert verdict.exit_code is ExitCode.MALFORMED


def test_a_class_that_the_task_does_not_list_is_malformed(
    ring: Ring, alices_run: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task of the honest run lists its class; so may others, beside more classes. Some list another one alone."""
    here = MachineClass.from_json(Proof.read(alices_run).spec.machine, where="test").digest
    abacus = replace(this_machine(threads=1), processor="an abacus").digest
    listings = {(here,): ExitCode.VERIFIED, (abacus, here): ExitCode.VERIFIED, (abacus,): ExitCode.MALFORMED}
    for listed, code in listings.items():
        lists(ring, listed, monkeypatch)
        verdict = Verdict()
        check_run_on_chain(Proof.read(alices_run), ring.world.reader, verdict, store)
        assert verdict.exit_code is code
        assert code is ExitCode.VERIFIED or "machine class is not one the task accepts" in verdict.findings[0].message


def test_where_the_list_cannot_be_had_nothing_is_said(
    ring: Ring, alices_run: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a pass for who hides behind it, nor an accusation of who is on it: its creator may serve it or not."""
    abacus = replace(this_machine(threads=1), processor="an abacus").digest
    lists(ring, (abacus, bytes(32)), monkeypatch, shown=(abacus,))
    for served in (None, store):
        verdict = Verdict()
        check_run_on_chain(Proof.read(alices_run), ring.world.reader, verdict, served)
        assert verdict.exit_code is ExitCode.INCONCLUSIVE
        assert ("give --store" if served is None else "not those that its terms bind") in verdict.undecided[0]


def lists(ring: Ring, classes: tuple[bytes, ...], patch: pytest.MonkeyPatch, *, shown: tuple[bytes, ...] = ()) -> None:
    """Have the ring's task accept ``classes``, and its description say so, or what is ``shown``."""
    arena = ring.world.reader.arena
    terms = type(arena).task_config(arena, ring.task.id)
    changed = replace(terms, work=replace(terms.work, classes_root=merkle_root(classes)))
    patch.setattr(type(arena), "task_config", lambda *_: changed)
    described = TaskDescription(
        program="p:q", config={}, batch_size=1, train_name="t", train_cid="c", evaluation_cid="e",
        machines=shown or classes,
    )  # fmt: skip
    patch.setattr("challenge.onchain.describe", lambda *_: TaskDescription.from_bytes(described.to_bytes()))


def test_a_recorder_promises_no_class_but_its_own(train_set: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="this machine is not the spec's"):
        record(spec_of(train_set, **EXOTIC), train_set, tmp_path / "proof")
