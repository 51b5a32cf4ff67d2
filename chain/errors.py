"""Errors of the chain package. Every message says what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from pol.errors import Unreachable


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
        arguments = ", ".join(f"{key}={_readable(value)}" for key, value in self.args_by_name.items())
        reason = f"{name}({arguments})" if name else "no reason given"
        super().__init__(f"{function} was refused: {reason}." + (f" {hint}" if hint else ""))


def _readable(value: object) -> str:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value.name if isinstance(value, Enum) else str(value)
