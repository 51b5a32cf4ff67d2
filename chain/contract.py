"""One contract on one chain: calls, transactions, events and decoded refusals. The typed clients build on it.

A transaction is estimated first, signed here, sent raw, and its receipt awaited. The estimate is where a contract
refuses: the node returns the error data, and :mod:`chain.reverts` decodes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from eth_typing import ChecksumAddress
from eth_utils.abi import event_abi_to_log_topic
from web3 import Web3
from web3.contract import Contract
from web3.exceptions import MismatchedABI, Web3RPCError
from web3.types import TxParams, TxReceipt

from chain.artifact import artifact
from chain.errors import ChainError, NetworkUnavailable, Overtaken
from chain.fees import raised
from chain.journal import Journal, Sent
from chain.networks import require_chain
from chain.quote import Quote, quote
from chain.reverts import refusals
from chain.signers import Signer

GAS_MARGIN = (5, 4)
RECEIPT_TIMEOUT_S = 180
EVENT_BLOCKS = 10_000
"""Blocks that a node is asked about at once, to begin with."""


@dataclass(frozen=True, slots=True)
class Event:
    """One decoded event: ``args`` by their Solidity names, digests as 32 ``bytes``; ``tx`` is 32 bytes."""

    contract: str
    name: str
    args: Mapping[str, Any]
    block: int
    tx: bytes
    log_index: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A mined, successful transaction; ``contract_address`` is set when it created a contract."""

    tx: bytes
    block: int
    gas_used: int
    events: tuple[Event, ...]
    contract_address: str | None = None

    def event(self, name: str) -> Event:
        """The first event called ``name``; raises :class:`ChainError` if there is none."""
        for event in self.events:
            if event.name == name:
                return event
        raise ChainError(f"transaction 0x{self.tx.hex()} emitted no {name}: client and contracts disagree")


@dataclass(frozen=True)
class Connection:
    """A node, an account to send from (``None``: reading only), and the contracts whose events are understood.

    ``names`` maps checksum addresses to contract names. ``chain_id`` is the only chain that anything is signed for.
    ``since`` is the block with which looking for events begins.
    ``before`` is shown every transaction's quote, and stops the transaction by raising. With a ``journal``, what is
    signed is written down before it is sent, so that another process can follow it: :meth:`resume`.
    """

    web3: Web3
    account: Signer | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    chain_id: int | None = None
    since: int = 0
    before: Callable[[Quote], None] | None = None
    journal: Journal | None = None
    _sending: threading.RLock = field(default_factory=threading.RLock, repr=False, compare=False)
    _contracts: dict[tuple[str, str], Contract] = field(default_factory=dict, repr=False, compare=False)

    def contract(self, name: str, address: str) -> Contract:
        """web3's contract object, with the shipped ABI; kept, because web3 takes milliseconds to make one."""
        if (name, address) not in self._contracts:
            abi = artifact(name).abi
            self._contracts[name, address] = self.web3.eth.contract(Web3.to_checksum_address(address), abi=abi)
        return self._contracts[name, address]

    def sender(self) -> str:
        """The account's address; raises :class:`ChainError` if there is no account to act as."""
        if self.account is None:
            raise ChainError("this client only reads: open it with an account to act as")
        return str(self.account.address)

    def unmined(self) -> int:
        """How many of the account's transactions the node holds that are not in a block yet."""
        sender = Web3.to_checksum_address(self.sender())
        with refusals("counting transactions"):
            mined, sent = (self.web3.eth.get_transaction_count(sender, at) for at in ("latest", "pending"))
        return max(0, sent - mined)

    def read(self, call: Any, label: str) -> Any:
        """The result of a view at the latest block; ``call`` is a bound web3 function."""
        with refusals(label):
            return call.call()

    def transact(self, call: Any, label: str) -> Receipt:
        """Sign, send and await a transaction; ``call`` is a bound web3 function or constructor.

        Raises :class:`chain.errors.ContractReverted` if the contract refuses, :class:`Overtaken` if it did so when the
        transaction was mined, :class:`NetworkUnavailable` if the node is silent, and :class:`WrongChain`, before
        anything is signed, if it serves another chain by now.
        """
        if self.account is None or self.chain_id is None:
            raise ChainError(f"{label} needs an account and a chain to sign for: open the client with both")
        require_chain(self.web3, self.chain_id, f"{label}: the node")
        eth, sender, chain = self.web3.eth, self.account.address, self.chain_id
        with self.turn():
            with refusals(label):
                gas = call.estimate_gas({"from": sender}) * GAS_MARGIN[0] // GAS_MARGIN[1]
                nonce = eth.get_transaction_count(sender, "pending")
                transaction = call.build_transaction({"from": sender, "nonce": nonce, "gas": gas, "chainId": chain})
            if self.before is not None:
                self.before(quote(self.web3, transaction, label))
            receipt = self._sent(self.account, transaction, label)
        if receipt["status"] != 1:
            with refusals(label):
                self._explain_failure(transaction, receipt["blockNumber"], label)
        return Receipt(
            tx=bytes(receipt["transactionHash"]),
            block=receipt["blockNumber"],
            gas_used=receipt["gasUsed"],
            events=tuple(self.decode_logs(receipt["logs"])),
            contract_address=receipt["contractAddress"],
        )

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Within the block nothing else is sent from the account, by this object or by a process with its journal.

        For what must not change between reading and sending. Raises :class:`NetworkUnavailable` while another process
        has the account.
        """
        with self._sending, self.journal.turn() if self.journal is not None else nullcontext():
            yield

    def resume(self) -> None:
        """Follow to its end what an earlier process signed and did not see mined: wait for it, or send it again,
        for a higher fee if it is not mined for long.

        Afterwards the chain alone says what was done, and nothing is on its way. Raises :class:`NetworkUnavailable`
        while it is.
        """
        with self.turn():
            if self.journal is not None:
                self.journal.follow(self.web3, RECEIPT_TIMEOUT_S, self._again)
            unmined = self.unmined()
        if unmined:
            raise NetworkUnavailable(f"a transaction of {self.sender()} is not mined yet: try again later")

    def _sent(self, account: Signer, transaction: Any, label: str) -> TxReceipt:
        """Sign a complete transaction, write it down, send it, and wait for its receipt."""
        eth, signed = self.web3.eth, account.sign_transaction(transaction)
        if self.journal is None:
            with refusals(label):
                tx = eth.send_raw_transaction(signed.raw_transaction)
                return eth.wait_for_transaction_receipt(tx, timeout=RECEIPT_TIMEOUT_S)
        nonce = transaction["nonce"]
        self.journal.sending(label, nonce, bytes(signed.hash), bytes(signed.raw_transaction))
        with refusals(label):
            eth.send_raw_transaction(signed.raw_transaction)
        receipt = self.journal.settle(self.web3, nonce, RECEIPT_TIMEOUT_S, self._again)
        if receipt is None:
            raise ChainError(f"{label}: another transaction of the account took its place: look, and try again")
        return receipt

    def _again(self, sent: Sent) -> bool:
        """Send a transaction that is not mined again, for a higher fee, unless that would not help."""
        transaction = raised(self.web3, sent.raw)
        if self.account is None or self.journal is None or transaction is None:
            return False
        if self.before is not None:
            self.before(quote(self.web3, transaction, f"{sent.label}, not mined: for a higher fee"))
        signed = self.account.sign_transaction(transaction)
        self.journal.sending(sent.label, sent.nonce, bytes(signed.hash), bytes(signed.raw_transaction))
        with suppress(Web3RPCError):  # the earlier one may have been mined meanwhile
            self.web3.eth.send_raw_transaction(signed.raw_transaction)
        return True

    def decode_logs(self, logs: Any) -> Iterator[Event]:
        """The events among ``logs`` that the named contracts emitted, in order."""
        for log in logs:
            name = self.names.get(log["address"])
            if name is None or not log["topics"]:
                continue
            event_name = _event_names(name)[bytes(log["topics"][0])]
            decoded = self.contract(name, log["address"]).events[event_name]().process_log(log)
            yield Event(
                contract=name,
                name=event_name,
                args=dict(decoded["args"]),
                block=log["blockNumber"],
                tx=bytes(log["transactionHash"]),
                log_index=log["logIndex"],
            )

    def _explain_failure(self, transaction: Any, block: int, label: str) -> None:
        # Estimated well, failed when mined: the state moved in between. Running it again shows what it ran into.
        again: TxParams = {"from": transaction["from"], "to": transaction.get("to", ""), "data": transaction["data"]}
        self.web3.eth.call(again, block)
        raise Overtaken(label)


@dataclass(frozen=True)
class ContractClient:
    """Base of the typed clients: one of the contracts at ``address``, through ``connection``."""

    connection: Connection
    name: str
    address: ChecksumAddress

    def call(self, function: str, *args: Any) -> Any:
        """The result of the view ``function``."""
        return self.connection.read(self._bind(function, args), f"{self.name}.{function}")

    def send(self, function: str, *args: Any) -> Receipt:
        """The receipt of a transaction that calls ``function``."""
        return self.connection.transact(self._bind(function, args), f"{self.name}.{function}")

    def events(self, name: str, *, first_block: int = 0, last_block: int | None = None, **where: Any) -> list[Event]:
        """Events called ``name`` in the blocks given (to the latest by default) whose indexed arguments equal
        ``where``, oldest first."""
        contract = self.connection.contract(self.name, self.address)
        with refusals(f"{self.name}.{name} events"):
            last = self.connection.web3.eth.block_number if last_block is None else last_block
            logs = list(_logs(contract.events[name](), max(first_block, self.connection.since), last, where))
        return [
            Event(
                contract=self.name,
                name=name,
                args=dict(log["args"]),
                block=log["blockNumber"],
                tx=bytes(log["transactionHash"]),
                log_index=log["logIndex"],
            )
            for log in logs
        ]

    def _bind(self, function: str, args: tuple[Any, ...]) -> Any:
        try:
            return self.connection.contract(self.name, self.address).functions[function](*args)
        except MismatchedABI as error:
            raise ChainError(
                f"{self.name}.{function}: an argument is out of range or of a wrong type: {args}"
            ) from error


def _logs(query: Any, first: int, last: int, where: Mapping[str, Any]) -> Iterator[Any]:
    """The logs of blocks ``first`` to ``last``, so many at a time as the node allows: public ones refuse more."""
    blocks = EVENT_BLOCKS
    while first <= last:
        end = min(first + blocks - 1, last)
        try:
            yield from query.get_logs(from_block=first, to_block=end, argument_filters=where)
        except Web3RPCError:
            if end == first:
                raise
            blocks = max(1, (end - first + 1) // 4)
        else:
            first = end + 1


@cache
def _event_names(contract: str) -> dict[bytes, str]:
    return {event_abi_to_log_topic(item): item["name"] for item in artifact(contract).abi if item["type"] == "event"}
