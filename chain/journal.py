"""What an account does and promises, on disk before it happens, so that a command that was killed can be repeated.

One file for each account and chain, one JSON object a line, each on the disk before the next thing is done. It knows
two things that the chain cannot know: transactions that were signed and perhaps not sent, and the salts of promises
that are not shown yet. A lost salt is a lost reveal, so whoever promises on one machine reveals on the same.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from eth_typing import Hash32
from hexbytes import HexBytes
from web3 import Web3
from web3.exceptions import TimeExhausted, TransactionNotFound, Web3RPCError
from web3.types import TxReceipt

from chain.commitments import new_salt
from chain.errors import ChainError, NetworkUnavailable
from chain.reverts import refusals

Content = Mapping[str, Any]
POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A signed transaction: ``tx`` is its hash (32 bytes), ``raw`` what is sent."""

    label: str
    nonce: int
    tx: bytes
    raw: bytes


Again: TypeAlias = Callable[[Sent], bool]
"""Sends a transaction for a higher fee, after it wrote that down; whether it did."""


class Journal:
    """The journal of ``account`` in an open file; see :func:`open_journal`.

    ``followed`` are the hashes of the transactions whose end this object wrote down.
    """

    def __init__(self, file: int, account: str, path: Path) -> None:
        self._file = file
        self._account = Web3.to_checksum_address(account)
        self._path = path
        self._lent = False
        self._entries = _read(file, path)
        self.followed: set[bytes] = set()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let other processes act for the account within the block, which takes long; this one does in :meth:`turn`.

        At the block's end it waits until the other one, if there is one, has ended.
        """
        self._lent = True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._lent, self._entries = False, _read(self._file, self._path)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the account within the block, and know what others did with it, also where it is :meth:`lent`.

        Raises :class:`NetworkUnavailable` while another process has it.
        """
        if not self._lent:
            yield
            return
        _lock(self._file, self._account)
        self._lent = False
        try:
            self._entries = _read(self._file, self._path)
            yield
        finally:
            self._lent = True
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def salt(self, kind: str, content: Content) -> bytes:
        """The salt (32 bytes) under which ``content`` (JSON) is promised: a new one, on the disk before this returns,
        or the one that was made for the same content before."""
        for known, salt in self.salted(kind):
            if known == content:
                return salt
        salt = new_salt()
        self._write({"what": "salt", "kind": kind, "content": dict(content), "salt": salt.hex()})
        return salt

    def salted(self, kind: str) -> list[tuple[Content, bytes]]:
        """All contents of this kind that salts were made for, with them, the newest first."""
        rows = [entry for entry in self._entries if entry["what"] == "salt" and entry["kind"] == kind]
        return [(row["content"], bytes.fromhex(row["salt"])) for row in reversed(rows)]

    def note(self, kind: str, content: Content) -> None:
        """Write ``content`` (JSON) down for good; :meth:`noted` returns it."""
        self._write({"what": "note", "kind": kind, "content": dict(content)})

    def noted(self, kind: str) -> list[Content]:
        """What was noted of this kind, the newest first."""
        rows = [entry for entry in self._entries if entry["what"] == "note" and entry["kind"] == kind]
        return [row["content"] for row in reversed(rows)]

    def sending(self, label: str, nonce: int, tx: bytes, raw: bytes) -> None:
        """Write down a signed transaction before it is sent."""
        self._write({"what": "sent", "label": label, "nonce": nonce, "tx": tx.hex(), "raw": raw.hex()})

    def ended(self, tx: bytes, block: int | None) -> None:
        """Write down that a transaction was mined in ``block``, or (``None``) that it never will be."""
        self._write({"what": "ended", "tx": tx.hex(), "block": block})
        self.followed.add(tx)

    def outstanding(self) -> list[Sent]:
        """The transactions whose end is not known, oldest first."""
        ended = {entry["tx"] for entry in self._entries if entry["what"] == "ended"}
        rows = [entry for entry in self._entries if entry["what"] == "sent" and entry["tx"] not in ended]
        return [
            Sent(label=row["label"], nonce=row["nonce"], tx=bytes.fromhex(row["tx"]), raw=bytes.fromhex(row["raw"]))
            for row in rows
        ]

    def mined(self) -> list[tuple[str, bytes]]:
        """Label and hash of every transaction that was mined, in the order they were."""
        labels = {entry["tx"]: entry["label"] for entry in self._entries if entry["what"] == "sent"}
        rows = [entry for entry in self._entries if entry["what"] == "ended" and entry["block"] is not None]
        return [(labels[row["tx"]], bytes.fromhex(row["tx"])) for row in rows if row["tx"] in labels]

    def follow(self, web3: Web3, timeout_s: float, again: Again | None = None) -> None:
        """Find out how every outstanding transaction ended: :meth:`settle` for each nonce."""
        for nonce in sorted({sent.nonce for sent in self.outstanding()}):
            self.settle(web3, nonce, timeout_s, again)

    def settle(self, web3: Web3, nonce: int, timeout_s: float, again: Again | None = None) -> TxReceipt | None:
        """The receipt of the outstanding transaction with ``nonce``; ``None`` if it cannot be mined any more.

        One that the node does not know is sent again. That is never a second time: the nonce can be used once. If it is
        not mined within ``timeout_s``, ``again`` may send it for a higher fee, once, and that is waited for as long.
        Raises :class:`NetworkUnavailable` if none is mined then.
        """
        label = next(sent.label for sent in self.outstanding() if sent.nonce == nonce)
        with refusals(f"{label}, sent before"):
            if not self._brought(web3, nonce):
                receipt = None
            else:
                try:
                    receipt = self._end(web3, nonce, timeout_s)
                except TimeExhausted:
                    if again is None or not again(self._sent(nonce)[-1]):
                        raise
                    receipt = self._end(web3, nonce, timeout_s)
        mined = None if receipt is None else bytes(receipt["transactionHash"])
        for sent in self._sent(nonce):
            self.ended(sent.tx, receipt["blockNumber"] if receipt is not None and sent.tx == mined else None)
        return receipt

    def _sent(self, nonce: int) -> list[Sent]:
        """The outstanding transactions with ``nonce``: one, and those that were to replace it."""
        return [sent for sent in self.outstanding() if sent.nonce == nonce]

    def _brought(self, web3: Web3, nonce: int) -> bool:
        """Whether the nonce was used, or the node knows a transaction that will use it, which it is sent if need be."""
        if web3.eth.get_transaction_count(self._account, "latest") > nonce:
            return True
        group = self._sent(nonce)
        if any(_known(web3, Hash32(sent.tx)) for sent in group):
            return True
        for sent in reversed(group):
            try:
                web3.eth.send_raw_transaction(HexBytes(sent.raw))
            except Web3RPCError:  # refused, or taken in the meantime
                if not _known(web3, Hash32(sent.tx)):
                    continue
            return True
        return False

    def _end(self, web3: Web3, nonce: int, timeout_s: float) -> TxReceipt | None:
        """The receipt of whichever is mined; ``None`` if the nonce went to another. Raises ``TimeExhausted``."""
        deadline = time.monotonic() + timeout_s
        while True:
            used = web3.eth.get_transaction_count(self._account, "latest") > nonce
            # asked for second: a nonce that was used before is used by one of these, or by another
            found = (_receipt(web3, Hash32(sent.tx)) for sent in self._sent(nonce))
            receipt = next((receipt for receipt in found if receipt is not None), None)
            if receipt is not None or used:
                return receipt
            if time.monotonic() >= deadline:
                raise TimeExhausted(f"not mined within {timeout_s} s")
            time.sleep(POLL_S)

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, sort_keys=True).encode() + b"\n"
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(f"the journal of {self._account} cannot grow: make room on the disk")
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, end)
            raise
        self._entries.append(json.loads(line))


@contextmanager
def open_journal(path: Path, account: str) -> Iterator[Journal]:
    """The journal at ``path``, made if there is none, and nobody else's until the block ends.

    Its last line, if a crash cut it short, is dropped: what it was about had not happened yet. Raises
    :class:`NetworkUnavailable` while another process has it, and :class:`ChainError` if it is damaged.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        _lock(file, account)
        _sync_folder(path.parent)
        yield Journal(file, account, path)
    finally:
        os.close(file)


def _lock(file: int, account: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise NetworkUnavailable(f"another command acts for {account}: wait until it has ended") from error


def _read(file: int, path: Path) -> list[dict[str, Any]]:
    whole, newline, _ = path.read_bytes().rpartition(b"\n")
    os.ftruncate(file, len(whole) + len(newline))
    entries = []
    for number, line in enumerate(whole.split(b"\n") if newline else [], start=1):
        try:
            entries.append(_entry(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            message = f"{path}, line {number} is damaged: restore the file from a copy; do not delete it, it has salts"
            raise ChainError(message) from error
    return entries


_FIELDS: Mapping[str, Mapping[str, Any]] = {
    "salt": {"kind": str, "content": dict, "salt": str},
    "note": {"kind": str, "content": dict},
    "sent": {"label": str, "nonce": int, "tx": str, "raw": str},
    "ended": {"tx": str, "block": int | None},
}


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """``row``, if it is one that :class:`Journal` writes."""
    kinds = _FIELDS[row["what"]]
    if set(row) != {"what", *kinds} or not all(isinstance(row[name], kind) for name, kind in kinds.items()):
        raise ValueError("unknown fields")
    for name in ("salt", "tx", "raw"):
        bytes.fromhex(row.get(name, ""))
    return row


def _receipt(web3: Web3, tx: Hash32) -> TxReceipt | None:
    try:
        return web3.eth.get_transaction_receipt(tx)
    except TransactionNotFound:
        return None


def _known(web3: Web3, tx: Hash32) -> bool:
    try:
        web3.eth.get_transaction(tx)
    except TransactionNotFound:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
