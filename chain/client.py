"""All six contracts through one object."""

from __future__ import annotations

from collections.abc import Callable

from web3 import Web3

from chain.arena import Arena
from chain.artifact import CONTRACTS
from chain.challenges import Challenges
from chain.contract import Connection
from chain.deployment import Deployment, check_deployment
from chain.escrow import Escrow
from chain.journal import Journal
from chain.quote import Quote
from chain.scoring import Scoring
from chain.signers import Signer
from chain.token import Token
from chain.vault import Vault


class ArenaClient:
    """A node, a deployment, and the account to act as (``None``: reading only).

    ``token``, ``vault``, ``escrow``, ``arena``, ``scoring`` and ``challenges`` are the typed clients. Transactions are
    signed here and awaited; a refusal is a :class:`chain.errors.ContractReverted`. Views answer at the latest block.
    ``before`` and ``journal`` are :class:`chain.contract.Connection`'s.

    Raises :class:`chain.errors.WrongChain` if the node serves another chain, or lacks the contracts.
    """

    def __init__(
        self,
        web3: Web3,
        deployment: Deployment,
        account: Signer | None = None,
        *,
        before: Callable[[Quote], None] | None = None,
        journal: Journal | None = None,
    ) -> None:
        check_deployment(web3, deployment)
        self.web3 = web3
        self.deployment = deployment
        self.account = account
        connection = Connection(
            web3, account, deployment.names(), deployment.chain_id, deployment.since, before=before, journal=journal
        )
        addresses = [Web3.to_checksum_address(address) for address in deployment.names()]
        clients = zip([connection] * len(CONTRACTS), CONTRACTS, addresses, strict=True)
        token, vault, escrow, arena, scoring, challenges = clients
        self.token = Token(*token)
        self.vault = Vault(*vault, self.token)
        self.escrow = Escrow(*escrow, self.token)
        self.arena = Arena(*arena, self.token)
        self.scoring = Scoring(*scoring, self.vault)
        self.challenges = Challenges(*challenges, self.token)

    @property
    def address(self) -> str:
        """The account's checksum address; raises :class:`chain.errors.ChainError` for a reading client."""
        return self.token.connection.sender()

    def resume(self) -> None:
        """Follow what an earlier process sent from the account: see :meth:`chain.contract.Connection.resume`."""
        self.token.connection.resume()

    def acting_as(self, account: Signer) -> ArenaClient:
        """The same contracts, through another account, without a journal."""
        return ArenaClient(self.web3, self.deployment, account)
