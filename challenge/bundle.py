"""Proofs on their way through a blob store: every file by CID, and one index that names them."""

from __future__ import annotations

from pathlib import Path

from pol.cid import parse_cid
from pol.encoding import Json, canonical_json, fields, parse_canonical_json
from pol.errors import ProofError
from pol.proof import MANIFEST, STATES, TRANSCRIPT, check_files, states_of
from pol.store import BlobStore, write_atomically

BUNDLE_FORMAT = "aiarena.bundle/1"


def publish_proof(folder: Path, store: BlobStore) -> str:
    """Put a proof folder's files into ``store`` and return the CID of their index."""
    check_files(folder)
    states = sorted(path.stem for path in (folder / STATES).iterdir())
    for cid in states:
        store.put(states_of(folder).get(cid))
    index: dict[str, Json] = {
        "format": BUNDLE_FORMAT,
        "manifest": store.put((folder / MANIFEST).read_bytes()),
        "transcript": store.put((folder / TRANSCRIPT).read_bytes()),
        "states": [*states],
    }
    return store.put(canonical_json(index))


def fetch_proof(cid: str, store: BlobStore, folder: Path) -> None:
    """Bring a published proof into the new ``folder``.

    File names are worked out here, never taken from the index, so nothing is written outside ``folder``. Raises
    :class:`ProofError` for an index that is not one, :class:`pol.errors.CannotRun` for blobs that are not served.
    """
    where = f"bundle {cid}"
    names = {"format", "manifest", "transcript", "states"}
    index = fields(parse_canonical_json(store.get(cid), where=where), names, where=where)
    states = index["states"]
    if index["format"] != BUNDLE_FORMAT or not isinstance(states, list) or len(states) > 2**16 + 2:
        raise ProofError(f"{where}: not a proof bundle of format {BUNDLE_FORMAT}")
    write_atomically(folder / TRANSCRIPT, store.get(parse_cid(index["transcript"], where=where)))
    for state in states:
        states_of(folder).put(store.get(parse_cid(state, where=where)))
    write_atomically(folder / MANIFEST, store.get(parse_cid(index["manifest"], where=where)))
