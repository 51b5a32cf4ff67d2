"""Blobs of a folder: hashed in pieces as a whole, refused for each reason, in bounded memory."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import pytest
import torch

from challenge.states import PIECE_BYTES, check_blobs, file_digest, load_blob
from pol import Proof
from pol.errors import ProofError
from pol.proof import states_of
from pol.state import to_safetensors
from pol.tensors import BLOCK_BYTES, DTYPES, tensors_digest

SIZES = [0, 1, BLOCK_BYTES // 8, PIECE_BYTES // 8, PIECE_BYTES // 8 + 1, 3 * PIECE_BYTES // 8 + 5]


@pytest.mark.parametrize("dtype", DTYPES, ids=DTYPES.get)
def test_the_digest_in_pieces_is_the_digest(dtype: torch.dtype, tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(0)
    tensors = {f"é/{size}": torch.randint(0, 2, (size,), generator=made).to(dtype) for size in SIZES}
    tensors["scalar"] = torch.ones((), dtype=dtype)
    (tmp_path / "file").write_bytes(to_safetensors(tensors))
    assert file_digest(tmp_path / "file", where="test") == tensors_digest(tensors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, -1])
def test_values_that_are_not_finite_are_found_in_any_piece(dtype, value, position, tmp_path: Path) -> None:
    tensor = torch.zeros(PIECE_BYTES, dtype=dtype)
    tensor[position] = value
    (tmp_path / "file").write_bytes(to_safetensors({"a": torch.ones(2), "poisoned": tensor}))
    with pytest.raises(ProofError, match="'poisoned' holds NaN"):
        file_digest(tmp_path / "file", where="test")


def test_booleans_are_zero_or_one(tmp_path: Path) -> None:
    data = bytearray(to_safetensors({"a": torch.tensor([True, False])}))
    data[-1] = 2
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ProofError, match="neither 0 nor 1"):
        file_digest(tmp_path / "file", where="test")


def test_no_tensors_are_no_state(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(to_safetensors({}))
    with pytest.raises(ProofError, match="without tensors"):
        file_digest(tmp_path / "file", where="test")


def test_a_huge_tensor_is_not_held_in_memory(tmp_path: Path) -> None:
    size = 256 * 2**20
    header = json.dumps({"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    with (tmp_path / "file").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)  # sparse: it costs the attacker nothing
    tracemalloc.start()
    try:
        file_digest(tmp_path / "file", where="test")
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


@pytest.fixture
def folder(honest_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest_run, tmp_path / "proof"))


def test_honest_blobs_pass_and_load(folder: Path) -> None:
    proof = Proof.read(folder)
    assert check_blobs(folder, proof) == 2
    assert tensors_digest(load_blob(folder, proof.states[-1].cid)) == proof.segments[-1].end_digest


def test_a_blob_that_is_too_large_is_not_read(folder: Path) -> None:
    proof = Proof.read(folder)
    os.truncate(states_of(folder).path(proof.states[0].cid), 8 * 2**30 + 1)
    with pytest.raises(ProofError, match="larger than the limit"):
        check_blobs(folder, proof)


def test_the_state_of_another_step_is_refused(folder: Path) -> None:
    proof = Proof.read(folder)
    first, last = (states_of(folder).path(state.cid) for state in proof.states)
    shutil.copy(first, last)
    with pytest.raises(ProofError, match="CID in its name"):
        check_blobs(folder, proof)


def test_a_blob_that_changed_or_went_away_since_the_check_is_not_loaded(folder: Path) -> None:
    proof = Proof.read(folder)
    check_blobs(folder, proof)
    first, last = (states_of(folder).path(state.cid) for state in proof.states)
    shutil.copy(first, last)
    with pytest.raises(ProofError, match="CID in its name"):
        load_blob(folder, proof.states[1].cid)
    first.unlink()
    with pytest.raises(ProofError, match="no such blob"):
        load_blob(folder, proof.states[0].cid)
