"""Safetensors headers: what the library writes is read, and nothing it would refuse or choke on is let through."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from pol.errors import ProofError
from pol.state import from_safetensors, to_safetensors
from pol.tensorfile import ELEMENT_BYTES, MAX_ELEMENTS, MAX_HEADER_BYTES, MAX_TENSORS, parse_rows, read_rows
from pol.tensors import DTYPES

TENSORS = {
    "w": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.zeros(0, 5), "n": torch.tensor(7),
    "half": torch.ones(3, dtype=torch.bfloat16), "mask": torch.tensor([True, False]), "é": torch.ones(1, 1, 1),
}  # fmt: skip


def blob(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def row(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4), **more: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def parse(data: bytes) -> list:
    return parse_rows(io.BytesIO(data), len(data), where="test")


@pytest.mark.parametrize("write", [to_safetensors, save, lambda tensors: save(tensors, {"by": "hand"})])
def test_what_is_written_is_read(write, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(write(TENSORS))
    rows = read_rows(tmp_path / "file", where="test")
    assert {r.name: (r.dtype, r.shape) for r in rows} == {
        name: (DTYPES[value.dtype], tuple(value.shape)) for name, value in TENSORS.items()
    }
    data = (tmp_path / "file").read_bytes()
    assert data[rows[0].start : rows[-1].end] == data[rows[0].start :]
    (whole,) = (r for r in rows if r.name == "w")
    assert data[whole.start : whole.end] == TENSORS["w"].numpy().tobytes()


def test_the_widths_are_torchs() -> None:
    assert {name: dtype.itemsize for dtype, name in DTYPES.items()} == ELEMENT_BYTES


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 7, (2**40).to_bytes(8, "little"), (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}", blob(b""),
        blob([]), blob(b"null"), blob(b"{"), blob(b"\xff{}"), blob(b' {"a":1}'), blob({"a": 1}), blob({"a": {}}),
        blob({"a": row(more=1)}, bytes(4)), blob({"a": row("F8_E4M3", [4])}, bytes(4)), blob({"a": row(7)}, bytes(4)),
        blob({"a": row(shape="1")}, bytes(4)), blob({"a": row(shape=[1.0])}, bytes(4)),
        blob({"a": row(shape=[True])}, bytes(4)), blob({"a": row(shape=[-1])}, bytes(4)),
        blob({"a": row(shape=[2])}, bytes(4)), blob({"a": row(shape=[1] * 65)}, bytes(4)),
        blob({"a": row(shape=[2**40, 2**40])}, bytes(4)), blob({"a": row(shape=[0, 2**62, 4], offsets=[0, 0])}),
        blob({"a": row(shape=[0, MAX_ELEMENTS + 1], offsets=[0, 0])}), blob({"a": row(offsets=[0])}, bytes(4)),
        blob({"a": row(offsets=[4, 0])}, bytes(4)), blob({"a": row(offsets=[1, 5])}, bytes(5)),
        blob({"a": row()}, bytes(5)), blob({"a": row()}, bytes(3)), blob({"a": row(), "b": row()}, bytes(4)),
        blob({"a": row(), "b": row(offsets=[8, 12])}, bytes(12)),
        blob({"a": row(), "b": row(offsets=[2, 6])}, bytes(6)),
        blob(b'{"a":%b,"a":%b}' % ((json.dumps(row()).encode(),) * 2), bytes(4)),
        blob({"a": row(), "\ud800": row(shape=[0], offsets=[0, 0])}, bytes(4)),
        blob({"__metadata__": {"a": 1}, "a": row()}, bytes(4)), blob({"__metadata__": [], "a": row()}, bytes(4)),
        blob({str(i): row(shape=[0], offsets=[0, 0]) for i in range(MAX_TENSORS + 1)}),
        blob(b'{"a":' + b"[" * 100_000), blob(b'{"a":[' + b"[]," * 10**6 + b"[]]}"), blob({"a": row(shape=["9" * 9])}),
        blob(b'{"a":{"dtype":"F32","shape":[%b],"data_offsets":[0,4]}}' % (b"9" * 5000), bytes(4)),
    ],
    ids=lambda data: f"{len(data)}-{data[8:60]!r}",
)  # fmt: skip
def test_what_is_no_file_of_tensors_is_refused(data: bytes) -> None:
    with pytest.raises(ProofError, match=r"^test"):
        parse(data)
    with pytest.raises(ProofError, match=r"^test"):
        from_safetensors(data, where="test")


def test_a_file_without_tensors_is_read_as_such() -> None:
    assert parse(blob({})) == [] and parse(blob({"__metadata__": {"a": "b"}})) == []


@given(st.integers(0, 2**32))
def test_a_mutated_file_is_refused_or_loads_as_its_header_says(seed: int) -> None:
    """Differential: the library never sees a header that this reader has not understood in the same way."""
    dice, data = random.Random(seed), bytearray(to_safetensors(TENSORS))
    for _ in range(dice.randint(1, 3)):
        data[dice.choice([dice.randrange(8), dice.randrange(8, 200), dice.randrange(len(data))])] = dice.randrange(256)
    try:
        rows = parse(bytes(data))
    except ProofError:
        return
    loaded = load(bytes(data))
    assert {r.name: (r.dtype, r.shape) for r in rows} == {
        n: (DTYPES[v.dtype], tuple(v.shape)) for n, v in loaded.items()
    }
