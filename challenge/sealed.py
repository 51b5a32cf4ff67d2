"""A whole claim as one file that only the jurors of one case can read (:mod:`watermark.sealing`).

Sealed are ``u64(index size) || index || files``: the index is canonical JSON and gives each file's size, the files
follow in the order of their names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from challenge.claims import SIGNATURE_FILE, SPEC_FILE, TABLE_FILE, TiedClaim, read_claim
from pol.encoding import canonical_json, fields, integer, parse_canonical_json, u64
from pol.errors import ProofError
from watermark.claim import CLAIM_FILE, REFERENCE_FILE
from watermark.sealing import CLAIM, MAX_SEALED_BYTES, JurorKey, Occasion, Sealed, seal

FILES = frozenset({CLAIM_FILE, REFERENCE_FILE, TABLE_FILE, SPEC_FILE})
MAX_INDEX_BYTES = 1024


def seal_claim(folder: Path, jurors: Sequence[bytes], *, case: int | None = None) -> bytes:
    """The claim in ``folder``, sealed to the ``jurors`` (X25519 public keys) of ``case``.

    Errors as of :func:`challenge.claims.read_claim` and :func:`watermark.sealing.seal`.
    """
    spec = read_claim(folder).spec
    names = sorted(FILES | {SIGNATURE_FILE} if spec.task else FILES)
    files = {name: (folder / name).read_bytes() for name in names}
    index = canonical_json({name: len(data) for name, data in files.items()})
    content = b"".join([u64(len(index)), index, *files.values()])
    return seal(content, Occasion(contents=CLAIM, accuser=spec.trainer, task=spec.task, case=case), jurors)


def read_sealed_claim(path: Path, key: JurorKey, *, case: int | None = None) -> TiedClaim:
    """The claim that is sealed to the juror with ``key`` for ``case``, read as strictly as from a folder.

    Raises :class:`CannotRun` for a file that is missing or sealed to others, and :class:`ProofError` for one that is
    unsound, for another case, or whose header names another accuser or task than the claim in it.
    """
    sealed = Sealed.read(path)
    content = sealed.open(key, replace(sealed.occasion, contents=CLAIM, case=case))
    with tempfile.TemporaryDirectory() as name:  # nobody else can look into it
        _unpack(content, Path(name), where=str(path))
        tied = read_claim(Path(name))
    if (tied.spec.trainer, tied.spec.task) != (sealed.occasion.accuser, sealed.occasion.task):
        raise ProofError(f"{path}: the claim in it is of another accuser or task than the file says")
    return tied


def _unpack(content: bytes, folder: Path, *, where: str) -> None:
    """Write the claim's files; which there can be is known here, and no name is taken from the content."""
    start = 8 + int.from_bytes(content[:8], "big")
    if start > MAX_INDEX_BYTES:
        raise ProofError(f"{where}: no claim is sealed in it")
    index = parse_canonical_json(content[8:start], where=where)
    signed = {SIGNATURE_FILE} if isinstance(index, dict) and SIGNATURE_FILE in index else set()
    sizes = fields(index, {*FILES, *signed}, where=where)
    for name in sorted(sizes):
        end = start + integer(sizes[name], where=f"{where}: {name}", high=MAX_SEALED_BYTES)
        (folder / name).write_bytes(content[start:end])
        start = end
    if start != len(content):
        raise ProofError(f"{where}: the sizes of its files do not add up")
