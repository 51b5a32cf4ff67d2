"""A real node behind HTTP that a test can stop, crash, freeze and start again, and a line to it that loses answers."""

import os
import platform
import signal
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

import pytest

import chain.anvil
from chain.anvil import ANSWER_S, find_anvil
from chain.devnet import GENESIS_TIME
from chain.errors import MissingExtra

ACCOUNTS = 14


def require_anvil():
    """Skip where anvil is not installed; fail instead where AIARENA_REQUIRE_NODE=1 (CI) says it must be there."""
    try:
        find_anvil()
    except MissingExtra as missing:
        if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
            pytest.skip("npm serves anvil for Linux on x86-64 only")
        if os.environ.get("AIARENA_REQUIRE_NODE") == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


class Anvil(chain.anvil.Anvil):
    """The node of one test, started, with the clock and the accounts of :class:`chain.devnet.EmbeddedChain`."""

    def __init__(self, folder, **options):
        super().__init__(folder / "state.json", accounts=ACCOUNTS, genesis_time=GENESIS_TIME, **options)
        self.start()

    def freeze(self):
        """It keeps its connections and takes requests, but answers nothing."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)


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
