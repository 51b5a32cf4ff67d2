"""Deploying the five contracts, and the record of where they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from eth_typing import HexAddress
from web3 import Web3
from web3.types import Nonce
from web3.utils.address import get_create_address

from chain.accounts import Account
from chain.artifact import CONTRACTS, artifact
from chain.contract import Connection
from chain.errors import ChainError, WrongChain
from chain.reverts import refusals


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The chain and the checksum addresses of the five contracts on it."""

    chain_id: int
    token: str
    vault: str
    escrow: str
    arena: str
    challenges: str

    def names(self) -> dict[str, str]:
        """Contract names by address."""
        addresses = (self.token, self.vault, self.escrow, self.arena, self.challenges)
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
        chain_id, *addresses = (value[name] for name in names)
        if not isinstance(chain_id, int) or isinstance(chain_id, bool) or chain_id <= 0:
            raise ChainError(f"{where}.chain_id: expected a positive integer")
        for name, address in zip(names[1:], addresses, strict=True):
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


def deploy(web3: Web3, account: Account, supply: int) -> Deployment:
    """Deploy all five from ``account``, which receives the whole ``supply`` (wei of the token).

    The contracts know each other from their constructors, so the addresses are predicted from the account's nonce;
    a transaction of the same account in between makes this raise :class:`ChainError`, and the attempt is void.
    """
    with refusals("deploying"):
        chain_id = web3.eth.chain_id
        nonce = web3.eth.get_transaction_count(account.address)
    token, vault, escrow, arena, challenges = (_predict(account, nonce + index) for index in range(len(CONTRACTS)))
    arguments: tuple[tuple[Any, ...], ...] = (
        (supply,),
        (token, arena, challenges),
        (token, arena, challenges, vault),
        (token, vault, escrow, challenges),
        (token, arena, vault, escrow),
    )
    connection = Connection(web3, account, chain_id=chain_id)
    for name, expected, values in zip(CONTRACTS, (token, vault, escrow, arena, challenges), arguments, strict=True):
        build = web3.eth.contract(abi=artifact(name).abi, bytecode=artifact(name).bytecode).constructor(*values)
        created = connection.transact(build, f"deploying {name}").contract_address
        if created != expected:
            raise ChainError(
                f"{name} went to {created}, not {expected}: the account sent something else meanwhile; deploy again"
            )
    return Deployment(chain_id=chain_id, token=token, vault=vault, escrow=escrow, arena=arena, challenges=challenges)


def find_deployment(web3: Web3, arena: str) -> Deployment:
    """The deployment that the Arena at ``arena`` belongs to; raises :class:`WrongChain` if there is none.

    It says where the contracts are, not that they are honest: the address must come from someone you trust.
    """
    names = ("token", "vault", "escrow", "manager")
    contract = Connection(web3).contract("Arena", arena)
    try:
        with refusals("finding the contracts"):
            token, vault, escrow, manager = (contract.functions[name]().call() for name in names)
            chain_id = web3.eth.chain_id
    except WrongChain as error:
        raise WrongChain(f"no Arena at {arena} there: use another node or another address") from error
    return Deployment(
        chain_id=chain_id, token=token, vault=vault, escrow=escrow, arena=contract.address, challenges=manager
    )


def check_deployment(web3: Web3, deployment: Deployment) -> None:
    """Insist that ``web3`` serves the deployment's chain with code at its addresses; raises :class:`WrongChain`."""
    with refusals("checking the chain"):
        chain_id = web3.eth.chain_id
        if chain_id != deployment.chain_id:
            raise WrongChain(f"the node serves chain {chain_id}, the deployment is on chain {deployment.chain_id}")
        for address, name in deployment.names().items():
            if not web3.eth.get_code(Web3.to_checksum_address(address)):
                raise WrongChain(f"no {name} at {address} on chain {chain_id}: use another node or another deployment")


def _predict(account: Account, nonce: int) -> str:
    return get_create_address(HexAddress(account.address), Nonce(nonce))
