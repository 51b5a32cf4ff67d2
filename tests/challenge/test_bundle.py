"""Proofs through a store: the same folder on the other side, and no way to write anywhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from challenge.bundle import fetch_proof, publish_proof
from pol import Proof
from pol.encoding import canonical_json
from pol.errors import CannotRun, ProofError
from pol.store import LocalStore


def test_a_published_proof_comes_back_as_it_was(honest_run: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    fetch_proof(publish_proof(honest_run, store), store, tmp_path / "there")
    files = {path.relative_to(honest_run) for path in honest_run.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "there") for path in (tmp_path / "there").rglob("*") if path.is_file()} == files
    assert all((honest_run / name).read_bytes() == (tmp_path / "there" / name).read_bytes() for name in files)
    assert Proof.read(tmp_path / "there") == Proof.read(honest_run)


@pytest.mark.parametrize(
    "index",
    [
        {}, {"format": "aiarena.bundle/1", "manifest": "../../x", "transcript": "x", "states": []},
        {"format": "aiarena.bundle/1", "manifest": "x", "transcript": "x", "states": "all"},
        {"format": "other", "manifest": "x", "transcript": "x", "states": []},
    ],
)  # fmt: skip
def test_a_hostile_index_is_refused(tmp_path: Path, index: dict) -> None:
    store = LocalStore(tmp_path / "store")
    cid = store.put(canonical_json(index))
    with pytest.raises(ProofError):
        fetch_proof(cid, store, tmp_path / "there")
    assert not (tmp_path / "x").exists()


def test_what_is_not_served_is_said(honest_run: Path, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    cid = publish_proof(honest_run, store)
    next(path for path in store.folder.iterdir() if path.name != cid).unlink()
    with pytest.raises(CannotRun, match="no such blob"):
        fetch_proof(cid, store, tmp_path / "there")
