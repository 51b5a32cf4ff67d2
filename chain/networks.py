"""The networks that AIArena knows, in one table, and a connection that is the network it is said to be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from web3 import Web3

from chain.errors import ChainError, NetworkUnavailable, WrongChain
from chain.reverts import refusals

LOCAL_CHAIN_ID = 31_337


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One network.

    ``rpc_variable`` is the environment variable with the address of a node; where it is not set, ``default_rpc`` is
    asked, if there is one. ``least_window`` (seconds) is the least length of a task's windows, for whoever deploys the
    contracts there: more than the longest that the network can keep a transaction out. ``explorer`` is the site that
    shows its transactions. ``confirmations`` is how many blocks to wait, a transaction's own included, before something
    follows from it that is not to be taken back.
    """

    name: str
    chain_id: int
    rpc_variable: str
    default_rpc: str | None = None
    explorer: str | None = None
    confirmations: int
    least_window: int

    def connect(self) -> Web3:
        """A connection to a node of this network.

        Raises :class:`ChainError` if no usable address is given, :class:`chain.errors.NetworkUnavailable` if nothing
        answers there, :class:`chain.errors.WrongChain` if it serves another chain. The address itself is never
        repeated, because those of paid nodes contain a key.
        """
        web3 = Web3(Web3.HTTPProvider(self._address()))
        start = "`arena up` starts one; " if self.is_local else ""
        require_chain(web3, self.chain_id, f"the node of {self.name} ({start}set {self.rpc_variable} for another)")
        return web3

    @property
    def is_local(self) -> bool:
        """Whether it is a development chain, on which nothing has a value."""
        return self.chain_id == LOCAL_CHAIN_ID

    def transaction_url(self, tx: bytes) -> str | None:
        """Where people look at the transaction with this hash (32 bytes); ``None`` on a network without explorer."""
        return f"{self.explorer}/tx/0x{tx.hex()}" if self.explorer else None

    def _address(self) -> str:
        address = os.environ.get(self.rpc_variable) or self.default_rpc
        if not address:
            raise ChainError(
                f"{self.name}: put the address of a node into the environment variable {self.rpc_variable}"
            )
        try:
            parts = urlsplit(address)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ChainError(f"{self.name}: {self.rpc_variable} is no address of a node: it begins with http(s)://")
        return address


def require_chain(web3: Web3, chain_id: int, who: str) -> None:
    """Insist that the node serves ``chain_id``; ``who`` names the node in the error.

    Raises :class:`chain.errors.WrongChain`, or :class:`chain.errors.NetworkUnavailable` if it does not answer.
    """
    try:
        with refusals("asking for the chain"):
            served = web3.eth.chain_id
    except NetworkUnavailable:
        raise NetworkUnavailable(f"{who} did not answer: check that it runs, and its address") from None
    if served != chain_id:
        raise WrongChain(f"{who} serves chain {served}, not {chain_id}: use another node or another network")


# Ids as docs.base.org lists them. Base makes a block every two seconds, and a block is final once the Ethereum block
# that holds its data is: within 20 to 30 minutes, says docs.optimism.io, hence 900. Rehearsals on the test network wait
# for two minutes, in which the data usually gets there. A local chain takes nothing back by itself. An OP chain's
# sequencer can keep a transaction out for the sequencing window, 12 hours (docs.optimism.io, forced transactions), so
# a day; rehearsals on the test network do without.
_ALL = (
    Network(
        name="base",
        chain_id=8453,
        rpc_variable="ARENA_RPC_BASE",
        explorer="https://basescan.org",
        confirmations=900,
        least_window=86_400,
    ),
    Network(
        name="base-sepolia",
        chain_id=84532,
        rpc_variable="ARENA_RPC_BASE_SEPOLIA",
        explorer="https://sepolia.basescan.org",
        confirmations=60,
        least_window=60,
    ),
    Network(
        name="local",
        chain_id=LOCAL_CHAIN_ID,
        rpc_variable="ARENA_RPC_LOCAL",
        default_rpc="http://127.0.0.1:8545",
        confirmations=1,
        least_window=1,
    ),
)

NETWORKS: Final[Mapping[str, Network]] = MappingProxyType({network.name: network for network in _ALL})
"""By name. Public nodes are not named here: they are rate limited, and whom to ask is the user's choice."""


def open_network(name_or_url: str) -> tuple[Network, Web3]:
    """The network with this name, or the one that the node at this address (http or https) serves, and a connection.

    Raises what :meth:`Network.connect` raises.
    """
    if not name_or_url.startswith(("http://", "https://")):
        network = find_network(name_or_url)
        return network, network.connect()
    web3 = Web3(Web3.HTTPProvider(name_or_url))
    with refusals("asking for the chain"):
        chain_id = web3.eth.chain_id
    known = next((network for network in _ALL if network.chain_id == chain_id), None)
    other = Network(name=f"chain {chain_id}", chain_id=chain_id, rpc_variable="", confirmations=1, least_window=1)
    return known or other, web3


def find_network(name: str) -> Network:
    """The network called ``name``; raises :class:`ChainError` with the names there are."""
    if name not in NETWORKS:
        raise ChainError(f"no network is called {name[:40]!r}: there are {', '.join(NETWORKS)}")
    return NETWORKS[name]
