"""IPFS content identifiers, computed locally: CIDv1, raw leaves, 256 KiB chunks, 174 links a node (Kubo's defaults).

The local store names blobs by the CID an IPFS node gives the same bytes (UnixFS v1 over dag-pb, multiformats CIDv1).
Chunks and nodes are *blocks*; every block has a CID of its own, so a tree can be checked block by block as it arrives.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pol.encoding import text
from pol.errors import CannotRun, ProofError

CHUNK_BYTES = 262_144
LINKS_PER_NODE = 174
PIECE_BYTES = 1024 * 1024
_FOLDER_BYTES = 262_144
_RAW, _DAG_PB = 0x55, 0x70
_PREFIX = {codec: b"\x01" + bytes([codec]) + b"\x12\x20" for codec in (_RAW, _DAG_PB)}
_CID_BYTES = 36
_FILE, _FOLDER = b"\x08\x02", b"\x08\x01"


@dataclass(frozen=True, slots=True)
class Link:
    """A block of a file's tree, as the node above it names it: how many of the file's bytes and levels are below it.

    At height 0 it is a chunk, which is those bytes.
    """

    cid: str
    size: int
    height: int


@dataclass(frozen=True, slots=True)
class _Node:
    cid: bytes
    file_bytes: int
    total_bytes: int


class CidHasher:
    """The CID of bytes that come piece by piece. Keeps the links of one unfinished node a level, and no bytes."""

    def __init__(self) -> None:
        self._chunk, self._filled = hashlib.sha256(), 0
        self._levels: list[list[_Node]] = [[]]

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; pieces of any length, contiguous."""
        view = memoryview(data).cast("B")
        while len(view):
            piece, view = view[: CHUNK_BYTES - self._filled], view[CHUNK_BYTES - self._filled :]
            self._chunk.update(piece)
            self._filled += len(piece)
            if self._filled == CHUNK_BYTES:
                self._end_chunk()

    def finish(self) -> str:
        """The CIDv1 (base32, 59 characters) of everything that came. Call it once."""
        return _to_text(self._root().cid)

    def _root(self) -> _Node:
        if self._filled or not self._levels[0]:
            self._end_chunk()
        level = 0
        while level + 1 < len(self._levels) or len(self._levels[level]) > 1:
            self._add(level + 1, _parent(self._levels[level]))
            level += 1
        return self._levels[level][0]

    def _end_chunk(self) -> None:
        self._add(0, _Node(_PREFIX[_RAW] + self._chunk.digest(), self._filled, self._filled))
        self._chunk, self._filled = hashlib.sha256(), 0

    def _add(self, level: int, node: _Node) -> None:
        if level == len(self._levels):
            self._levels.append([])
        if len(self._levels[level]) == LINKS_PER_NODE:
            self._add(level + 1, _parent(self._levels[level]))
            self._levels[level] = []
        self._levels[level].append(node)


def cid_of(data: bytes | bytearray | memoryview) -> str:
    """The CIDv1 (base32, 59 characters) of ``data``, any length."""
    hasher = CidHasher()
    hasher.update(data)
    return hasher.finish()


def cid_of_file(path: Path) -> str:
    """The CID of a file's bytes, read piece by piece."""
    return _to_text(_file(path).cid)


def cid_of_folder(folder: Path) -> str:
    """The CID that an IPFS node gives ``folder`` with everything in it, hidden files included.

    Raises :class:`CannotRun` for links, pipes and devices, and for a folder with so many names (256 KiB of them, at 36
    bytes more a name) that IPFS nodes split it.
    """
    return _to_text(_folder(folder).cid)


def pieces_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file, ``PIECE_BYTES`` at a time."""
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


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


def names_block(cid: str, block: bytes) -> bool:
    """Whether ``block`` (a chunk, or the bytes of a node) is the one that ``cid`` names."""
    codec = _RAW if _is_chunk(cid) else _DAG_PB
    return _to_text(_PREFIX[codec] + hashlib.sha256(block).digest()) == cid


def root_of(cid: str, block: bytes) -> Link:
    """The whole tree of which ``block`` is the root; :class:`ProofError` if it is none."""
    size = len(block) if _is_chunk(cid) else _promised_size(block)
    height = 0
    while CHUNK_BYTES * LINKS_PER_NODE**height < size:
        height += 1
    if _is_chunk(cid) != (height == 0):
        raise _other_shape(cid)
    return Link(cid, size, height)


def links_of(link: Link, block: bytes) -> list[Link]:
    """The children of a node, which is the ``block`` that ``link`` names, in order.

    The shape of a tree follows from its size. Raises :class:`ProofError` unless ``block`` is, byte for byte, the node
    that this module makes.
    """
    children, start = [], 0
    for template in _shape(link.size, link.height):
        cid = block[start + 4 : start + 4 + _CID_BYTES]
        children.append(_Node(cid, template.file_bytes, template.total_bytes))
        start += len(_pb_bytes(2, _link(template)))
    codec = _RAW if link.height == 1 else _DAG_PB
    if _file_block(children) != block or not all(child.cid.startswith(_PREFIX[codec]) for child in children):
        raise _other_shape(link.cid)
    return [Link(_to_text(child.cid), child.file_bytes, link.height - 1) for child in children]


def _is_chunk(cid: str) -> bool:
    return cid.startswith("bafk")


def _other_shape(cid: str) -> ProofError:
    return ProofError(f"{cid}: not a tree of {CHUNK_BYTES}-byte chunks with {LINKS_PER_NODE} links a node")


def _promised_size(block: bytes) -> int:
    """The number of file bytes that a node states after its links; 0 if it is no node of a file."""
    at = 0
    while block[at : at + 1] == b"\x12":
        length, at = _read_varint(block, at + 1)
        at += length
    _, at = _read_varint(block, at + 1)
    return _read_varint(block, at + 3)[0] if block[at : at + 3] == _FILE + b"\x18" else 0


def _shape(size: int, height: int) -> list[_Node]:
    """The children of a node, as far as they follow from size and height: everything but their digests."""
    width = CHUNK_BYTES * LINKS_PER_NODE ** (height - 1)
    full, rest = divmod(size, width)
    return [_blank(width, height - 1)] * full + ([_blank(rest, height - 1)] if rest else [])


def _blank(size: int, height: int) -> _Node:
    return _parent(_shape(size, height)) if height else _Node(bytes(_CID_BYTES), size, size)


def _file(path: Path) -> _Node:
    hasher = CidHasher()
    for piece in pieces_of(path):
        hasher.update(piece)
    return hasher._root()


def _folder(folder: Path) -> _Node:
    links = [(os.fsencode(path.name), _entry(path)) for path in folder.iterdir()]
    if sum(len(name) + _CID_BYTES for name, _ in links) >= _FOLDER_BYTES:
        raise CannotRun(f"{folder}: too many names for one node; IPFS splits such folders. Make subfolders.")
    block = b"".join(_pb_bytes(2, _link(node, name)) for name, node in sorted(links)) + _pb_bytes(1, _FOLDER)
    return _dag_node(block, [node for _, node in links])


def _entry(path: Path) -> _Node:
    if path.is_symlink() or not (path.is_dir() or path.is_file()):
        raise CannotRun(f"{path}: neither a file nor a folder; links, pipes and devices are not published")
    return _folder(path) if path.is_dir() else _file(path)


def _parent(children: Sequence[_Node]) -> _Node:
    return _dag_node(_file_block(children), children)


def _file_block(children: Sequence[_Node]) -> bytes:
    size = sum(child.file_bytes for child in children)
    unixfs = _FILE + _pb_int(3, size) + b"".join(_pb_int(4, child.file_bytes) for child in children)
    return b"".join(_pb_bytes(2, _link(child)) for child in children) + _pb_bytes(1, unixfs)


def _dag_node(block: bytes, children: Sequence[_Node]) -> _Node:
    return _Node(
        _PREFIX[_DAG_PB] + hashlib.sha256(block).digest(),
        sum(child.file_bytes for child in children),
        len(block) + sum(child.total_bytes for child in children),
    )


def _link(child: _Node, name: bytes = b"") -> bytes:
    return _pb_bytes(1, child.cid) + _pb_bytes(2, name) + _pb_int(3, child.total_bytes)


def _to_text(cid: bytes) -> str:
    return "b" + base64.b32encode(cid).decode("ascii").lower().rstrip("=")


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


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and where it ends; what runs off the end or over 63 bits is cut, and so never reads back."""
    value = 0
    for shift in range(0, 63, 7):
        byte = data[at] if at < len(data) else 0
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            break
    return value, at
