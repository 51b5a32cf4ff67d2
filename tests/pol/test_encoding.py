"""Canonical JSON: one value, one byte string, and a strict way back."""

from __future__ import annotations

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol.encoding import (
    MAX_JSON_VALUES,
    canonical_json,
    fields,
    float_text,
    from_hex,
    integer,
    parse_canonical_json,
    to_hex,
)
from pol.errors import ProofError, SpecError

scalars = st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(values)
def test_parse_is_the_inverse_of_encode(value: object) -> None:
    data = canonical_json(value)
    assert parse_canonical_json(data, where="test") == value
    assert json.loads(data) == value


@given(values, st.integers(0, 7), st.data())
def test_no_flipped_bit_parses_to_the_same_value(value: object, bit: int, data: st.DataObject) -> None:
    encoded = bytearray(canonical_json(value))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= 1 << bit
    with contextlib.suppress(ProofError):
        assert canonical_json(parse_canonical_json(bytes(encoded), where="test")) != canonical_json(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}', '{"b":1,"a":2}', '{"a":1,"a":2}', "1.0", "1e3", "NaN", "Infinity", '"\\u0041"', "01", "[1,]", "",
        " 1", "1 ", "1\n", "{}{}", '"é"', "-0", "[" * 100_000, "9" * 25, '"\\ud800"', "9" * 5000,
    ],
)  # fmt: skip
def test_anything_but_the_canonical_form_is_refused(text: str) -> None:
    with pytest.raises(ProofError, match="canonical"):
        parse_canonical_json(text.encode(), where="test")


@pytest.mark.parametrize("text", ['\\"' * 2_000_000, '"' * 4_000_001, '"' + "\\" * 4_000_001])
def test_unterminated_strings_are_scanned_once(text: str) -> None:
    """A scan that starts over at every quote would take hours for these four megabytes."""
    with pytest.raises(ProofError, match="canonical"):
        parse_canonical_json(text.encode(), where="test")


@pytest.mark.parametrize("item", ["[]", "{}", "0", '""', '{"a":[0,0]}'])
def test_more_values_than_the_limit_are_never_made(item: str) -> None:
    """Sixteen megabytes of empty lists would be half a gigabyte of objects."""
    count = MAX_JSON_VALUES // (1 + item.count("[") + item.count("{") + item.count(","))
    few, many = ([item] * number for number in (count - 1, count + 1))
    assert len(parse_canonical_json(f"[{','.join(few)}]".encode(), where="test")) == count - 1
    tracemalloc.start()
    try:
        with pytest.raises(ProofError, match="values"):
            parse_canonical_json(f"[{','.join(many)}]".encode(), where="test")
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


def test_unknown_names_do_not_fill_the_message() -> None:
    with pytest.raises(ProofError) as refused:
        fields({str(number) * 100: 0 for number in range(10_000)}, {"format"}, where="test")
    assert len(str(refused.value)) < 1000


def test_floats_never_enter_hashed_bytes() -> None:
    with pytest.raises(TypeError, match="float"):
        canonical_json({"lr": 0.1})  # type: ignore[dict-item]
    for value in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(SpecError):
            float_text(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float_text_is_exact(value: float) -> None:
    assert float.fromhex(float_text(value)) == value


@given(st.binary(min_size=32, max_size=32))
def test_hex_is_strict(value: bytes) -> None:
    assert from_hex(to_hex(value), where="test") == value
    for wrong in (
        value.hex(),
        to_hex(value).upper(),
        to_hex(value)[:-1],
        to_hex(value) + "0",
        to_hex(value)[:-1] + "\n",
    ):
        with pytest.raises(ProofError):
            from_hex(wrong, where="test")


def test_fields_and_integers_are_strict() -> None:
    with pytest.raises(ProofError, match="missing"):
        fields({"a": 1}, {"a", "b"}, where="test")
    with pytest.raises(ProofError, match="unknown"):
        fields({"a": 1, "c": 2}, {"a"}, where="test")
    for wrong in (True, "1", -1, 2**63, None):
        with pytest.raises(ProofError):
            integer(wrong, where="test")
