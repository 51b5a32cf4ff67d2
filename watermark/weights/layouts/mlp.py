"""ReLU MLPs: the marked matrices are the weights of all layers but the last, right where they are.

A model has ``layers.<i>.weight`` [out, in] and ``layers.<i>.bias`` [out], i = 0, 1, ...; every hidden layer is a label
of its own for alignment (:mod:`watermark.weights.align`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from pol.errors import SpecError
from pol.tensors import BLOCK_BYTES
from watermark.weights.align import Axis, Map, align_maps
from watermark.weights.arrays import Array, Float32s, State, finite_array, float32_matrix
from watermark.weights.parameters import Carrier, spread_groups

_EXPECTED = "a ReLU MLP has layers.<i>.weight and layers.<i>.bias only (models with batch-norm cannot be marked)"
_NAME = re.compile(r"layers\.(0|[1-9][0-9]?)\.(weight|bias)")
_FLOAT_BYTES = 4
_GROUPS, _ROWS, _MARGIN = 48, 8, 3.0
_FIRST_GROUPS, _FIRST_MARGIN = 4, 1.0
"""Of the layer that reads the inputs: its rows are short, so that a bit is a larger part of them."""


class Layer(NamedTuple):
    """One affine layer in float64: ``weight`` [out, in], ``bias`` [out]."""

    weight: Array
    bias: Array


class MLPLayout:
    """The weights of all layers but the last, right where they are; suspects are aligned unit by unit.

    A group's rows fill whole 16 KiB blocks of the tensor's digest, so that its change touches blocks of its own.
    """

    def check(self, state: State, carriers: Sequence[Carrier], *, where: str) -> None:
        """See :class:`watermark.weights.layouts.Layout`."""
        hidden = {f"layers.{i}.weight": layer.weight for i, layer in enumerate(read_mlp(state, where=where)[:-1])}
        for carrier in carriers:
            weight = hidden.get(carrier.tensor)
            if weight is None:
                raise SpecError(f"{where}: {carrier.tensor} is not the weight of a hidden layer (of {list(hidden)})")
            carrier.check_room(len(weight), where=where)
            size = carrier.rows * weight.shape[1] * _FLOAT_BYTES
            if size % BLOCK_BYTES:
                raise SpecError(
                    f"{where}: a group of {carrier.tensor} has {size} bytes, not a multiple of {BLOCK_BYTES}"
                )

    def factors(self, state: State, tensor: str) -> tuple[Float32s, None]:
        """See :class:`watermark.weights.layouts.Layout`."""
        return float32_matrix(state, tensor, where="theta"), None

    def read(
        self, suspect: State, theta_ref: State, tensors: Sequence[str], base: State | None = None
    ) -> Sequence[Array]:
        """See :class:`watermark.weights.layouts.Layout`."""
        layers = align_layers(read_mlp(suspect, where="the suspect"), read_mlp(theta_ref, where="theta_ref"))
        return [layers[int(tensor.split(".")[1])].weight for tensor in tensors]

    def suggested(self, state: State, base: State | None = None) -> tuple[Carrier, ...]:
        """See :class:`watermark.weights.layouts.Layout`: the layer that reads the inputs bears a twelfth of the mark.

        What a thief cuts out of the later layers, or draws anew, is not in the first.
        """
        hidden = [
            (f"layers.{i}.weight", len(layer.weight), math.lcm(_ROWS, _whole_blocks(layer.weight.shape[1])))
            for i, layer in enumerate(read_mlp(state, where="the model")[:-1])
        ]
        (first, height, rows), *others = hidden
        share = min(_FIRST_GROUPS, height // rows)
        carriers = (Carrier(first, share, rows, _FIRST_MARGIN),) if share else ()
        shapes, rows = [(name, height) for name, height, _ in others], math.lcm(*(rows for *_, rows in others))
        return carriers + spread_groups(shapes, groups=_GROUPS - share, rows=rows, margin=_MARGIN)


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


def align(suspect: State, theta_ref: State) -> dict[str, torch.Tensor]:
    """``suspect`` in theta_ref's coordinates: a float64 state dict of theta_ref's shapes.

    Raises :class:`pol.errors.SpecError` if depth, inputs or outputs differ, or either model is no finite MLP.
    """
    return write_mlp(align_layers(read_mlp(suspect, where="suspect"), read_mlp(theta_ref, where="theta_ref")))


def align_layers(suspect: tuple[Layer, ...], reference: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """:func:`align` on layers that were read already."""
    aligned = align_maps(_maps(suspect), _maps(reference))
    return tuple(Layer(one.weight[:, :, 0], one.bias) for one in aligned.values())


def _maps(layers: tuple[Layer, ...]) -> dict[str, Map]:
    hidden = [Axis(f"layers.{i}") for i in range(len(layers) - 1)]
    axes = [Axis(None), *hidden, Axis(None)]
    return {
        f"layers.{i}.weight": Map(layer.weight[:, :, None], layer.bias, axes[i], axes[i + 1])
        for i, layer in enumerate(layers)
    }


def _whole_blocks(columns: int) -> int:
    """The fewest rows of ``columns`` floats that fill whole blocks."""
    return BLOCK_BYTES // math.gcd(BLOCK_BYTES, _FLOAT_BYTES * columns)


def _layer(state: State, number: int, where: str) -> Layer:
    return Layer(*(finite_array(state, f"layers.{number}.{part}", where=where) for part in Layer._fields))
