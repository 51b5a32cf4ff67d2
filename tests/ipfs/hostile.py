"""A server that speaks the API of an IPFS node over real sockets, and may be told to misbehave."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import parse_qs, urlsplit

from tests.ipfs.unixfs import tree


class Node:
    """An honest node at first. ``on[command]`` replaces how it answers a command of the API."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.blocks: dict[str, bytes] = {}
        self.on: dict[str, Callable[[Answer], None]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.sent = 0
        self.over = Event()
        self.address = ""

    def keep(self, data: bytes, **layout: int) -> str:
        cid, blocks = tree(data, **layout)
        self.files[cid] = data
        self.blocks |= blocks
        return cid

    def offsets(self) -> list[int]:
        """Where reading began, for every time that bytes were asked for."""
        return [int(options.get("offset", 0)) for command, options in self.asked if command == "cat"]

    @contextmanager
    def running(self) -> Iterator[Node]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        server.daemon_threads = True
        server.node = self  # type: ignore[attr-defined]
        self.address = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.over.set()
            server.shutdown()
            server.server_close()
            thread.join()


class Answer(BaseHTTPRequestHandler):
    """One request, and the ways to answer it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.node: Node = self.server.node  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        self.command_name = url.path.removeprefix("/api/v0/")
        self.options = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.node.asked.append((self.command_name, self.options))
        self.close_connection = True
        self.body = self.read_body()
        with suppress(BrokenPipeError, ConnectionResetError):  # hanging up is what the other side is meant to do
            self.node.on.get(self.command_name, honestly)(self)

    def read_body(self) -> bytes:
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return body

    @property
    def content(self) -> bytes:
        """What was asked for."""
        wanted = self.options.get("arg", "")
        if self.command_name == "block/get":
            return self.node.blocks[wanted]
        return self.node.files[wanted][int(self.options.get("offset", 0)) :]

    def begin(self, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.node.sent += len(data)

    def whole(self, data: bytes, status: int = 200) -> None:
        self.begin(status, Content_Length=str(len(data)))
        self.send(data)

    def json(self, value: object, status: int = 200) -> None:
        self.whole(json.dumps(value).encode(), status)

    def endlessly(self, data: bytes) -> None:
        while not self.node.over.is_set():
            self.send(data)

    def log_message(self, *_: object) -> None:
        """Not on the screen."""


def honestly(answer: Answer) -> None:
    command, wanted = answer.command_name, answer.options.get("arg", "")
    if command == "add":
        data = answer.body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
        answer.json({"Name": "bytes", "Hash": answer.node.keep(data)})
    elif command == "pin/ls" and wanted in answer.node.files:
        answer.json({"Keys": {wanted: {"Type": "recursive"}}})
    elif command in {"cat", "block/get"} and wanted in answer.node.files | answer.node.blocks:
        answer.whole(answer.content)
    else:
        answer.json({"Message": f"{wanted} is not here", "Type": "error"}, status=500)
