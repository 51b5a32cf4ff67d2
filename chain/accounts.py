"""Accounts: a key from hex, from the environment, or from an encrypted keystore file.

An account is eth-account's ``LocalAccount``: it signs here, and the node only ever sees signed transactions.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TypeAlias

from eth_account import Account as _Account
from eth_account.signers.local import LocalAccount
from eth_typing import ChecksumAddress
from eth_utils.address import to_checksum_address

from chain.errors import BadKey

Account: TypeAlias = LocalAccount

DEV_KEY_DOMAIN = "aiarena/dev-account/v1"


def account_from_key(key: str) -> Account:
    """The account of a 32-byte private key in hex (with or without ``0x``); raises :class:`BadKey`."""
    try:
        raw = bytes.fromhex(key.strip().removeprefix("0x"))
        return _local(raw)
    except (ValueError, TypeError) as error:
        # The key itself must not reach a log, so neither it nor the library's message is repeated here.
        raise BadKey("this is not a private key: give 64 hex digits, the number below the curve's order") from error


def account_from_env(variable: str = "ARENA_KEY") -> Account:
    """The account whose private key is in the environment ``variable``; raises :class:`BadKey`."""
    key = os.environ.get(variable)
    if not key:
        raise BadKey(f"the environment variable {variable} is empty: put a private key in it, or use a keystore file")
    return account_from_key(key)


def account_from_keystore(path: Path, password: str) -> Account:
    """The account in an encrypted (web3 secret storage v3) keystore file; raises :class:`BadKey`."""
    try:
        return _local(bytes(_Account.decrypt(json.loads(path.read_text()), password)))
    except OSError as error:
        raise BadKey(f"cannot read the keystore {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise BadKey(f"cannot open the keystore {path}: wrong password, or not a version 3 keystore") from error


def save_keystore(account: Account, path: Path, password: str) -> None:
    """Write ``account`` to a new keystore file that only its owner may read. Never overwrites: a key is not replaced.

    Raises :class:`BadKey` if ``path`` exists or cannot be created.
    """
    content = json.dumps(_Account.encrypt(account.key, password))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise BadKey(f"cannot create the keystore {path}: {error.strerror}; choose another file") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(content)


def dev_account(index: int) -> Account:
    """The ``index``-th development account: its key is ``SHA256("aiarena/dev-account/v1/" || index in decimal)``.

    Anyone can compute these keys. They are for the embedded chain and for tests only.
    """
    return _local(hashlib.sha256(f"{DEV_KEY_DOMAIN}/{index}".encode("ascii")).digest())


def parse_address(text: str) -> ChecksumAddress:
    """The address that ``text`` names: ``0x`` and 40 hex digits. Raises ``ValueError`` for anything else, and for
    capitals that do not check (EIP-55); all small or all capital letters are not checked."""
    digits = text.removeprefix("0x")
    address = to_checksum_address("0x" + digits)  # ValueError unless these are 40 hex digits
    if not text.startswith("0x") or (digits not in (digits.lower(), digits.upper()) and text != address):
        raise ValueError("no address, or its capitals do not check")
    return address


def _local(key: bytes) -> Account:
    account: Account = _Account.from_key(key)
    return account
