"""Proof of learning: promise a training run, record it, commit to it as it grows, replay any part of it.

The way through the package, in the order a run goes:

- :mod:`pol.spec` - :class:`TrainingSpec`, everything promised before the beacon is drawn
- :mod:`pol.program`, :mod:`pol.data`, :mod:`pol.order` - what is run, on what, in which order
- :mod:`pol.recorder` - :class:`Recorder`, attached to a training loop
- :mod:`pol.state`, :mod:`pol.transcript`, :mod:`pol.merkle` - what is committed
- :mod:`pol.proof`, :mod:`pol.store` - the folder that is left behind, read strictly
- :mod:`pol.sealing` - :func:`seal`, with the models that were submitted
- :mod:`pol.replay` - the same steps again in a fresh process
- :mod:`pol.portable` - :func:`exact`, in which those steps have the same bits on every device

Importing the package does not import torch; the names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pol.portable.mode import exact as exact
    from pol.program import Program as Program
    from pol.proof import Proof as Proof
    from pol.proof import SeedSource as SeedSource
    from pol.recorder import Recorder as Recorder
    from pol.sealing import recorded as recorded
    from pol.sealing import seal as seal
    from pol.spec import TrainingSpec as TrainingSpec
    from pol.submission import Submission as Submission

_HOMES = {
    "Program": "pol.program",
    "Proof": "pol.proof",
    "Recorder": "pol.recorder",
    "SeedSource": "pol.proof",
    "Submission": "pol.submission",
    "TrainingSpec": "pol.spec",
    "exact": "pol.portable.mode",
    "recorded": "pol.sealing",
    "seal": "pol.sealing",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - one table for both


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pol' has no attribute {name!r}")
