"""Errors of the chain package. Every message says what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum

from pol.errors import Unreachable

TIMES = ("opensAt", "closedAt")
YEAR_2001, YEAR_9999 = 10**9, 253_370_764_800
LEAST_AMOUNT = 10**15
"""Larger numbers in a contract's errors are amounts (wei)."""


class ChainError(Exception):
    """Base of every error this package raises on purpose."""


class WrongChain(ChainError):
    """The node serves another chain, or the contracts are not at the deployment's addresses there."""


class NetworkUnavailable(ChainError, Unreachable):
    """The node did not answer, or a transaction is not mined yet: try again later."""


class BadSignature(ChainError):
    """The signature is malformed, or is not in the one form this project accepts."""


class BadKey(ChainError):
    """A private key or keystore cannot be used."""


class SigningRefused(ChainError):
    """An external signer did not sign, or signed something other than it was asked to."""


class MissingExtra(ChainError):
    """An optional part of the installation is needed here."""


class ContractReverted(ChainError):
    """A contract refused a call.

    ``name`` is the Solidity error (``"TooEarly"``; ``"Error"`` and ``"Panic"`` are the built-in ones; ``""`` if the
    contract gave no reason), ``args_by_name`` its decoded arguments, ``function`` what was called.
    """

    def __init__(self, function: str, name: str, args_by_name: Mapping[str, object], *, hint: str = "") -> None:
        self.function = function
        self.name = name
        self.args_by_name = dict(args_by_name)
        arguments = ", ".join(f"{key}={_readable(key, value)}" for key, value in self.args_by_name.items())
        reason = f"{name}({arguments})" if name else "no reason given"
        super().__init__(f"{function} was refused: {reason}." + (f" {hint}" if hint else ""))


class Overtaken(ContractReverted):
    """A transaction that was sound when it was sent failed when it was mined: somebody else's came first."""

    def __init__(self, function: str) -> None:
        super().__init__(function, "", {}, hint="The state moved while it was sent: look at it and try again.")


def _readable(key: str, value: object) -> str:
    """A value as people read it: times and amounts also in their own units."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, int) and key in TIMES and YEAR_2001 < value < YEAR_9999:
        return f"{value} ({datetime.fromtimestamp(value, UTC):%Y-%m-%dT%H:%M:%SZ})"
    if isinstance(value, int) and LEAST_AMOUNT <= value < 2**128:
        return f"{value} ({Decimal(value).scaleb(-18).normalize():f} tokens)"
    return str(value)
