"""Content-addressed blobs. The embedded default is a local folder whose file names are the blobs' CIDs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Protocol

from pol.cid import cid_of, is_cid
from pol.errors import CannotRun, ProofError

MAX_BLOB_BYTES = 8 * 1024**3


class BlobStore(Protocol):
    """Where states, models and data travel. A blob read back always has the CID it was asked for."""

    def put(self, data: bytes) -> str:
        """Keep ``data`` and return its CID."""
        ...

    def get(self, cid: str) -> bytes:
        """The bytes of ``cid``; :class:`CannotRun` if it is not there, :class:`ProofError` if it is something else."""
        ...


class LocalStore:
    """A folder of blobs named ``<cid><suffix>``, written atomically."""

    def __init__(self, folder: Path, *, suffix: str = "") -> None:
        self.folder = folder
        self.suffix = suffix

    def path(self, cid: str) -> Path:
        """The file of ``cid``, inside the folder; :class:`ProofError` if the text is no CID (or a path in disguise)."""
        if not is_cid(cid):
            raise ProofError(f"{cid[:80]!r} is not a CID")
        return self.folder / f"{cid}{self.suffix}"

    def put(self, data: bytes) -> str:
        """Keep ``data`` and return its CID; writing the same bytes twice keeps one file."""
        cid = cid_of(data)
        target = self.path(cid)
        if not target.exists():
            write_atomically(target, data)
        return cid

    def get(self, cid: str) -> bytes:
        """The bytes of ``cid``, checked against it."""
        target = self.path(cid)
        if target.is_symlink() or not target.is_file():
            raise CannotRun(f"{target}: no such blob; fetch it first, or ask whoever published {cid}")
        if target.stat().st_size > MAX_BLOB_BYTES:
            raise ProofError(f"{target}: larger than {MAX_BLOB_BYTES} bytes")
        data = target.read_bytes()
        if cid_of(data) != cid:
            raise ProofError(f"{target}: its bytes do not have the CID in its name")
        return data


def write_atomically(target: Path, data: bytes) -> None:
    """Write ``data`` to ``target`` so that a reader sees the whole file or none of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".partial-")
    os.fchmod(handle, 0o644)  # mkstemp makes it private, but proofs are for others to read
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
