#!/usr/bin/env python3
"""Rehearse a deployment to Base Sepolia on a node of one's own, and write deployments/rehearsal/ anew.

deploy.py and verify.py do all of it, on anvil with Base Sepolia's chain id and a development account whose key
everybody knows: nothing reaches a public network. Needs `npm ci`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from chain.accounts import dev_account
from chain.anvil import Anvil
from chain.errors import ChainError
from chain.networks import find_network

SCRIPTS = Path(__file__).resolve().parent
REHEARSAL = SCRIPTS.parent / "deployments" / "rehearsal"
NETWORK = "base-sepolia"
WRITTEN = ("contracts.json", f"{NETWORK}.json")


def main() -> int:
    """Rehearse; 0 if the files are written, 1 otherwise."""
    try:
        with TemporaryDirectory() as folder:
            _rehearse(Path(folder))
            REHEARSAL.mkdir(exist_ok=True)
            for name in WRITTEN:
                shutil.copy(Path(folder, name), REHEARSAL / name)
    except (ChainError, subprocess.CalledProcessError) as error:
        print(f"rehearse: {error}", file=sys.stderr)
        return 1
    print(f"rehearse: written to {REHEARSAL}")
    return 0


def _rehearse(folder: Path) -> None:
    network = find_network(NETWORK)
    places = ("--deployments", str(folder))
    with Anvil(folder / "state.json", chain_id=network.chain_id) as node:
        known = {network.rpc_variable: node.url, "ARENA_KEY": dev_account(0).key.hex()}
        for script, *options in (("deploy.py", "--yes"), ("verify.py", "--node", "--out", str(folder))):
            command = [sys.executable, str(SCRIPTS / script), NETWORK, *places, *options]
            subprocess.run(command, env=os.environ | known, check=True)


if __name__ == "__main__":
    sys.exit(main())
