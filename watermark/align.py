"""ReLU MLPs as labelled maps: every hidden layer is a label of its own (:mod:`watermark.weights.align`)."""

from __future__ import annotations

import torch

from watermark.weights.align import Axis, Map, align_maps
from watermark.weights.arrays import State
from watermark.weights.mlp_layers import Layer, read_mlp, write_mlp


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
