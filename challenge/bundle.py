"""Proofs on their way through a blob store: every file by CID, and one index that names them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock

from pol.cid import cid_of_file, parse_cid
from pol.encoding import MAX_JSON_BYTES, Json, canonical_json, fields, parse_canonical_json
from pol.errors import CannotRun, ProofError
from pol.proof import MANIFEST, OPENINGS, STATES, TRANSCRIPT, check_files, states_of
from pol.store import PARTIAL, BlobStore
from pol.submission import MAX_EARLIER

BUNDLE_FORMAT = "aiarena.bundle/1"
MAX_BUNDLE_BYTES = 64 * 1024**3
MOST_STATES = 2**16 + 2 + MAX_EARLIER
TRANSFERS = 4

OnBlob = Callable[[int, int], None]


def uncounted(done: int, total: int) -> None:
    """The ``on_blob`` of a transfer that nobody watches."""


def publish_proof(folder: Path, store: BlobStore, *, on_blob: OnBlob = uncounted) -> str:
    """Put a proof folder's files into ``store`` and return the CID of their index.

    Several blobs travel at a time; after each, ``on_blob(done, total)`` is called. After an interruption, another call
    goes on with what the store lacks.
    """
    check_files(folder)
    states = sorted((folder / STATES).iterdir())
    others = [path for path in (folder / TRANSCRIPT, folder / OPENINGS, folder / MANIFEST) if path.exists()]
    cids: dict[Path, str] = {}

    def put(path: Path) -> None:
        cids[path] = store.put_file(path)
        if path.parent.name == STATES and cids[path] != path.stem:
            raise ProofError(f"{path}: its bytes do not have the CID in its name")

    for done in _Transfers().each([*states, *others], put):
        on_blob(done, len(states) + len(others))
    index: dict[str, Json] = {path.stem: cids[path] for path in others}  # "manifest", "transcript", maybe "openings"
    return store.put(canonical_json(index | {"format": BUNDLE_FORMAT, "states": [path.stem for path in states]}))


def fetch_proof(
    cid: str, store: BlobStore, folder: Path, *, limit: int = MAX_BUNDLE_BYTES, on_blob: OnBlob = uncounted
) -> None:
    """Bring a published proof into ``folder``: a new one, or the one in which fetching the same proof was interrupted.

    File names are worked out here, never taken from the index, so nothing is written outside ``folder``; the manifest,
    which makes it a proof, comes last. Several blobs travel at a time; after each, ``on_blob(done, total)`` is called.
    Raises :class:`ProofError` for an index that is not one, :class:`CannotRun` for blobs that are not served, for more
    than ``limit`` bytes in all, and for a folder that holds anything else.
    """
    files = _named_files(cid, store.get(cid, limit=MAX_JSON_BYTES), folder)
    _make_room(folder, files)
    transfers = _Transfers(limit)

    def get(path: Path) -> None:
        if path.exists() and cid_of_file(path) == files[path]:
            transfers.spend(path.stat().st_size)
        else:
            store.get_file(files[path], path, on_bytes=transfers.spend)

    manifest = folder / MANIFEST
    for done in transfers.each([path for path in files if path != manifest], get):
        on_blob(done, len(files))
    _sweep(folder, keep=())
    get(manifest)
    on_blob(len(files), len(files))


def _named_files(cid: str, index: bytes, folder: Path) -> dict[Path, str]:
    """The files of the proof, and the CIDs that its index gives them."""
    where = f"bundle {cid}"
    value = parse_canonical_json(index, where=where)
    optional = {"openings"} & set(value) if isinstance(value, dict) else set()
    row = fields(value, {"format", "manifest", "transcript", "states"} | optional, where=where)
    if row["format"] != BUNDLE_FORMAT or not isinstance(row["states"], list) or len(row["states"]) > MOST_STATES:
        raise ProofError(f"{where}: not a proof bundle of format {BUNDLE_FORMAT}")
    states = [parse_cid(state, where=where) for state in row["states"]]
    others = [folder / name for name in (TRANSCRIPT, OPENINGS, MANIFEST) if Path(name).stem in row]
    return {states_of(folder).path(state): state for state in states} | {
        path: parse_cid(row[path.stem], where=where) for path in others
    }


def _make_room(folder: Path, files: dict[Path, str]) -> None:
    """Have the folders of a proof, with nothing in them but ``files`` and what arrived of them."""
    states = folder / STATES
    states.mkdir(parents=True, exist_ok=True)
    _sweep(folder, keep={path.with_name(f"{PARTIAL}{path.name}") for path in files})
    for path in [*folder.iterdir(), *states.iterdir()]:
        expected = path in files or path.name.startswith(PARTIAL)
        if path != states and (not expected or path.is_symlink() or not path.is_file()):
            raise CannotRun(f"{path}: not of the proof that is fetched; choose a new folder")


def _sweep(folder: Path, *, keep: Collection[Path]) -> None:
    for path in [*folder.glob(f"{PARTIAL}*"), *(folder / STATES).glob(f"{PARTIAL}*")]:
        if path not in keep:
            path.unlink()


class _Transfers:
    """Some transfers at a time, which share a budget of bytes, and end together when one of them fails."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._lock = Lock()
        self._spent = 0
        self._failed = False

    def each(self, paths: Sequence[Path], work: Callable[[Path], None]) -> Iterator[int]:
        """Do ``work`` for all paths; yields how many are done."""
        with ThreadPoolExecutor(TRANSFERS) as pool:
            futures = [pool.submit(work, path) for path in paths]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    future.result()
                    yield done
            except BaseException:
                self._failed = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def spend(self, count: int) -> None:
        """Called before ``count`` more bytes are written, from any thread."""
        with self._lock:
            self._spent += count
            if self._failed:
                raise CannotRun("another blob of the same proof did not arrive")
            if self._limit is not None and self._spent > self._limit:
                raise CannotRun(f"the proof has more than {self._limit} bytes; allow more, or leave it")
