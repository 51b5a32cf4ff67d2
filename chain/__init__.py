"""The chain side of AIArena: contracts, clients, accounts, the embedded chain. Never imports torch.

Start with :class:`EmbeddedChain` (or any web3 connection), :func:`deploy` the six contracts once, and act through an
:class:`ArenaClient`::

    chain = EmbeddedChain()
    creator, alice, *_ = chain.accounts
    deployment = deploy(chain.web3, creator, supply=tokens(1_000_000))
    client = ArenaClient(chain.web3, deployment, creator)
    client.token.transfer(alice.address, tokens(1_000))

``client.vault`` holds stakes, ``client.arena`` tasks, runs and submissions, ``client.scoring`` scores and settlement,
``client.escrow`` rewards, ``client.challenges`` cases. A trainer's recorder anchors through :class:`RunAnchorer`; a
verifier reads what the chain holds of a run by :func:`read_run`. :mod:`chain.terms` are a task's terms;
:mod:`chain.rewards` and :mod:`chain.delegation` are the reward mechanism as plain arithmetic, against which the
contracts are tested; :mod:`chain.commitments` what is promised before it is shown; :mod:`chain.eip712` the signature
under a proof; :mod:`chain.networks` the networks there are, :mod:`chain.anvil` a local one with a node of its own;
:mod:`chain.signers` who signs, :mod:`chain.quote` what it will cost, and :mod:`chain.journal` what is written down
before, so that nothing is done twice. Every failure is a :class:`ChainError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chain.accounts import Account
    from chain.anchoring import ChainRun, RunAnchorer, read_run
    from chain.client import ArenaClient
    from chain.deployment import Deployment, deploy
    from chain.devnet import EmbeddedChain
    from chain.errors import ChainError, ContractReverted, WrongChain
    from chain.terms import TaskConfig
    from chain.types import Phase, Role, tokens

_HOMES = {
    "Account": "accounts",
    "ArenaClient": "client",
    "ChainError": "errors",
    "ChainRun": "anchoring",
    "ContractReverted": "errors",
    "Deployment": "deployment",
    "EmbeddedChain": "devnet",
    "Phase": "types",
    "Role": "types",
    "RunAnchorer": "anchoring",
    "TaskConfig": "terms",
    "WrongChain": "errors",
    "deploy": "deployment",
    "read_run": "anchoring",
    "tokens": "types",
}

__all__ = [
    "Account",
    "ArenaClient",
    "ChainError",
    "ChainRun",
    "ContractReverted",
    "Deployment",
    "EmbeddedChain",
    "Phase",
    "Role",
    "RunAnchorer",
    "TaskConfig",
    "WrongChain",
    "deploy",
    "read_run",
    "tokens",
]


def __getattr__(name: str) -> Any:
    # Lazily, because importing web3 takes a second (PEP 562).
    if name not in _HOMES:
        raise AttributeError(f"module 'chain' has no attribute {name!r}")
    return getattr(import_module(f"chain.{_HOMES[name]}"), name)
