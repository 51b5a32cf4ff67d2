"""Where a mark sits and what it says: parameters, keyed rank-1 carriers, and the bits.

Group g owns ``rows`` consecutive rows of one hidden-to-hidden weight, aligned to the 16 KiB blocks of a tensor's
digest, so that a group's change touches whole blocks of its own. Leaf i of the key belongs to group ``i // leaves``;
its carrier is ``R = u v^T / sqrt(rows * columns)`` with u in {-1, 1}^rows, v in {-1, 1}^columns, drawn from its seed
alone. Its bit is drawn from (beta, key_root, i, seed): the beacon beta so that nobody can choose bits, the index so
that equal seeds give separate coins, the key root so that no leaf is worth anything in another key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from pol.encoding import Json, canonical_json, digest, fields, float_text, integer, text, u64
from pol.errors import ProofError, SpecError
from pol.tensors import BLOCK_BYTES
from watermark.key import MAX_LEAVES
from watermark.mlp import Array, Layer

CARRIER_DOMAIN: Final = "aiarena/watermark-carrier/v1"
BIT_DOMAIN: Final = "aiarena/watermark-bit/v1"
PARAMETERS_DOMAIN: Final = "aiarena/watermark-parameters/v1"
FLOAT_BYTES: Final = 4
_TENSOR = re.compile(r"layers\.([1-9][0-9]?)\.weight")


@dataclass(frozen=True, slots=True)
class MarkParameters:
    """The public shape of a mark; its digest is part of the training spec, so it is fixed before the beacon.

    ``tensor`` names the carrier, ``groups`` groups own ``rows`` rows each from the top, every group has ``leaves``
    leaves, and ``margin`` is how far a bit must stand off zero, in units of the rms of theta_ref's carrier tensor
    (the standard deviation of an unmarked ``<R, W>``). Raises :class:`SpecError` for values that make no mark.
    """

    tensor: str
    groups: int
    rows: int
    leaves: int
    margin: float

    def __post_init__(self) -> None:
        if not _TENSOR.fullmatch(self.tensor):
            raise SpecError(f"carrier tensor {self.tensor[:80]!r}: expected layers.<i>.weight with i >= 1")
        if min(self.groups, self.rows, self.leaves) < 1 or self.leaf_count > MAX_LEAVES:
            shape = f"{self.groups} groups of {self.rows} rows and {self.leaves} leaves"
            raise SpecError(f"{shape}: use 1 to {MAX_LEAVES} leaves in all, and no zeros")
        if not 0 < self.margin <= 64:
            raise SpecError(f"margin {self.margin}: expected a number above 0 and at most 64")

    @property
    def leaf_count(self) -> int:
        """Leaves of the key in all (M)."""
        return self.groups * self.leaves

    @property
    def digest(self) -> bytes:
        """The digest of the canonical JSON (32 bytes)."""
        return digest(PARAMETERS_DOMAIN, canonical_json(self.to_json()))

    def indices(self, groups: Iterable[int]) -> list[int]:
        """The leaf indices of these groups, in their order; raises :class:`ProofError` for a group there is not."""
        chosen = list(groups)
        for group in chosen:
            if not 0 <= group < self.groups:
                raise ProofError(f"watermark group {group} of {self.groups}")
        return [group * self.leaves + leaf for group in chosen for leaf in range(self.leaves)]

    def block(self, group: int) -> slice:
        """The rows of the carrier tensor that ``group`` owns."""
        return slice(group * self.rows, (group + 1) * self.rows)

    def check_carrier(self, layers: tuple[Layer, ...], *, where: str) -> int:
        """The carrier's layer number in ``layers``; raises :class:`SpecError` if the groups do not fit into it."""
        match = _TENSOR.fullmatch(self.tensor)
        layer = int(match.group(1)) if match else 0
        if not 0 < layer < len(layers) - 1:
            raise SpecError(f"{where}: {self.tensor} does not lie between two hidden layers (depth {len(layers)})")
        height, width = layers[layer].weight.shape
        if self.groups * self.rows > height:
            need = self.groups * self.rows
            raise SpecError(f"{where}: {self.tensor} has {height} rows, but the groups own {need}")
        if self.rows * width * FLOAT_BYTES % BLOCK_BYTES:
            size = self.rows * width * FLOAT_BYTES
            raise SpecError(f"{where}: a group of {self.tensor} has {size} bytes, not a multiple of {BLOCK_BYTES}")
        return layer

    def to_json(self) -> Json:
        """The strict JSON form, inverse of :meth:`from_json`."""
        return {
            "tensor": self.tensor,
            "groups": self.groups,
            "rows": self.rows,
            "leaves": self.leaves,
            "margin": float_text(self.margin),
        }

    @classmethod
    def from_json(cls, value: Json, *, where: str) -> MarkParameters:
        """Parse :meth:`to_json`; raises :class:`ProofError` for anything else."""
        item = fields(value, {"tensor", "groups", "rows", "leaves", "margin"}, where=where)
        sizes = ("groups", "rows", "leaves")
        counts = {name: integer(item[name], where=f"{where}.{name}", high=MAX_LEAVES) for name in sizes}
        tensor = text(item["tensor"], where=f"{where}.tensor")
        margin = text(item["margin"], where=f"{where}.margin", limit=64)
        try:
            parameters = cls(tensor=tensor, margin=float.fromhex(margin), **counts)
            canonical = float_text(parameters.margin) == margin
        except (ValueError, OverflowError, SpecError) as error:
            raise ProofError(f"{where}: {error}") from error
        if not canonical:
            raise ProofError(f"{where}.margin: {margin!r} is not canonical")
        return parameters


DEFAULT_PARAMETERS: Final = MarkParameters("layers.1.weight", groups=64, rows=8, leaves=8, margin=3.0)
"""For a 64-512-512-10 MLP: 512 leaves, one 16 KiB block a group."""


def carrier_factors(seed: bytes, rows: int, columns: int) -> tuple[Array, Array]:
    """The factors (u, v) of a leaf's carrier, entries -1 and 1, shapes [rows] and [columns].

    They are the bits (most significant first, 1 for 1 and 0 for -1) of the ChaCha20 key stream under
    ``SHA256("aiarena/watermark-carrier/v1" || seed)`` with a zero nonce: u first, then v.
    """
    length = rows + columns
    cipher = Cipher(algorithms.ChaCha20(digest(CARRIER_DOMAIN, seed), bytes(16)), mode=None)
    stream = cipher.encryptor().update(bytes((length + 7) // 8))
    signs = np.unpackbits(np.frombuffer(stream, np.uint8), count=length).astype(np.float64) * 2 - 1
    return signs[:rows], signs[rows:]


def carrier_scale(rows: int, columns: int) -> float:
    """What divides ``u^T W v`` to give ``<R, W>`` for a carrier of Frobenius norm 1."""
    return math.sqrt(rows * columns)


def mark_bit(beta: bytes, key_root: bytes, index: int, seed: bytes) -> int:
    """The bit of leaf ``index``: 1 or -1, the first bit of SHA256(domain || beta || key_root || u64(index) || seed)."""
    return 1 if digest(BIT_DOMAIN, beta, key_root, u64(index), seed)[0] & 0x80 else -1
