"""Blobs in an IPFS node, over its HTTP API (Kubo's, which js-ipfs has too). Needs the extra ``ipfs``.

The node is trusted to keep what it is given, and with nothing else. A blob is read as the tree that its CID names: the
nodes first, which vouch for the size and for every chunk, then the chunks as one stream, each compared as it arrives.
So the size is known before a byte is written, wrong or changing content ends at its first wrong chunk, endless content
at the last right one, and a transfer that broke off goes on behind the last chunk that arrived.
"""

from __future__ import annotations

import fcntl
import io
import ipaddress
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from pol.cid import (
    CHUNK_BYTES,
    LINKS_PER_NODE,
    Link,
    cid_of,
    cid_of_file,
    links_of,
    names_block,
    parse_cid,
    pieces_of,
    root_of,
)
from pol.errors import CannotRun, ProofError, Unreachable
from pol.store import MAX_BLOB_BYTES, PARTIAL, OnBytes, unwatched

DEFAULT_API = "/ip4/127.0.0.1/tcp/5001"
CONNECT_SECONDS = 10.0
STALL_SECONDS = 60.0
SLOWEST_RATE = 256 * 1024
_ANSWER_BYTES = 4096
_READ_BYTES = 64 * 1024
# Everything that a CID depends on is said, because a node's own configuration may be another.
_ADD = {
    "cid-version": "1",
    "raw-leaves": "true",
    "hash": "sha2-256",
    "chunker": f"size-{CHUNK_BYTES}",
    "max-file-links": str(LINKS_PER_NODE),
    "trickle": "false",
    "progress": "false",
    "cid-base": "base32",
    "pin": "true",
}

_T = TypeVar("_T")


class IpfsStore:
    """Blobs behind the HTTP API of an IPFS node. What is put is pinned there.

    ``address`` is a multiaddr (``/ip4/127.0.0.1/tcp/5001``) or a URL (``http://127.0.0.1:5001``). A transfer ends with
    :class:`Unreachable` after ``stall`` seconds of silence, and in any case when it has taken ``stall`` seconds more
    than its size takes at ``slowest_rate`` bytes a second. Several threads may use one store.
    """

    def __init__(
        self, address: str = DEFAULT_API, *, stall: float = STALL_SECONDS, slowest_rate: int = SLOWEST_RATE
    ) -> None:
        self.address = address
        self.stall = stall
        self.slowest_rate = slowest_rate
        library = _library()
        try:
            self._client = library.Client(_multiaddr(address), timeout=(CONNECT_SECONDS, stall), chunk_size=_READ_BYTES)
        except (library.exceptions.AddressError, ValueError) as error:
            raise CannotRun(
                f"{address!r} is no address of an IPFS API; give one like {DEFAULT_API} or http://127.0.0.1:5001"
            ) from error

    def put(self, data: bytes) -> str:
        """Add and pin ``data``, and return its CID."""
        return self._add(cid_of(data), [data], len(data))

    def put_file(self, path: Path) -> str:
        """Add and pin the bytes of a file, and return their CID; what is pinned already is not sent again."""
        return self._add(cid_of_file(path), pieces_of(path), path.stat().st_size)

    def get(self, cid: str, *, limit: int = MAX_BLOB_BYTES) -> bytes:
        """The bytes of ``cid``; :class:`ProofError` if its tree has more than ``limit``."""
        file = io.BytesIO()
        self._fetch(cid, file, limit, unwatched)
        return file.getvalue()

    def get_file(self, cid: str, target: Path, *, on_bytes: OnBytes = unwatched) -> None:
        """Write the bytes of ``cid`` to ``target``; another attempt goes on where the last one was cut off."""
        with _arriving(target) as file:
            self._fetch(cid, file, MAX_BLOB_BYTES, on_bytes)

    def _add(self, cid: str, pieces: Iterable[bytes], size: int) -> str:
        if self._is_pinned(cid):
            return cid
        named = self._ask(
            f"adding {cid}",
            lambda watch: self._client.add_bytes(pieces, opts=dict(_ADD), auth=watch),
            deadline=self._deadline(size),
        )
        if named != cid:
            raise CannotRun(
                f"{self.address}: the CID is {cid}, the node says {str(named)[:80]!r}. Either the bytes changed in the "
                f"meantime, or the node overrides CID settings: chunker size-{CHUNK_BYTES}, CIDv1, raw leaves, "
                f"SHA-256, {LINKS_PER_NODE} links a node"
            )
        return cid

    def _is_pinned(self, cid: str) -> bool:
        def ask(watch: _Watch) -> bool:
            try:
                return bool(self._client.pin.ls(cid, type="recursive", auth=watch)["Keys"])
            except _library().exceptions.ErrorResponse:  # how a node says that it is not
                return False

        return self._ask(f"asking whether {cid} is pinned", ask, deadline=self._deadline(0))

    def _fetch(self, cid: str, file: IO[bytes], limit: int, on_bytes: OnBytes) -> None:
        """Complete ``file``, which may hold a beginning of ``cid``; whatever else is in it is cut off."""
        block = self._block(parse_cid(cid, where=self.address), self._deadline(0))
        root = root_of(cid, block)
        if root.size > limit:
            raise ProofError(f"{cid}: {root.size} bytes, more than the limit of {limit}")
        deadline = self._deadline(root.size)
        chunks = list(self._chunks(root, block, deadline))
        kept = _count_kept(file, chunks)
        start = sum(chunk.size for chunk in chunks[:kept])
        file.seek(start)
        file.truncate()
        on_bytes(start)
        for data in self._stream(cid, chunks[kept:], start, deadline) if root.height else [block][kept:]:
            on_bytes(len(data))
            file.write(data)

    def _chunks(self, link: Link, block: bytes, deadline: float) -> Iterator[Link]:
        """The chunks below a node, which is the ``block`` that ``link`` names."""
        if link.height == 0:
            yield link
            return
        for child in links_of(link, block):
            yield from self._chunks(child, self._block(child.cid, deadline) if child.height else b"", deadline)

    def _block(self, cid: str, deadline: float) -> bytes:
        """One block, which is never larger than a chunk, whatever it is of."""
        block: bytes = self._ask(
            f"reading {cid}",
            lambda watch: self._client.block.get(cid, auth=watch),
            deadline=deadline,
            limit=CHUNK_BYTES,
        )
        if not names_block(cid, block):
            raise self._wrong(cid)
        return block

    def _stream(self, cid: str, chunks: Sequence[Link], start: int, deadline: float) -> Iterator[bytes]:
        """The bytes of ``cid`` from ``start`` on, cut into ``chunks``, each of them compared."""
        what, arrived = f"reading {cid}", bytearray()
        pieces = self._ask(
            what,
            lambda watch: self._client.cat(cid, offset=start, stream=True, auth=watch),
            deadline=deadline,
            limit=MAX_BLOB_BYTES,
        )
        with self._faults(what), pieces:
            for chunk in chunks:
                while len(arrived) < chunk.size:
                    piece = next(pieces, b"")
                    if not piece:
                        raise Unreachable(f"{self.address}: {what}: broke off before the end; try again")
                    arrived += piece
                data = bytes(arrived[: chunk.size])
                del arrived[: chunk.size]
                if not names_block(chunk.cid, data):
                    raise self._wrong(cid)
                yield data

    def _ask(self, what: str, call: Callable[[_Watch], _T], *, deadline: float, limit: int = _ANSWER_BYTES) -> _T:
        with self._faults(what):
            return _within(deadline, lambda: call(_Watch(limit, deadline)))

    def _deadline(self, size: int) -> float:
        return time.monotonic() + self.stall + size / self.slowest_rate

    def _wrong(self, cid: str) -> CannotRun:
        return CannotRun(
            f"{self.address}: the node serves other bytes than {cid} names. Whoever published it is not to blame; ask "
            "another node"
        )

    @contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        """What goes wrong on the way to the node and back, as an error that says so; nothing here is about a proof."""
        import requests
        import urllib3

        errors = _library().exceptions
        try:
            yield
        except errors.ConnectionError as error:
            raise Unreachable(
                f"no IPFS node answers at {self.address}; start one (ipfs daemon), or name the one to use"
            ) from error
        except (TimeoutError, errors.TimeoutError, urllib3.exceptions.TimeoutError) as error:
            raise Unreachable(
                f"{self.address}: {what}: no answer in time. Maybe no node that has it is online; try again later"
            ) from error
        except (errors.Error, urllib3.exceptions.HTTPError, requests.RequestException, HTTPException) as error:
            raise Unreachable(f"{self.address}: {what}: {str(error)[:300]}; try again") from error
        except (AssertionError, LookupError, TypeError, RecursionError) as error:  # the library's, at such an answer
            raise CannotRun(f"{self.address}: {what}: not the answer of an IPFS API; check the address") from error


class _Watch:
    """Reads one answer in small pieces, as they come and not unpacked, up to ``limit`` bytes and the deadline.

    The library would read whatever the node sends, in pieces as large as the node likes. It hands ``auth`` on to
    requests, which calls it with the request: the one public way to the answer.
    """

    def __init__(self, limit: int, deadline: float) -> None:
        self.limit = limit
        self.deadline = deadline

    def __call__(self, request: Any) -> Any:
        request.headers["Accept-Encoding"] = "identity"
        request.register_hook("response", self._take_over)
        return request

    def _take_over(self, response: Any, **_: Any) -> None:
        if response.is_redirect:
            response.close()
            raise Unreachable(f"{response.url.split('?')[0]}: sends us elsewhere; name the address of the API itself")
        limit = self.limit if response.ok else _ANSWER_BYTES
        response.iter_content = lambda **_: self._pieces(response.raw, limit)

    def _pieces(self, raw: Any, limit: int) -> Iterator[bytes]:
        while piece := raw.read1(_READ_BYTES, decode_content=False):
            limit -= len(piece)
            if limit < 0:
                raise CannotRun("the IPFS node sends more than it was asked for; ask another node")
            if time.monotonic() > self.deadline:
                raise TimeoutError
            yield piece


def _within(deadline: float, call: Callable[[], _T]) -> _T:
    """The result of ``call``, or TimeoutError at the deadline: a socket's own timeout starts anew with every byte."""
    future: Future[_T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    return future.result(max(0.0, deadline - time.monotonic()))


@contextmanager
def _arriving(target: Path) -> Iterator[IO[bytes]]:
    """What has arrived of ``target``: has its name after the block, or waits beside it if the block fails."""
    partial = target.with_name(f"{PARTIAL}{target.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = os.path.samestat(os.fstat(file.fileno()), partial.stat())
        except OSError:
            alone = False
        if not alone:
            raise CannotRun(f"{partial}: another transfer is writing this file; wait for it, or choose another folder")
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(target)
        finally:
            if partial.exists() and not file.seek(0, os.SEEK_END):
                partial.unlink()


def _count_kept(file: IO[bytes], chunks: Sequence[Link]) -> int:
    """How many of ``chunks`` the file begins with."""
    file.seek(0)
    for number, chunk in enumerate(chunks):
        if not names_block(chunk.cid, file.read(chunk.size)):
            return number
    return len(chunks)


def _multiaddr(address: str) -> str:
    """A URL as a multiaddr, which is what ipfshttpclient takes; ValueError if it has more than host and port."""
    if address.startswith("/"):
        return address
    url = urlsplit(address)
    if url.scheme not in {"http", "https"} or not url.hostname or url.username or url.path.strip("/") or url.query:
        raise ValueError(address)
    try:
        kind = f"ip{ipaddress.ip_address(url.hostname).version}"
    except ValueError:
        kind = "dns"
    return f"/{kind}/{url.hostname}/tcp/{url.port or {'http': 80, 'https': 443}[url.scheme]}/{url.scheme}"


def _library() -> Any:
    try:
        import ipfshttpclient
    except ImportError as error:
        raise CannotRun("IPFS needs the extra: pip install 'aiarena[ipfs]'") from error
    warnings.filterwarnings("ignore", message="The 'strict' parameter", category=FutureWarning)  # of its urllib3 calls
    return ipfshttpclient
