"""Content-addressed blobs. The embedded default is a local folder whose file names are the blobs' CIDs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

from pol.cid import CidHasher, cid_of, cid_of_file, is_cid, pieces_of
from pol.errors import CannotRun, PolError, ProofError

MAX_BLOB_BYTES = 8 * 1024**3
PARTIAL = ".partial-"
OnBytes = Callable[[int], None]


def unwatched(count: int) -> None:
    """The ``on_bytes`` of a transfer that nobody watches."""


class BlobStore(Protocol):
    """Where states, models and data travel. A blob read back always has the CID it was asked for.

    Both ``get`` raise :class:`CannotRun` (:class:`pol.errors.Unreachable` if it may be there later) for a blob that is
    not served and for a store that serves something else, and :class:`ProofError` for a CID that names no blob of at
    most ``MAX_BLOB_BYTES``: nobody but who published it can be the cause of that.
    """

    def put(self, data: bytes) -> str:
        """Keep ``data`` and return its CID."""
        ...

    def put_file(self, path: Path) -> str:
        """Keep the bytes of a file, which is never held in memory, and return their CID."""
        ...

    def get(self, cid: str, *, limit: int = MAX_BLOB_BYTES) -> bytes:
        """The bytes of ``cid``, at most ``limit``."""
        ...

    def get_file(self, cid: str, target: Path, *, on_bytes: OnBytes = unwatched) -> None:
        """Write the bytes of ``cid`` to ``target``, which appears only when it is whole and right.

        ``on_bytes(count)`` is called before the next ``count`` bytes are written, and stops the transfer by raising.
        """
        ...


class LocalStore:
    """A folder of blobs named ``<cid><suffix>``, written atomically.

    ``fault`` is the error for a file that differs from its name: the store's own fault (:class:`CannotRun`), or, where
    the folder is part of a proof, the proof's (:class:`ProofError`).
    """

    def __init__(self, folder: Path, *, suffix: str = "", fault: type[PolError] = CannotRun) -> None:
        self.folder = folder
        self.suffix = suffix
        self.fault = fault

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

    def put_file(self, path: Path) -> str:
        """Keep the bytes of a file and return their CID; what is there already is not written again."""
        cid = cid_of_file(path)
        return cid if self.path(cid).exists() else self.put_chunks(pieces_of(path))

    def put_chunks(self, chunks: Iterable[bytes | memoryview]) -> str:
        """Keep the bytes that ``chunks`` make together, written as they come, and return their CID."""
        hasher = CidHasher()
        with _partial(self.folder) as file:
            for chunk in chunks:
                hasher.update(chunk)
                file.write(chunk)
            cid = hasher.finish()
            _keep(file, self.path(cid))
        return cid

    def get(self, cid: str, *, limit: int = MAX_BLOB_BYTES) -> bytes:
        """The bytes of ``cid``, checked against it."""
        source = self._served(cid, limit)
        data = source.read_bytes()
        if cid_of(data) != cid:
            raise self._wrong(source)
        return data

    def get_file(self, cid: str, target: Path, *, on_bytes: OnBytes = unwatched) -> None:
        """Copy the bytes of ``cid`` to ``target``, checked against it."""
        source, hasher = self._served(cid, MAX_BLOB_BYTES), CidHasher()
        with _partial(target.parent) as file:
            for piece in pieces_of(source):
                on_bytes(len(piece))
                hasher.update(piece)
                file.write(piece)
            if hasher.finish() != cid:
                raise self._wrong(source)
            _keep(file, target)

    def _served(self, cid: str, limit: int) -> Path:
        path = self.path(cid)
        if path.is_symlink() or not path.is_file():
            raise CannotRun(f"{path}: no such blob; fetch it first, or ask whoever published {cid}")
        if path.stat().st_size > limit:
            raise self.fault(f"{path}: larger than {limit} bytes")
        return path

    def _wrong(self, path: Path) -> PolError:
        return self.fault(f"{path}: its bytes do not have the CID in its name")


def open_store(location: str) -> BlobStore:
    """The store at ``location``.

    ``ipfs`` is the IPFS node of this machine; a multiaddr (``/ip4/127.0.0.1/tcp/5001``) or a URL
    (``http://127.0.0.1:5001``) is the HTTP API of another; anything else is a folder.
    """
    if location == "ipfs" or location.startswith(("http://", "https://", "/ip4/", "/ip6/", "/dns")):
        from pol.ipfs import DEFAULT_API, IpfsStore

        return IpfsStore(DEFAULT_API if location == "ipfs" else location)
    return LocalStore(Path(location))


def write_atomically(target: Path, data: bytes) -> None:
    """Write ``data`` to ``target`` so that a reader sees the whole file or none of it."""
    with _partial(target.parent) as file:
        file.write(data)
        _keep(file, target)


@contextmanager
def _partial(folder: Path) -> Iterator[IO[bytes]]:
    """A new file in ``folder``, gone at the end of the block unless it was kept."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=PARTIAL, delete=False) as file:
        try:
            yield file
        finally:
            Path(file.name).unlink(missing_ok=True)


def _keep(file: IO[bytes], target: Path) -> None:
    """Give a whole, partial file its name."""
    os.fchmod(file.fileno(), 0o644)  # it was made private, but proofs are for others to read
    file.flush()
    os.fsync(file.fileno())
    Path(file.name).replace(target)
