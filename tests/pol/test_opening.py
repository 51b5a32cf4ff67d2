"""Opened segments: recomputed from the nearest kept state, and held by the transcript alone."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from pol import Proof
from pol.data import Dataset
from pol.errors import ProofError, SpecError
from pol.opening import _spans, open_segments
from pol.proof import MANIFEST, OPENINGS, TRANSCRIPT, states_of
from pol.state import from_safetensors
from pol.tensors import tensors_digest
from tests.runs import record, small_spec


@pytest.fixture
def sparse(tmp_path: Path, train_set: Dataset) -> Path:
    """Nine segments, of which the third, sixth and ninth end in a kept state."""
    folder = tmp_path / "proof"
    record(small_spec(train_set, steps=18, segment_length=2), train_set, folder)
    return folder


def test_both_ends_of_a_segment_are_served(sparse: Path) -> None:
    before = {name: (sparse / name).read_bytes() for name in (MANIFEST, TRANSCRIPT)}
    assert [state.step for state in Proof.read(sparse).states] == [6, 12, 18]
    proof = open_segments(sparse, [0, 4, 8])
    assert [state.step for state in proof.openings] == [2, 8, 10, 16]
    for state in proof.openings:
        tensors = from_safetensors(states_of(sparse).get(state.cid), where="opened")
        assert tensors_digest(tensors) == proof.segments[state.step // 2 - 1].end_digest
    assert {name: (sparse / name).read_bytes() for name in before} == before
    assert proof.stored_before(5) == proof.find_stored(10)


def test_opening_again_adds_to_what_is_there(sparse: Path) -> None:
    open_segments(sparse, [4])
    assert [state.step for state in open_segments(sparse, [1, 4]).openings] == [2, 4, 8, 10]
    assert open_segments(sparse, [1, 4]) == Proof.read(sparse)


def test_a_segment_that_is_not_there_cannot_be_opened(sparse: Path) -> None:
    for segment in (-1, 9):
        with pytest.raises(SpecError, match="segments 0 to 8"):
            open_segments(sparse, [segment])


def test_an_opened_state_must_be_a_boundary_and_new(sparse: Path) -> None:
    open_segments(sparse, [4])
    text = (sparse / OPENINGS).read_text()
    for wrong, reason in (
        (text.replace('"step":8', '"step":7'), "inside"),
        (text.replace('"step":8', '"step":6'), "names"),
    ):
        (sparse / OPENINGS).write_text(wrong)
        with pytest.raises(ProofError, match=reason):
            Proof.read(sparse)


def test_a_thousand_segments_need_about_their_square_root(tmp_path: Path, train_set: Dataset) -> None:
    """The work to open any one segment, counted over all of them; and one is really opened."""
    spec = small_spec(train_set, steps=1000, segment_length=1, width=8, hidden=1, batch_norm=False)
    record(spec, train_set, tmp_path / "proof")
    proof = Proof.read(tmp_path / "proof")
    work = []
    for segment in range(1000):
        ends = {end: tmp_path / str(end) for end in {max(segment - 1, 0), segment}}
        wanted = {end: path for end, path in ends.items() if proof.find_stored(end + 1) is None}
        work.append(sum(span.last - span.first + 1 for span in _spans(tmp_path / "proof", proof, wanted)))
    assert len(proof.states) == math.ceil(1000 / math.ceil(math.sqrt(1000)))
    assert max(work) <= math.ceil(math.sqrt(1000))
    worst = work.index(max(work))
    opened = open_segments(tmp_path / "proof", [worst])
    assert {worst, worst + 1} <= {state.step for state in (*opened.states, *opened.openings)}
    shutil.rmtree(tmp_path / "proof")
