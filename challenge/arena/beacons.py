"""Beacons: a block that was promised is waited for, and its hash stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import typer

from chain.errors import ContractReverted
from chain.types import Beacon

WaitOption = Annotated[int, typer.Option(min=0, help="Seconds to wait for the block of a beacon.")]
PAUSE_S = 1.0


def latched(read: Callable[[], Beacon], latch: Callable[[], object], wait_s: float) -> Beacon | None:
    """The beacon that ``read`` returns, once it is latched: by ``latch`` if nobody else does.

    ``None`` if its block, and the one after, do not come within ``wait_s``. Raises
    :class:`chain.errors.ContractReverted` for any other refusal, one that the beacon expired included.
    """
    deadline = time.monotonic() + wait_s
    while not read().latched:
        try:
            latch()
        except ContractReverted as error:
            if error.name != "BeaconNotReady" and not read().latched:
                raise
            if time.monotonic() >= deadline:
                return None
            time.sleep(PAUSE_S)
    return read()
