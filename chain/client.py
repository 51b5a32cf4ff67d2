"""All five contracts through one object."""

from __future__ import annotations

from web3 import Web3

from chain.accounts import Account
from chain.arena import Arena
from chain.artifact import CONTRACTS
from chain.challenges import Challenges
from chain.contract import Connection
from chain.deployment import Deployment, check_deployment
from chain.escrow import Escrow
from chain.token import Token
from chain.vault import Vault


class ArenaClient:
    """A node, a deployment, and the account to act as (``None``: reading only).

    ``token``, ``vault``, ``escrow``, ``arena`` and ``challenges`` are the typed clients. Transactions are signed here
    and awaited; a refusal is a :class:`chain.errors.ContractReverted`. Views answer at the latest block.

    Raises :class:`chain.errors.WrongChain` if the node serves another chain, or lacks the contracts.
    """

    def __init__(self, web3: Web3, deployment: Deployment, account: Account | None = None) -> None:
        check_deployment(web3, deployment)
        self.web3 = web3
        self.deployment = deployment
        self.account = account
        connection = Connection(web3, account, deployment.names(), deployment.chain_id)
        addresses = [Web3.to_checksum_address(address) for address in deployment.names()]
        token, vault, escrow, arena, challenges = zip([connection] * len(CONTRACTS), CONTRACTS, addresses, strict=True)
        self.token = Token(*token)
        self.vault = Vault(*vault, self.token)
        self.escrow = Escrow(*escrow)
        self.arena = Arena(*arena, self.token)
        self.challenges = Challenges(*challenges, self.token)

    @property
    def address(self) -> str:
        """The account's checksum address; raises :class:`chain.errors.ChainError` for a reading client."""
        return self.token.connection.sender()

    def acting_as(self, account: Account) -> ArenaClient:
        """The same contracts, through another account."""
        return ArenaClient(self.web3, self.deployment, account)
