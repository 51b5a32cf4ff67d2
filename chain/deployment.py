"""Deploying the six contracts, and the record of where they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from eth_typing import HexAddress, HexStr
from web3 import Web3
from web3.exceptions import Web3RPCError
from web3.types import Nonce
from web3.utils.address import get_create_address

from chain.artifact import CONTRACTS, artifact
from chain.contract import Connection
from chain.errors import ChainError, WrongChain
from chain.reverts import refusals
from chain.signers import Signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The chain and the checksum addresses of the six contracts on it.

    ``since`` is a block before which none of them was there: looking for their events begins with it.
    """

    chain_id: int
    token: str
    vault: str
    escrow: str
    arena: str
    scoring: str
    challenges: str
    since: int = field(default=0, compare=False)

    def names(self) -> dict[str, str]:
        """Contract names by address."""
        addresses = (self.token, self.vault, self.escrow, self.arena, self.scoring, self.challenges)
        return dict(zip(addresses, CONTRACTS, strict=True))

    def to_json(self) -> dict[str, int | str]:
        """A JSON object with the fields' names."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object, *, where: str = "deployment") -> Deployment:
        """Strict inverse of :meth:`to_json`; raises :class:`ChainError` naming ``where``."""
        names = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping) or set(value) != set(names):
            raise ChainError(f"{where}: expected an object with the fields {', '.join(names)}")
        chain_id, *addresses, since = (value[name] for name in names)
        for name, number, least in (("chain_id", chain_id, 1), ("since", since, 0)):
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ChainError(f"{where}.{name}: expected an integer from {least}")
        for name, address in zip(names[1:-1], addresses, strict=True):
            if not (isinstance(address, str) and Web3.is_checksum_address(address)):
                raise ChainError(f"{where}.{name}: expected an address with its checksum capitals")
        return cls(**{name: value[name] for name in names})

    def save(self, path: Path) -> None:
        """Write the record to ``path``."""
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """The record in ``path``; raises :class:`ChainError`."""
        try:
            value = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ChainError(f"cannot read the deployment {path} ({error}): deploy, or name another file") from error
        return cls.from_json(value, where=str(path))


def deploy(web3: Web3, account: Signer, supply: int, *, least_window: int = 1) -> Deployment:
    """Deploy all six from ``account``, which receives the whole ``supply`` (wei of the token).

    ``least_window`` (seconds) is the least length of any window of a task: on a public chain more than its delay for
    forced inclusion. The contracts know each other from their constructors, so the addresses are predicted from the
    account's nonce; a transaction of the same account in between makes this raise :class:`ChainError`, and the attempt
    is void.
    """
    with refusals("deploying"):
        connection = Connection(web3, account, chain_id=web3.eth.chain_id)
        first = web3.eth.get_transaction_count(account.address)
    return deploy_from(connection, first, supply, least_window=least_window)


def deploy_from(connection: Connection, first: int, supply: int, *, least_window: int) -> Deployment:
    """Deploy what is missing of the six contracts whose first was, or will be, deployed with nonce ``first``.

    So a deployment that was cut short is finished; otherwise as :func:`deploy`.
    """
    web3, sender = connection.web3, connection.sender()
    with refusals("deploying"):
        chain_id = web3.eth.chain_id
    planned = planned_deployment(chain_id, sender, first)
    arguments, blocks = constructor_arguments(planned, supply, least_window), []
    for expected, name in planned.names().items():
        if _has_code(web3, expected):
            continue
        build = web3.eth.contract(abi=artifact(name).abi, bytecode=artifact(name).bytecode)
        receipt = connection.transact(build.constructor(*arguments[name]), f"deploying {name}")
        blocks.append(receipt.block)
        if receipt.contract_address != expected:
            raise ChainError(
                f"{name} went to {receipt.contract_address}, not {expected}: the account sent something else "
                "meanwhile; deploy again"
            )
    return replace(planned, since=blocks[0] if len(blocks) == len(CONTRACTS) else code_since(web3, planned.token))


def planned_deployment(chain_id: int, sender: str, first: int) -> Deployment:
    """Where the six contracts come to lie if ``sender`` deploys them one after the other from nonce ``first`` on."""
    addresses = [_predict(sender, first + index) for index in range(len(CONTRACTS))]
    token, vault, escrow, arena, scoring, challenges = addresses
    return Deployment(
        chain_id=chain_id,
        token=token,
        vault=vault,
        escrow=escrow,
        arena=arena,
        scoring=scoring,
        challenges=challenges,
    )


def constructor_arguments(deployment: Deployment, supply: int, least_window: int) -> dict[str, tuple[Any, ...]]:
    """What each of the six was, or will be, constructed with; by contract, in the order they are deployed."""
    d = deployment
    arguments: tuple[tuple[Any, ...], ...] = (
        (supply,),
        (d.token, d.arena, d.challenges),
        (d.token, d.arena, d.scoring, d.challenges, d.vault),
        (d.token, d.vault, d.escrow, d.scoring, d.challenges, least_window),
        (d.arena, d.vault, d.escrow),
        (d.token, d.arena, d.vault, d.escrow, d.scoring),
    )
    return dict(zip(CONTRACTS, arguments, strict=True))


def deployed_from(web3: Web3, sender: str, first: int) -> int | None:
    """How many of the six contracts ``sender`` deployed one after the other from nonce ``first`` on, if it has sent
    nothing else since then, so that :func:`deploy_from` can go on; else ``None``."""
    with refusals("looking for contracts"):
        count = web3.eth.get_transaction_count(Web3.to_checksum_address(sender)) - first
    found = [_has_code(web3, _predict(sender, first + index)) for index in range(len(CONTRACTS))]
    return count if 0 <= count <= len(CONTRACTS) and found == [index < count for index in range(len(found))] else None


def find_deployment(web3: Web3, arena: str) -> Deployment:
    """The deployment that the Arena at ``arena`` belongs to; raises :class:`WrongChain` if there is none.

    It says where the contracts are, not that they are honest: the address must come from someone you trust.
    """
    names = ("token", "vault", "escrow", "scoring", "manager")
    contract = Connection(web3).contract("Arena", arena)
    try:
        with refusals("finding the contracts"):
            token, vault, escrow, scoring, manager = (contract.functions[name]().call() for name in names)
            chain_id = web3.eth.chain_id
    except WrongChain as error:
        raise WrongChain(f"no Arena at {arena} there: use another node or another address") from error
    return Deployment(
        chain_id=chain_id,
        token=token,
        vault=vault,
        escrow=escrow,
        arena=contract.address,
        scoring=scoring,
        challenges=manager,
        since=code_since(web3, token),
    )


def code_since(web3: Web3, address: str) -> int:
    """The block since which there is code at ``address``, found in halves; 0 if the node keeps no old states."""
    holder = Web3.to_checksum_address(address)
    with refusals("looking for the deployment's block"):
        low, high = 0, int(web3.eth.block_number)
        while low < high:
            middle = (low + high) // 2
            try:
                found = web3.eth.get_code(holder, middle)
            except Web3RPCError:
                return 0
            low, high = (low, middle) if found else (middle + 1, high)
    return low


def check_deployment(web3: Web3, deployment: Deployment) -> None:
    """Insist that ``web3`` serves the deployment's chain with code at its addresses; raises :class:`WrongChain`."""
    with refusals("checking the chain"):
        chain_id = web3.eth.chain_id
        if chain_id != deployment.chain_id:
            raise WrongChain(f"the node serves chain {chain_id}, the deployment is on chain {deployment.chain_id}")
        for address, name in deployment.names().items():
            if not web3.eth.get_code(Web3.to_checksum_address(address)):
                raise WrongChain(f"no {name} at {address} on chain {chain_id}: use another node or another deployment")


def _has_code(web3: Web3, address: str) -> bool:
    with refusals("looking for contracts"):
        return bool(web3.eth.get_code(Web3.to_checksum_address(address)))


def _predict(sender: str, nonce: int) -> str:
    return get_create_address(HexAddress(HexStr(sender)), Nonce(nonce))
