"""A transaction that nobody mines, for a higher fee: with the same nonce, so that one of both at most counts."""

from __future__ import annotations

from typing import Any

from eth_account.typed_transactions.typed_transaction import TypedTransaction
from eth_utils.address import to_checksum_address
from hexbytes import HexBytes
from web3 import Web3

RAISE = (9, 8)
"""Nodes take a replacement that pays a tenth more, in both fees of EIP-1559 (go-ethereum's --txpool.pricebump)."""

MOST = 4
"""Times what the node suggests: what pays so much and is not mined is kept out by something else than its fee."""

FEE_MARKET = 2
FIELDS = ("chainId", "nonce", "gas", "value", "data", "accessList")


def raised(web3: Web3, raw: bytes) -> dict[str, Any] | None:
    """The signed transaction ``raw`` without its signature, for fees at which a node takes it in place of ``raw``.

    Those are an eighth higher, or what the node suggests, if that is more. ``None`` if they would come to more than
    ``MOST`` times that, or the transaction is not one of EIP-1559.
    """
    if not raw or raw[0] != FEE_MARKET:
        return None
    held = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
    suggested_tip, base = web3.eth.max_priority_fee, web3.eth.get_block("latest")["baseFeePerGas"]
    tip = max(_higher(held["maxPriorityFeePerGas"]), suggested_tip)
    most = max(_higher(held["maxFeePerGas"]), 2 * base + tip)
    if most > MOST * (2 * base + suggested_tip):
        return None
    to = {"to": to_checksum_address(held["to"])} if held["to"] else {}
    fees = {"type": FEE_MARKET, "maxFeePerGas": most, "maxPriorityFeePerGas": tip}
    return {name: held[name] for name in FIELDS} | to | fees


def _higher(fee: int) -> int:
    return -(-fee * RAISE[0] // RAISE[1])
