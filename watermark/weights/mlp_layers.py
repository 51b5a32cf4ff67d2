"""Reading the state dict of a ReLU MLP: ``layers.<i>.weight`` [out, in] and ``layers.<i>.bias`` [out], i = 0, 1, ..."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
import torch

from pol.errors import SpecError
from watermark.weights.arrays import Array, State, finite_array

_EXPECTED = "a ReLU MLP has layers.<i>.weight and layers.<i>.bias only (models with batch-norm cannot be marked)"
_NAME = re.compile(r"layers\.(0|[1-9][0-9]?)\.(weight|bias)")


class Layer(NamedTuple):
    """One affine layer in float64: ``weight`` [out, in], ``bias`` [out]."""

    weight: Array
    bias: Array


def read_mlp(state: State, *, where: str) -> tuple[Layer, ...]:
    """The layers of ``state``, at least three, checked to fit together.

    Raises :class:`SpecError` naming ``where`` for other tensors (batch-norm statistics among them), for shapes that
    do not chain, for tensors that are not floating point, and for values that are not finite.
    """
    for name in state:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise SpecError(f"{where}: unexpected tensor {str(name)[:80]!r}; {_EXPECTED}")
    depth = len(state) // 2
    if depth < 3:
        raise SpecError(f"{where}: {len(state)} tensors, but at least three layers of weight and bias are needed")
    layers = tuple(_layer(state, i, where) for i in range(depth))
    for i, layer in enumerate(layers):
        fits = layer.weight.ndim == 2 and layer.bias.shape == layer.weight.shape[:1] and layer.weight.size > 0
        if not fits or (i > 0 and layer.weight.shape[1] != layers[i - 1].weight.shape[0]):
            shapes = f"weight {layer.weight.shape}, bias {layer.bias.shape}"
            raise SpecError(f"{where}: layers.{i} ({shapes}) does not fit; {_EXPECTED}")
    return layers


def write_mlp(layers: tuple[Layer, ...]) -> dict[str, torch.Tensor]:
    """The state dict of ``layers``, float64."""
    return {
        f"layers.{i}.{part}": torch.from_numpy(np.array(getattr(layer, part)))
        for i, layer in enumerate(layers)
        for part in Layer._fields
    }


def _layer(state: State, number: int, where: str) -> Layer:
    return Layer(*(finite_array(state, f"layers.{number}.{part}", where=where) for part in Layer._fields))
