"""What a safetensors file holds, read strictly from its header: nothing is loaded, and nothing is too large to look at.

Torch-free. :func:`pol.state.from_safetensors` loads a blob only after this has accepted its header.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pol.encoding import check_json_shape, fields, integer
from pol.errors import ProofError

MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_TENSORS = 2**15
MAX_DIMENSIONS = 64
MAX_ELEMENTS = 2**40
"""The product of a shape's sizes, zeros left out: a tensor without elements may not have an absurd shape either."""
METADATA = "__metadata__"

ELEMENT_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRow:
    """One tensor of a file: ``dtype`` as safetensors spells it, its bytes are [start, end) of the whole file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_rows(path: Path, *, where: str) -> list[TensorRow]:
    """:func:`parse_rows` of the file at ``path``."""
    with path.open("rb") as file:
        return parse_rows(file, path.stat().st_size, where=where)


def parse_rows(file: BinaryIO, size: int, *, where: str) -> list[TensorRow]:
    """The tensors in a safetensors file of ``size`` bytes, in the order of their bytes.

    The header must account for every byte: tensors follow one another without a gap or an overlap, from the header's
    end to the file's, each as long as its dtype and shape say. Raises :class:`ProofError` for everything else.
    """
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise ProofError(f"{where}: not a safetensors file (a header of {length} bytes in a file of {size})")
    header = _parse(file.read(length), where=where)
    _check_metadata(header.pop(METADATA, {}), where=where)
    if len(header) > MAX_TENSORS:
        raise ProofError(f"{where}: {len(header)} tensors, more than the limit of {MAX_TENSORS}")
    rows = [_row(name, value, 8 + length, where=where) for name, value in header.items()]
    rows.sort(key=lambda row: (row.start, row.end))
    ends = [8 + length, *(row.end for row in rows)]
    if ends[-1] != size or any(row.start != end for row, end in zip(rows, ends, strict=False)):
        raise ProofError(f"{where}: the tensors of this safetensors file overlap, leave gaps or do not fill it")
    return rows


def _parse(data: bytes, *, where: str) -> dict[str, Any]:
    check_json_shape(data, where=where)
    try:
        header = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ProofError(f"{where}: not a safetensors file (its header is no JSON: {error})") from error
    if not data.startswith(b"{") or not isinstance(header, dict):
        raise ProofError(f"{where}: not a safetensors file (its header is no object)")
    return header


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:40]!r} is there twice")
        name.encode("utf-8")  # an unpaired surrogate is a ValueError
        found[name] = value
    return found


def _check_metadata(metadata: object, *, where: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ProofError(f"{where}: {METADATA} is not an object of strings")


def _row(name: str, value: Any, base: int, *, where: str) -> TensorRow:
    where = f"{where}: tensor {name[:40]!r}"
    row = fields(value, {"dtype", "shape", "data_offsets"}, where=where)
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ELEMENT_BYTES:
        raise ProofError(f"{where}: dtype {str(dtype)[:40]!r} has no canonical bytes")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not isinstance(offsets, list) or len(offsets) != 2:
        raise ProofError(f"{where}: no shape, or one with too many dimensions")
    sizes = tuple(integer(size, where=f"{where}.shape") for size in shape)
    start, end = (integer(offset, where=f"{where}.data_offsets") for offset in offsets)
    if math.prod(size for size in sizes if size) > MAX_ELEMENTS:
        raise ProofError(f"{where}: a shape of more than {MAX_ELEMENTS} elements")
    if end - start != math.prod(sizes) * ELEMENT_BYTES[dtype]:
        raise ProofError(f"{where}: {end - start} bytes do not fit dtype {dtype} and shape {str(sizes)[:80]}")
    return TensorRow(name=name, dtype=dtype, shape=sizes, start=base + start, end=base + end)
