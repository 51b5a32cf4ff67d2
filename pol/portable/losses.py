"""Losses and their gradients: element by element, then one exact sum.

Error: 2**-24 of its result for each operation on an element, and that of :func:`pol.portable.grid.total` for the sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pol.portable.elementwise import rounded, single
from pol.portable.grid import total
from pol.portable.sums import quotient

NONE, MEAN, SUM = 0, 1, 2


def nll_loss(x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int) -> tuple[Tensor, Tensor]:
    """-x[target] * weight[target], reduced; also the sum of the weights, by which a mean is divided."""
    values = single(x)
    kept, place = _targets(x, target, ignored)
    weights = _weights(values, weight, kept, place)
    terms = -(values.gather(_classes(x), place).squeeze(_classes(x))) * weights
    terms = torch.where(kept, terms, 0)
    if reduction == NONE:
        return rounded(terms, x.dtype), x.new_zeros(())
    norm = _sum(weights)
    result = _sum(terms) / norm if reduction == MEAN else _sum(terms)
    return rounded(result, x.dtype), rounded(norm, x.dtype)


def nll_loss_backward(
    grad: Tensor, x: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignored: int, norm: Tensor
) -> Tensor:
    """-grad * weight[target] at the targets, divided by the sum of the weights for a mean; zero elsewhere."""
    values = single(x)
    kept, place = _targets(x, target, ignored)
    share = single(grad) / single(norm) if reduction == MEAN else single(grad)
    terms = torch.where(kept, -share * _weights(values, weight, kept, place), 0)
    return rounded(torch.zeros_like(values).scatter(_classes(x), place, terms.unsqueeze(_classes(x))), x.dtype)


def mse_loss(x: Tensor, target: Tensor, reduction: int = MEAN) -> Tensor:
    """(x - target) squared, reduced."""
    difference = single(x) - single(target)
    squares = difference * difference
    if reduction == NONE:
        return rounded(squares, x.dtype)
    result = _sum(squares)
    return rounded(quotient(result, squares.numel()) if reduction == MEAN else result, x.dtype)


def mse_loss_backward(grad: Tensor, x: Tensor, target: Tensor, reduction: int) -> Tensor:
    """2 * (x - target) * grad, with ``grad`` divided by the number of elements for a mean."""
    difference = single(x) - single(target)
    share = quotient(single(grad), max(1, difference.numel())) if reduction == MEAN else single(grad)
    return rounded(difference * 2 * share, x.dtype)


def _sum(x: Tensor) -> Tensor:
    return total(x, list(range(x.dim()))).reshape(())


def _classes(x: Tensor) -> int:
    return 0 if x.dim() == 1 else 1


def _targets(x: Tensor, target: Tensor, ignored: int) -> tuple[Tensor, Tensor]:
    """Where the target is not ``ignored``, and an index of the class dimension that is in range everywhere."""
    kept = target != ignored
    return kept, torch.where(kept, target, 0).unsqueeze(_classes(x))


def _weights(values: Tensor, weight: Tensor | None, kept: Tensor, place: Tensor) -> Tensor:
    chosen = values.new_ones(()) if weight is None else single(weight)[place.squeeze(_classes(values))]
    return torch.where(kept, chosen, 0)
