"""CIDs against other implementations, and a store that never hands out something else."""

from __future__ import annotations

import hashlib
import json
import random
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol.cid import CHUNK_BYTES, CidHasher, cid_of, cid_of_file, cid_of_folder, is_cid, links_of, names_block, root_of
from pol.errors import CannotRun, PolError, ProofError
from pol.ipfs import IpfsStore
from pol.store import LocalStore, open_store, write_atomically
from tests.ipfs.unixfs import binary, tree

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/cid.json").read_text())
MEGABYTE = 1 << 20


def stream(size: int) -> bytes:
    blocks = (hashlib.sha256(b"aiarena/cid-vector" + i.to_bytes(8, "big")).digest() for i in range(size // 32 + 1))
    return b"".join(blocks)[:size]


@pytest.mark.parametrize("vector", GOLDEN["vectors"], ids=lambda vector: str(vector["bytes"]))
def test_cids_equal_those_of_another_implementation(vector: dict) -> None:
    assert cid_of(stream(vector["bytes"])) == vector["cid"]
    assert is_cid(vector["cid"])


@given(size=st.integers(0, 4 * CHUNK_BYTES), cuts=st.lists(st.integers(0, 4 * CHUNK_BYTES), max_size=6))
def test_the_pieces_do_not_matter(size: int, cuts: list[int]) -> None:
    data, hasher, edges = bytes(size), CidHasher(), [0, *sorted(min(cut, size) for cut in cuts), size]
    for start, end in pairwise(edges):
        hasher.update(memoryview(data)[start:end])
    assert hasher.finish() == cid_of(data)


@pytest.mark.parametrize("chunks", [1, 2, 174, 175, 348, 349])
def test_every_node_is_read_back(chunks: int) -> None:
    data = random.Random(chunks).randbytes(1000) * (chunks * CHUNK_BYTES // 1000)
    cid, blocks = tree(data)
    assert cid == cid_of(data)
    links, at = [root_of(cid, blocks[cid])], 0
    assert links[0].size == len(data)
    while links:
        link = links.pop(0)
        assert names_block(link.cid, blocks[link.cid])
        if link.height:
            links = links_of(link, blocks[link.cid]) + links
        else:
            assert blocks[link.cid] == data[at : at + link.size]
            at += link.size
    assert at == len(data)


def test_no_other_block_is_a_node() -> None:
    """One flipped bit, anywhere: no node, or one whose children are other chunks of the same sizes."""
    cid, blocks = tree(bytes(5 * CHUNK_BYTES))
    honest = links_of(root_of(cid, blocks[cid]), blocks[cid])
    for bit in range(8 * len(blocks[cid])):
        changed = bytearray(blocks[cid])
        changed[bit // 8] ^= 1 << bit % 8
        assert not names_block(cid, bytes(changed))
        try:
            links = links_of(root_of(cid, bytes(changed)), bytes(changed))
        except ProofError:
            continue
        assert [link.size for link in links] == [link.size for link in honest]
        assert {binary(link.cid)[:4] for link in links} == {b"\x01\x55\x12\x20"}
        assert links != honest


@given(st.binary(max_size=200))
def test_noise_is_no_node(noise: bytes) -> None:
    with pytest.raises(ProofError, match="not a tree"):
        root = root_of(tree(bytes(2 * CHUNK_BYTES))[0], noise)
        links_of(root, noise)


@pytest.mark.parametrize("vector", GOLDEN["folders"], ids=lambda vector: str(len(vector["files"])))
def test_folders_have_the_cids_of_an_ipfs_node(vector: dict, tmp_path: Path) -> None:
    for name, size in vector["files"].items():
        path = tmp_path / name
        (path if size is None else path.parent).mkdir(parents=True, exist_ok=True)
        if size is not None:
            path.write_bytes(stream(size))
    assert cid_of_folder(tmp_path) == vector["cid"]


def test_folders_that_have_no_one_cid_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(CannotRun, match="neither a file nor a folder"):
        cid_of_folder(tmp_path)
    (tmp_path / "link").unlink()
    for number in range(1200):
        (tmp_path / f"{number:0200d}").touch()
    with pytest.raises(CannotRun, match="Make subfolders"):
        cid_of_folder(tmp_path)


def test_what_is_put_comes_back_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    cid = store.put(b"weights")
    assert store.put(b"weights") == cid
    assert store.get(cid) == b"weights"
    assert [path.name for path in tmp_path.iterdir()] == [cid]


@pytest.mark.parametrize("size", [0, 1, 3 * MEGABYTE + 1])
def test_files_come_and_go_as_bytes_do(tmp_path: Path, size: int) -> None:
    data, store = random.Random(size).randbytes(size), LocalStore(tmp_path / "store")
    (tmp_path / "file").write_bytes(data)
    cid = store.put_file(tmp_path / "file")
    assert cid == cid_of(data) == cid_of_file(tmp_path / "file") == store.put_chunks([data[:1], data[1:]])
    counted: list[int] = []
    store.get_file(cid, tmp_path / "there/again", on_bytes=counted.append)
    assert (tmp_path / "there/again").read_bytes() == store.get(cid) == data
    assert sum(counted) == size
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["again"]
    assert [path.name for path in store.folder.iterdir()] == [cid]


def test_large_blobs_are_never_in_memory(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    tracemalloc.start()
    try:
        cid = store.put_chunks(bytes([number]) * MEGABYTE for number in range(32))
        store.get_file(cid, tmp_path / "file")
        assert LocalStore(tmp_path / "other").put_file(tmp_path / "file") == cid
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MEGABYTE


@pytest.mark.parametrize(("fault", "other"), [(ProofError, CannotRun), (CannotRun, ProofError)])
def test_changed_bytes_are_refused(tmp_path: Path, fault: type[PolError], other: type[PolError]) -> None:
    """In a proof's folder it is the proof's fault, elsewhere the store's."""
    store = LocalStore(tmp_path / "store", fault=fault)
    cid = store.put(b"weights")
    store.path(cid).write_bytes(b"weight5")
    for read in (lambda: store.get(cid), lambda: store.get_file(cid, tmp_path / "file")):
        with pytest.raises(fault, match="do not have the CID") as found:
            read()
        assert not isinstance(found.value, other)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="no such blob"):
        LocalStore(tmp_path).get(cid_of(b"elsewhere"))
    with pytest.raises(CannotRun, match="no such blob"):
        LocalStore(tmp_path).get_file(cid_of(b"elsewhere"), tmp_path / "file")


def test_what_is_larger_than_wanted_is_not_read(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    cid = store.put(b"weights")
    assert store.get(cid, limit=7) == b"weights"
    with pytest.raises(CannotRun, match="larger than 6 bytes"):
        store.get(cid, limit=6)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "bafk" + "a" * 54 + "/", "bafk/../../x", cid_of(b"x") + "\n"])
def test_only_cids_become_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(ProofError, match="not a CID"):
        LocalStore(tmp_path).path(name)


def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"key")
    store = LocalStore(tmp_path / "store")
    store.folder.mkdir()
    store.path(cid_of(b"key")).symlink_to(secret)
    with pytest.raises(CannotRun):
        store.get(cid_of(b"key"))


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"some"
        raise ProofError("no more")

    def full(count: int) -> None:
        raise CannotRun("the disk is full")

    with pytest.raises(TypeError):
        write_atomically(tmp_path / "file", "not bytes")  # type: ignore[arg-type]
    with pytest.raises(ProofError):
        LocalStore(tmp_path).put_chunks(broken())
    assert list(tmp_path.iterdir()) == []
    store = LocalStore(tmp_path / "store")
    with pytest.raises(CannotRun, match="full"):
        store.get_file(store.put(b"weights"), tmp_path / "file", on_bytes=full)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_location_says_which_store(tmp_path: Path) -> None:
    folder = open_store(str(tmp_path))
    assert isinstance(folder, LocalStore)
    assert folder.folder == tmp_path
    for location in ("ipfs", "/ip4/127.0.0.1/tcp/5001", "/dns/localhost/tcp/5001/http", "http://[::1]:5001"):
        assert isinstance(open_store(location), IpfsStore)


@pytest.mark.parametrize(
    "location",
    ["http://", "http://h:99999", "http://h:x", "https://me@h", "http://h/a/path", "/ip4/h/tcp/1", "/ip4/127.0.0.1"],
)
def test_an_address_that_is_none_is_told(location: str) -> None:
    with pytest.raises(CannotRun, match="no address of an IPFS API"):
        open_store(location)
