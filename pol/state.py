"""The whole training state as named tensors with one canonical digest.

Everything a step reads or writes is in it. The names are

- ``model/<name>``: parameters and buffers of the model's state dict; ``buffer/<name>``: buffers it leaves out;
- ``pinned``: the digest of those tensors of the model that the config pins and no step may change;
- ``optimizer/<parameter>/<slot>``, ``ema/<name>`` (and ``ema-buffer/<name>``), ``scaler/<number>``: what training
  adds, where there is one;
- ``rng/<generator>``: the generators, keyed for the coming step;
- ``scalars``: canonical JSON as bytes: hyper-parameters, schedule and step.
"""

from __future__ import annotations

import io
import json
import random
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from safetensors.torch import load
from torch import nn

from pol.encoding import Json, canonical_json, float_text
from pol.errors import ProofError, SpecError
from pol.machine import seed_everything
from pol.portable.mode import active
from pol.tensorfile import parse_rows
from pol.tensors import DTYPES, check_values, little_endian_bytes, same_bits, tensors_digest

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
    """Everything needed to continue a run bit for bit; ``step`` counts optimiser steps already taken.

    ``scaler`` scales the loss of mixed precision, ``ema`` is a module of averaged weights. ``pinned`` names tensors
    of the model that no step changes and that need no storing, because the config pins them by digest (the base
    model of an adapter): a state binds them by one digest.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler | None = None
    scaler: torch.amp.GradScaler | None = None
    ema: nn.Module | None = None
    pinned: frozenset[str] = frozenset()
    step: int = 0

    @property
    def device(self) -> torch.device:
        """Where the model's parameters are."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> TrainingState:
        """Move a freshly built state to ``device``, in place; returns itself."""
        self.model.to(device)
        if self.ema is not None:
            self.ema.to(device)
        return self

    def key_generators(self, seed: bytes) -> None:
        """Key every random generator by (seed, this step); both recorder and replay do it before each step."""
        seed_everything(seed, self.step)

    def capture(self, seed: bytes, reuse: Mapping[str, torch.Tensor] | None = None) -> Tensors:
        """A copy of the state at a step boundary, on the CPU, as named tensors.

        The memory of ``reuse``, an earlier capture that nobody needs any more, is written over where it fits. The
        generators are keyed for the coming step first: whatever was drawn since the last step (an evaluation,
        say) leaves no trace.
        """
        held = reuse or {}
        return {name: _copy(value, held.get(name)) for name, value in self.view(seed).items()}

    def view(self, seed: bytes) -> Tensors:
        """What :meth:`capture` copies: the tensors themselves, for a look before the next step changes them."""
        self.key_generators(seed)
        return self._live() | self._derived()

    def scalars(self) -> Json:
        """Hyper-parameters, schedule and step as canonical JSON: what the program decides, never the prover."""
        groups = self.optimizer.state_dict()["param_groups"]
        schedule = self.scheduler.state_dict() if self.scheduler else {}
        scalars: dict[str, Json] = {
            "step": self.step,
            "optimizer": type(self.optimizer).__name__,
            "param_groups": _plain(groups),
            "scheduler": type(self.scheduler).__name__ if self.scheduler else None,
            # torch keeps notes of its own there, which change from version to version and decide nothing
            "schedule": _plain({name: value for name, value in schedule.items() if not name.startswith("_")}),
        }
        if self.scaler is not None:
            scaling = self.scaler.state_dict()
            scalars["scaler"] = _plain({name: value for name, value in scaling.items() if name not in _SCALER_STATE})
        return scalars

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
        self._restore_modules(tensors)
        self._restore_optimizer(tensors)
        if self.scaler is not None and "scaler/scale" in tensors:
            learned = {key: tensors[f"scaler/{name}"].item() for key, name in _SCALER_STATE.items()}
            self.scaler.load_state_dict(self.scaler.state_dict() | learned)
        self.advance_schedule(step)
        for name, value in self.view(seed).items():
            if name not in tensors or not same_bits(value, tensors[name]):
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

    def _live(self) -> Tensors:
        """The tensors that training changes, by their names in a state; they are the live ones, not copies."""
        parameters = _tensors_only(self.model.state_dict(), "the model's state dict")
        live = {f"model/{name}": value for name, value in parameters.items() if name not in self.pinned}
        live |= {f"buffer/{name}": value for name, value in _unsaved_buffers(self.model, parameters).items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            found = {slot: value for slot, value in slots.items() if value is not None}
            where = f"{type(self.optimizer).__name__}'s state of parameter {index}"
            live |= {f"optimizer/{index}/{slot}": value for slot, value in _tensors_only(found, where).items()}
        if self.ema is not None:
            averaged = _tensors_only(self.ema.state_dict(), "the averaged model's state dict")
            live |= {f"ema/{name}": value for name, value in averaged.items()}
            live |= {f"ema-buffer/{name}": value for name, value in _unsaved_buffers(self.ema, averaged).items()}
        return live

    def _derived(self) -> Tensors:
        """The tensors that are made for a capture: generators, numbers, and the digest of what is pinned."""
        derived = _generators(self.device)
        derived["scalars"] = torch.frombuffer(bytearray(canonical_json(self.scalars())), dtype=torch.uint8)
        if self.scaler is not None and self.scaler.is_enabled():
            scaling = self.scaler.state_dict()
            derived["scaler/scale"] = torch.tensor(scaling["scale"], dtype=torch.float64)
            derived["scaler/growth_tracker"] = torch.tensor(scaling["_growth_tracker"], dtype=torch.int64)
        if self.pinned:
            base = {name: value for name, value in self.model.state_dict().items() if name in self.pinned}
            derived["pinned"] = torch.frombuffer(bytearray(tensors_digest(base)), dtype=torch.uint8)
        return derived

    def _restore_modules(self, tensors: Mapping[str, torch.Tensor]) -> None:
        pinned = {name: value for name, value in self.model.state_dict().items() if name in self.pinned}
        # Cloned: a module may keep what it is given, and then training would change the caller's tensors.
        learned = {name: value.clone() for name, value in model_tensors(tensors).items()}
        self.model.load_state_dict(learned | pinned)
        _copy_into(_unsaved_buffers(self.model, self.model.state_dict()), part(tensors, "buffer/"))
        if self.ema is not None:
            self.ema.load_state_dict({name: value.clone() for name, value in part(tensors, "ema/").items()})
            _copy_into(_unsaved_buffers(self.ema, self.ema.state_dict()), part(tensors, "ema-buffer/"))

    def _restore_optimizer(self, tensors: Mapping[str, torch.Tensor]) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for name, value in part(tensors, "optimizer/").items():
            index, slot = name.split("/", 1)
            parameter = parameters[int(index)]
            # Adam's step count stays on the CPU whatever the parameter's device, as torch keeps it
            device = parameter.device if value.dim() else torch.device("cpu")
            self.optimizer.state[parameter][slot] = value.to(device, copy=True)


# torch's names of what a gradient scaler learns, and ours
_SCALER_STATE = {"scale": "scale", "_growth_tracker": "growth_tracker"}


def _unsaved_buffers(module: nn.Module, saved: Mapping[str, Any]) -> Tensors:
    return {name: value for name, value in module.named_buffers() if name not in saved}


def _copy_into(buffers: Tensors, values: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in buffers.items():
            buffer.copy_(values[name])


def part(tensors: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    """The tensors whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def model_tensors(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The model's part of a captured state, under the model's own names."""
    return part(tensors, "model/")


_WRITTEN_ORDER = ("I64", "F64", "F32", "I32", "BF16", "F16", "I16", "I8", "U8", "BOOL")


def to_safetensors(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """A safetensors blob of ``tensors``; equal tensors give equal bytes."""
    return b"".join(safetensors_chunks(tensors))


def safetensors_chunks(tensors: Mapping[str, torch.Tensor]) -> Iterator[bytes | memoryview]:
    """The blob of :func:`to_safetensors` in pieces, so that a state can be written without a second copy of it.

    The library's own writer copies every tensor first. The bytes are the same (the tests compare them): tensors by
    dtype, the widest first, then by name; the header's length is a multiple of eight.
    """
    yield safetensors_header(tensors)
    yield from (little_endian_bytes(tensors[name]) for name in written_order(tensors))


def written_order(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The names in the order in which a blob holds the tensors' bytes."""
    return sorted(tensors, key=lambda name: (_WRITTEN_ORDER.index(DTYPES[tensors[name].dtype]), name))


def safetensors_header(tensors: Mapping[str, torch.Tensor]) -> bytes:
    """The first piece of the blob: everything but the tensors' bytes."""
    header, offset = {}, 0
    for name in written_order(tensors):
        size = tensors[name].numel() * tensors[name].element_size()
        header[name] = {
            "dtype": DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def from_safetensors(data: bytes, *, where: str) -> Tensors:
    """Inverse of :func:`to_safetensors`; :class:`ProofError` on anything that is not one."""
    parse_rows(io.BytesIO(data), len(data), where=where)
    try:
        return dict(load(data))
    except Exception as error:  # safetensors raises its own type, which it does not export for typing
        raise ProofError(f"{where}: not a safetensors blob ({error})") from error


def _copy(value: torch.Tensor, held: torch.Tensor | None) -> torch.Tensor:
    if held is not None and (held.dtype, held.shape) == (value.dtype, value.shape):
        return held.copy_(value.detach())
    return value.detach().to("cpu", copy=True).contiguous()


def _tensors_only(values: Mapping[str, Any], where: str) -> Tensors:
    for name, value in values.items():
        if not isinstance(value, torch.Tensor):
            raise SpecError(f"{where}: {name!r} is a {type(value).__name__}; only tensors can be bound and restored")
    return dict(values)


def _generators(device: torch.device) -> Tensors:
    version, words, _ = random.getstate()
    kind, keys, position, *_ = cast(Any, np.random.get_state(legacy=True))
    assert version == 3 and kind == "MT19937"
    found = {
        "rng/python": torch.from_numpy(np.array(words, dtype=np.int64)),
        "rng/numpy": torch.from_numpy(np.append(keys, position).astype(np.int64)),
        "rng/torch": torch.get_rng_state(),
    }
    if device.type == "cuda" and not active():  # nothing is drawn from it under pol.exact
        found["rng/cuda"] = torch.cuda.get_rng_state(device)
    return found


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
