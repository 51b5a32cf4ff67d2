"""What a leaf says: its bit or its label, drawn from the beacon, the key root, the leaf's index and its seed.

The beacon is in it so that nobody can choose bits, the index so that equal seeds give separate coins, and the key root
so that no leaf is worth anything in another key.
"""

from __future__ import annotations

from typing import Final

from pol.encoding import digest, u64

BIT_DOMAIN: Final = "aiarena/watermark-bit/v1"
LABEL_DOMAIN: Final = "aiarena/watermark-label/v1"
_DRAWS: Final = 1 << 256


def mark_bit(beta: bytes, key_root: bytes, index: int, seed: bytes) -> int:
    """The bit of leaf ``index``: 1 or -1, the first bit of SHA256(domain || beta || key_root || u64(index) || seed)."""
    return 1 if digest(BIT_DOMAIN, beta, key_root, u64(index), seed)[0] & 0x80 else -1


def trigger_label(beta: bytes, key_root: bytes, index: int, seed: bytes, classes: int) -> int:
    """The label of trigger leaf ``index``, uniform in ``range(classes)``.

    Draw c = 0, 1, ... is SHA256("aiarena/watermark-label/v1" || beta || key_root || u64(index) || seed || u64(c)) as an
    integer; the first one below the largest multiple of ``classes`` counts, modulo ``classes``. ``seed`` has 32 bytes.
    """
    limit = _DRAWS - _DRAWS % classes
    draw = 0
    while (found := _label_draw(beta, key_root, index, seed, draw)) >= limit:
        draw += 1
    return found % classes


def _label_draw(beta: bytes, key_root: bytes, index: int, seed: bytes, draw: int) -> int:
    return int.from_bytes(digest(LABEL_DOMAIN, beta, key_root, u64(index), seed, u64(draw)), "big")
