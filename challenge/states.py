"""The blobs of a proof folder: checked in pieces before anything is loaded, and loaded one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import torch

from pol.cid import cid_of_file
from pol.errors import CannotRun, ProofError
from pol.proof import Proof, states_of
from pol.state import Tensors, from_safetensors
from pol.store import MAX_BLOB_BYTES
from pol.tensorfile import TensorRow, parse_rows
from pol.tensors import BLOCK_BYTES, DTYPES, blocks_root, check_values, table_digest, tensor_header

PIECE_BYTES = 64 * BLOCK_BYTES
_DTYPES = {name: dtype for dtype, name in DTYPES.items()}


def check_blobs(folder: Path, proof: Proof) -> int:
    """Check every blob that ``proof`` names, and return their number; :class:`ProofError` names the first bad one.

    Each has the CID in its name, the digest that transcript or submission promises, and only finite numbers. They are
    read in pieces: the memory this takes does not grow with them.
    """
    ends = {segment.end_step: segment.end_digest for segment in proof.segments}
    promised = [
        (state.cid, ends[state.step], f"the state the transcript promises after step {state.step}")
        for state in (*proof.states, *proof.openings)
    ]
    promised += [
        (mark.model_cid, mark.model_digest, f"the model submitted from segment {mark.reference_segment}")
        for mark in proof.submissions
    ]
    for cid, digest, what in promised:
        path, where = states_of(folder).path(cid), f"states/{cid}"
        if path.stat().st_size > MAX_BLOB_BYTES:
            raise ProofError(f"{where}: larger than the limit of {MAX_BLOB_BYTES} bytes")
        if cid_of_file(path) != cid:
            raise ProofError(f"{where}: its bytes do not have the CID in its name")
        if file_digest(path, where=where) != digest:
            raise ProofError(f"{where}: not {what}")
    return len(promised)


def load_blob(folder: Path, cid: str) -> Tensors:
    """The tensors of one blob, its CID checked again: between two readings a file may have been exchanged."""
    try:
        return from_safetensors(states_of(folder).get(cid), where=f"states/{cid}")
    except CannotRun as error:  # a proof that lacks a file it names is the prover's fault, not this machine's
        raise ProofError(str(error)) from error


def file_digest(path: Path, *, where: str) -> bytes:
    """The digest of the tensors in a safetensors file, as :func:`pol.tensors.tensors_digest` gives it, in pieces.

    Raises :class:`ProofError` for what is no such file and for values that :func:`pol.tensors.check_values` refuses.
    """
    table = []
    with path.open("rb") as file:
        rows = parse_rows(file, path.stat().st_size, where=where)
        for row in sorted(rows, key=lambda row: row.name.encode("utf-8")):
            shape_only = torch.empty(row.shape, dtype=_DTYPES[row.dtype], device="meta")
            header = tensor_header(row.name, shape_only)
            table.append((header, blocks_root(header, _blocks(file, row, where=where))))
    return table_digest(table)


def _blocks(file: BinaryIO, row: TensorRow, *, where: str) -> Iterator[memoryview]:
    file.seek(row.start)
    if row.start == row.end:
        yield memoryview(b"")
    for start in range(row.start, row.end, PIECE_BYTES):
        piece = bytearray(min(PIECE_BYTES, row.end - start))
        if file.readinto(piece) != len(piece):  # type: ignore[attr-defined]
            raise ProofError(f"{where}: the file became shorter while it was read")
        check_values({row.name: torch.frombuffer(piece, dtype=_DTYPES[row.dtype])}, where=where)
        yield from (memoryview(piece)[block : block + BLOCK_BYTES] for block in range(0, len(piece), BLOCK_BYTES))
