"""Proofs through a store: the same folder on the other side, however often interrupted, and nothing beside it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from challenge.bundle import fetch_proof, publish_proof
from pol import Proof
from pol.cid import cid_of
from pol.encoding import canonical_json
from pol.errors import CannotRun, ProofError, Unreachable
from pol.proof import MANIFEST, TRANSCRIPT, write_openings
from pol.store import LocalStore, OnBytes, unwatched


class Flaky(LocalStore):
    """A store that breaks off after some blobs."""

    def __init__(self, folder: Path, *, left: int) -> None:
        super().__init__(folder)
        self.left = left

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Unreachable("the line is dead")

    def put_file(self, path: Path) -> str:
        self.spend()
        return super().put_file(path)

    def get_file(self, cid: str, target: Path, *, on_bytes: OnBytes = unwatched) -> None:
        self.spend()
        super().get_file(cid, target, on_bytes=on_bytes)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def opened(honest_run: Path, tmp_path: Path) -> Path:
    """An honest proof that lists one of its states as opened on request."""
    folder, proof = tmp_path / "opened", Proof.read(honest_run)
    shutil.copytree(honest_run, folder)
    replace(proof, states=proof.states[1:]).write(folder)
    write_openings(folder, proof.states[:1])
    assert Proof.read(folder).openings == proof.states[:1]
    return folder


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_published_proof_comes_back_as_it_was(honest_run: Path, store: LocalStore, tmp_path: Path) -> None:
    fetch_proof(publish_proof(honest_run, store), store, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(honest_run)
    assert Proof.read(tmp_path / "there") == Proof.read(honest_run)


def test_opened_states_travel_too(opened: Path, honest_run: Path, store: LocalStore, tmp_path: Path) -> None:
    cid = publish_proof(opened, store)
    fetch_proof(cid, store, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(opened)
    assert b"openings" in store.get(cid)
    assert b"openings" not in store.get(publish_proof(honest_run, store))  # a reader of version 1 still reads it


def test_both_ways_are_counted(honest_run: Path, store: LocalStore, tmp_path: Path) -> None:
    files, counted = len(contents(honest_run)), []
    cid = publish_proof(honest_run, store, on_blob=lambda done, total: counted.append((done, total)))
    fetch_proof(cid, store, tmp_path / "there", on_blob=lambda done, total: counted.append((done, total)))
    assert counted == [(done, files) for done in range(1, files + 1)] * 2


def test_publishing_goes_on_after_an_interruption(honest_run: Path, tmp_path: Path) -> None:
    whole = LocalStore(tmp_path / "whole")
    cid = publish_proof(honest_run, whole)
    for left in range(len(contents(honest_run))):
        store = Flaky(tmp_path / str(left), left=left)
        with pytest.raises(Unreachable):
            publish_proof(honest_run, store)
        store.left = 1000
        assert publish_proof(honest_run, store) == cid
        assert contents(store.folder) == contents(whole.folder)


def test_fetching_goes_on_after_an_interruption(opened: Path, tmp_path: Path) -> None:
    cid = publish_proof(opened, LocalStore(tmp_path / "store"))
    for left in range(len(contents(opened))):
        store, there = Flaky(tmp_path / "store", left=left), tmp_path / str(left)
        with pytest.raises(Unreachable):
            fetch_proof(cid, store, there)
        assert not (there / MANIFEST).exists()
        assert len(contents(there)) <= left
        store.left = len(contents(opened)) - len(contents(there))  # what arrived is not asked for again
        fetch_proof(cid, store, there)
        assert contents(there) == contents(opened)


def test_what_was_killed_or_spoiled_is_replaced(honest_run: Path, store: LocalStore, tmp_path: Path) -> None:
    cid, there = publish_proof(honest_run, store), tmp_path / "there"
    fetch_proof(cid, store, there)
    state = next((there / "states").iterdir())
    state.write_bytes(b"spoiled")
    (there / MANIFEST).unlink()
    (there / ".partial-x1").write_bytes(b"killed")
    state.with_name(f".partial-{state.name}").write_bytes(b"killed")
    fetch_proof(cid, store, there)
    assert contents(there) == contents(honest_run)


def test_a_folder_of_something_else_is_left_alone(honest_run: Path, store: LocalStore, tmp_path: Path) -> None:
    cid, there = publish_proof(honest_run, store), tmp_path / "there"
    (there / "states").mkdir(parents=True)
    (there / "states" / f"{cid_of(b'mine')}.safetensors").write_bytes(b"mine")
    with pytest.raises(CannotRun, match="choose a new folder"):
        fetch_proof(cid, store, there)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / TRANSCRIPT).symlink_to(honest_run / TRANSCRIPT)
    with pytest.raises(CannotRun, match="choose a new folder"):
        fetch_proof(cid, store, tmp_path / "link")
    assert [path.read_bytes() for path in (there / "states").iterdir()] == [b"mine"]


def test_no_more_than_allowed_is_written(honest_run: Path, store: LocalStore, tmp_path: Path) -> None:
    cid, size = publish_proof(honest_run, store), sum(len(data) for data in contents(honest_run).values())
    with pytest.raises(CannotRun, match=f"more than {size - 1} bytes"):
        fetch_proof(cid, store, tmp_path / "there", limit=size - 1)
    assert not (tmp_path / "there" / MANIFEST).exists()
    assert sum(len(data) for data in contents(tmp_path / "there").values()) < size
    for _ in range(2):  # what is there already counts as what comes does
        fetch_proof(cid, store, tmp_path / "there", limit=size)
    with pytest.raises(CannotRun, match=f"more than {size - 1} bytes"):
        fetch_proof(cid, store, tmp_path / "there", limit=size - 1)


@pytest.mark.parametrize(
    "index",
    [
        {}, {"format": "aiarena.bundle/1", "manifest": "../../x", "transcript": "x", "states": []},
        {"format": "aiarena.bundle/1", "manifest": "x", "transcript": "x", "states": "all"},
        {"format": "other", "manifest": "x", "transcript": "x", "states": []},
        {"format": "aiarena.bundle/1", "manifest": "x", "openings": None, "transcript": "x", "states": []},
        {"format": "aiarena.bundle/1", "manifest": "x", "spare": "x", "transcript": "x", "states": []},
    ],
)  # fmt: skip
def test_a_hostile_index_is_refused(store: LocalStore, tmp_path: Path, index: dict) -> None:
    cid = store.put(canonical_json(index))
    with pytest.raises(ProofError):
        fetch_proof(cid, store, tmp_path / "there")
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "there").exists()


def test_what_is_not_served_is_said(honest_run: Path, store: LocalStore, tmp_path: Path) -> None:
    cid = publish_proof(honest_run, store)
    next(path for path in store.folder.iterdir() if path.name != cid).unlink()
    with pytest.raises(CannotRun, match="no such blob"):
        fetch_proof(cid, store, tmp_path / "there")


def test_one_failure_ends_the_other_transfers(honest_run: Path, store: LocalStore, tmp_path: Path) -> None:
    class Endless(LocalStore):
        """Every file but one comes for ever."""

        def get_file(self, cid: str, target: Path, *, on_bytes: OnBytes = unwatched) -> None:
            if target.name == TRANSCRIPT:
                raise Unreachable("the line is dead")
            while True:
                on_bytes(0)

    cid = publish_proof(honest_run, store)
    with pytest.raises(Unreachable, match="the line is dead"):
        fetch_proof(cid, Endless(store.folder), tmp_path / "there")


def test_a_store_that_spoils_blobs_is_not_the_proofs_fault(honest_run: Path, store: LocalStore, tmp_path: Path) -> None:
    cid = publish_proof(honest_run, store)
    for path in store.folder.iterdir():
        kept = path.read_bytes()
        path.write_bytes(kept[:-1] + b"?")
        with pytest.raises(CannotRun, match="do not have the CID") as found:
            fetch_proof(cid, store, tmp_path / path.name)
        assert not isinstance(found.value, ProofError)
        assert not (tmp_path / path.name / MANIFEST).exists()
        path.write_bytes(kept)


def test_a_spoiled_proof_is_not_published(honest_run: Path, store: LocalStore, tmp_path: Path) -> None:
    shutil.copytree(honest_run, tmp_path / "mine")
    next((tmp_path / "mine/states").iterdir()).write_bytes(b"spoiled")
    with pytest.raises(ProofError, match="do not have the CID"):
        publish_proof(tmp_path / "mine", store)
