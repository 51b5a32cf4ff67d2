"""CIDs against an independent implementation, and a store that never hands out something else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pol.cid import cid_of, is_cid
from pol.errors import CannotRun, ProofError
from pol.store import LocalStore, write_atomically

VECTORS = json.loads((Path(__file__).parents[1] / "golden/cid.json").read_text())["vectors"]


def stream(size: int) -> bytes:
    blocks = (hashlib.sha256(b"aiarena/cid-vector" + i.to_bytes(8, "big")).digest() for i in range(size // 32 + 1))
    return b"".join(blocks)[:size]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["bytes"]))
def test_cids_equal_those_of_another_implementation(vector: dict) -> None:
    assert cid_of(stream(vector["bytes"])) == vector["cid"]
    assert is_cid(vector["cid"])


def test_what_is_put_comes_back_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    cid = store.put(b"weights")
    assert store.put(b"weights") == cid
    assert store.get(cid) == b"weights"
    assert [path.name for path in tmp_path.iterdir()] == [cid]


def test_changed_bytes_are_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    cid = store.put(b"weights")
    store.path(cid).write_bytes(b"weight5")
    with pytest.raises(ProofError, match="do not have the CID"):
        store.get(cid)


def test_what_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="no such blob"):
        LocalStore(tmp_path).get(cid_of(b"elsewhere"))


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
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "file", "not bytes")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
