"""A real node behind HTTP that a test can stop, crash, freeze and start again, and a line to it that loses answers."""

import os
import platform
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from web3 import Web3
from web3.providers.rpc.utils import ExceptionRetryConfiguration

from chain.accounts import dev_account
from chain.devnet import BALANCE_WEI, GENESIS_TIME

ANVIL = Path(__file__).resolve().parents[2] / "chain" / "contracts" / "node_modules" / ".bin" / "anvil"
ACCOUNTS = 14
ANSWER_S = 30.0  # what the client waits for one answer, unless a test says otherwise
START_S = 30.0


def require_anvil():
    """Skip where anvil is not installed; fail instead where AIARENA_REQUIRE_NODE=1 (CI) says it must be there."""
    if ANVIL.is_file():
        return
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("npm serves anvil for Linux on x86-64 only")
    reason = f"{ANVIL} is missing: run `npm ci` in chain/contracts to test against a real node"
    if os.environ.get("AIARENA_REQUIRE_NODE") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Anvil:
    """The node, with the clock and the accounts of :class:`chain.devnet.EmbeddedChain`.

    It keeps its chain in the file ``state``: stopped and started it goes on where it was; crashed and started, where it
    was last stopped.
    """

    def __init__(self, folder):
        self.state = folder / "state.json"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.request = {"timeout": ANSWER_S}
        self.web3 = connect(self.url, self.request)
        self.accounts = tuple(dev_account(index) for index in range(ACCOUNTS))
        self.start()
        for account in self.accounts:
            self.ask("anvil_setBalance", account.address, hex(BALANCE_WEI))

    def start(self):
        command = [str(ANVIL), "--quiet", "--port", str(self._port), "--timestamp", str(GENESIS_TIME)]
        self._process = subprocess.Popen([*command, "--state", str(self.state)])
        deadline = time.monotonic() + START_S
        while not self.web3.is_connected():
            assert self._process.poll() is None, "anvil ended"
            assert time.monotonic() < deadline, "anvil does not answer"
            time.sleep(0.05)
        self.ask("evm_setTime", self.now() + 1)  # a restarted node would count from its first start

    def stop(self):
        """End it, as its owner would."""
        self._end(signal.SIGINT)

    def crash(self):
        """End it at once."""
        self._end(signal.SIGKILL)

    def freeze(self):
        """It keeps its connections and takes requests, but answers nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how):
        self._process.send_signal(how)
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(START_S)

    def ask(self, method, *params):
        answer = self.web3.provider.make_request(method, list(params))
        assert "error" not in answer, answer
        return answer["result"]

    def now(self):
        return self.web3.eth.get_block("latest")["timestamp"]

    def block(self):
        return self.web3.eth.block_number

    def mine(self, blocks=1):
        """One more than asked for: a real node estimates in the latest block, the embedded chain in the coming one."""
        self.ask("anvil_mine", hex(blocks + 1))

    def advance_to(self, timestamp):
        self.ask("evm_setNextBlockTimestamp", timestamp)
        self.mine()


def connect(url, request):
    """A client as anybody's, except that it does not ask a node that fails as long: twice in all."""
    retries = ExceptionRetryConfiguration(errors=(OSError,), retries=2, backoff_factor=0.05)
    return Web3(Web3.HTTPProvider(url, request, exception_retry_configuration=retries))


@contextmanager
def lossy_line(url, method, times):
    """The address of a line to ``url`` that loses the first ``times`` answers to ``method``, after the node acted."""
    left = times

    class Line(BaseHTTPRequestHandler):
        def do_POST(self):
            nonlocal left
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=ANSWER_S) as node:
                answer = node.read()
            if f'"{method}"'.encode() in body and left:
                left -= 1
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Line)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    assert not left, f"only {times - left} calls of {method} came"
