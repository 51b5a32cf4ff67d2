"""Embedding by a loss term: training pushes the bits past their margins, and the model settles around them.

Only after the beacon, and only on a branch: the trunk stays unmarked. Such an embedding is not local to groups, so it
replays by a full opening only (:mod:`watermark.branch`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pol.errors import SpecError
from watermark.key import WholeKey
from watermark.weights.arrays import State
from watermark.weights.carriers import carrier_lengths, carrier_scale, signed_carriers
from watermark.weights.embed import carrier_sigma
from watermark.weights.layouts import layout_of
from watermark.weights.parameters import WeightMark


@dataclass(frozen=True, slots=True, eq=False)
class _Carried:
    """One carrier's bits: u [groups, leaves, rows], w [groups, leaves, k] and margins [groups, leaves]."""

    u: torch.Tensor
    w: torch.Tensor
    margins: torch.Tensor


class MarkLoss:
    """``mean over leaves of relu(1 - b <R, L F> / margin)``: 0 once every bit stands its margin off zero.

    F is theta_ref's; L is the tensor in training. Add it to the task's loss. Raises :class:`SpecError` if the mark does
    not fit the model or the key has too few leaves.
    """

    def __init__(self, theta_ref: State, key: WholeKey, beta: bytes, mark: WeightMark) -> None:
        if key.leaf_count < mark.leaf_count:
            raise SpecError(f"the key has {key.leaf_count} leaves and the mark asks for {mark.leaf_count}")
        layout = layout_of(mark.layout)
        layout.check(theta_ref, mark.carriers, where="theta")
        self._mark, self._count = mark, mark.leaf_count
        self._carried: dict[str, _Carried] = {}
        first = 0
        for carrier in mark.carriers:
            left, right = layout.factors(theta_ref, carrier.tensor)
            columns = (left if right is None else right).shape[1]
            leaves = key.leaves[first : first + carrier.groups * mark.leaves]
            first += len(leaves)
            u, w = signed_carriers(leaves, beta, key.root, carrier.rows, columns, right)
            unit = carrier_sigma(left) * carrier_lengths(w, columns)
            margins = unit * carrier.margin * carrier_scale(carrier.rows, columns)
            shaped = [part.reshape(carrier.groups, mark.leaves, *part.shape[1:]) for part in (u, w, margins)]
            self._carried[carrier.tensor] = _Carried(*(torch.from_numpy(part).float() for part in shaped))

    def __call__(self, parameters: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The loss, a scalar, of a model's named ``parameters`` (as of ``dict(model.named_parameters())``)."""
        total = torch.zeros(())
        for carrier in self._mark.carriers:
            carried, tensor = self._carried[carrier.tensor], parameters[carrier.tensor]
            rows = tensor[: carrier.groups * carrier.rows].reshape(carrier.groups, carrier.rows, -1)
            u, w, margins = (part.to(tensor.device) for part in (carried.u, carried.w, carried.margins))
            stands = ((u @ rows.to(u.dtype)) * w).sum(dim=2)
            total = total.to(tensor.device) + torch.relu(1 - stands / margins).sum()
        return total / self._count
