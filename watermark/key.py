"""The watermark key: secret leaves, their public root, and the opening of single leaves.

A leaf is (seed, salt), 32 bytes each. Its digest is ``pol.merkle.leaf_digest("aiarena/watermark-leaf/v1", i, seed ||
salt)``, and ``key_root`` is the root record over all of them. Leaves come from one 32-byte master secret by
HKDF-SHA256, so the key file is small, and an opened leaf says nothing about the others. The file is encrypted.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pol.encoding import Json, fields, from_hex, integer, to_hex, u64
from pol.errors import ProofError, SpecError
from pol.merkle import MAX_DEPTH, MerkleProof, MerkleTree, leaf_digest, root_from_proof
from watermark._namesake import require_ours
from watermark.keyfile import DEFAULT_COST, Cost, Passphrase, SecretFile, passphrase_from_environment

require_ours()

LEAF_DOMAIN: Final = "aiarena/watermark-leaf/v1"
SECRET_INFO: Final = b"aiarena/watermark-leaf-secret/v1"
SECRET_BYTES: Final = 32
KEY_BYTES: Final = SECRET_BYTES + 8
MAX_LEAVES: Final = 1 << 16
MAX_DRAWN: Final = 14 << 10
"""Leaves of a fresh key, at most: so many fit into one claim's file (16 MiB), if the whole key must be opened."""
KEY_FILE: Final = SecretFile("aiarena.watermark-key/2", "watermark key", KEY_BYTES)


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
        """A fresh key from the system's CSPRNG; :class:`SpecError` for more leaves than one claim can open."""
        if leaf_count > MAX_DRAWN:
            raise SpecError(
                f"a key of {leaf_count} leaves could never be opened whole: a claim has room for {MAX_DRAWN}; "
                "promise fewer groups, or fewer leaves a group"
            )
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

    def to_bytes(self) -> bytes:
        """The whole secret, 40 bytes: ``master || u64(leaf_count)``. Whoever has it can find the mark and erase it."""
        return self.master + u64(self.leaf_count)

    @classmethod
    def from_bytes(cls, data: bytes, *, where: str) -> WatermarkKey:
        """Inverse of :meth:`to_bytes`; raises :class:`ProofError` for anything else."""
        leaf_count = int.from_bytes(data[SECRET_BYTES:], "big")
        if len(data) != KEY_BYTES or not 1 <= leaf_count <= MAX_LEAVES:
            raise ProofError(f"{where}: not the {KEY_BYTES} bytes of a watermark key (1 to {MAX_LEAVES} leaves)")
        return cls(data[:SECRET_BYTES], leaf_count)

    def save(
        self, path: Path, passphrase: Passphrase = passphrase_from_environment, *, cost: Cost = DEFAULT_COST
    ) -> None:
        """Write the key to a new file, encrypted under a passphrase (:mod:`watermark.keyfile`), mode 0600.

        The file says its ``key_root`` in the clear. Raises :class:`CannotRun` rather than overwrite a file.
        """
        KEY_FILE.write(path, self.to_bytes(), self.root, passphrase, cost)

    @classmethod
    def load(cls, path: Path, passphrase: Passphrase = passphrase_from_environment) -> WatermarkKey:
        """Read :meth:`save`'s file.

        Raises :class:`CannotRun` if there is none or the passphrase is wrong, :class:`ProofError` if it is damaged.
        """
        secret, root = KEY_FILE.read(path, passphrase)
        key = cls.from_bytes(secret, where=str(path))
        if key.root != root:
            raise ProofError(f"{path}: the key in it is not the one with root {to_hex(root)}")
        return key

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


@dataclass(frozen=True)
class OpenedKey:
    """All leaves of a key, in order of index, as whoever was shown them has it: what marking takes, and no master."""

    leaves: tuple[Leaf, ...] = field(repr=False)

    @classmethod
    def from_bytes(cls, data: bytes) -> OpenedKey:
        """Inverse of :meth:`to_bytes`, for a multiple of 64 bytes."""
        size = 2 * SECRET_BYTES
        both = [data[start : start + size] for start in range(0, len(data), size)]
        return cls(tuple(Leaf(i, leaf[:SECRET_BYTES], leaf[SECRET_BYTES:]) for i, leaf in enumerate(both)))

    def to_bytes(self) -> bytes:
        """The secrets of all leaves, ``seed || salt`` each."""
        return b"".join(leaf.seed + leaf.salt for leaf in self.leaves)

    @property
    def leaf_count(self) -> int:
        """The number of leaves."""
        return len(self.leaves)

    @cached_property
    def root(self) -> bytes:
        """The key root (32 bytes)."""
        return MerkleTree([leaf.digest for leaf in self.leaves]).root


WholeKey: TypeAlias = WatermarkKey | OpenedKey
"""A key with all its leaves, the owner's or one that was opened."""
