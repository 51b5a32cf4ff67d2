"""A second way to UnixFS trees, which keeps the blocks: what a node would serve. Chunk and width can be other ones."""

from __future__ import annotations

import base64
import hashlib


def tree(data: bytes, *, chunk: int = 262_144, width: int = 174) -> tuple[str, dict[str, bytes]]:
    """The CID of ``data``, and all blocks of its tree by CID, the root last."""
    blocks: dict[str, bytes] = {}

    def keep(codec: int, block: bytes) -> bytes:
        cid = b"\x01" + bytes([codec]) + b"\x12\x20" + hashlib.sha256(block).digest()
        blocks.pop(text(cid), None)
        blocks[text(cid)] = block
        return cid

    cuts = [data[start : start + chunk] for start in range(0, len(data), chunk)] or [b""]
    level = [(keep(0x55, cut), len(cut), len(cut)) for cut in cuts]
    while len(level) > 1:
        above = []
        for start in range(0, len(level), width):
            block = node([(cid, size, total) for cid, size, total in level[start : start + width]])
            below = level[start : start + width]
            above.append((keep(0x70, block), sum(b[1] for b in below), len(block) + sum(b[2] for b in below)))
        level = above
    return text(level[0][0]), blocks


def node(children: list[tuple[bytes, int, int]]) -> bytes:
    """The node over children given as (CID, file bytes, bytes of all blocks)."""
    links = b"".join(
        field(2, field(1, cid) + field(2, b"") + b"\x18" + number(total)) for cid, _, total in children
    )  # fmt: skip
    sizes = b"".join(b"\x20" + number(size) for _, size, _ in children)
    return links + field(1, b"\x08\x02\x18" + number(sum(child[1] for child in children)) + sizes)


def text(cid: bytes) -> str:
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")


def binary(cid: str) -> bytes:
    return base64.b32decode(cid[1:].upper() + "=" * (-len(cid[1:]) % 8))


def field(tag: int, value: bytes) -> bytes:
    return number(tag << 3 | 2) + number(len(value)) + value


def number(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + number(rest) if rest else bytes([low])
