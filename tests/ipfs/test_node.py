"""A real IPFS node: it gives the CIDs that are computed here, and proofs travel through it."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ipfshttpclient
import pytest

from challenge.bundle import fetch_proof, publish_proof
from pol import Proof
from pol.cid import CHUNK_BYTES, cid_of, cid_of_file, cid_of_folder
from pol.errors import CannotRun, Unreachable
from pol.ipfs import IpfsStore
from pol.proof import MANIFEST
from pol.store import LocalStore, open_store

pytestmark = pytest.mark.ipfs

MEGABYTE = 10**6
SIZES = [0, 1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, MEGABYTE, 5 * MEGABYTE, 174 * CHUNK_BYTES + 1]
LARGE = [50 * MEGABYTE, 200 * MEGABYTE]


@pytest.fixture
def store(api: str) -> IpfsStore:
    return IpfsStore(api)


@pytest.fixture
def client(api: str) -> ipfshttpclient.Client:
    """The node as others see it, without the code under test."""
    return ipfshttpclient.Client(api)


@pytest.mark.parametrize("size", SIZES + LARGE)
def test_the_node_gives_the_cid_that_is_computed_here(
    store: IpfsStore, client: ipfshttpclient.Client, tmp_path: Path, size: int
) -> None:
    data = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(data)
    added = client.add(str(tmp_path / "file"), raw_leaves=True, cid_version=1, opts={"cid-base": "base32"})
    cid = store.put_file(tmp_path / "file")
    assert cid == added["Hash"] == cid_of(data) == cid_of_file(tmp_path / "file")
    store.get_file(cid, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == data
    assert store.get(cid) == data


def test_nested_folders_have_the_cids_of_the_node(client: ipfshttpclient.Client, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, size in {
        "b": 3,
        "a.b": 0,
        "a": CHUNK_BYTES,
        ".hidden": 9,
        "deep/deeper/ü": 3 * MEGABYTE,
        "deep/x": 1,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(random.Random(name).randbytes(size))
    (folder / "empty").mkdir()
    for number in range(500):
        (folder / "deep" / f"{number}").write_bytes(b"%d" % number)
    added = client.add(folder, recursive=True, raw_leaves=True, cid_version=1, opts={"cid-base": "base32"})
    assert {"folder": cid_of_folder(folder), "folder/deep": cid_of_folder(folder / "deep")}.items() <= {
        entry["Name"]: entry["Hash"] for entry in added
    }.items()


def test_a_proof_recorded_with_one_store_verifies_from_the_other(
    store: IpfsStore, honest_run: Path, tmp_path: Path
) -> None:
    local = LocalStore(tmp_path / "store")
    cid = publish_proof(honest_run, local)
    assert publish_proof(honest_run, store) == cid
    for number, source in enumerate((store, local)):
        fetch_proof(cid, source, tmp_path / str(number))
        assert Proof.read(tmp_path / str(number)) == Proof.read(honest_run)
        assert cid_of_folder(tmp_path / str(number)) == cid_of_folder(honest_run)


def test_what_is_published_is_pinned(store: IpfsStore, client: ipfshttpclient.Client, honest_run: Path) -> None:
    cid = publish_proof(honest_run, store)
    blobs = [path for path in honest_run.rglob("*") if path.is_file()]
    for blob in [cid, *(cid_of_file(path) for path in blobs)]:
        (pin,) = client.pin.ls(blob, type="recursive")["Keys"].values()
        assert pin["Type"] == "recursive"
    client.pin.rm(cid)
    assert publish_proof(honest_run, store) == cid  # what lost its pin gets it back
    assert client.pin.ls(cid, type="recursive")["Keys"]


def test_an_interrupted_fetch_goes_on(api: str, store: IpfsStore, honest_run: Path, tmp_path: Path) -> None:
    cid, there = publish_proof(honest_run, store), tmp_path / "there"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_proof(cid, store, there, on_blob=stop)
    assert not (there / MANIFEST).exists()
    fetch_proof(cid, open_store(api), there)
    assert Proof.read(there) == Proof.read(honest_run)


def test_an_interrupted_blob_goes_on(store: IpfsStore, tmp_path: Path) -> None:
    data = random.Random(7).randbytes(20 * MEGABYTE)
    cid, counted = store.put(data), []

    def stop(count: int) -> None:
        counted.append(count)
        if sum(counted) > 10 * MEGABYTE:
            raise CannotRun("unplugged")

    with pytest.raises(CannotRun, match="unplugged"):
        store.get_file(cid, tmp_path / "blob", on_bytes=stop)
    assert [path.name for path in tmp_path.iterdir()] == [".partial-blob"]
    again: list[int] = []
    store.get_file(cid, tmp_path / "blob", on_bytes=again.append)
    assert (tmp_path / "blob").read_bytes() == data
    assert again[0] == sum(counted[:-1])
    assert sum(again) == len(data)


def test_many_transfers_at_a_time(store: IpfsStore, tmp_path: Path) -> None:
    blobs = {str(number): random.Random(number).randbytes(number * 200_000) for number in range(12)}
    with ThreadPoolExecutor(6) as pool:
        cids = dict(zip(blobs, pool.map(store.put, blobs.values()), strict=True))
        list(pool.map(lambda name: store.get_file(cids[name], tmp_path / name), blobs))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == blobs


def test_what_nobody_serves_is_waited_for_no_longer_than_told(api: str, tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        IpfsStore(api, stall=1.0).get_file(cid_of(b"never published"), tmp_path / "blob")
    assert list(tmp_path.iterdir()) == []
