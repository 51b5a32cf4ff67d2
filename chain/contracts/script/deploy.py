#!/usr/bin/env python3
"""Deploy the contracts on a named network, and write the record that is committed: deployments/<network>.json.

Each transaction is shown, with what it costs at most, before it is signed. A deployment that was cut short is finished
with --first and the nonce that was printed. tests/chain/test_deploy_script.py rehearses it
on anvil with Base Sepolia's id.

    ARENA_RPC_BASE_SEPOLIA=https://... python chain/contracts/script/deploy.py base-sepolia --account my-key.json
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable
from pathlib import Path

from web3 import Web3

from chain.contract import Connection
from chain.deployment import deploy_from, deployed_from, planned_deployment
from chain.errors import ChainError
from chain.networks import NETWORKS, find_network
from chain.quote import Quote
from chain.records import Record, check_record, is_contract
from chain.reverts import refusals
from chain.signers import find_signer
from chain.types import tokens

DEPLOYMENTS = Path(__file__).resolve().parent.parent / "deployments"
SUPPLY = 1_000_000  # whole tokens
GWEI = 10**9


def main() -> int:
    """Deploy; 0 if the record is written, 1 otherwise."""
    options = _options()
    path: Path = options.deployments / f"{options.network}.json"
    try:
        if path.exists():
            raise ChainError(f"{path} is there: these contracts are deployed; move the record away to deploy others")
        record = _deploy(options)
        record.save(path)
    except ChainError as error:
        print(f"deploy: {error}", file=sys.stderr)
        return 1
    print(f"deploy: written to {path}; once its blocks are final, check it with verify.py {options.network} --node")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", choices=sorted(NETWORKS), help="where; its node is in an environment variable")
    parser.add_argument("--account", default="env:ARENA_KEY", help="env:NAME, a keystore file, or clef:ADDRESS@URL")
    parser.add_argument("--supply", type=int, default=SUPPLY, help="whole tokens that exist; the account gets them")
    parser.add_argument("--first", type=int, help="finish the deployment that began with this nonce")
    parser.add_argument("--yes", action="store_true", help="do not ask before each transaction")
    parser.add_argument("--deployments", type=Path, default=DEPLOYMENTS, help="the folder of the records")
    return parser.parse_args()


def _deploy(options: argparse.Namespace) -> Record:
    network = find_network(options.network)
    if options.account.startswith("dev:") and not network.is_local:
        raise ChainError(f"everybody knows the key of {options.account}: use another account on {network.name}")
    web3, signer = network.connect(), find_signer(options.account, getpass.getpass)
    connection = Connection(web3, signer, chain_id=network.chain_id, before=_asking(options.yes))
    first = _first(web3, signer.address, options.first)
    print(f"deploy: {signer.address} on {network.name} from nonce {first} on", file=sys.stderr)
    supply, window = tokens(options.supply), network.least_window
    record = Record(
        network=network.name,
        deployer=signer.address,
        first_nonce=first,
        supply=supply,
        least_window=window,
        deployment=deploy_from(connection, first, supply, least_window=window),
    )
    check_record(web3, record)
    return record


def _first(web3: Web3, sender: str, begun: int | None) -> int:
    """The nonce of the first contract: the account's next, or that of a deployment that was cut short."""
    if begun is None:
        with refusals("deploying"):
            return int(web3.eth.get_transaction_count(Web3.to_checksum_address(sender)))
    token = planned_deployment(web3.eth.chain_id, sender, begun).token
    done = deployed_from(web3, sender, begun)
    if done is None or (done > 0 and not is_contract(web3, "ArenaToken", token)):
        raise ChainError(f"no deployment that began with nonce {begun} can go on: leave --first out")
    return begun


def _asking(yes: bool) -> Callable[[Quote], None]:
    def ask(quote: Quote) -> None:
        cost = f"{quote.gas} gas, at most {quote.fee_wei / GWEI:,.0f} gwei"
        print(f"deploy: {quote.label}: {cost}", file=sys.stderr)
        if not yes and not _wanted():
            raise ChainError(f"{quote.label} was not wanted, and not sent: to go on later, give --first")

    return ask


def _wanted() -> bool:
    print("send it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "y"


if __name__ == "__main__":
    sys.exit(main())
