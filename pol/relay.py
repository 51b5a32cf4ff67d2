"""Copies of a training state, hashed by one thread while another is still making them."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

SPARE_BYTES = 8 * 1024**2
"""How much less than a whole state the copies hold together: what else a recording needs is less than this."""
HANDED_BYTES = 1024**2
"""Small tensors are handed over together: waking the other thread costs more than hashing them."""

Key = tuple[torch.dtype, torch.Size]


class Relay:
    """Takes one state after another from the thread that trains to the thread that hashes, tensor by tensor.

    The memory of a copy that was read is used for the next one of its dtype and shape. All copies together hold
    ``spare`` bytes less than the state (the largest tensor's bytes at least): where that is used up, :meth:`send`
    waits for the reader. Both sides are told when the other one gives up.
    """

    def __init__(self, spare: int = SPARE_BYTES) -> None:
        self._spare = spare
        self._changed = threading.Condition()
        self._ready: deque[tuple[str, torch.Tensor]] = deque()
        self._unread: Counter[Key] = Counter()
        self._free: dict[Key, list[torch.Tensor]] = {}
        self._held = 0
        self._limit = 0
        self._left = 0
        self._broken = False

    @property
    def held(self) -> int:
        """The bytes of all copies, those that wait for their next use included."""
        return self._held

    def open(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Announce the next state; its reader may begin."""
        sizes = [value.nbytes for value in tensors.values()]
        self._limit = max(*sizes, sum(sizes) - self._spare)
        self._left, self._broken = len(tensors), False
        while self._held > self._limit and self._drop_one():
            pass

    def send(self, tensors: Mapping[str, torch.Tensor], order: list[str]) -> None:
        """Copy the announced ``tensors`` in this order; returns when nobody needs them any more.

        Every one was copied then, or the reader has failed, which is for its own caller to see.
        """
        batch: list[tuple[str, torch.Tensor]] = []
        try:
            for name in order:
                copy = self._room_for(tensors[name], batch)
                if copy is None:
                    return
                batch.append((name, copy.copy_(tensors[name].detach())))
                if sum(copy.nbytes for _, copy in batch) >= HANDED_BYTES:
                    self._hand_over(batch)
            self._hand_over(batch)
        except BaseException:
            self._break()
            raise

    @contextmanager
    def reading(self) -> Iterator[Iterator[tuple[str, torch.Tensor]]]:
        """The copies of the announced state by name, in the order in which they are sent.

        Each is the reader's until it asks for the next one. Asking raises :class:`RuntimeError` if the sender failed.
        """
        try:
            yield self._copies()
        finally:
            if self._left:
                self._break()

    def _copies(self) -> Iterator[tuple[str, torch.Tensor]]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._broken or not self._left)
                if self._broken:  # asked first: who gives up leaves nothing to wait for, either
                    raise RuntimeError("the state was not copied to its end")
                if not self._left:
                    return
                name, copy = self._ready.popleft()
            yield name, copy
            self._take_back(copy)

    def _break(self) -> None:
        """Let go of everything: the other side is not to wait for this one."""
        with self._changed:
            self._broken, self._left, self._held = True, 0, 0
            self._ready.clear()
            self._unread.clear()
            self._free.clear()
            self._changed.notify_all()

    def _take_back(self, copy: torch.Tensor) -> None:
        with self._changed:
            key = (copy.dtype, copy.shape)
            self._unread[key] -= 1
            self._free.setdefault(key, []).append(copy)
            self._left -= 1
            self._changed.notify_all()

    def _hand_over(self, batch: list[tuple[str, torch.Tensor]]) -> None:
        with self._changed:
            self._ready.extend(batch)
            self._changed.notify_all()
        batch.clear()

    def _room_for(self, like: torch.Tensor, batch: list[tuple[str, torch.Tensor]]) -> torch.Tensor | None:
        """Memory for a copy, once there is some; none if the reader has given up. Before waiting, it gets ``batch``."""
        key = (like.dtype, like.shape)
        with self._changed:
            while not self._broken:
                if self._free.get(key):
                    self._unread[key] += 1
                    return self._free[key].pop()
                if self._held == 0 or self._held + like.nbytes <= self._limit:
                    self._held += like.nbytes
                    self._unread[key] += 1
                    return torch.empty(like.shape, dtype=like.dtype)
                if batch:
                    self._hand_over(batch)
                elif self._unread[key] or not self._drop_one():
                    self._changed.wait()
        return None

    def _drop_one(self) -> bool:
        """Give up memory that no tensor of this shape is going to use soon."""
        for kept in self._free.values():
            if kept:
                self._held -= kept.pop().nbytes
                return True
        return False
