"""The types of this channel: state dicts, and float64 and float32 arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from pol.errors import SpecError

State: TypeAlias = Mapping[str, torch.Tensor]
Array: TypeAlias = npt.NDArray[np.float64]
Float32s: TypeAlias = npt.NDArray[np.float32]


def finite_array(state: State, name: str, *, where: str) -> Array:
    """Tensor ``name`` of ``state`` in float64; :class:`SpecError` if it is missing, no floats, or not finite."""
    tensor = state.get(name)
    if tensor is None:
        raise SpecError(f"{where}: {name} is missing")
    if not tensor.is_floating_point():
        raise SpecError(f"{where}: {name} is {tensor.dtype}, not floating point")
    if not bool(torch.isfinite(tensor).all()):
        raise SpecError(f"{where}: {name} holds values that are not finite")
    array: Array = tensor.detach().to("cpu", torch.float64).numpy()
    return array


def float32_matrix(state: State, name: str, *, where: str) -> Float32s:
    """Tensor ``name`` as a float32 matrix [rows, rest], a copy; :class:`SpecError` if it cannot carry a mark."""
    tensor = state.get(name)
    if tensor is None or tensor.dim() < 2 or tensor.numel() == 0:
        raise SpecError(f"{where}: {name} is missing or no matrix; a mark needs one")
    if tensor.dtype != torch.float32:
        raise SpecError(f"{where}: {name} is {tensor.dtype}: only float32 can be marked")
    if not bool(torch.isfinite(tensor).all()):
        raise SpecError(f"{where}: {name} holds values that are not finite")
    return np.array(tensor.detach().cpu().reshape(len(tensor), -1).numpy())
