"""What a program keeps besides its :class:`pol.state.TrainingState`: the places where a step can hide something.

A replay that begins in the middle restores the state and nothing else. Whatever differs between two censuses taken at
one boundary, of the run that came there and of one restored there, is what was left behind.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import fields
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from pol.program import Program
from pol.state import TrainingState
from pol.tensors import little_endian_bytes

MAX_TEXT = 60
MAX_DEPTH = 4
_NOTES = {"step", "_opt_called"}  # what a torch scheduler writes on its optimizer, which decides nothing


def census(program: Program, state: TrainingState) -> dict[str, str]:
    """Every place found, by a name its author knows it by, and what it holds in a few words or a digest.

    Looked at are gradients, memory that tensors share and their strides, and the python values of the program, its
    module, its classes, the model's modules, the optimizer and the schedule. Closures and files are not.
    """
    places: dict[str, Any] = {}
    module = sys.modules.get(type(program).__module__)
    if module is not None:
        places |= _globals(module)
    places |= {f"program.{name}": value for name, value in vars(program).items()}
    known = {field.name for field in fields(TrainingState)}
    places |= {f"state.{name}": value for name, value in vars(state).items() if name not in known}
    for name, part in state.model.named_modules():
        own = _without(vars(part), vars(nn.Module()).keys() - {"training"})
        places |= {f"{_join('model', name)}.{key}": value for key, value in own.items()}
    places |= {f"optimizer.{key}": value for key, value in _own_values(state.optimizer).items()}
    if state.scheduler is not None:
        places |= {f"scheduler.{key}": value for key, value in _without(vars(state.scheduler), {"optimizer"}).items()}
    described = {name: _Describer(state).describe(value) for name, value in places.items()}
    found = {name: text for name, text in described.items() if text is not None}
    return found | _gradients(state) | _memory(state)


def _globals(module: ModuleType) -> dict[str, Any]:
    """The values of a module and of the classes it defines, without functions and what it imports."""
    label = module.__name__.split("@")[0]
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__:
            found |= {f"{label}.{name}.{key}": held for key, held in _without(vars(value), set()).items()}
        elif not name.startswith("__"):
            found[f"{label}.{name}"] = value
    return found


def _own_values(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    plain = torch.optim.Optimizer([torch.nn.Parameter(torch.zeros(1))], {})
    return _without(vars(optimizer), vars(plain).keys() | _NOTES)


def _without(values: Mapping[str, Any], names: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names and not name.startswith("__")}


def _join(first: str, second: str) -> str:
    return f"{first}.{second}" if second else first


def _gradients(state: TrainingState) -> dict[str, str]:
    gradients = {name: parameter.grad for name, parameter in state.model.named_parameters()}
    return {f"gradient of {name}": _digest(grad) for name, grad in gradients.items() if grad is not None}


def _memory(state: TrainingState) -> dict[str, str]:
    """Who shares memory with whom, and whose elements do not lie in row-major order."""
    tensors: dict[str, torch.Tensor] = {}
    tensors |= {f"model.{name}": value for name, value in state.model.named_parameters(remove_duplicate=False)}
    tensors |= {f"model.{name}": value for name, value in state.model.named_buffers(remove_duplicate=False)}
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    for parameter, slots in state.optimizer.state.items():
        label = names.get(id(parameter), "a parameter")
        tensors |= {f"optimizer's {slot} of {label}": v for slot, v in slots.items() if isinstance(v, torch.Tensor)}
    found, first = {}, dict[int, str]()
    for name, tensor in tensors.items():
        where = tensor.untyped_storage().data_ptr()
        sharer = first.setdefault(where, name) if where else name
        if sharer != name:
            found[f"memory of {name}"] = f"shared with {sharer}"
        elif not tensor.is_contiguous():
            found[f"memory of {name}"] = f"strides {tuple(tensor.stride())}"
    return found


class _Describer:
    """Values in a few words, the same words in every process; None for what holds no value of its own."""

    def __init__(self, state: TrainingState) -> None:
        parts = [state, state.optimizer, state.scheduler, state.scaler, state.ema, *state.model.modules()]
        tensors = [*state.model.parameters(), *state.model.buffers()]
        self._covered = {id(part) for part in [*parts, *tensors] if part is not None}

    def describe(self, value: Any, depth: int = 0) -> str | None:
        """``value`` in at most a line, or None."""
        if id(value) in self._covered or depth > MAX_DEPTH or isinstance(value, type | ModuleType):
            return None
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
            return _short(repr(value))
        if isinstance(value, torch.Tensor):
            return _digest(value)
        if isinstance(value, np.ndarray):
            return f"array {value.dtype}{value.shape} {_hash(value.tobytes())}"
        return self._generator(value) or self._container(value, depth) or self._object(value, depth)

    def _generator(self, value: Any) -> str | None:
        if isinstance(value, torch.Generator):
            return f"a generator (torch.Generator) at {_hash(value.get_state().numpy().tobytes())}"
        if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
            return f"a generator (random.Random) at {_hash(repr(value.getstate()).encode())}"
        if isinstance(value, np.random.Generator):
            return f"a generator (numpy Generator) at {_hash(repr(value.bit_generator.state).encode())}"
        if isinstance(value, np.random.RandomState):
            return f"a generator (numpy RandomState) at {_hash(repr(value.get_state(legacy=False)).encode())}"
        return None

    def _container(self, value: Any, depth: int) -> str | None:
        if isinstance(value, Mapping):
            inner = [f"{_short(str(key))}: {self.describe(item, depth + 1)}" for key, item in value.items()]
        elif isinstance(value, list | tuple | deque):
            inner = [str(self.describe(item, depth + 1)) for item in value]
        elif isinstance(value, set | frozenset):
            inner = sorted(str(self.describe(item, depth + 1)) for item in value)
        else:
            return None
        return _short(f"{type(value).__name__} of {len(inner)}: {', '.join(inner)}")

    def _object(self, value: Any, depth: int) -> str | None:
        if isinstance(value, nn.Module):
            return f"{type(value).__name__}, {self._container(value.state_dict(), depth)}"
        if type(value).__module__ == "itertools":
            return repr(value)  # itertools.count shows its number
        held = getattr(value, "__dict__", None)
        if callable(value) or not held:
            return None
        return f"{type(value).__name__}, {self._container(held, depth)}"


def _digest(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)} {_hash(little_endian_bytes(tensor))}"


def _hash(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _short(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 12]}… {_hash(text.encode('utf-8', 'replace'))}"
