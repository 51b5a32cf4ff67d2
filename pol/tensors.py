"""Canonical digests of named tensors. One element of any tensor can be opened with one 16 KiB block."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from pol.encoding import u64
from pol.errors import ProofError
from pol.merkle import leaf_digest, merkle_root
from pol.tensorfile import MAX_DIMENSIONS

BLOCK_BYTES = 16 * 1024
MAX_NAME_BYTES = 1024
BLOCK_DOMAIN = "aiarena/tensor-block/v1"
TENSOR_DOMAIN = "aiarena/named-tensor/v1"

# Names as safetensors spells them; a dtype that is not listed has no canonical bytes and is refused.
DTYPES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def tensor_header(name: str, tensor: torch.Tensor) -> bytes:
    """Length-prefixed name, dtype and shape of ``tensor``: what a leaf binds besides the bytes."""
    if tensor.dtype not in DTYPES:
        raise ProofError(f"tensor {name}: dtype {tensor.dtype} has no canonical bytes")
    label, kind = name.encode("utf-8"), DTYPES[tensor.dtype].encode("ascii")
    if len(label) > MAX_NAME_BYTES or tensor.dim() > MAX_DIMENSIONS:
        raise ProofError(f"tensor {name[:40]!r}: its name or its number of dimensions is over the limit")
    parts = [struct.pack(">H", len(label)), label, struct.pack(">B", len(kind)), kind]
    parts += [struct.pack(">B", tensor.dim()), *(u64(size) for size in tensor.shape)]
    return b"".join(parts)


def little_endian_bytes(tensor: torch.Tensor) -> memoryview:
    """The elements of ``tensor`` in row-major order, little-endian, whatever its strides or device.

    A view of the tensor's own memory where that is possible, so that hashing a state does not copy it.
    """
    if not tensor.numel():
        return memoryview(b"")
    # All supported hosts are little-endian; a view as integers keeps bf16, which numpy does not know.
    held = tensor.detach().cpu().contiguous()
    return (held.view(torch.int16) if held.dtype is torch.bfloat16 else held).numpy().data.cast("B")


def same_bits(mine: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have one dtype, shape and bits (so that -0.0 differs from 0.0, and NaN equals itself)."""
    if (mine.dtype, mine.shape) != (other.dtype, other.shape):
        return False
    return torch.equal(_byte_view(mine.detach()), _byte_view(other.detach()))


def _byte_view(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def tensor_root(name: str, tensor: torch.Tensor) -> bytes:
    """The Merkle root over the 16 KiB blocks of one tensor (one empty block if it has no elements).

    Every leaf binds the tensor's name, dtype, shape and the block's index.
    """
    return table_row(name, tensor)[1]


def blocks_root(header: bytes, blocks: Iterable[bytes | memoryview]) -> bytes:
    """The root of a tensor with this header whose bytes come as ``blocks`` of 16 KiB, the last one maybe shorter."""
    return merkle_root(_block_leaves(header, blocks))


def _block_leaves(header: bytes, blocks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    domain = BLOCK_DOMAIN.encode("ascii")
    for index, block in enumerate(blocks):
        # leaf_digest(BLOCK_DOMAIN, index, header + block), without joining the bytes first
        leaf = hashlib.sha256(domain + u64(index) + header)
        leaf.update(block)
        yield leaf.digest()


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The digest of a set of named tensors: the Merkle root over them, sorted by the UTF-8 bytes of their names."""
    return table_digest(tensor_table(tensors))


def tensor_table(tensors: Mapping[str, torch.Tensor]) -> list[tuple[bytes, bytes]]:
    """The (header, tensor root) of every tensor, sorted by the UTF-8 bytes of their names.

    The table is small and leads to the state's digest, so a few tensors can be shown to be part of a state without
    showing the others.
    """
    return sorted_table({name: table_row(name, value) for name, value in tensors.items()})


def table_row(name: str, tensor: torch.Tensor) -> tuple[bytes, bytes]:
    """What a :func:`tensor_table` says of one tensor."""
    return _row(tensor_header(name, tensor), little_endian_bytes(tensor))


def checked_row(name: str, tensor: torch.Tensor, *, where: str) -> tuple[tuple[bytes, bytes], memoryview]:
    """The :func:`table_row` of a tensor that :func:`check_values` accepts, and the bytes that were read for it."""
    data = little_endian_bytes(tensor)
    _check_bytes(name, tensor.dtype, data, where=where)
    return _row(tensor_header(name, tensor), data), data


def _row(header: bytes, data: memoryview) -> tuple[bytes, bytes]:
    starts = range(0, max(1, len(data)), BLOCK_BYTES)
    return header, blocks_root(header, [data[start : start + BLOCK_BYTES] for start in starts])


def sorted_table(rows: Mapping[str, tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The :func:`tensor_table` that these rows make, by the tensors' names."""
    return [rows[name] for name in sorted(rows, key=lambda name: name.encode("utf-8"))]


def table_digest(table: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The digest of the state whose :func:`tensor_table` this is; :class:`ProofError` if it is empty."""
    if not table:
        raise ProofError("a state without tensors has no digest")
    return merkle_root([leaf_digest(TENSOR_DOMAIN, i, root + header) for i, (header, root) in enumerate(table)])


def check_values(tensors: Mapping[str, torch.Tensor], *, where: str) -> None:
    """Insist on finite floating-point elements and on booleans that are 0 or 1; :class:`ProofError` names the tensor.

    A distance to NaN compares as false with everything, and a boolean byte of 2 equals one of 1 everywhere but in
    the digest, so neither may ever reach a comparison.
    """
    for name, tensor in tensors.items():
        _check_bytes(name, tensor.dtype, little_endian_bytes(tensor), where=where)


def _check_bytes(name: str, dtype: torch.dtype, data: memoryview, *, where: str) -> None:
    # By numpy: torch's operators would start a second team of threads behind the one that trains. A mebibyte at a
    # time, so that looking at a state takes no second one.
    if dtype not in DTYPES:
        raise ProofError(f"{where}: tensor {name!r}: dtype {dtype} has no canonical bytes")
    pieces = (data[start : start + 2**20] for start in range(0, len(data), 2**20))
    if dtype in _FLOATS and not all(np.isfinite(_floats(piece, dtype)).all() for piece in pieces):
        raise ProofError(f"{where}: tensor {name!r} holds NaN or infinity")
    if dtype is torch.bool and any((np.frombuffer(piece, np.uint8) > 1).any() for piece in pieces):
        raise ProofError(f"{where}: tensor {name!r} holds a boolean that is neither 0 nor 1")


_FLOATS = {torch.float64: "<f8", torch.float32: "<f4", torch.float16: "<f2", torch.bfloat16: "<u2"}


def _floats(data: memoryview, dtype: torch.dtype) -> np.ndarray:
    numbers = np.frombuffer(data, _FLOATS[dtype])
    # numpy has no bf16, which is the upper half of an fp32
    return (numbers.astype("<u4") << 16).view("<f4") if dtype is torch.bfloat16 else numbers
