"""``arena up`` and ``arena deploy``: a local chain, and the contracts on any chain."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.accounts import dev_account
from chain.anvil import Anvil
from chain.deployment import Deployment, deploy_from, deployed_from
from chain.errors import ChainError
from chain.reverts import refusals
from chain.types import tokens
from challenge.arena.session import Session, command, token_amount
from challenge.console import failing, say

DEV_ACCOUNTS = 16
ARENA_TOKENS = 1_000_000


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("up")(up)
    command(app, "deploy")(deploy)


def up(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Where it listens, on this machine only.")] = 8545,
    state: Annotated[Path, typer.Option(help="The file that keeps the chain; a new chain if there is none.")] = Path(
        "arena-chain.json"
    ),
    block_time: Annotated[int, typer.Option(min=1, help="Seconds between blocks that nobody asked for.")] = 2,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of an error.")] = False,
) -> None:
    """Run a local chain (Foundry's anvil) until it is interrupted, and keep it in a file.

    The network `local` is this one. Its accounts dev:0, dev:1, ... have ether, and keys that everybody knows.

    Example:

        arena up & arena deploy --account dev:0 --purse 1000 --yes
    """
    if not state.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {state.parent} to keep the chain in", param_hint="--state")
    with failing(False, verbose), Anvil(state, accounts=DEV_ACCOUNTS, port=port, block_time_s=block_time) as node:
        say(f"{'node':<14}{node.url}, chain {node.web3.eth.chain_id}, block {node.block()}, kept in {state}")
        for index in range(3):
            say(f"{'account':<14}dev:{index} is {node.accounts[index].address}")
        say(f"{'note':<14}and so on to dev:{DEV_ACCOUNTS - 1}; interrupt to stop", "dim")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            node.wait()
        except KeyboardInterrupt:
            say("stopping")


def deploy(
    session: Session,
    supply: Annotated[int, typer.Option(min=1, help="Whole tokens that exist; the account gets them.")] = ARENA_TOKENS,
    purse: Annotated[
        int, typer.Option(min=0, help="Local chains: bring each account dev:1 to dev:15 to so many tokens.")
    ] = 0,
    least_window: Annotated[
        int | None, typer.Option(min=1, help="Least length of any window of a task (s); the network's by default.")
    ] = None,
) -> dict[str, Any]:
    """Deploy the contracts, once: where they are is kept on this machine, and the other commands use them.

    A deployment that was cut short is finished.

    Example:

        arena deploy --network base-sepolia --account my-key.json
    """
    if purse and not session.network.is_local:
        raise ChainError(f"--purse is for local chains, and this is {session.network.name}: leave it out")
    if not session.record.is_file():
        window = least_window or session.network.least_window
        _deploy(session, tokens(supply), window).save(session.record)
    deployment = session.client.deployment
    for index in range(1, DEV_ACCOUNTS) if purse else ():
        _fill(session, dev_account(index).address, tokens(purse))
    return {"deployment": str(session.record), **deployment.to_json(), "tokens": _held(session)}


def _deploy(session: Session, supply: int, least_window: int) -> Deployment:
    """The contracts, all new or what was missing of those that an earlier command began."""
    connection, terms = session.connection(), {"supply": str(supply), "least_window": least_window}
    for begun in session.promises.noted("deploy"):
        first = begun["first"]
        if begun == {"first": first, **terms} and deployed_from(session.web3, connection.sender(), first) is not None:
            return deploy_from(connection, first, supply, least_window=least_window)
    with refusals("deploying"):
        first = session.web3.eth.get_transaction_count(session.web3.to_checksum_address(connection.sender()))
    session.promises.note("deploy", {"first": first, **terms})
    return deploy_from(connection, first, supply, least_window=least_window)


def _fill(session: Session, account: str, amount: int) -> None:
    missing = amount - session.client.token.balance_of(account)
    if missing > 0:
        session.client.token.transfer(account, missing)


def _held(session: Session) -> str:
    return token_amount(session.client.token.balance_of(session.me))
