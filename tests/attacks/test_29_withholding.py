"""Case 29: commit to garbage, or to something embarrassing, and never show what was committed to.

Source: any scheme in which hashes are published and states are shown on request: a root costs nothing, and who is never
seen to lie is never convicted.

The half that is seen here: what is not shown, or is not what was promised, is never a pass. A proof that lacks a state
it names, or has another one in its place, is malformed; promises that nothing leads to do not replay; a store that does
not serve is a check that could not be made, and leaves no folder that looks like a proof. The other half is on chain:
who does not open what a case drew loses it by default (``Cases.t.sol``: ``test_silenceIsADefaultJudgement``,
``test_theTrainerOpensExactlyWhatWasDrawn``), and jurors who are not served the states say so: two thirds of them make
the trainer serve again, once, and then it is a default (``Votes.t.sol``: ``test_twoThirdsUnavailableAskForItOnceMore``,
``test_notServingAgainIsADefault``, ``test_unavailableASecondTimeIsADefault``, and the honest twin,
``test_servedAgainTheVoteBeginsFromNothing``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from challenge.bundle import fetch_proof, publish_proof
from challenge.segments import Policy
from challenge.verdict import ExitCode
from pol import Proof
from pol.data import Dataset
from pol.errors import CannotRun, ProofError
from pol.opening import open_segments
from pol.proof import MANIFEST, OPENINGS, STATES, StoredState, states_of, write_openings
from pol.state import from_safetensors, to_safetensors
from pol.store import LocalStore
from tests.attacks.forging import copied, edit_boundary, edit_state, trained_states
from tests.attacks.judging import judged, rejected

GARBAGE = b"\x5a" * 32


@pytest.fixture
def folder(honest_run: Path, tmp_path: Path) -> Path:
    return copied(honest_run, tmp_path / "proof")


def blob(folder: Path, number: int) -> Path:
    return folder / STATES / f"{Proof.read(folder).states[number].cid}.safetensors"


@pytest.mark.parametrize("number", [0, 1])
def test_a_state_that_is_named_must_be_there(folder: Path, number: int) -> None:
    path = blob(folder, number)
    path.unlink()
    rejected(judged(folder), ExitCode.MALFORMED, f"missing ['{path.stem}']")


def empty(_: bytes) -> bytes:
    return b""


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def one_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def another(_: bytes) -> bytes:
    return bytes(1000)


@pytest.mark.parametrize("change", [empty, cut, one_bit, another], ids=lambda change: change.__name__)
def test_something_else_in_its_place_is_no_answer(folder: Path, change: Callable[[bytes], bytes]) -> None:
    path = blob(folder, 0)
    path.write_bytes(change(path.read_bytes()))
    assert judged(folder).exit_code is ExitCode.MALFORMED


def test_another_honest_state_is_no_answer_either(folder: Path) -> None:
    """Both blobs are sound, each under its own CID, and the manifest names the wrong one."""
    proof = Proof.read(folder)
    first, last = proof.states
    swapped = (replace(first, cid=last.cid), replace(last, cid=first.cid))
    replace(proof, states=swapped).write(folder)
    rejected(judged(folder), ExitCode.MALFORMED, "not the state the transcript promises after step")


def test_nothing_opens_garbage(folder: Path) -> None:
    """The last state was promised as 32 bytes that are the digest of nothing anybody has."""
    edit_boundary(folder, 3, GARBAGE)
    rejected(judged(folder), ExitCode.MALFORMED, "not the state the transcript promises after step 40")


def test_garbage_that_needs_no_opening_does_not_replay(folder: Path) -> None:
    """Between two stored states digests alone are kept: they are worked out, and compared, all the same."""
    edit_boundary(folder, 0, GARBAGE)
    edit_boundary(folder, 2, GARBAGE)
    segments = rejected(judged(folder), ExitCode.REPLAY_MISMATCH, "does not replay to the promised state")
    assert segments == {0, 2}


def test_a_sparse_proof_withholds_nothing(folder: Path) -> None:
    """The honest twin: states that are not kept are worked out again, by whoever needs them."""
    assert len(Proof.read(folder).states) == 2
    assert judged(folder, Policy(segments=[1, 3])).exit_code is ExitCode.VERIFIED


def opened(folder: Path, step: int, data: bytes) -> None:
    write_openings(folder, [StoredState(step=step, cid=states_of(folder).put(data))])


@pytest.mark.parametrize("step", [5, 10, 20, 50])
def test_an_opening_is_held_by_what_was_promised(folder: Path, step: int) -> None:
    """Served later, signed by nobody: inside a segment, at a boundary, in the place of a kept state, after the end."""
    tensors = from_safetensors(states_of(folder).get(Proof.read(folder).states[0].cid), where="test")
    tensors["model/layers.0.bias"][0] += 1
    opened(folder, step, to_safetensors(tensors))
    assert judged(folder).exit_code is ExitCode.MALFORMED


def test_an_opening_that_is_named_must_be_there(folder: Path) -> None:
    cid = states_of(folder).put(b"gone")
    (folder / STATES / f"{cid}.safetensors").unlink()
    write_openings(folder, [StoredState(step=10, cid=cid)])
    rejected(judged(folder), ExitCode.MALFORMED, f"missing ['{cid}']")


def test_garbage_cannot_be_opened_on_request(folder: Path) -> None:
    """Whoever is asked for the state finds that the machine computes another one, and serves nothing."""
    edit_boundary(folder, 0, GARBAGE)
    with pytest.raises(CannotRun, match="another state after segment 0"):
        open_segments(folder, [0])
    assert not (folder / OPENINGS).exists()


# From a store


def withheld(folder: Path, tmp_path: Path, change: Callable[[Path], None]) -> tuple[str, LocalStore]:
    """The proof in a store, in which one blob was changed afterwards."""
    store = LocalStore(tmp_path / "store")
    cid = publish_proof(folder, store)
    change(store.path(Proof.read(folder).states[0].cid))
    return cid, store


def test_a_store_that_does_not_serve_is_no_verdict(folder: Path, tmp_path: Path) -> None:
    cid, store = withheld(folder, tmp_path, lambda path: path.unlink())
    with pytest.raises(CannotRun):
        fetch_proof(cid, store, tmp_path / "fetched")
    assert not (tmp_path / "fetched" / MANIFEST).exists(), "what did not arrive whole never looks like a proof"


def test_a_store_that_serves_something_else_is_no_verdict(folder: Path, tmp_path: Path) -> None:
    cid, store = withheld(folder, tmp_path, lambda path: path.write_bytes(b"something else"))
    with pytest.raises(CannotRun):
        fetch_proof(cid, store, tmp_path / "fetched")
    assert not (tmp_path / "fetched" / MANIFEST).exists()


def test_a_bundle_that_names_too_little_is_malformed(folder: Path, tmp_path: Path) -> None:
    """Everything in it is served, but the manifest in it names a state that the bundle does not."""
    store = LocalStore(tmp_path / "store")
    kept = blob(folder, 1)
    data = kept.read_bytes()
    kept.unlink()
    cid = publish_proof(folder, store)
    kept.write_bytes(data)
    fetch_proof(cid, store, tmp_path / "fetched")
    with pytest.raises(ProofError, match="missing"):
        Proof.read(tmp_path / "fetched")
    assert judged(tmp_path / "fetched").exit_code is ExitCode.MALFORMED


def test_the_honest_twin_is_fetched_and_passes(folder: Path, tmp_path: Path, train_set: Dataset) -> None:
    """What is opened on request is served with the rest, and changes nothing that was signed."""
    before = (folder / MANIFEST).read_bytes()
    opened(folder, 10, to_safetensors(trained_states(Proof.read(folder).spec, train_set)[1]))
    assert (folder / MANIFEST).read_bytes() == before and len(Proof.read(folder).openings) == 1
    store = LocalStore(tmp_path / "store")
    fetch_proof(publish_proof(folder, store), store, tmp_path / "fetched")
    assert judged(tmp_path / "fetched", Policy(segments=[1])).exit_code is ExitCode.VERIFIED


def test_the_tools_do_no_harm(folder: Path) -> None:
    edit_state(folder, 1, lambda tensors: None)
    assert judged(folder, Policy(segments=[1, 2])).exit_code is ExitCode.VERIFIED
