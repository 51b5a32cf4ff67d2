"""Hugging Face ``Trainer``: it owns the loop, and gets the committed batches from the recorder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pol.data import Batch, Samples
from pol.errors import CannotRun, SpecError
from pol.recorder import Recorder

try:
    from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise CannotRun("recording a transformers.Trainer needs the extra 'hf': pip install 'aiarena[hf]'") from error


def attach(
    recorder: Recorder,
    trainer: Trainer,
    samples: Samples,
    *,
    inputs: Callable[[Batch], dict[str, torch.Tensor]] | None = None,
    workers: int = 0,
) -> None:
    """Make ``trainer`` train on the recorder's batches and tell it every step; then call ``trainer.train()``.

    The trainer needs its optimizer and schedule from the start (``optimizers=...``), built as the program builds them,
    and ``max_steps`` of the spec. ``inputs`` turns a batch into the model's arguments; without it they are named as
    the samples' fields. With gradient accumulation a batch comes in so many parts. A resumed recording trains the
    steps that are left.
    """
    if trainer.model is None or trainer.optimizer is None or trainer.lr_scheduler is None:
        raise SpecError("give the Trainer a model, an optimizer and a schedule: optimizers=(optimizer, scheduler)")
    recorder.attach(model=trainer.model, optimizer=trainer.optimizer, scheduler=trainer.lr_scheduler)
    trainer.args.max_steps = recorder.spec.steps - recorder.state.step
    parts = trainer.args.gradient_accumulation_steps
    named = inputs or (lambda batch: dict(zip(samples.fields, batch, strict=True)))
    loader = recorder.loader(samples, workers=workers, parts=parts, convert=named)
    trainer.get_train_dataloader = lambda: loader  # type: ignore[method-assign]
    trainer.add_callback(_Steps(recorder))


class _Steps(TrainerCallback):
    """Tells the recorder where steps begin and end."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._recorder.begin_step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._recorder.step()
        control.should_training_stop |= self._recorder.ended
