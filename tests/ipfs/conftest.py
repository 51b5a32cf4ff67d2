"""The IPFS node that the tests of this folder talk to: one that is started here, or the one of AIARENA_IPFS_API."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
JSIPFS = HERE / "node_modules/.bin/jsipfs"
READY_SECONDS = 120


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The multiaddr of a node's HTTP API."""
    if given := os.environ.get("AIARENA_IPFS_API"):
        yield given
        return
    if not JSIPFS.exists():
        pytest.fail(
            "the node is not installed: run make test-ipfs, or set AIARENA_IPFS_API to the API of a running one"
        )
    repository = tmp_path_factory.mktemp("ipfs") / "repository"
    environment = os.environ | {"IPFS_PATH": str(repository), "NODE_OPTIONS": f"--require {HERE / 'polyfill.cjs'}"}
    init = [JSIPFS, "init", "--algorithm", "ed25519", "--profile", "test", "--empty-repo"]
    subprocess.run(init, env=environment, check=True, stdout=subprocess.DEVNULL)
    cut_off(repository / "config")
    log = repository.parent / "log"
    with log.open("wb") as file:
        daemon = subprocess.Popen([JSIPFS, "daemon", "--offline"], env=environment, stdout=file, stderr=file)
    try:
        yield address(daemon, repository / "api", log)
    finally:
        daemon.terminate()
        daemon.wait(30)


def cut_off(config: Path) -> None:
    """No peers, and free ports of this machine."""
    settings = json.loads(config.read_text())
    settings["Bootstrap"] = []
    settings["Addresses"] |= {"Swarm": []} | dict.fromkeys(("API", "Gateway", "RPC"), "/ip4/127.0.0.1/tcp/0")
    config.write_text(json.dumps(settings))


def address(daemon: subprocess.Popen[bytes], api: Path, log: Path) -> str:
    """What the node writes down once it listens and is ready."""
    for _ in range(READY_SECONDS * 10):
        if b"Daemon is ready" in log.read_bytes():
            return api.read_text().strip()
        if daemon.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"the node did not start:\n{log.read_text()}")
