"""Which segments are replayed, from which states, and what is made of the answers; the executor here is a clerk."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from challenge.segments import Policy, Watcher
from challenge.verdict import ExitCode, Outcome
from challenge.verify import verify
from pol import Proof
from pol.anchorer import NoChain
from pol.confine import Limits
from pol.data import Dataset
from pol.errors import CannotRun
from pol.order import DataOrder
from pol.program import load_program
from pol.proof import StoredState, states_of, write_openings
from pol.replay import Job
from pol.state import from_safetensors, to_safetensors
from pol.tensors import tensors_digest
from pol.transcript import Stop, segment_tree
from tests.challenge.clerk import Clerk
from tests.runs import SEED, record, small_spec

SEGMENTS = 9


@pytest.fixture(scope="module")
def recorded(train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine segments, the last one shorter; the states after 3, 6 and 9 of them are stored."""
    folder = tmp_path_factory.mktemp("segments") / "proof"
    record(small_spec(train_set, steps=17, segment_length=2), train_set, folder)
    return folder


@pytest.fixture
def folder(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "proof"))


def bounds(clerk: Clerk) -> list[tuple[int, int]]:
    return [(span.first, span.last) for span in clerk.spans]


def test_a_random_sample_always_has_the_first_and_the_last(folder: Path) -> None:
    for _ in range(5):
        clerk = Clerk(folder)
        verdict = verify(folder, Policy(segments=1, executor=clerk))
        assert {0, SEGMENTS - 1} <= set(verdict.segments) and len(verdict.segments) <= 3
        assert all(any(a <= segment <= b for a, b in bounds(clerk)) for segment in verdict.segments)
        assert verdict.strength.startswith("1 of 9 segments replayed; a cheat in 1 of them is missed with p = 0.89")
        if len(verdict.segments) == 3:
            assert "the first and the last are replayed as well" in verdict.strength


def test_what_a_case_drew_is_replayed_exactly_so(folder: Path) -> None:
    clerk = Clerk(folder)
    verdict = verify(folder, Policy(segments=[4, 2, 4], executor=clerk))
    assert verdict.segments == [2, 4] and bounds(clerk) == [(0, 2), (3, 4)]
    assert verdict.strength.startswith("2 of 9") and "as well" not in verdict.strength


def test_all_means_all(folder: Path) -> None:
    clerk = Clerk(folder)
    verdict = verify(folder, Policy(segments=None, executor=clerk))
    assert verdict.segments == list(range(SEGMENTS)) and "all 9 segments" in verdict.strength
    assert bounds(clerk) == [(0, 2), (3, 5), (6, 8)]


def test_replay_starts_at_the_nearest_stored_or_opened_state(folder: Path, train_set: Dataset) -> None:
    proof, store = Proof.read(folder), states_of(folder)
    starts = {0: None} | {state.step // 2: store.path(state.cid) for state in proof.states[:-1]}
    clerk = Clerk(folder)
    verify(folder, Policy(segments=[1, 5, 8], executor=clerk))
    assert {span.first: span.start for span in clerk.spans} == starts
    opened = _state_after(proof, train_set, 10)
    assert tensors_digest(from_safetensors(opened, where="test")) == proof.segments[4].end_digest
    write_openings(folder, [StoredState(step=10, cid=store.put(opened))])
    clerk = Clerk(folder)
    verify(folder, Policy(segments=[4, 5], executor=clerk))
    assert bounds(clerk) == [(3, 4), (5, 5)]
    assert clerk.spans[1].start == store.path(Proof.read(folder).openings[0].cid)


def _state_after(proof: Proof, train_set: Dataset, steps: int) -> bytes:
    program = load_program(proof.spec.program, proof.spec.program_digest)
    state, order = program.build(proof.spec.config, SEED), DataOrder(SEED, len(train_set), proof.spec.batch_size)
    for step in range(steps):
        state.key_generators(SEED)
        program.train_step(state, train_set.batch(order.batch(step)))
        state.step = step + 1
    return to_safetensors(state.capture(SEED))


def test_a_forged_opening_is_malformed(folder: Path, train_set: Dataset) -> None:
    forged = _state_after(Proof.read(folder), train_set, 9)
    write_openings(folder, [StoredState(step=10, cid=states_of(folder).put(forged))])
    verdict = verify(folder, Policy(segments=[0], executor=Clerk(folder)))
    assert verdict.exit_code is ExitCode.MALFORMED and "after step 10" in verdict.findings[0].message


def test_the_watcher_hears_of_as_many_segments_as_were_planned(folder: Path) -> None:
    planned: list[int] = []
    heard: list[tuple[int, bool]] = []
    watcher = Watcher(planned=planned.append, replayed=lambda index, matched: heard.append((index, matched)))
    verdict = verify(folder, Policy(segments=[2, 7], executor=Clerk(folder, wrong=[7])), watcher=watcher)
    assert planned == [len(heard)] == [5]
    assert dict(heard) == {0: True, 1: True, 2: True, 6: True, 7: False}
    assert verdict.exit_code is ExitCode.REPLAY_MISMATCH


def test_a_mismatch_in_between_is_a_finding_too(folder: Path) -> None:
    verdict = verify(folder, Policy(segments=[5], executor=Clerk(folder, wrong=[3])))
    assert [finding.segment for finding in verdict.findings] == [3]


def test_the_policy_reaches_the_executor_and_its_notes_the_verdict(folder: Path) -> None:
    clerk = Clerk(folder, notes=("not cut off from the network",))
    policy = Policy(
        segments=[0, 4], executor=clerk, device="cuda:1", limits=Limits(memory=7), dataset=Path("x"),
        trusted=frozenset({bytes(32)}),
    )  # fmt: skip
    verdict = verify(folder, policy)
    proof = Proof.read(folder)
    assert clerk.job == Job(
        spec=proof.spec, seed=proof.seed, device="cuda:1", limits=Limits(memory=7), dataset=Path("x"),
        trusted=frozenset({bytes(32)}),
    )  # fmt: skip
    assert verdict.limits.count("not cut off from the network") == 1


@pytest.mark.parametrize("segments", [[], [9], [-1, 2], list(range(5, 10))])
def test_segments_that_are_not_there_cannot_be_replayed(folder: Path, segments: list[int]) -> None:
    with pytest.raises(CannotRun, match="choose others"):
        verify(folder, Policy(segments=segments, executor=Clerk(folder)))


def test_a_stopped_run_is_sampled_to_its_own_end_and_said(folder: Path) -> None:
    proof = Proof.read(folder)
    root = segment_tree(proof.segments[:6]).root
    cut = replace(
        proof, spec=replace(proof.spec, steps=40), segments=proof.segments[:6], states=proof.states[:2],
        anchors=(NoChain().anchor(0, 6, root),), stopped=Stop(segments=6, block=0, tx=bytes(32)),
    )  # fmt: skip
    states_of(folder).path(proof.states[2].cid).unlink()
    cut.write(folder)
    verdict = verify(folder, Policy(segments=1, executor=Clerk(folder)))
    assert verdict.total_segments == 6 and {0, 5} <= set(verdict.segments)
    assert any("6 of 20 promised segments" in note for note in verdict.limits)
    assert verdict.outcome is Outcome.VERIFIED
