"""The parameters are strict: one JSON form for each, and no extractor but the public one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol.errors import ProofError, SpecError
from watermark.outputs import OutputMark
from watermark.outputs.extractor import PUBLIC_EXTRACTOR

MARK = OutputMark(groups=16, leaves=16, strength=0.02)


@given(st.integers(8, 64), st.integers(16, 64), st.floats(2**-20, 0.125), st.integers(64, 4096))
def test_json_is_read_back(groups: int, leaves: int, strength: float, images: int) -> None:
    mark = OutputMark(groups, leaves, strength, images)
    assert OutputMark.from_json(mark.to_json(), where="spec") == mark


@pytest.mark.parametrize(
    "change",
    [
        {"groups": 7}, {"groups": 0}, {"leaves": 1 << 16}, {"leaves": True}, {"strength": 0.02}, {"strength": "0.02"},
        {"strength": "nan"}, {"strength": "0x0.0p+0"}, {"strength": "0x1.0000000000000p-1"}, {"images": 63},
        {"images": 1 << 20}, {"extractor": "0x" + "11" * 32}, {"extractor": None}, {"more": 1},
    ],
)  # fmt: skip
def test_anything_else_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProofError, match="spec"):
        OutputMark.from_json({**MARK.to_json(), **change}, where="spec")  # type: ignore[dict-item]


def test_a_mark_needs_enough_bits_to_convict() -> None:
    with pytest.raises(SpecError, match="128"):
        OutputMark(groups=1, leaves=127, strength=0.02)
    assert OutputMark(groups=1, leaves=128, strength=0.02).leaf_count == 128


def test_a_mark_has_no_more_bits_than_a_verifier_has_memory_for() -> None:
    with pytest.raises(SpecError, match="4096"):
        OutputMark(groups=17, leaves=256, strength=0.02)
    assert OutputMark(groups=16, leaves=256, strength=0.02).leaf_count == 4096


def test_an_extractor_of_somebodys_own_is_refused() -> None:
    with pytest.raises(SpecError, match="not the public one"):
        OutputMark(groups=16, leaves=16, strength=0.02, extractor=bytes(31) + b"\1")
    assert MARK.extractor == PUBLIC_EXTRACTOR
