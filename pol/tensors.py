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
    # All supported hosts are little-endian; a byte view keeps bf16, which numpy does not know.
    return _byte_view(tensor.detach().to("cpu")).numpy().data if tensor.numel() else memoryview(b"")


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
    header, data = tensor_header(name, tensor), little_endian_bytes(tensor)
    starts = range(0, max(1, len(data)), BLOCK_BYTES)
    return header, blocks_root(header, (data[start : start + BLOCK_BYTES] for start in starts))


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
        if tensor.is_floating_point() and not _finite(tensor):
            raise ProofError(f"{where}: tensor {name!r} holds NaN or infinity")
        if tensor.dtype is torch.bool and any(
            bool((np.frombuffer(block, np.uint8) > 1).any()) for block in _blocks(tensor)
        ):
            raise ProofError(f"{where}: tensor {name!r} holds a boolean that is neither 0 nor 1")


# The words of a floating-point type, and the bits of its exponent: all of them are set in NaN and infinity alone.
_EXPONENTS: dict[torch.dtype, tuple[str, int]] = {
    torch.float64: ("<u8", 0x7FF0_0000_0000_0000),
    torch.float32: ("<u4", 0x7F80_0000),
    torch.bfloat16: ("<u2", 0x7F80),
    torch.float16: ("<u2", 0x7C00),
}


def _finite(tensor: torch.Tensor) -> bool:
    # On the bits, by numpy: torch's operators would start a second team of threads behind the one that trains.
    if tensor.dtype not in _EXPONENTS:
        raise ProofError(f"dtype {tensor.dtype} has no canonical bytes")
    words, exponent = _EXPONENTS[tensor.dtype]
    mask = np.array(exponent, dtype=words)
    return not any(bool((np.frombuffer(block, words) & mask == mask).any()) for block in _blocks(tensor))


def _blocks(tensor: torch.Tensor) -> Iterator[memoryview]:
    """The tensor's bytes, a mebibyte at a time, so that looking at a state takes no second one."""
    data = little_endian_bytes(tensor)
    return (data[start : start + 2**20] for start in range(0, len(data), 2**20))
