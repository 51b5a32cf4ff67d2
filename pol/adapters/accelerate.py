"""Hugging Face Accelerate: the loop stays yours, so only the prepared objects need unwrapping."""

from __future__ import annotations

from typing import Any

from pol.recorder import Recorder


def attach(recorder: Recorder, *, model: Any, optimizer: Any, scheduler: Any = None) -> None:
    """:meth:`Recorder.attach` for what ``accelerator.prepare`` returned.

    Take batches from ``recorder.batches(samples)``, unprepared, and call ``recorder.step(loss)`` after each step.
    """
    while hasattr(model, "module"):  # DistributedDataParallel and its kin
        model = model.module
    recorder.attach(
        model=model,
        optimizer=getattr(optimizer, "optimizer", optimizer),
        scheduler=getattr(scheduler, "scheduler", scheduler),
        scaler=getattr(optimizer, "scaler", None),
    )
