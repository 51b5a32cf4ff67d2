"""The whole training state as named tensors with one canonical digest.

Everything a step reads or writes is in it: parameters, buffers, optimizer state and hyper-parameters, scheduler,
generators and the step itself. The names are ``model/<name>``, ``optimizer/<parameter>/<slot>``, ``rng/<generator>``
and ``scalars`` (canonical JSON as bytes: hyper-parameters, schedule and step).
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn

from pol.encoding import Json, canonical_json, float_text
from pol.errors import ProofError, SpecError
from pol.machine import seed_everything
from pol.tensors import check_values, little_endian_bytes

Tensors = dict[str, torch.Tensor]


class Scheduler(Protocol):
    """What is used of a torch learning-rate scheduler."""

    def step(self) -> None:
        """Advance the schedule by one step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The schedule's own numbers."""
        ...


@dataclass(eq=False)
class TrainingState:
    """Everything needed to continue a run bit for bit; ``step`` counts optimiser steps already taken."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler | None = None
    step: int = 0

    def key_generators(self, seed: bytes) -> None:
        """Key every random generator by (seed, this step); both recorder and replay do it before each step."""
        seed_everything(seed, self.step)

    def capture(self, seed: bytes) -> Tensors:
        """A copy of the state at a step boundary, on the CPU, as named tensors.

        The generators are keyed for the coming step first: whatever was drawn since the last step (an evaluation,
        say) leaves no trace.
        """
        self.key_generators(seed)
        tensors = {f"model/{name}": _copy(value) for name, value in self.model.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            for slot, value in slots.items():
                tensors[f"optimizer/{index}/{slot}"] = _copy(torch.as_tensor(value))
        tensors |= _generators()
        tensors["scalars"] = torch.frombuffer(bytearray(canonical_json(self.scalars())), dtype=torch.uint8)
        return tensors

    def scalars(self) -> Json:
        """Hyper-parameters, schedule and step as canonical JSON: what the program decides, never the prover."""
        groups = self.optimizer.state_dict()["param_groups"]
        schedule = self.scheduler.state_dict() if self.scheduler else {}
        return {
            "step": self.step,
            "optimizer": type(self.optimizer).__name__,
            "param_groups": _plain(groups),
            "scheduler": type(self.scheduler).__name__ if self.scheduler else None,
            # torch keeps notes of its own there, which change from version to version and decide nothing
            "schedule": _plain({name: value for name, value in schedule.items() if not name.startswith("_")}),
        }

    def restore(
        self, tensors: Mapping[str, torch.Tensor], *, layout: Mapping[str, torch.Tensor], seed: bytes, step: int
    ) -> None:
        """Continue from ``tensors``, captured after ``step`` >= 1 steps, in a freshly built state.

        ``layout`` is a state that the program itself captured after a step: ``tensors`` must have its names, dtypes
        and shapes (``scalars`` may differ in length).

        Only learned numbers are taken from ``tensors``. Hyper-parameters, the schedule and the generators are
        worked out from the program and the seed, and ``tensors`` must agree with them: a prover cannot smuggle a
        learning rate in. Raises :class:`ProofError` naming the first thing that disagrees.
        """
        where = f"state after step {step}"
        check_values(tensors, where=where)
        _check_layout(layout, tensors, where=where)
        self.model.load_state_dict({name: value.clone() for name, value in model_tensors(tensors).items()})
        self._restore_optimizer(tensors)
        self.advance_schedule(step)
        mine = self.capture(seed)
        for name, value in mine.items():
            if little_endian_bytes(value) != little_endian_bytes(tensors[name]):
                raise ProofError(f"{where}: {name} is not what the program and the seed give")

    def advance_schedule(self, step: int) -> None:
        """Bring a freshly built state's schedule to ``step``: schedules depend on the step alone, never on the data."""
        with warnings.catch_warnings():
            # torch warns that the schedule moves without the optimizer; that is the point here
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            for _ in range(step):
                if self.scheduler:
                    self.scheduler.step()
        self.step = step

    def _restore_optimizer(self, tensors: Mapping[str, torch.Tensor]) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, index, slot = name.split("/", 2)
                self.optimizer.state[parameters[int(index)]][slot] = value.clone()


def model_tensors(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The model's part of a captured state, under the model's own names."""
    return {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}


def to_safetensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A safetensors blob of ``tensors``; equal tensors give equal bytes."""
    return save({name: tensors[name].contiguous() for name in sorted(tensors)})


def from_safetensors(data: bytes, *, where: str) -> Tensors:
    """Inverse of :func:`to_safetensors`; :class:`ProofError` on anything that is not one."""
    try:
        return dict(load(data))
    except Exception as error:  # safetensors raises its own type, which it does not export for typing
        raise ProofError(f"{where}: not a safetensors blob ({error})") from error


def _copy(value: torch.Tensor) -> torch.Tensor:
    return value.detach().to("cpu", copy=True).contiguous()


def _generators() -> Tensors:
    version, words, _ = random.getstate()
    kind, keys, position, *_ = cast(Any, np.random.get_state(legacy=True))
    assert version == 3 and kind == "MT19937"
    return {
        "rng/python": torch.tensor(words, dtype=torch.int64),
        "rng/numpy": torch.tensor([*keys.tolist(), position], dtype=torch.int64),
        "rng/torch": torch.get_rng_state(),
    }


def _plain(value: Any) -> Json:
    """Optimizer and scheduler numbers as canonical JSON: floats as ``float.hex()`` in an object of their own."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"float": float_text(value)}
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return _plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise SpecError(f"a {type(value).__name__} among the hyper-parameters cannot be bound: use numbers and strings")


def _check_layout(layout: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor], *, where: str) -> None:
    if set(layout) != set(found):
        raise ProofError(f"{where}: other tensors than the program's: {sorted(set(layout) ^ set(found))[:3]}")
    for name, value in layout.items():
        if value.dtype != found[name].dtype or (name != "scalars" and value.shape != found[name].shape):
            raise ProofError(f"{where}: {name} has another dtype or shape than the program's")
