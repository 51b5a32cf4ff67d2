"""IPFS content identifiers, computed locally: CIDv1, raw leaves, 256 KiB chunks, 174 links a node (Kubo's defaults).

The local store names blobs by the CID an IPFS node gives the same bytes (UnixFS v1 over dag-pb, multiformats CIDv1).
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from pol.encoding import text
from pol.errors import ProofError

CHUNK_BYTES = 262_144
LINKS_PER_NODE = 174
_RAW, _DAG_PB = 0x55, 0x70


@dataclass(frozen=True, slots=True)
class _Node:
    cid: bytes
    file_bytes: int
    total_bytes: int


def cid_of(data: bytes) -> str:
    """The CIDv1 (base32, 59 characters) of ``data``, any length."""
    view = memoryview(data)
    starts = range(0, max(1, len(view)), CHUNK_BYTES)
    nodes = [_leaf(bytes(view[start : start + CHUNK_BYTES])) for start in starts]
    while len(nodes) > 1:
        nodes = [_parent(nodes[i : i + LINKS_PER_NODE]) for i in range(0, len(nodes), LINKS_PER_NODE)]
    return "b" + base64.b32encode(nodes[0].cid).decode("ascii").lower().rstrip("=")


def is_cid(text: str) -> bool:
    """Whether ``text`` has the form of a CID this module makes (and so is safe as a file name)."""
    if len(text) != 59 or not text.startswith(("bafk", "bafy")):
        return False
    return all(character in "abcdefghijklmnopqrstuvwxyz234567" for character in text)


def parse_cid(value: object, *, where: str) -> str:
    """``value`` as a CID; :class:`ProofError` naming ``where`` if it is none."""
    found = text(value, where=where, limit=80)
    if not is_cid(found):
        raise ProofError(f"{where}: {found!r} is not a CID")
    return found


def _leaf(chunk: bytes) -> _Node:
    return _Node(_cid_bytes(_RAW, chunk), len(chunk), len(chunk))


def _parent(children: list[_Node]) -> _Node:
    links = b"".join(_pb_bytes(2, _link(child)) for child in children)
    size = sum(child.file_bytes for child in children)
    unixfs = b"\x08\x02" + _pb_int(3, size) + b"".join(_pb_int(4, child.file_bytes) for child in children)
    block = links + _pb_bytes(1, unixfs)
    return _Node(_cid_bytes(_DAG_PB, block), size, len(block) + sum(child.total_bytes for child in children))


def _link(child: _Node) -> bytes:
    return _pb_bytes(1, child.cid) + _pb_bytes(2, b"") + _pb_int(3, child.total_bytes)


def _cid_bytes(codec: int, block: bytes) -> bytes:
    return b"\x01" + bytes([codec]) + b"\x12\x20" + hashlib.sha256(block).digest()


def _pb_bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _pb_int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
