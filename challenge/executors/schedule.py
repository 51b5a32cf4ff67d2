"""Spans onto seats: every seat replays one span at a time; a span that loses its worker gets another one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from threading import Lock
from typing import Protocol

from pol.errors import CannotRun
from pol.replay import OnSegment, ReplayedSegment, ReplayedSpan, Span, WorkerLost

ATTEMPTS = 3
"""How many workers one span may lose: one that kills every worker it meets must not go on for ever."""


class NoRoom(CannotRun):
    """There was no place for this worker; those that have one may do its work."""


class Seat(Protocol):
    """A worker that replays spans, one after another; raises :class:`WorkerLost` when it is gone."""

    def replay(self, span: Span, on_segment: OnSegment) -> ReplayedSpan:
        """As :meth:`pol.replay.ReplayProcess.replay`."""
        ...

    def close(self) -> None:
        """End it, from any thread, more than once."""
        ...


def run(
    spans: Sequence[Span], openers: Sequence[Callable[[], Seat]], on_segment: OnSegment | None = None
) -> list[ReplayedSpan]:
    """Replay ``spans`` on the seats that ``openers`` open, and return the results in the order of ``spans``.

    The first error ends all seats and is raised.
    """
    return _Schedule(spans, on_segment).run(openers)


class _Schedule:
    def __init__(self, spans: Sequence[Span], on_segment: OnSegment | None) -> None:
        self._spans = spans
        self._on_segment = on_segment
        self._waiting = deque(range(len(spans)))
        self._results: dict[int, ReplayedSpan] = {}
        self._attempts = [0] * len(spans)
        self._heard = [span.first - 1 for span in spans]
        self._seats: set[Seat] = set()
        self._no_room: NoRoom | None = None
        self._stopped = False
        self._lock = Lock()

    def run(self, openers: Sequence[Callable[[], Seat]]) -> list[ReplayedSpan]:
        done = -1
        while done < len(self._results) < len(self._spans):
            done = len(self._results)
            self._round(openers[: len(self._waiting)])
        if self._no_room and len(self._results) < len(self._spans):
            raise self._no_room
        return [self._results[number] for number in range(len(self._spans))]

    def _round(self, openers: Sequence[Callable[[], Seat]]) -> None:
        """Work until nothing waits; what found no room may be left, if the other seats had ended by then."""
        with ThreadPoolExecutor(max_workers=len(openers)) as threads:
            works = [threads.submit(self._work, opener) for opener in openers]
            try:
                for work in as_completed(works):
                    work.result()
            except BaseException:
                self._stop()
                raise

    def _work(self, opener: Callable[[], Seat]) -> None:
        """One seat's life: take spans until there are none, and a new worker for a lost one."""
        seat: Seat | None = None
        try:
            while (number := self._take()) is not None:
                try:
                    seat = seat or self._open(opener)
                    self._results[number] = seat.replay(self._spans[number], partial(self._hear, number))
                except NoRoom as error:
                    self._no_room = error
                    self._put_back(number)
                    return
                except WorkerLost as error:
                    self._close(seat)
                    seat = None
                    self._lost(number, error)
        finally:
            self._close(seat)

    def _take(self) -> int | None:
        with self._lock:
            return self._waiting.popleft() if self._waiting and not self._stopped else None

    def _lost(self, number: int, error: WorkerLost) -> None:
        self._attempts[number] += 1
        if self._attempts[number] >= ATTEMPTS:
            span = self._spans[number]
            raise CannotRun(f"segments {span.first} to {span.last} lost {ATTEMPTS} workers, the last one so: {error}")
        self._put_back(number)

    def _put_back(self, number: int) -> None:
        with self._lock:
            self._waiting.append(number)

    def _hear(self, number: int, segment: ReplayedSegment) -> None:
        """Pass a segment on, once: another worker may have come as far before it was lost."""
        with self._lock:
            if segment.index > self._heard[number]:
                self._heard[number] = segment.index
                if self._on_segment:
                    self._on_segment(segment)

    def _open(self, opener: Callable[[], Seat]) -> Seat:
        seat = opener()
        with self._lock:
            self._seats.add(seat)
            stopped = self._stopped
        if stopped:
            self._close(seat)
            raise WorkerLost("the replay was stopped")
        return seat

    def _close(self, seat: Seat | None) -> None:
        if seat is not None:
            with self._lock:
                self._seats.discard(seat)
            seat.close()

    def _stop(self) -> None:
        """End all seats, so that the threads that wait for them end."""
        with self._lock:
            self._stopped = True
            seats = list(self._seats)
        for seat in seats:
            seat.close()
