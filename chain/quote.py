"""What a transaction will cost at most, to be shown before it is signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak
from hexbytes import HexBytes
from web3 import Web3

from chain.reverts import refusals

DATA_FEE_ORACLE = Web3.to_checksum_address("0x420000000000000000000000000000000000000F")
"""GasPriceOracle, on every OP chain at this address (specs.optimism.io, predeploys), and nowhere else."""

GET_L1_FEE = keccak(text="getL1Fee(bytes)")[:4]
ENVELOPE = b"\xff" * 64  # a transaction's bytes besides its data, as if they could not be compressed


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A transaction that is about to be signed.

    ``label`` is ``Contract.function`` or a deployment's name, ``to`` the contract's address (``None``: it is created),
    ``gas`` the limit, ``fee_wei`` the most that it can cost, what an OP chain takes for its data included, ``value``
    the wei that it carries.
    """

    label: str
    to: str | None
    gas: int
    fee_wei: int
    value: int


def quote(web3: Web3, transaction: Mapping[str, Any], label: str) -> Quote:
    """The quote for a complete, unsigned ``transaction``; ``web3`` is asked for the data fee, if its chain has one."""
    price = transaction["maxFeePerGas"] if "maxFeePerGas" in transaction else transaction["gasPrice"]
    return Quote(
        label=label,
        to=transaction.get("to") or None,
        gas=transaction["gas"],
        fee_wei=transaction["gas"] * price + _data_fee(web3, HexBytes(transaction["data"]), label),
        value=transaction["value"],
    )


def _data_fee(web3: Web3, data: bytes, label: str) -> int:
    """What the chain takes for publishing the data on Ethereum (wei): an estimate, for the price moves; else 0."""
    with refusals(f"{label}: its data fee"):
        if not web3.eth.get_code(DATA_FEE_ORACLE):
            return 0
        call = GET_L1_FEE + encode(("bytes",), (data + ENVELOPE,))
        answer = web3.eth.call({"to": DATA_FEE_ORACLE, "data": HexBytes(call)})
    return int(decode(("uint256",), bytes(answer))[0])
