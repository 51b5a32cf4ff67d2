"""What is trained: a built-in program of config.toml, its samples, and their order."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.baselines.scheme import Part
from experiments.exact.shakespeare import shakespeare
from experiments.stolen_model.data import SOURCES
from pol.data import Batch, Samples
from pol.order import DataOrder
from pol.program import Program, config_from, load_program, program_digest
from pol.state import TrainingState, from_safetensors, model_tensors, to_safetensors
from pol.tensors import tensors_digest

CONFIG: dict[str, Any] = tomllib.loads((Path(__file__).parent / "config.toml").read_text())


class Workload:
    """A program with its samples, on one device, in a run keyed by ``seed`` (32 bytes).

    Raises :class:`pol.errors.CannotRun` where the samples, or on :meth:`build` the base model, are not at hand.
    """

    def __init__(self, name: str, device: str, seed: bytes) -> None:
        self.device, self.seed, self.work = device, seed, CONFIG["workloads"][name]
        self.program: Program = load_program(self.work["program"], program_digest(self.work["program"]))
        self.config = config_from(self.work["config"])
        self.samples = _samples(self.work["samples"])
        self.order = DataOrder(seed, self.work["samples"]["count"], self.work["batch_size"])

    def build(self) -> TrainingState:
        """The initial state."""
        return self.program.build(self.config, self.seed).to(self.device)

    def step(self, state: TrainingState, *, strided: bool = False) -> float:
        """One step; its loss. ``strided`` lays the batch out by :func:`elsewhere`."""
        state.key_generators(self.seed)
        parts = tuple(part.to(self.device) for part in self.samples.columns(self.order.batch(state.step)))
        loss = float(self.program.train_step(state, tuple(map(elsewhere, parts)) if strided else parts))
        state.step += 1
        return loss

    def resumed(self, state: TrainingState) -> TrainingState:
        """A fresh state that continues from the bytes of ``state``."""
        tensors = from_safetensors(to_safetensors(state.capture(self.seed)), where="half-way")
        fresh = self.build()
        fresh.restore(tensors, layout=state.capture(self.seed), seed=self.seed, step=state.step)
        return fresh

    def digest(self, state: TrainingState) -> str:
        """Of what training learned: model and optimizer."""
        tensors = state.capture(self.seed)
        return tensors_digest({k: v for k, v in tensors.items() if k.startswith(("model/", "optimizer/"))}).hex()

    def score(self, state: TrainingState, held_out: int) -> float:
        """The program's score on the ``held_out`` samples after those that are trained on."""
        first = self.work["samples"]["count"]
        unseen: Any = Columns(tuple(part[first : first + held_out] for part in self.samples.parts), self.samples.fields)
        return self.program.evaluate(model_tensors(state.capture(self.seed)), self.config, unseen)


class Columns(Samples):
    """Samples in memory: one tensor (n, ...) a field."""

    def __init__(self, parts: Batch, fields: tuple[str, ...]) -> None:
        self.parts, self.fields = parts, fields

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.parts[0])

    def sample(self, index: int) -> tuple[torch.Tensor, ...]:
        """One tensor a field."""
        return tuple(part[index] for part in self.parts)

    def columns(self, indices: Sequence[int]) -> Batch:
        """The rows at ``indices``."""
        rows = torch.as_tensor(indices)
        return tuple(part[rows] for part in self.parts)


def elsewhere(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers with other strides: dimensions in reverse, every second element, from an odd address."""
    order = list(reversed(range(tensor.dim())))
    turned = tensor.permute(order)
    room = tensor.new_zeros(2 * tensor.numel() + 1)[1:]
    lying = room.view(*turned.shape, 2)[..., 0]
    return lying.copy_(turned).permute(order)


def _samples(settings: Mapping[str, Any]) -> Columns:
    part: Part = ({"shakespeare": shakespeare} | SOURCES)[settings["source"]](settings)
    if part.inputs.dtype is torch.int64:
        return Columns((torch.cat([part.inputs, part.targets[:, -1:]], 1),), ("tokens",))
    return Columns((part.inputs, part.targets), ("input", "label"))
