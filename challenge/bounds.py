"""The bounds that a task sets on configurations: what each field of a spec's ``config`` may be.

An object with every field of the config, and nothing else. A value allows exactly that value, a list any of its
members, and an object ``{"from": low, "to": high}`` the numbers in [low, high]: integers, or floats as
``float.hex()``, as the ends are. The task's terms hold the bounds' digest (``Work.config_bounds``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from pol.encoding import Json, canonical_json, digest, fields, float_text
from pol.errors import ProofError, SpecError

BOUNDS_DOMAIN = "aiarena/config-bounds/v1"

Bounds: TypeAlias = Mapping[str, Json]


def bounds_digest(bounds: Bounds) -> bytes:
    """What a task's terms hold of ``bounds`` (32 bytes)."""
    return digest(BOUNDS_DOMAIN, canonical_json(dict(bounds)))


def check_bounds(bounds: Json, *, where: str) -> Bounds:
    """``bounds``, if they are well formed; raises :class:`ProofError` naming the field."""
    if not isinstance(bounds, dict):
        raise ProofError(f"{where}: expected an object")
    for name, bound in bounds.items():
        if isinstance(bound, dict):
            row = fields(bound, {"from", "to"}, where=f"{where}.{name}")
            low, high = _number(row["from"]), _number(row["to"])
            if low is None or high is None or type(low) is not type(high) or low > high:
                raise ProofError(f"{where}.{name}: expected two integers, or two floats as float.hex(), in order")
        elif bound is None or bound == []:
            raise ProofError(f"{where}.{name}: expected a value, a list of values, or from and to")
    return bounds


def outside(config: Mapping[str, Json], bounds: Bounds) -> list[str]:
    """What of ``config`` is not within ``bounds``, a sentence each."""
    odd = sorted(set(config) ^ set(bounds))
    said = [f"config: {name[:80]} is {'not in' if name in config else 'missing, but in'} the bounds" for name in odd]
    for name in sorted(set(config) & set(bounds)):
        if not _within(config[name], bounds[name]):
            said.append(f"config: {name} is {_short(config[name])}, and the bounds are {_short(bounds[name])}")
    return said


def _within(value: Json, bound: Json) -> bool:
    if isinstance(bound, dict):
        low, found, high = _number(bound["from"]), _number(value), _number(bound["to"])
        assert low is not None and high is not None, "check_bounds saw it"
        return found is not None and type(found) is type(low) and low <= found <= high
    allowed = bound if isinstance(bound, list) else [bound]
    return canonical_json(value) in map(canonical_json, allowed)  # 1 is not true, and 1.0 is not 1


def _number(value: Json) -> int | float | None:
    """An integer, or a float in the one spelling that hashed bytes hold; ``None`` for anything else."""
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    try:
        found = float.fromhex(value) if isinstance(value, str) else None
        return found if found is not None and float_text(found) == value else None
    except (ValueError, OverflowError, SpecError):
        return None


def _short(value: Json) -> str:
    return canonical_json(value).decode("ascii")[:80]
