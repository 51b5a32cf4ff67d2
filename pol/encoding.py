"""Canonical bytes: the one way this project turns values into hashed bytes, and the strict way back.

Canonical JSON has sorted keys, no spaces, ASCII escapes and only strings, integers, booleans, null, lists and
objects. Floats are refused: a float becomes the string of ``float.hex()``, so that two readers can never round it
differently. See docs/spec/proof-format.md section 2.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, TypeAlias

from pol.errors import ProofError, SpecError

DIGEST_BYTES = 32
MAX_JSON_BYTES = 16 * 1024 * 1024
MAX_JSON_DEPTH = 32
MAX_JSON_VALUES = 2**19
"""Commas and opening brackets: 16 MiB of ``[],[],`` would take half a gigabyte as Python objects."""
MAX_INTEGER = 2**63 - 1

Json: TypeAlias = None | bool | int | str | list["Json"] | dict[str, "Json"]


def digest(domain: str, *parts: bytes) -> bytes:
    """SHA-256 of ``domain || parts``; the domain is ASCII and at least 16 bytes, so no digest equals a tree node's.

    Callers pass parts of fixed width (or one part of free width, last), so that the concatenation is injective.
    """
    prefix = domain.encode("ascii")
    if len(prefix) < 16:
        raise ValueError(f"domain {domain!r} is shorter than 16 bytes")
    hasher = hashlib.sha256(prefix)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def u64(value: int) -> bytes:
    """An unsigned 64-bit integer, big-endian, 8 bytes."""
    return value.to_bytes(8, "big")


def u256(value: int) -> bytes:
    """An unsigned 256-bit integer, big-endian, 32 bytes (one EVM word)."""
    return value.to_bytes(32, "big")


def to_hex(value: bytes) -> str:
    """Lower-case hex with ``0x``, as digests appear in every file of a proof."""
    return "0x" + value.hex()


def from_hex(text: object, *, where: str, length: int = DIGEST_BYTES) -> bytes:
    """Strict inverse of :func:`to_hex` for ``length`` bytes; raises :class:`ProofError` naming ``where``."""
    if isinstance(text, str) and len(text) == 2 + 2 * length and re.fullmatch("0x[0-9a-f]*", text):
        return bytes.fromhex(text[2:])
    raise ProofError(f"{where}: expected 0x and {2 * length} lower-case hex digits, found {str(text)[:80]!r}")


def float_text(value: float) -> str:
    """A finite float as ``float.hex()``; NaN and infinities are refused with :class:`SpecError`."""
    if not math.isfinite(value):
        raise SpecError(f"{value} cannot be part of hashed bytes: use a finite number")
    return float(value).hex()


def canonical_json(value: Json) -> bytes:
    """The canonical bytes of ``value``.

    Raises ``TypeError`` for what JSON does not hold (floats included), ``ValueError`` for integers over 64 bits and
    unpaired surrogates.
    """
    _check_value(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def parse_canonical_json(data: bytes, *, where: str) -> Json:
    """Parse ``data`` and insist that it is exactly the canonical encoding of what it says.

    Raises :class:`ProofError` for anything else: larger than ``MAX_JSON_BYTES``, nested deeper than
    ``MAX_JSON_DEPTH``, of more than ``MAX_JSON_VALUES`` values, not JSON, duplicate keys, floats, other spacing or key
    order, trailing bytes.
    """
    if len(data) > MAX_JSON_BYTES:
        raise ProofError(f"{where}: {len(data)} bytes of JSON, more than the limit of {MAX_JSON_BYTES}")
    check_json_shape(data, where=where)
    try:
        value: Json = json.loads(data.decode("ascii"), parse_float=_reject, parse_constant=_reject)
        canonical = canonical_json(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise ProofError(f"{where}: not canonical JSON ({error})") from error
    if canonical != data:
        raise ProofError(f"{where}: not canonical JSON (other key order, spacing or escapes)")
    return value


def check_json_shape(data: bytes, *, where: str) -> None:
    """Insist on few enough values and brackets, before a parser makes objects of them; raises :class:`ProofError`."""
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_JSON_VALUES:
        raise ProofError(f"{where}: more than the limit of {MAX_JSON_VALUES} values")
    if _depth(data) > MAX_JSON_DEPTH:
        raise ProofError(f"{where}: not canonical JSON (nested deeper than {MAX_JSON_DEPTH})")


def fields(value: Json, names: set[str], *, where: str) -> dict[str, Any]:
    """``value`` as an object with exactly the keys ``names``; raises :class:`ProofError` otherwise."""
    if not isinstance(value, dict):
        raise ProofError(f"{where}: expected an object")
    if set(value) != names:
        missing, extra = sorted(names - set(value)), [name[:40] for name in sorted(set(value) - names)[:5]]
        raise ProofError(f"{where}: missing fields {missing}, unknown fields {extra}")
    return value


def integer(value: object, *, where: str, low: int = 0, high: int = 2**63 - 1) -> int:
    """``value`` as an integer in [low, high]; raises :class:`ProofError` otherwise (booleans are not integers)."""
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise ProofError(f"{where}: expected an integer from {low} to {high}, found {str(value)[:40]!r}")


def text(value: object, *, where: str, limit: int = 4096) -> str:
    """``value`` as a string of at most ``limit`` characters; raises :class:`ProofError` otherwise."""
    if isinstance(value, str) and len(value) <= limit:
        return value
    raise ProofError(f"{where}: expected a string of at most {limit} characters")


# An unterminated string is matched to the end, possessively: the scan stays linear whatever it is given.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)


def _depth(data: bytes) -> int:
    """How deep brackets nest, outside strings; counted first, because the parser's recursion can exhaust the stack."""
    depth = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(match.group(), 0)
        deepest = max(deepest, depth)
        if deepest > MAX_JSON_DEPTH:
            break
    return deepest


def _check_value(value: Any) -> None:
    """What other languages could not read back the same way is refused: floats, big integers, lone surrogates."""
    if isinstance(value, float):
        raise TypeError("floats are not canonical: encode them with float_text()")
    if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise ValueError("an integer of more than 64 bits")
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError("object keys must be strings")
            _check_value(key)
            _check_value(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_value(item)


def _reject(token: str) -> None:
    raise ValueError(f"number {token} is not an integer")
