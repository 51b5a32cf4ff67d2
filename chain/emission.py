"""The daily emission: a fund that adds to the rewards of the tasks enlisted with it. Optional. Amounts are wei.

Its law is :func:`chain.rewards.task_emission`; the contract pays less than two wei a round below it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from eth_typing import HexAddress, HexStr
from web3 import Web3
from web3.types import Nonce
from web3.utils.address import get_create_address

from chain.artifact import artifact
from chain.client import ArenaClient
from chain.contract import ContractClient, Receipt
from chain.errors import ChainError
from chain.records import is_contract
from chain.types import Enlisted, from_abi, to_abi

NAME = "Emission"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fund:
    """The terms of a fund: day 0 begins at ``epoch`` (seconds since 1970) and hands out ``first_amount``, of which
    ``decay`` is left after every ``period`` days. A task weighs its own stakes to the power ``beta``, needs at least
    ``least_stake`` of them, and a creator with a deposit of ``least_deposit``. ``decay`` and ``beta`` are WAD."""

    first_amount: int
    epoch: int
    decay: int
    period: int
    beta: int
    least_stake: int
    least_deposit: int


class Emission(ContractClient):
    """Client of the Emission contract: :func:`deploy_emission` or :func:`open_emission`."""

    def enlist(self, task_id: int) -> Receipt:
        """Let a task take part: once, on the day it starts, after its start."""
        return self.send("enlist", task_id)

    def poke(self, days: int) -> Receipt:
        """Bring the books forward by at most ``days`` days that are over."""
        return self.send("poke", days)

    def pay(self, task_id: int, round_: int) -> Receipt:
        """Move what the task earned in a round into its reward: once, between the round's end and its settlement."""
        return self.send("pay", task_id, round_)

    def fund(self) -> Fund:
        """The terms."""
        return from_abi(Fund, self.call("fund"))

    def poked(self) -> int:
        """How many days the books know."""
        return int(self.call("poked"))

    def enlisted(self, task_id: int) -> Enlisted:
        """What the task takes part with."""
        return from_abi(Enlisted, self.call("enlisted", task_id))

    def amount_of(self, day: int) -> int:
        """What a day hands out."""
        return int(self.call("amountOf", day))

    def earned(self, task_id: int, round_: int) -> int:
        """What ``pay`` would move; refuses as it would while days are not poked."""
        return int(self.call("earned", task_id, round_))


def deploy_emission(client: ArenaClient, fund: Fund) -> Emission:
    """Deploy a fund for the client's arena. It is empty: send it tokens."""
    at, connection = client.deployment, client.token.connection
    compiled = artifact(NAME)
    contract = client.web3.eth.contract(abi=compiled.abi, bytecode=compiled.bytecode)
    build = contract.constructor(at.token, at.arena, at.vault, at.escrow, to_abi(fund))
    address = connection.transact(build, f"deploying {NAME}").contract_address
    if address is None:
        raise ChainError(f"the node names no address for {NAME}: look the transaction up, and open it there")
    return open_emission(client, address)


def deployed_emission(client: ArenaClient, nonce: int) -> Emission | None:
    """The fund that the client's account deployed with ``nonce``; ``None`` if there is none at that address."""
    address = str(get_create_address(HexAddress(HexStr(client.address)), Nonce(nonce)))
    return open_emission(client, address) if is_contract(client.web3, NAME, address) else None


def open_emission(client: ArenaClient, address: str) -> Emission:
    """The fund at ``address``, through the client's account."""
    connection = client.token.connection
    names = {**connection.names, address: NAME}
    return Emission(replace(connection, names=names), NAME, Web3.to_checksum_address(address))
