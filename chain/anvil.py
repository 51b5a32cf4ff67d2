"""A local chain with a node of its own: Foundry's anvil in a process, behind web3.py. It keeps its state in a file.

It has the accounts and the clock of :class:`chain.devnet.EmbeddedChain`, and other processes can talk to it.
"""

from __future__ import annotations

import platform
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from web3 import Web3
from web3.providers.rpc.utils import ExceptionRetryConfiguration
from web3.types import RPCEndpoint

from chain.accounts import Account, dev_account
from chain.devnet import BALANCE_WEI
from chain.errors import ChainError, MissingExtra
from chain.networks import LOCAL_CHAIN_ID

START_S = 30.0
ANSWER_S = 30.0


def find_anvil() -> Path:
    """The anvil to run: the one on PATH, else the one of the contracts' npm packages (in a source checkout).

    Raises :class:`MissingExtra` with what to install.
    """
    packaged = Path(__file__).parent / "contracts" / "node_modules" / ".bin" / "anvil"
    found = shutil.which("anvil") or (str(packaged) if packaged.is_file() else None)
    if found is None:
        here = f"{platform.system()} on {platform.machine()}"
        raise MissingExtra(
            f"there is no anvil here ({here}): install Foundry, or on Linux on x86-64 run `npm ci` in chain/contracts"
        )
    return Path(found)


class Anvil:
    """The node, once :meth:`start` was called, its funded accounts, and its clock. A context manager that stops it.

    ``accounts`` are :func:`chain.accounts.dev_account` 0, 1, ...; each gets 10,000 ether when the chain begins.
    It keeps the chain in the file ``state``: stopped and started it goes on where it was; killed and started, where it
    was last stopped. ``genesis_time`` (seconds since 1970) is when the chain begins, by default now. Without
    ``block_time_s`` every transaction mines one block and time stands still between them as far as anybody can tell;
    with it, a block is mined at that rhythm. ``port`` 0 takes any that is free.
    """

    def __init__(
        self,
        state: Path,
        *,
        accounts: int = 16,
        port: int = 0,
        chain_id: int = LOCAL_CHAIN_ID,
        genesis_time: int | None = None,
        block_time_s: int | None = None,
    ) -> None:
        self.state = state
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.request: dict[str, Any] = {"timeout": ANSWER_S}
        self.web3 = connect(self.url, self.request)
        self.accounts: tuple[Account, ...] = tuple(dev_account(index) for index in range(accounts))
        options = ["--quiet", "--port", str(self.port), "--chain-id", str(chain_id), "--state", str(state)]
        options += ["--timestamp", str(genesis_time)] if genesis_time is not None else []
        options += ["--block-time", str(block_time_s), "--mixed-mining"] if block_time_s is not None else []
        self._options = options
        self._by_the_wall = genesis_time is None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Anvil:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the node and wait until it answers; a new chain is furnished with the accounts.

        Raises :class:`MissingExtra` without anvil, and :class:`ChainError` if it does not come up.
        """
        if _taken(self.port):
            raise ChainError(f"port {self.port} is taken: stop what listens there, or choose another")
        fresh = not self.state.exists()
        self._process = subprocess.Popen([str(find_anvil()), *self._options])
        deadline = time.monotonic() + START_S
        while not self.web3.is_connected():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise ChainError(f"anvil does not come up on port {self.port}: see what it said, and {self.state}")
            time.sleep(0.05)
        # A restarted node would count from its first start; the clock of a wall goes on while it is down.
        self.ask("evm_setTime", max(self.now() + 1, int(time.time()) if self._by_the_wall else 0))
        for account in self.accounts if fresh else ():
            self.ask("anvil_setBalance", account.address, hex(BALANCE_WEI))

    def stop(self) -> None:
        """End it as its owner would, the state kept."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, the state as it was last kept."""
        self._end(signal.SIGKILL)

    def wait(self) -> None:
        """Return when the node has ended."""
        assert self._process is not None, "start it first"
        self._process.wait()

    def ask(self, method: str, *params: Any) -> Any:
        """The result of any method of the node, anvil's own included; raises :class:`ChainError` if it refuses."""
        answer = self.web3.provider.make_request(RPCEndpoint(method), list(params))
        if "error" in answer:
            raise ChainError(f"anvil refused {method}: {answer['error']}")
        return answer["result"]

    def now(self) -> int:
        """The timestamp of the latest block: what a view at ``latest`` sees."""
        return int(self.web3.eth.get_block("latest")["timestamp"])

    def block(self) -> int:
        """The number of the latest block."""
        return int(self.web3.eth.block_number)

    def mine(self, blocks: int = 1) -> None:
        """Mine ``blocks`` empty blocks, and one more: a real node estimates in the latest block, the embedded chain in
        the coming one."""
        self.ask("anvil_mine", hex(blocks + 1))

    def advance_to(self, timestamp: int) -> None:
        """Mine two blocks from ``timestamp`` on, which must lie ahead."""
        now = self.now()
        if timestamp <= now:
            raise ChainError(f"the local chain is already at {now}: it cannot move to {timestamp}")
        self.ask("evm_setNextBlockTimestamp", timestamp)
        self.mine()

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
        if self._process is not None:
            self._process.wait(START_S)


def connect(url: str, request: dict[str, Any]) -> Web3:
    """A connection that asks a node that fails twice in all; ``request`` are options of each request, such as its
    ``timeout`` in seconds."""
    retries = ExceptionRetryConfiguration(errors=(OSError,), retries=2, backoff_factor=0.05)
    return Web3(Web3.HTTPProvider(url, request, exception_retry_configuration=retries))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
