"""A program's configuration, read strictly into a dataclass whose fields say what they allow.

A field is annotated ``bool``, ``int``, ``float``, ``str``, ``bytes`` or ``tuple[str, ...]`` and made by one of the
functions below. In a spec a float is its ``float.hex()`` string, bytes are ``0x`` and hex digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pol.encoding import DIGEST_BYTES, MAX_INTEGER, Json, float_text, from_hex
from pol.errors import ProofError, SpecError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Parsed = TypeVar("Parsed", bound="DataclassInstance")

MAX_NAMES = 64


def whole(low: int, high: int) -> Any:
    """An integer in [low, high]."""
    return _checked(lambda value: low <= value <= high, f"an integer from {low} to {high}")


def count() -> Any:
    """A positive integer of at most 63 bits."""
    return whole(1, MAX_INTEGER)


def number(low: float, high: float) -> Any:
    """A finite float in [low, high]."""
    return _checked(lambda value: low <= value <= high, f"a float from {low} to {high} (as float.hex())")


def switch() -> Any:
    """A boolean."""
    return _checked(lambda value: True, "true or false")


def one_of(*names: str) -> Any:
    """One of ``names``."""
    return _checked(lambda value: value in names, f"one of {', '.join(names)}")


def name() -> Any:
    """Letters, digits, ``.``, ``_`` and ``-``, beginning with a letter or digit: safe as the name of a folder."""
    return _checked(_is_name, "a name of letters, digits, '.', '_' and '-'")


def names() -> Any:
    """A list of different :func:`name` values, at least one."""
    return _checked(
        lambda values: 0 < len(set(values)) == len(values) <= MAX_NAMES and all(map(_is_name, values)),
        "a list of different names",
    )


def digest32() -> Any:
    """A digest of 32 bytes."""
    return _checked(lambda value: True, "0x and 64 hex digits")


def parse(kind: type[Parsed], config: Mapping[str, Json]) -> Parsed:
    """Read ``config`` as a ``kind``: exactly its fields, of their types, in their ranges.

    Raises :class:`SpecError` naming the field.
    """
    expected = {row.name: row for row in fields(kind)}
    if set(config) != set(expected):
        raise SpecError(f"config: fields {sorted(set(config) ^ set(expected))} are missing or unknown")
    return kind(**{label: _value(row, config[label]) for label, row in expected.items()})


def _checked(accepts: Callable[[Any], bool], expected: str) -> Any:
    return field(metadata={"accepts": accepts, "expected": expected})


def _value(row: Field[Any], found: Json) -> Any:
    read = _READERS[str(row.type)]
    value = read(found)
    if value is None or not row.metadata["accepts"](value):
        raise SpecError(f"config: {row.name} must be {row.metadata['expected']}, found {str(found)[:80]!r}")
    return value


def _is_name(value: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value) is not None


def _bool(value: Json) -> bool | None:
    return value if isinstance(value, bool) else None


def _int(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Json) -> float | None:
    try:
        found = float.fromhex(cast(str, value))
        return found if float_text(found) == value else None  # one value, one spelling
    except (TypeError, ValueError, OverflowError, SpecError):
        return None


def _str(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _bytes(value: Json) -> bytes | None:
    try:
        return from_hex(value, where="config", length=DIGEST_BYTES)
    except ProofError:
        return None


def _strings(value: Json) -> tuple[str, ...] | None:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(cast(list[str], value))
    return None


_READERS: dict[str, Callable[[Json], Any]] = {
    "bool": _bool, "int": _int, "float": _float, "str": _str, "bytes": _bytes, "tuple[str, ...]": _strings,
}  # fmt: skip
