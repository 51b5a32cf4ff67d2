"""Convolutional networks with batch norm and residual streams: ``pol.programs.convnet``'s, of any depth and width.

The marked matrices are the raw weights of convolutions [out, in * pixels of the kernel]. Suspects are aligned on folded
weights: batch norm in evaluation mode is an affine map, so ``gamma (W x - mean) / sqrt(variance + eps) + beta`` says
all that a channel does, however a thief divided it between W, gamma of any sign and the statistics. What ReLU leaves is
a permutation and a positive scale a channel. A residual stream is one label: all of its writers share both. Where it
is widened by zero channels on both sides (option A of He et al. 2016), the narrow stream's channels are a slice of the
wide one's, so one assignment holds for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Final

import numpy as np

from pol.errors import SpecError
from watermark.weights.align import Axis, Map, align_maps, balanced
from watermark.weights.arrays import Array, Float32s, State, finite_array, float32_matrix
from watermark.weights.parameters import Carrier, spread_groups

EPSILON: Final = 1e-5
"""Batch norm's, torch's default, which the programs use."""
_GROUPS, _ROWS, _MARGIN = 64, 8, 1.5
_HEAD = "head.weight"


class ConvNetLayout:
    """The convolutions' weights; suspects are aligned channel by channel, whatever dummy channels they have."""

    def check(self, state: State, carriers: Sequence[Carrier], *, where: str) -> None:
        """See :class:`watermark.weights.layouts.Layout`."""
        network = read_convnet(state, where=where)
        for carrier in carriers:
            if carrier.tensor not in network or carrier.tensor == _HEAD:
                raise SpecError(f"{where}: {carrier.tensor} is not the weight of a convolution of this network")
            carrier.check_room(len(network[carrier.tensor].bias), where=where)

    def factors(self, state: State, tensor: str) -> tuple[Float32s, None]:
        """See :class:`watermark.weights.layouts.Layout`."""
        return float32_matrix(state, tensor, where="theta"), None

    def read(
        self, suspect: State, theta_ref: State, tensors: Sequence[str], base: State | None = None
    ) -> Sequence[Array]:
        """See :class:`watermark.weights.layouts.Layout`.

        Rows have the norms of theta_ref's own; they are zero where the suspect has no such channel.
        """
        reference = read_convnet(theta_ref, where="theta_ref")
        aligned = align_maps(read_convnet(suspect, where="the suspect"), reference)
        return [
            _unfolded(aligned[name], reference[name], finite_array(theta_ref, name, where="theta_ref"))
            for name in tensors
        ]

    def suggested(self, state: State, base: State | None = None) -> tuple[Carrier, ...]:
        """See :class:`watermark.weights.layouts.Layout`: the convolutions that are wider than the first.

        Groups are halved where there is no room for enough of them.
        """
        shapes = [(name, len(layer.bias)) for name, layer in read_convnet(state, where="the model").items()]
        wide = [(name, height) for name, height in shapes if height > shapes[0][1] and name != _HEAD]
        rows = _ROWS if sum(height // _ROWS for _, height in wide) >= _GROUPS else _ROWS // 2
        return spread_groups(wide, groups=_GROUPS, rows=rows, margin=_MARGIN)


def read_convnet(state: State, *, where: str) -> dict[str, Map]:
    """The network's folded maps by the names of their weights, in forward order.

    ``features.0`` and ``.1`` are the first convolution and its norm; ``features.3``, ``.4``, ... are blocks, plain ones
    (``.0`` and ``.1``) or residual (``.residual.0``, ``.1``, ``.3``, ``.4``); ``head`` is linear. Raises
    :class:`SpecError` naming ``where`` for other tensors, for shapes that do not fit together, and for values that are
    not finite.
    """
    reader = _Reader(state, where)
    stream = Axis("features.0")
    maps = {"features.0.weight": reader.convolution("features.0", "features.1", Axis(None), stream, None)}
    width = len(maps["features.0.weight"].bias)
    for number in count(3):
        block, inner = f"features.{number}", Axis(f"features.{number}.residual")
        if f"{block}.residual.0.weight" in state:
            first = reader.convolution(f"{block}.residual.0", f"{block}.residual.1", stream, inner, width)
            last = reader.convolution(f"{block}.residual.3", f"{block}.residual.4", inner, stream, len(first.bias))
            added = len(last.bias) - width
            if added < 0:
                raise SpecError(f"{where}: {block} narrows its stream from {width} channels to {len(last.bias)}")
            stream = Axis(stream.label, stream.first - added // 2)
            maps[f"{block}.residual.0.weight"] = first
            maps[f"{block}.residual.3.weight"] = last._replace(target=stream)
            width += added
        elif f"{block}.0.weight" in state:
            layer = reader.convolution(f"{block}.0", f"{block}.1", stream, Axis(block), width)
            maps[f"{block}.0.weight"], stream, width = layer, layer.target, len(layer.bias)
        else:
            break
    maps[_HEAD] = reader.linear("head", stream, width)
    reader.finish()
    return _counted_from_zero(maps)


class _Reader:
    """Takes the tensors of a state one by one, and knows which are left."""

    def __init__(self, state: State, where: str) -> None:
        self._state, self._where, self._left = state, where, set(state)

    def convolution(self, name: str, norm: str, source: Axis, target: Axis, inputs: int | None) -> Map:
        """A convolution of ``inputs`` channels (None: any number) with its norm folded into it."""
        weight = self._take(f"{name}.weight", 4, inputs)
        gamma, beta, mean, variance = (
            self._take(f"{norm}.{part}", 1, outputs=len(weight))
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        self._left.discard(f"{norm}.num_batches_tracked")
        if (variance < 0).any():
            raise SpecError(f"{self._where}: {norm}.running_var is negative")
        with np.errstate(over="ignore", invalid="ignore"):
            factor = gamma / np.sqrt(variance + EPSILON)
            folded, bias = weight * factor[:, None, None, None], beta - factor * mean
        if not (np.isfinite(folded).all() and np.isfinite(bias).all()):
            raise SpecError(f"{self._where}: {name} is not finite with {norm} folded into it")
        return Map(folded.reshape(*weight.shape[:2], -1), bias, source, target)

    def linear(self, name: str, source: Axis, inputs: int) -> Map:
        """The layer that gives the logits."""
        weight = self._take(f"{name}.weight", 2, inputs)
        return Map(weight[:, :, None], self._take(f"{name}.bias", 1, outputs=len(weight)), source, Axis(None))

    def finish(self) -> None:
        """Raise :class:`SpecError` if a tensor has no place in the network."""
        if self._left:
            odd = str(min(self._left, key=str))[:80]
            raise SpecError(f"{self._where}: unexpected tensor {odd!r}; expected features.<i> with norms, and head")

    def _take(self, name: str, dimensions: int, inputs: int | None = None, outputs: int | None = None) -> Array:
        array = finite_array(self._state, name, where=self._where)
        self._left.discard(name)
        sizes = (outputs, inputs)[: array.ndim]
        fits = all(wanted in (None, size) for wanted, size in zip(sizes, array.shape, strict=False))
        if array.ndim != dimensions or array.size == 0 or not fits:
            raise SpecError(f"{self._where}: {name} {list(array.shape)} does not fit the layers before it")
        return array


def _counted_from_zero(maps: Mapping[str, Map]) -> dict[str, Map]:
    """The same axes with every label's lowest channel at 0: a stream was counted from its narrow beginning."""
    lowest: dict[str | None, int] = {}
    for layer in maps.values():
        lowest[layer.target.label] = min(lowest.get(layer.target.label, 0), layer.target.first)

    def moved(axis: Axis) -> Axis:
        return Axis(axis.label, axis.first - lowest.get(axis.label, 0))

    return {
        name: layer._replace(source=moved(layer.source), target=moved(layer.target)) for name, layer in maps.items()
    }


def _unfolded(aligned: Map, folded: Map, raw: Array) -> Array:
    """``aligned`` [out, in, taps] as theta_ref's raw weights are: rows [out, in * taps], with its signs and norms."""
    weight = raw.reshape(aligned.weight.shape)
    sign = np.sign(np.sum(folded.weight * weight, axis=(1, 2)))
    with np.errstate(all="ignore"):
        unfolded: Array = balanced(aligned.weight, weight) * sign[:, None, None]
    return unfolded.reshape(len(raw), -1)
