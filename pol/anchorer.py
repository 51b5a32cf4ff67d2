"""Anchoring while training goes on: in order, once each, and through outages of the chain."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from typing import Protocol

from pol.errors import RecordingError, Unreachable
from pol.transcript import Anchor, Stop

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0


class Anchorer(Protocol):
    """Publishes roots where their time can be proven; ``chain.anchoring`` implements it on the Arena.

    Every method raises :class:`Unreachable` while the chain does not answer, and may then be called again: what was
    promised already is never promised twice.
    """

    def anchor(self, first: int, count: int, root: bytes) -> Anchor:
        """Promise segments [first, first + count) by their ``root``; returns the receipt."""
        ...

    def held(self) -> Sequence[Anchor]:
        """The anchors of this run that were promised so far, oldest first."""
        ...

    def stop(self, segments: int) -> Stop:
        """Declare that the run ends after ``segments`` segments, all of them anchored; returns the receipt."""
        ...


class NoChain:
    """Anchors for a run without a chain: the roots are kept, their time is unproven."""

    def anchor(self, first: int, count: int, root: bytes) -> Anchor:
        """The anchor with block 0 and a zero transaction."""
        return Anchor(first=first, count=count, root=root, block=0, tx=bytes(32))

    def held(self) -> Sequence[Anchor]:
        """None: nobody but the folder keeps them."""
        return ()

    def stop(self, segments: int) -> Stop:
        """The declaration with block 0 and a zero transaction."""
        return Stop(segments=segments, block=0, tx=bytes(32))


class AnchorLine:
    """Anchors sent one after the other by a thread of their own, so that training never waits for a block.

    ``done`` hears of every receipt, in order. While the chain does not answer, the oldest is tried again, at growing
    intervals, and the others wait behind it. A refusal ends the line: nothing is sent after it.
    """

    def __init__(self, anchorer: Anchorer, done: Callable[[Anchor], None]) -> None:
        self._anchorer, self._done = anchorer, done
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="anchors")
        self._sent: list[Future[None]] = []
        self._closing = threading.Event()

    def send(self, first: int, count: int, root: bytes) -> None:
        """Put an anchor at the end of the line; raises what ended the line, if anything did."""
        self.check()
        self._sent.append(self._thread.submit(self._send, first, count, root))

    def check(self) -> None:
        """Raise what ended the line, if anything did."""
        for future in self._sent:
            if future.done():
                future.result()

    def finish(self, patience: float) -> None:
        """Wait until every anchor is out; :class:`RecordingError` after ``patience`` seconds without success."""
        end = time.monotonic() + patience
        for number, future in enumerate(self._sent):
            try:
                future.result(timeout=max(0.0, end - time.monotonic()))
            except NotDone as error:
                raise RecordingError(
                    f"{len(self._sent) - number} anchors could not be sent, the chain does not answer: "
                    "the recording is safe; run it again later to finish it"
                ) from error

    def stop(self, segments: int, patience: float) -> Stop:
        """Declare, after :meth:`finish`, that the run ends after ``segments``; returns the receipt.

        Another process may have the account for a while: :class:`Unreachable` after ``patience`` seconds.
        """
        end = time.monotonic() + patience
        while True:
            try:
                return self._anchorer.stop(segments)
            except Unreachable:
                if time.monotonic() + FIRST_RETRY_SECONDS > end:
                    raise
                time.sleep(FIRST_RETRY_SECONDS)

    def close(self) -> None:
        """Give up what is still in line; it is sent when the recording is resumed."""
        self._closing.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _send(self, first: int, count: int, root: bytes) -> None:
        self.check()
        anchor = self._patiently(first, count, root)
        if (anchor.first, anchor.count, anchor.root) != (first, count, root):
            raise RecordingError(f"the anchorer's receipt for segments from {first} is of something else")
        self._done(anchor)

    def _patiently(self, first: int, count: int, root: bytes) -> Anchor:
        delay = FIRST_RETRY_SECONDS
        while True:
            try:
                return self._anchorer.anchor(first, count, root)
            except Unreachable:
                if self._closing.wait(delay):
                    raise
                delay = min(2 * delay, LONGEST_RETRY_SECONDS)
