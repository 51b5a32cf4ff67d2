"""The recorder: it attaches to a training loop and leaves a proof, or says that there is none."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import nn

from pol.data import Batch, Dataset, batch_root
from pol.errors import RecordingError
from pol.machine import MachineClass, hidden_switches, make_deterministic, this_machine
from pol.order import DataOrder
from pol.program import load_program
from pol.proof import Proof, SeedSource, StoredState, states_of
from pol.spec import TrainingSpec
from pol.state import Scheduler, Tensors, TrainingState, to_safetensors
from pol.tensors import little_endian_bytes, tensors_digest
from pol.transcript import Anchor, Segment, segment_tree


class Anchorer(Protocol):
    """Publishes roots where their time can be proven; ``chain.anchoring`` implements it on the Arena."""

    def anchor(self, first: int, count: int, root: bytes) -> Anchor:
        """Promise segments [first, first + count) by their ``root``; returns the receipt."""
        ...


class NoChain:
    """Anchors for a run without a chain: the roots are kept, their time is unproven."""

    def anchor(self, first: int, count: int, root: bytes) -> Anchor:
        """The anchor with block 0 and a zero transaction."""
        return Anchor(first=first, count=count, root=root, block=0, tx=bytes(32))


class Recorder:
    """Records one run of ``spec`` into the new folder ``out``.

    ``seed_source`` is the beacon latched after registration (without a chain: a seed of the trainer's choice, drawn
    at random if left out). Segments are anchored ``anchor_every`` at a time, as training goes on; about sqrt(n) of n
    boundary states are kept, the others are digests only.

    Used as a context manager. Leaving it writes the proof if every promised step was recorded; otherwise it raises
    :class:`RecordingError` and leaves no manifest, so that a broken recording never looks like a proof.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        out: Path | str,
        *,
        seed_source: SeedSource | None = None,
        anchorer: Anchorer | None = None,
        anchor_every: int | None = None,
    ) -> None:
        if anchorer is not None and spec.task is None:
            raise RecordingError("an anchorer needs a spec that names the task whose anchors these are")
        self.spec = spec
        self.out = Path(out)
        self.seed_source = seed_source or SeedSource(kind="chosen", value=secrets.token_bytes(32))
        self.seed = self.seed_source.seed(spec)
        self.program = load_program(spec.program, spec.program_digest, trusted=frozenset({spec.program_digest}))
        self.order = DataOrder(self.seed, spec.dataset_size, spec.batch_size)
        self._anchorer = anchorer or NoChain()
        self._anchor_every = anchor_every or math.ceil(spec.segments / 8)
        self._keep_every = math.ceil(math.sqrt(spec.segments))
        self._segments: list[Segment] = []
        self._anchors: list[Anchor] = []
        self._states: list[StoredState] = []
        self._start_digest = b""
        self._optimizer_steps = 0
        self._state: TrainingState | None = None
        self._dataset: Dataset | None = None

    def __enter__(self) -> Recorder:
        promised = MachineClass.from_json(self.spec.machine, where="spec.machine")
        make_deterministic(promised.threads)
        differences = this_machine(threads=promised.threads).differences(promised)
        if differences:
            raise RecordingError(f"this machine is not the spec's (here / spec): {'; '.join(differences)}")
        if hidden_switches():
            raise RecordingError(
                f"{', '.join(hidden_switches())} would change the bits of this run: unset it, record again"
            )
        if self.out.exists() and any(self.out.iterdir()):
            raise RecordingError(f"{self.out} is not empty; record into a new folder")
        self.out.mkdir(parents=True, exist_ok=True)
        return self

    def attach(self, *, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Scheduler | None = None) -> None:
        """Watch the trainer's own objects; they keep their types and names.

        Raises :class:`RecordingError` unless they are bit for bit what the program builds from config and seed.
        """
        self._state = TrainingState(model=model, optimizer=optimizer, scheduler=scheduler)
        mine, promised = self._state.capture(self.seed), self._built().capture(self.seed)
        names = sorted(set(mine) | set(promised))
        different = [name for name in names if not _equal(mine.get(name), promised.get(name))]
        if different:
            raise RecordingError(f"attach: {different[0]} is not what {self.spec.program} builds from config and seed")
        self._start_digest = tensors_digest(mine)
        optimizer.register_step_post_hook(self._count_step)

    def batches(self, dataset: Dataset) -> Iterator[Batch]:
        """The batches of the committed order, one a step: (inputs, labels) of ``batch_size`` samples.

        Raises :class:`RecordingError` for another data set than the committed one, or if the loop body did not
        call :meth:`step` exactly once.
        """
        if dataset.root != self.spec.dataset_root or len(dataset) != self.spec.dataset_size:
            raise RecordingError(f"batches: this data set is not the committed one ({self.spec.dataset})")
        state = self._attached()
        self._dataset = dataset
        for step in range(self.spec.steps):
            if state.step != step:
                raise RecordingError(f"step {step}: the loop body called recorder.step() {state.step - step + 1} times")
            state.key_generators(self.seed)
            yield dataset.batch(self.order.batch(step))

    def step(self, loss: torch.Tensor) -> None:
        """Mark the end of one optimiser step; ``loss`` is a scalar and must be finite."""
        state = self._attached()
        if not math.isfinite(float(loss)):
            raise RecordingError(f"step {state.step}: the loss is {float(loss)}; a proof of such a run is worthless")
        if self._optimizer_steps != state.step + 1:
            raise RecordingError(f"step {state.step}: the optimizer has stepped {self._optimizer_steps} times in all")
        state.step += 1
        if state.step == 1:
            self._compare_first_step(state)
        if state.step % self.spec.segment_length == 0 or state.step == self.spec.steps:
            self._close_segment(state.capture(self.seed))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        done = self._attached().step
        if done != self.spec.steps:
            raise RecordingError(f"training stopped after {done} of {self.spec.steps} steps: no proof was written")
        self.proof.write(self.out)

    @property
    def proof(self) -> Proof:
        """The proof as recorded so far."""
        return Proof(
            spec=self.spec,
            seed_source=self.seed_source,
            segments=tuple(self._segments),
            anchors=tuple(self._anchors),
            states=tuple(self._states),
        )

    def _attached(self) -> TrainingState:
        if self._state is None:
            raise RecordingError("call recorder.attach(model=..., optimizer=...) first")
        return self._state

    def _built(self) -> TrainingState:
        return self.program.build(self.spec.config, self.seed)

    def _count_step(self, *_: Any) -> None:
        self._optimizer_steps += 1

    def _compare_first_step(self, state: TrainingState) -> None:
        """The loop must do what the program does: replay would reject everything else later, at the worst time."""
        assert self._dataset is not None
        twin = self._built()
        twin.key_generators(self.seed)
        self.program.train_step(twin, self._dataset.batch(self.order.batch(0)))
        twin.step = 1
        if tensors_digest(twin.capture(self.seed)) != tensors_digest(state.capture(self.seed)):
            raise RecordingError(
                f"step 0: the loop computed something else than {self.spec.program}.train_step; "
                "call it in the loop, or train with a program that does what the loop does"
            )

    def _close_segment(self, tensors: Tensors) -> None:
        assert self._dataset is not None
        index = len(self._segments)
        start, end = self.spec.bounds(index)
        end_digest = tensors_digest(tensors)
        indices = [self.order.batch(step) for step in range(start, end)]
        self._segments.append(
            Segment(
                index=index,
                start_step=start,
                end_step=end,
                start_digest=self._start_digest,
                end_digest=end_digest,
                batch_root=batch_root(self._dataset, indices, start),
            )
        )
        self._start_digest = end_digest
        last = end == self.spec.steps
        if last or (index + 1) % self._keep_every == 0:
            self._states.append(StoredState(step=end, cid=states_of(self.out).put(to_safetensors(tensors))))
        if last or (index + 1) % self._anchor_every == 0:
            first = sum(anchor.count for anchor in self._anchors)
            part = self._segments[first:]
            self._anchors.append(self._anchorer.anchor(first, len(part), segment_tree(part).root))


def _equal(mine: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if mine is None or other is None or (mine.dtype, mine.shape) != (other.dtype, other.shape):
        return False
    return little_endian_bytes(mine) == little_endian_bytes(other)
