"""The watermark key: secret leaves, their public root, and the opening of single leaves.

A leaf is (seed, salt), 32 bytes each. Its digest is ``pol.merkle.leaf_digest("aiarena/watermark-leaf/v1", i, seed ||
salt)``, and ``key_root`` is the root record over all of them. Leaves come from one 32-byte master secret by
HKDF-SHA256, so the key file is small, and an opened leaf says nothing about the others.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pol.encoding import Json, canonical_json, fields, from_hex, integer, parse_canonical_json, to_hex, u64
from pol.errors import CannotRun, ProofError, SpecError
from pol.merkle import MAX_DEPTH, MerkleProof, MerkleTree, leaf_digest, root_from_proof
from watermark._namesake import require_ours

require_ours()

LEAF_DOMAIN: Final = "aiarena/watermark-leaf/v1"
SECRET_INFO: Final = b"aiarena/watermark-leaf-secret/v1"
KEY_FORMAT: Final = "aiarena.watermark-key/1"
SECRET_BYTES: Final = 32
MAX_LEAVES: Final = 1 << 16
_MAX_KEY_FILE: Final = 4096


@dataclass(frozen=True, slots=True)
class Leaf:
    """Leaf ``index`` of a key. The seed decides its carrier; the salt hides the seed behind the digest."""

    index: int
    seed: bytes = field(repr=False)
    salt: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """The committed digest (32 bytes)."""
        return leaf_digest(LEAF_DOMAIN, self.index, self.seed + self.salt)


@dataclass(frozen=True, slots=True)
class LeafOpening:
    """An opened leaf with its Merkle path (siblings from the bottom up)."""

    index: int
    seed: bytes
    salt: bytes
    siblings: tuple[bytes, ...]

    def check(self, key_root: bytes, leaf_count: int) -> None:
        """Raise :class:`ProofError` unless this is leaf ``index`` of the key of that root and number of leaves."""
        if len(self.seed) != SECRET_BYTES or len(self.salt) != SECRET_BYTES:
            raise ProofError(f"watermark leaf {self.index}: seed and salt must be {SECRET_BYTES} bytes each")
        leaf = Leaf(self.index, self.seed, self.salt)
        proof = MerkleProof(position=self.index, count=leaf_count, siblings=self.siblings)
        if root_from_proof(leaf.digest, proof) != key_root:
            raise ProofError(f"watermark leaf {self.index} is not in the key with root {to_hex(key_root)}")

    def to_json(self) -> Json:
        """The strict JSON form, inverse of :meth:`from_json`."""
        return {
            "index": self.index,
            "seed": to_hex(self.seed),
            "salt": to_hex(self.salt),
            "siblings": [to_hex(sibling) for sibling in self.siblings],
        }

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> LeafOpening:
        """Parse :meth:`to_json`; raises :class:`ProofError` for anything else. The path is not checked here."""
        item = fields(value, {"index", "seed", "salt", "siblings"}, where=where)
        siblings = item["siblings"]
        if not isinstance(siblings, list) or len(siblings) > MAX_DEPTH:
            raise ProofError(f"{where}.siblings: expected a list of at most {MAX_DEPTH} digests")
        return cls(
            index=integer(item["index"], where=f"{where}.index", high=MAX_LEAVES - 1),
            seed=from_hex(item["seed"], where=f"{where}.seed"),
            salt=from_hex(item["salt"], where=f"{where}.salt"),
            siblings=tuple(from_hex(sibling, where=f"{where}.siblings") for sibling in siblings),
        )


@dataclass(frozen=True)
class WatermarkKey:
    """The secret of one run: a 32-byte ``master`` and the number of leaves drawn from it."""

    master: bytes = field(repr=False)
    leaf_count: int

    def __post_init__(self) -> None:
        if len(self.master) != SECRET_BYTES:
            raise SpecError(f"the master secret must be {SECRET_BYTES} bytes, not {len(self.master)}")
        if not 1 <= self.leaf_count <= MAX_LEAVES:
            raise SpecError(f"a key has 1 to {MAX_LEAVES} leaves, not {self.leaf_count}")

    @classmethod
    def generate(cls, leaf_count: int) -> WatermarkKey:
        """A fresh key from the system's CSPRNG."""
        return cls(secrets.token_bytes(SECRET_BYTES), leaf_count)

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """All leaves in order of index."""
        return tuple(self._leaf(index) for index in range(self.leaf_count))

    @property
    def root(self) -> bytes:
        """The key root (32 bytes), public before training ends."""
        return self._tree.root

    def open(self, indices: Iterable[int]) -> tuple[LeafOpening, ...]:
        """The openings of these leaves, in the order asked for; raises ``IndexError`` for a leaf there is not."""
        return tuple(self._open(index) for index in indices)

    def save(self, path: Path) -> None:
        """Write the key as canonical JSON, mode 0600; raises :class:`CannotRun` rather than overwrite a file.

        The file is not encrypted: whoever reads it can find the mark and erase it. Keep it like a private SSH key.
        """
        value: Json = {"format": KEY_FORMAT, "master": to_hex(self.master), "leaves": self.leaf_count}
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            reason = f"{error.strerror}; a key is never overwritten"
            raise CannotRun(f"{path}: cannot write the watermark key ({reason})") from error
        with os.fdopen(handle, "wb") as file:
            file.write(canonical_json(value))

    @classmethod
    def load(cls, path: Path) -> WatermarkKey:
        """Read :meth:`save`'s file; raises :class:`CannotRun` if there is none, :class:`ProofError` if malformed."""
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_KEY_FILE)
        except OSError as error:
            raise CannotRun(f"{path}: cannot read the watermark key ({error.strerror})") from error
        item = fields(parse_canonical_json(data, where=str(path)), {"format", "master", "leaves"}, where=str(path))
        if item["format"] != KEY_FORMAT:
            raise ProofError(f"{path}: not a watermark key of format {KEY_FORMAT}")
        leaf_count = integer(item["leaves"], where=f"{path}: leaves", low=1, high=MAX_LEAVES)
        return cls(from_hex(item["master"], where=f"{path}: master"), leaf_count)

    @cached_property
    def _tree(self) -> MerkleTree:
        return MerkleTree([leaf.digest for leaf in self.leaves])

    def _leaf(self, index: int) -> Leaf:
        secret = HKDF(algorithm=SHA256(), length=2 * SECRET_BYTES, salt=None, info=SECRET_INFO + u64(index))
        both = secret.derive(self.master)
        return Leaf(index, both[:SECRET_BYTES], both[SECRET_BYTES:])

    def _open(self, index: int) -> LeafOpening:
        proof = self._tree.prove(index)
        return LeafOpening(index, self.leaves[index].seed, self.leaves[index].salt, proof.siblings)
