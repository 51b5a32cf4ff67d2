"""ReLU MLPs: the marked matrices are the weights between hidden layers, right where they are."""

from __future__ import annotations

from collections.abc import Sequence

from pol.errors import SpecError
from pol.tensors import BLOCK_BYTES
from watermark.align import align_layers
from watermark.weights.arrays import Array, Float32s, State, float32_matrix
from watermark.weights.mlp_layers import read_mlp
from watermark.weights.parameters import Carrier, spread_groups

_FLOAT_BYTES = 4
_GROUPS, _ROWS, _MARGIN = 64, 8, 3.0


class MLPLayout:
    """The weights between two hidden layers, right where they are; suspects are aligned unit by unit.

    A group's rows fill whole 16 KiB blocks of the tensor's digest, so that its change touches blocks of its own.
    """

    def check(self, state: State, carriers: Sequence[Carrier], *, where: str) -> None:
        """See :class:`watermark.weights.layouts.Layout`."""
        inner = {f"layers.{i}.weight": layer.weight for i, layer in enumerate(read_mlp(state, where=where)[1:-1], 1)}
        for carrier in carriers:
            weight = inner.get(carrier.tensor)
            if weight is None:
                raise SpecError(f"{where}: {carrier.tensor} does not lie between two hidden layers (of {list(inner)})")
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
        """See :class:`watermark.weights.layouts.Layout`."""
        inner = list(enumerate(read_mlp(state, where="the model")))[1:-1]
        shapes = [(f"layers.{i}.weight", len(layer.weight)) for i, layer in inner]
        return spread_groups(shapes, groups=_GROUPS, rows=_ROWS, margin=_MARGIN)
