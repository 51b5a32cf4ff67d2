"""TOML files that people write: a task with its terms, its program and the names of its data sets; a fund's terms."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from chain.accounts import parse_address
from chain.emission import Fund
from chain.terms import NO_ADDRESS, Aggregator, Clock, Court, Numerics, Pay
from chain.types import tokens
from challenge.arena.amounts import seconds
from pol.errors import CannotRun, SpecError

Reader = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFile:
    """What the file says. ``train``, ``evaluation`` and ``final`` are files of data sets, or names of built-in ones;
    ``machines`` are the accepted machine classes, ``this`` (the one that reads it) or digests in hex; ``bases`` the
    accepted base models, digests in hex, folders of base models here, or ``seed`` for runs that start from their seed;
    ``bounds`` what configs are allowed, as TOML says it (:mod:`challenge.bounds`). Both are empty where there are none.
    ``step_verifier`` is the address of the contract that decides disputes over single segments."""

    program: str
    config: dict[str, Any]
    batch_size: int
    steps: int
    segment_length: int
    train: str
    evaluation: str
    final: str
    numerics: Numerics
    machines: tuple[str, ...]
    bases: tuple[str, ...]
    bounds: dict[str, Any]
    step_verifier: str
    threads: int
    clock: Clock
    pay: Pay
    court: Court


def read_task_file(path: Path) -> TaskFile:
    """The task in ``path``; raises :class:`SpecError` naming the field, or :class:`CannotRun`.

    Every field but ``bases``, ``bounds`` and ``step_verifier`` is given. Amounts are texts in whole tokens ("200",
    "0.5"), ``q``, ``alpha_trainer``, ``alpha_validator`` and ``lambda`` decimal numbers as texts, lengths of time
    seconds or texts such as "24h", ``start`` a time with its zone or seconds since 1970. What each means:
    chain/contracts/src/interfaces/ITasks.sol.
    """
    return TaskFile(**_read({**_OPTIONAL, **_values(path)}, _TASK, str(path)))


def read_fund_file(path: Path) -> Fund:
    """The terms of a fund of daily emission in ``path``; raises as :func:`read_task_file`.

    Every field of :class:`chain.emission.Fund` is given: amounts, ``decay`` and ``beta`` as decimal texts, ``epoch`` a
    time with its zone or seconds since 1970, ``period`` days.
    """
    return Fund(**_read(_values(path), _FUND, str(path)))


def _values(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotRun(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file") from error
    except ValueError as error:
        raise SpecError(f"{path}: not TOML ({error})") from error


def _read(values: Any, readers: Mapping[str, Reader], where: str) -> dict[str, Any]:
    """Every value by its reader; the names must be exactly those of ``readers``."""
    if not isinstance(values, dict):
        raise SpecError(f"{where}: expected a table")
    missing, unknown = sorted(set(readers) - set(values)), sorted(set(values) - set(readers))
    if missing or unknown:
        raise SpecError(f"{where}: missing {missing}, unknown {unknown}")
    found = {}
    for name, reader in readers.items():
        try:
            found[name] = reader(values[name])
        except SpecError as error:
            raise SpecError(f"{where}.{name}: {error}") from error
    return found


def _section(cls: Callable[..., Any], readers: Mapping[str, Reader]) -> Reader:
    def read(value: Any) -> Any:
        found = _read(value, readers, cls.__name__.lower())
        return cls(**{("lambda_" if name == "lambda" else name): field for name, field in found.items()})

    return read


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise SpecError("expected a text of at most 200 characters")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise SpecError("expected a whole number, at least 0")
    return value


def _length(value: Any) -> int:
    found = seconds(value)
    if found is None or found < 0:
        raise SpecError('expected seconds, or a text such as "90s", "30m", "24h" or "2d"')
    return found


def _decimal(value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"\d{1,20}(\.\d{1,18})?", value):
        raise SpecError('expected a decimal number as a text, such as "0.9" or "200"')
    return tokens(Fraction(value))


def _start(value: Any) -> int:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return int(value.timestamp())
    if isinstance(value, datetime):
        raise SpecError("this time has no zone: end it with Z for universal time")
    return _count(value)


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SpecError("expected a table")
    return value


def _listing(pattern: str, expected: str) -> Reader:
    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise SpecError(f"expected a list of {expected}")
        if odd := [item for item in value if not re.fullmatch(pattern, item)]:
            raise SpecError(f"expected a list of {expected}, found {odd[0][:80]!r}")
        if len(set(value)) < len(value):
            raise SpecError("something is in the list twice")
        return tuple(value)

    return read


def _address(value: Any) -> str:
    try:
        return str(parse_address(_text(value)))
    except ValueError as error:
        raise SpecError("expected an address, with capitals that check") from error


def _one_of(kinds: type[Aggregator] | type[Numerics]) -> Reader:
    names = {kind.name.lower(): kind for kind in kinds}

    def read(value: Any) -> Any:
        if not isinstance(value, str) or value not in names:
            raise SpecError(f"expected one of {', '.join(names)}")
        return names[value]

    return read


_CLOCK = {
    "start": _start, "round_length": _length, "window": _length, "challenge_length": _length, "rounds": _count,
}  # fmt: skip
_PAY = {
    "aggregator": _one_of(Aggregator), "q": _decimal, "alpha_trainer": _decimal, "alpha_validator": _decimal,
    "lambda": _decimal, "gamma_bps": _count, "round_reward": _decimal, "final_reward": _decimal, "deposit": _decimal,
    "min_trainer_stake": _decimal, "min_validator_stake": _decimal, "max_trainers": _count, "max_validators": _count,
    "run_bond": _decimal, "min_delegation": _decimal,
}  # fmt: skip
_COURT = {
    "bond": _decimal, "opening_cost": _decimal, "sampled": _count, "named": _count, "burn_bps": _count,
    "slash_bps": _count, "show_window": _length, "answer_window": _length, "vote_window": _length,
    "appeal_window": _length, "jurors": _count, "appeals": _count,
}  # fmt: skip
_TASK = {
    "program": _text, "config": _table, "batch_size": _count, "steps": _count, "segment_length": _count,
    "train": _text, "evaluation": _text, "final": _text, "numerics": _one_of(Numerics),
    "machines": _listing(r"this|0x[0-9a-f]{64}", '"this" and digests (0x and 64 hex digits)'),
    "bases": _listing(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", '"seed", digests (0x and 64 hex digits) and folders'),
    "bounds": _table, "step_verifier": _address,
    "threads": _count, "clock": _section(Clock, _CLOCK), "pay": _section(Pay, _PAY), "court": _section(Court, _COURT),
}  # fmt: skip
_OPTIONAL: Mapping[str, Any] = {"bases": [], "bounds": {}, "step_verifier": NO_ADDRESS}
_FUND = {
    "first_amount": _decimal, "epoch": _start, "decay": _decimal, "period": _count, "beta": _decimal,
    "least_stake": _decimal, "least_deposit": _decimal,
}  # fmt: skip
