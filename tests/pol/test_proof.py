"""The folder on disk: strict, complete, and nothing else in it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pol import Proof, Submission, seal
from pol.cid import cid_of
from pol.errors import CannotRun, ProofError, RecordingError
from pol.proof import MANIFEST, STATES, TRANSCRIPT, SeedSource, states_of
from pol.state import from_safetensors, model_tensors, to_safetensors
from pol.tensors import tensors_digest
from pol.transcript import check_shape


@pytest.fixture
def folder(honest_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest_run, tmp_path / "proof"))


def rewrite(folder: Path, proof: Proof) -> None:
    proof.write(folder)


def test_reading_is_the_inverse_of_writing(folder: Path) -> None:
    proof = Proof.read(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    rewrite(folder, proof)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert Proof.read(folder) == proof


def test_about_the_square_root_of_the_states_is_kept(folder: Path) -> None:
    proof = Proof.read(folder)
    assert [state.step for state in proof.states] == [20, 40]
    assert proof.stored_before(0) is None
    assert proof.stored_before(1) is None
    assert proof.stored_before(3).step == 20


def test_a_missing_folder_is_not_a_broken_proof(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="no such folder"):
        Proof.read(tmp_path / "nothing")


@pytest.mark.parametrize("name", [MANIFEST, TRANSCRIPT, STATES])
def test_missing_parts_are_named(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name) if name == STATES else (folder / name).unlink()
    with pytest.raises(ProofError, match=name):
        Proof.read(folder)


@pytest.mark.parametrize("name", ["note.txt", "states/note.txt", "states/bafk.safetensors", "model.pkl"])
def test_nothing_else_may_be_in_the_folder(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"x")
    with pytest.raises(ProofError, match=r"not (part|a state) of a proof"):
        Proof.read(folder)


@pytest.mark.parametrize("name", [MANIFEST, TRANSCRIPT])
def test_links_out_of_the_folder_are_refused(folder: Path, name: str) -> None:
    moved = folder.parent / name
    (folder / name).rename(moved)
    (folder / name).symlink_to(moved)
    with pytest.raises(ProofError, match="not part of a proof"):
        Proof.read(folder)


def test_a_device_or_pipe_is_not_read(folder: Path) -> None:
    (folder / TRANSCRIPT).unlink()
    os.mkfifo(folder / TRANSCRIPT)
    with pytest.raises(ProofError):
        Proof.read(folder)


def test_more_lines_than_a_run_has_segments_are_not_split(folder: Path) -> None:
    (folder / "transcript.jsonl").write_bytes(b"\n" * (2**16 + 1))
    with pytest.raises(ProofError, match="more than the limit of 65536 segments"):
        Proof.read(folder)


def test_a_torn_line_is_noticed(folder: Path) -> None:
    path = folder / TRANSCRIPT
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ProofError, match="torn"):
        Proof.read(folder)


def drop_tail(proof: Proof) -> Proof:
    return replace(proof, segments=proof.segments[:-1])


def swap_segments(proof: Proof) -> Proof:
    return replace(proof, segments=(proof.segments[1], proof.segments[0], *proof.segments[2:]))


def break_continuity(proof: Proof) -> Proof:
    broken = replace(proof.segments[2], start_digest=bytes(32))
    return replace(proof, segments=(*proof.segments[:2], broken, *proof.segments[3:]))


def shorten_segment(proof: Proof) -> Proof:
    short = replace(proof.segments[-1], end_step=39)
    return replace(proof, segments=(*proof.segments[:-1], short))


def change_root(proof: Proof) -> Proof:
    return replace(proof, anchors=(replace(proof.anchors[0], root=bytes(32)), *proof.anchors[1:]))


def drop_anchor(proof: Proof) -> Proof:
    return replace(proof, anchors=proof.anchors[:-1])


def overlap_anchors(proof: Proof) -> Proof:
    return replace(proof, anchors=(proof.anchors[0], *proof.anchors))


def forget_state(proof: Proof) -> Proof:
    return replace(proof, states=proof.states[1:])


def forget_last_state(proof: Proof) -> Proof:
    return replace(proof, states=proof.states[:-1])


def state_between(proof: Proof) -> Proof:
    return replace(proof, states=(replace(proof.states[0], step=15), *proof.states[1:]))


def block_without_task(proof: Proof) -> Proof:
    return replace(proof, anchors=(replace(proof.anchors[0], block=5), *proof.anchors[1:]))


def seed_block_without_task(proof: Proof) -> Proof:
    return replace(proof, seed_source=replace(proof.seed_source, block=5))


def beacon_without_task(proof: Proof) -> Proof:
    return replace(proof, seed_source=SeedSource(kind="beacon", value=bytes(32)))


@pytest.mark.parametrize(
    "change",
    [
        drop_tail, swap_segments, break_continuity, shorten_segment, change_root, drop_anchor, overlap_anchors,
        forget_state, forget_last_state, state_between, beacon_without_task, block_without_task,
        seed_block_without_task,
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_inconsistent_proofs_are_refused(folder: Path, change) -> None:
    rewrite(folder, change(Proof.read(folder)))
    with pytest.raises(ProofError):
        Proof.read(folder)


def trunk_submission(folder: Path) -> tuple[Submission, bytes]:
    proof = Proof.read(folder)
    state = from_safetensors(states_of(folder).get(proof.states[-1].cid), where="test")
    blob = to_safetensors(model_tensors(state))
    digest = tensors_digest(model_tensors(state))
    return Submission(model_digest=digest, model_cid=cid_of(blob), reference_segment=3), blob


def test_sealing_adds_the_model_once(folder: Path) -> None:
    submission, blob = trunk_submission(folder)
    before = Proof.read(folder)
    sealed = seal(folder, submission, blob, None)
    assert sealed.submission == submission and sealed.transcript_digest == before.transcript_digest
    assert sealed.manifest_digest != before.manifest_digest
    with pytest.raises(RecordingError, match="already sealed"):
        seal(folder, submission, blob, None)


@pytest.mark.parametrize(
    "change", [{"reference_segment": 4}, {"reference_segment": 2}, {"beta": bytes(32)}, {"beta_block": 3}], ids=str
)
def test_impossible_branches_are_refused(folder: Path, change: dict) -> None:
    submission, blob = trunk_submission(folder)
    with pytest.raises(ProofError):
        seal(folder, replace(submission, **change), blob, None)


def test_sealing_another_model_is_refused_and_changes_nothing(folder: Path) -> None:
    submission, blob = trunk_submission(folder)
    with pytest.raises(RecordingError, match="names model"):
        seal(folder, submission, blob + b"\0", None)
    assert Proof.read(folder).submission is None


def test_the_signature_covers_the_whole_manifest(folder: Path) -> None:
    submission, blob = trunk_submission(folder)
    seen = []
    sealed = seal(folder, submission, blob, lambda proof: seen.append(proof.manifest_digest) or bytes(65))
    assert seen == [sealed.manifest_digest] and sealed.signature == bytes(65)


def test_segments_join_end_to_start(honest_run: Path) -> None:
    segments = list(Proof.read(honest_run).segments)
    check_shape(segments, steps=40, segment_length=10)
    segments[2] = replace(segments[2], start_digest=bytes(32))
    with pytest.raises(ProofError, match="segment 2 does not start where segment 1 ends"):
        check_shape(segments, steps=40, segment_length=10)
