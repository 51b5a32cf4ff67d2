"""One run through every loop: raw, Accelerate, Hugging Face Trainer, Lightning. The proofs are equal in every byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from challenge.segments import Policy
from challenge.verdict import ExitCode
from challenge.verify import verify
from pol import Recorder, SeedSource, TrainingSpec
from pol.data import Dataset
from pol.proof import MANIFEST, TRANSCRIPT
from tests.runs import SEED, small_spec

STEPS, LENGTH = 12, 4
Loop = Callable[[Recorder, Dataset, int], None]


def objects(recorder: Recorder) -> tuple[nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The user's own model, optimizer and schedule, built as the program builds them."""
    state = recorder.program.build(recorder.spec.config, recorder.seed)
    return state.model, state.optimizer, state.scheduler


def raw(recorder: Recorder, data: Dataset, until: int) -> None:
    model, optimizer, scheduler = objects(recorder)
    recorder.attach(model=model, optimizer=optimizer, scheduler=scheduler)
    for inputs, labels in recorder.batches(data):
        model.train()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        recorder.step(loss.detach())
        if recorder.state.step == until:
            return


def accelerated(recorder: Recorder, data: Dataset, until: int) -> None:
    accelerate = pytest.importorskip("accelerate")
    from pol.adapters.accelerate import attach

    accelerator = accelerate.Accelerator(cpu=True)
    model, optimizer, scheduler = accelerator.prepare(*objects(recorder))
    attach(recorder, model=model, optimizer=optimizer, scheduler=scheduler)
    for inputs, labels in recorder.batches(data):
        model.train()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        accelerator.backward(loss)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        recorder.step(loss.detach())
        if recorder.state.step == until:
            return


class WithLoss(nn.Module):
    """The program's model behind the signature that Trainer wants; it shares the parameters, and their names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.__dict__["model"] = model
        self._modules, self._parameters, self._buffers = model._modules, model._parameters, model._buffers

    def forward(self, input: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: A002 - the field's name
        return {"loss": nn.functional.cross_entropy(self.__dict__["model"](input), label)}

    def train(self, mode: bool = True) -> WithLoss:
        self.__dict__["model"].train(mode)
        return super().train(mode)


def hugging_face(recorder: Recorder, data: Dataset, until: int) -> None:
    transformers = pytest.importorskip("transformers")
    from pol.adapters.transformers import attach

    model, optimizer, scheduler = objects(recorder)
    arguments = transformers.TrainingArguments(
        output_dir=str(recorder.out.parent / "hf"), max_steps=recorder.spec.steps, max_grad_norm=0.0, use_cpu=True,
        per_device_train_batch_size=recorder.spec.batch_size, report_to=[], save_strategy="no", logging_strategy="no",
        disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    trainer = transformers.Trainer(model=WithLoss(model), args=arguments, optimizers=(optimizer, scheduler))
    attach(recorder, trainer, data)
    trainer.args.max_steps = min(trainer.args.max_steps, until - recorder.state.step)
    trainer.train()


def with_lightning(recorder: Recorder, data: Dataset, until: int) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    from pol.adapters.lightning import RecordedData, RecordedSteps

    model, optimizer, scheduler = objects(recorder)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: tuple[torch.Tensor, ...], _: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> dict[str, object]:
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    trainer = lightning.Trainer(
        max_steps=until, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[RecordedSteps(recorder)],
    )  # fmt: skip
    trainer.fit(Module(), datamodule=RecordedData(recorder, data, model=model))


LOOPS: list[Loop] = [accelerated, hugging_face, with_lightning]


def record(spec: TrainingSpec, data: Dataset, folder: Path, loop: Loop) -> Path:
    with Recorder(spec, folder, seed_source=SeedSource(kind="chosen", value=SEED)) as recorder:
        loop(recorder, data, spec.steps)
    return folder


@pytest.fixture(scope="module")
def spec(train_set: Dataset) -> TrainingSpec:
    return small_spec(train_set, steps=STEPS, segment_length=LENGTH)


@pytest.fixture(scope="module")
def by_hand(spec: TrainingSpec, train_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(spec, train_set, tmp_path_factory.mktemp("raw") / "proof", raw)


def same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in (MANIFEST, TRANSCRIPT))


def test_the_raw_loop_verifies(by_hand: Path) -> None:
    assert verify(by_hand, Policy(segments=None)).exit_code is ExitCode.VERIFIED


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_every_loop_leaves_the_same_proof(
    loop: Loop, spec: TrainingSpec, by_hand: Path, train_set: Dataset, tmp_path: Path
) -> None:
    assert same(record(spec, train_set, tmp_path / "proof", loop), by_hand)


@pytest.mark.parametrize("loop", [raw, *LOOPS], ids=lambda loop: loop.__name__)
def test_every_loop_resumes_to_the_same_proof(
    loop: Loop, spec: TrainingSpec, by_hand: Path, train_set: Dataset, tmp_path: Path
) -> None:
    class Interrupted(Exception):
        pass

    source = SeedSource(kind="chosen", value=SEED)
    with pytest.raises(Interrupted), Recorder(spec, tmp_path / "proof", seed_source=source) as recorder:
        loop(recorder, train_set, 10)
        raise Interrupted
    assert same(record(spec, train_set, tmp_path / "proof", loop), by_hand)


@pytest.mark.parametrize("loop", [raw, *LOOPS], ids=lambda loop: loop.__name__)
def test_every_loop_stops_early_and_says_so(loop: Loop, spec: TrainingSpec, train_set: Dataset, tmp_path: Path) -> None:
    from pol import Proof

    with Recorder(spec, tmp_path / "proof", seed_source=SeedSource(kind="chosen", value=SEED)) as recorder:
        recorder.stop()
        loop(recorder, train_set, spec.steps)
    stopped = Proof.read(tmp_path / "proof").stopped
    assert stopped is not None and stopped.segments == 1


@pytest.mark.parametrize("loop", [raw, *LOOPS], ids=lambda loop: loop.__name__)
def test_every_loop_is_told_when_it_computes_something_else(
    loop: Loop, spec: TrainingSpec, train_set: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pol.errors import RecordingError

    honest = nn.functional.cross_entropy
    recorder = Recorder(spec, tmp_path / "proof", seed_source=SeedSource(kind="chosen", value=SEED))
    loops_own = iter([True] + [False] * 100)  # the first loss is the loop's, the next the program's

    def other(*args: torch.Tensor) -> torch.Tensor:
        return honest(*args) * (1.5 if next(loops_own) else 1.0)

    monkeypatch.setattr(nn.functional, "cross_entropy", other)
    with pytest.raises(RecordingError, match="computed something else"), recorder:
        loop(recorder, train_set, spec.steps)
