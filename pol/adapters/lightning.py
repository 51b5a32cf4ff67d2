"""Lightning: a data module that hands out the committed batches, and a callback that marks the steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from pol.data import Batch, Samples
from pol.errors import CannotRun, SpecError
from pol.recorder import Recorder

try:
    from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
except ImportError as error:
    raise CannotRun("recording a Lightning trainer needs the extra 'lightning'") from error


class RecordedData(LightningDataModule):
    """The recorder's batches: ``trainer.fit(module, datamodule=RecordedData(recorder, samples))``.

    ``model`` is what the program builds, where the module only holds it (None: the module itself). The recorder
    attaches when the loader is asked for: optimizer and schedule (stepped every step) exist by then.
    """

    def __init__(
        self, recorder: Recorder, samples: Samples, *, model: nn.Module | None = None, workers: int = 0
    ) -> None:
        super().__init__()
        self._recorder, self._samples, self._model, self._workers = recorder, samples, model, workers

    def train_dataloader(self) -> DataLoader[Batch]:
        """The loader of the steps that are left."""
        trainer = self.trainer
        assert isinstance(trainer, Trainer)
        if len(trainer.optimizers) != 1 or len(trainer.lr_scheduler_configs) > 1:
            raise SpecError("a recorded Lightning module has one optimizer and at most one schedule")
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        self._recorder.attach(
            model=self._model or trainer.lightning_module,
            optimizer=trainer.optimizers[0],
            scheduler=schedules[0] if schedules else None,
        )
        parts = trainer.accumulate_grad_batches
        return self._recorder.loader(self._samples, workers=self._workers, parts=parts)


class RecordedSteps(Callback):
    """Tells the recorder where steps begin and end: ``Trainer(callbacks=[RecordedSteps(recorder)])``."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Key the generators before the first part of a step."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._recorder.begin_step()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Mark the step after its last part."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._recorder.step(outputs["loss"] if isinstance(outputs, dict) else torch.as_tensor(outputs))
            trainer.should_stop |= self._recorder.ended
