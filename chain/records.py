"""Records of deployments on public chains: where the contracts are, who put them there, and with what terms.

A record holds nothing that has to be believed. The addresses follow from the deployer and its nonce, the constructors'
arguments from the addresses and the two terms, and :func:`check_record` compares the code that a node serves with the
code that this package ships, and what the contracts say of each other with the record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_typing import HexAddress, HexStr
from web3 import Web3
from web3.types import Nonce
from web3.utils.address import get_create_address

from chain.artifact import artifact
from chain.deployment import Deployment, code_since, constructor_arguments, planned_deployment
from chain.errors import ChainError, WrongChain
from chain.networks import find_network, require_chain
from chain.reverts import refusals
from pol.encoding import check_json_shape
from pol.errors import ProofError

FIELDS = ("network", "deployer", "first_nonce", "supply", "least_window", "deployment")
MAX_BYTES = 2**16
PLACEHOLDER = b"\x7f" + bytes(32)
"""PUSH32 of zeros: where compiled code waits for an immutable (a real zero is PUSH0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A deployment and how it came about.

    ``network`` is a name of :data:`chain.networks.NETWORKS`, ``deployer`` a checksum address, ``first_nonce`` that of
    the first of its six transactions, ``supply`` (wei) and ``least_window`` (seconds) what
    :func:`chain.deployment.deploy` was given.
    """

    network: str
    deployer: str
    first_nonce: int
    supply: int
    least_window: int
    deployment: Deployment

    def contracts(self) -> dict[str, tuple[str, tuple[Any, ...]]]:
        """Address and constructor's arguments of the six, and of the two that they deployed themselves."""
        d = self.deployment
        arguments = constructor_arguments(d, self.supply, self.least_window)
        found = {name: (address, arguments[name]) for address, name in d.names().items()}
        found["TaskRules"] = (first_child(d.arena), (self.least_window,))
        found["CaseRules"] = (first_child(d.challenges), (d.arena, d.scoring))
        return found

    def to_json(self) -> dict[str, Any]:
        """A JSON object with the fields' names; the supply in decimal digits, because JSON readers round it."""
        values = {name: getattr(self, name) for name in FIELDS}
        return {**values, "supply": str(self.supply), "deployment": self.deployment.to_json()}

    @classmethod
    def from_json(cls, value: object, *, where: str = "record") -> Record:
        """Strict inverse of :meth:`to_json`; raises :class:`ChainError` naming ``where`` for anything else, addresses
        that do not follow from the deployer and its nonce included."""
        if not isinstance(value, Mapping) or set(value) != set(FIELDS):
            raise ChainError(f"{where}: expected an object with the fields {', '.join(FIELDS)}")
        deployment = Deployment.from_json(value["deployment"], where=f"{where}.deployment")
        if not isinstance(value["network"], str) or find_network(value["network"]).chain_id != deployment.chain_id:
            raise ChainError(f"{where}.network: it does not have chain {deployment.chain_id}")
        if not (isinstance(value["deployer"], str) and Web3.is_checksum_address(value["deployer"])):
            raise ChainError(f"{where}.deployer: expected an address with its checksum capitals")
        if not (isinstance(value["supply"], str) and re.fullmatch("[1-9][0-9]{0,77}", value["supply"], re.ASCII)):
            raise ChainError(f"{where}.supply: expected wei, in decimal digits, in quotes")
        for name, least, bits in (("first_nonce", 0, 64), ("least_window", 1, 32)):
            number = value[name]
            if not isinstance(number, int) or isinstance(number, bool) or not least <= number < 2**bits:
                raise ChainError(f"{where}.{name}: expected a whole number from {least}, below 2^{bits}")
        if planned_deployment(deployment.chain_id, value["deployer"], value["first_nonce"]) != deployment:
            raise ChainError(f"{where}.deployment: these addresses do not follow from deployer and first_nonce")
        return cls(**{**value, "supply": int(value["supply"]), "deployment": deployment})

    def save(self, path: Path) -> None:
        """Write the record to the new file ``path``; raises :class:`ChainError` if there is one already."""
        try:
            with path.open("xb") as file:
                file.write(self._content())
        except OSError as error:
            raise ChainError(f"cannot write the record {path} ({error.strerror}): name another file") from error

    @classmethod
    def load(cls, path: Path) -> Record:
        """The record in ``path``, which must be just what :meth:`save` writes; raises :class:`ChainError`."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES)
            check_json_shape(data, where=str(path))
            value = json.loads(data)
        except (OSError, ValueError, ProofError) as error:
            raise ChainError(f"cannot read the record {path} ({error}): name another file") from error
        record = cls.from_json(value, where=str(path))
        if record._content() != data:
            raise ChainError(f"{path}: these are a record's values, but not as deploy.py writes them")
        return record

    def _content(self) -> bytes:
        return (json.dumps(self.to_json(), indent=2) + "\n").encode("ascii")


def check_record(web3: Web3, record: Record) -> None:
    """Insist that the node serves the record's chain, and at the eight addresses the code that this package ships, with
    immutables that say what the record says, and since its block, if the node can tell; raises :class:`WrongChain`."""
    require_chain(web3, record.deployment.chain_id, "the node")
    for name, (address, _) in record.contracts().items():
        if not is_contract(web3, name, address):
            raise WrongChain(f"{name} at {address} is not the contract of this package: use another record, or version")
        functions = web3.eth.contract(Web3.to_checksum_address(address), abi=artifact(name).abi).functions
        for getter, value in _links(record, name).items():
            with refusals(f"{name}.{getter}"):
                found = functions[getter]().call()
            if found != value:
                raise WrongChain(f"{name} at {address} has another {getter} than the record: use another record")
    first = code_since(web3, record.deployment.token)
    if 0 < first < record.deployment.since:
        raise WrongChain(f"the contracts are there since block {first}, before the record's: events would be missed")


def is_contract(web3: Web3, name: str, address: str) -> bool:
    """Whether the code at ``address`` is that of contract ``name`` as shipped, whatever its immutables say."""
    with refusals(f"reading {name}"):
        code = bytes(web3.eth.get_code(Web3.to_checksum_address(address)))
    return _same_code(_runtime_code(name), code)


def encoded_arguments(name: str, values: tuple[Any, ...]) -> bytes:
    """The constructor's arguments of contract ``name`` as they stand behind its creation code."""
    constructor = next(item for item in artifact(name).abi if item["type"] == "constructor")
    return encode([argument["type"] for argument in constructor["inputs"]], values)


def first_child(address: str) -> str:
    """The first contract that the contract at ``address`` deployed (EIP-161: contracts count from nonce 1)."""
    return str(get_create_address(HexAddress(HexStr(address)), Nonce(1)))


def _runtime_code(name: str) -> bytes:
    content = json.loads(files("chain.artifacts").joinpath(f"{name}.json").read_text("utf-8"))
    return bytes.fromhex(content["deployedBytecode"].removeprefix("0x"))


def _same_code(compiled: bytes, code: bytes) -> bool:
    """Whether they are equal but for the words that fill the placeholders."""
    if len(code) != len(compiled):
        return False
    emptied = bytearray(code)
    at = compiled.find(PLACEHOLDER)
    while at >= 0:
        emptied[at + 1 : at + len(PLACEHOLDER)] = bytes(32)
        at = compiled.find(PLACEHOLDER, at + len(PLACEHOLDER))
    return emptied == compiled


def _links(record: Record, name: str) -> dict[str, Any]:
    """What the immutables of contract ``name`` must say, by their getters; all of them have one."""
    contracts, d = record.contracts(), record.deployment
    known = {
        **{"token": d.token, "vault": d.vault, "escrow": d.escrow, "arena": d.arena, "scoring": d.scoring},
        **{"manager": d.challenges, "rules": contracts["TaskRules"][0], "caseRules": contracts["CaseRules"][0]},
        "leastWindow": record.least_window,
    }
    getters = {item["name"] for item in artifact(name).abi if item["type"] == "function" and not item["inputs"]}
    return {getter: known[getter] for getter in known.keys() & getters}
