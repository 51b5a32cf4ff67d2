"""The least change that lifts inner products to their margins, with the same bits on every machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pol.errors import SpecError
from watermark.weights.arrays import Array

_TOLERANCE = 2.0**-40
_DEPENDENT = "the carriers of a group depend on each other linearly: use other seeds or fewer leaves a group"


def least_weights(gram: Array, missing: Sequence[float]) -> Array:
    """The weights x >= 0 for which ``sum x_i R_i`` is the least change with ``<R_i, change> >= missing_i``.

    This is the dual of the minimum-norm problem, min x'Gx/2 - missing'x over x >= 0, solved by the active-set method
    of Lawson and Hanson (Solving Least Squares Problems, chapter 23). It ends after finitely many changes; the limit
    is for hostile seeds, whose carriers may be all but dependent.
    """
    need = np.array(missing, dtype=np.float64)
    x, active = np.zeros_like(need), np.zeros(len(need), dtype=np.bool_)
    for _ in range(4 * len(need)):
        slack = np.where(active, -np.inf, need - _times(gram, x))
        if slack.max() <= _TOLERANCE * np.abs(need).max():
            return x
        active[int(np.argmax(slack))] = True
        x = _solve(gram, need, active, x)
    raise SpecError(_DEPENDENT)


def _solve(gram: Array, need: Array, active: npt.NDArray[np.bool_], x: Array) -> Array:
    """Move ``x`` to where the active part of ``gram x = need`` holds, dropping from ``active`` what turns negative."""
    trial = _eliminate(gram, need, active)
    while (falling := active & (trial <= 0)).any():
        steps = np.where(falling, x / np.where(falling & (x > trial), x - trial, 1.0), np.inf)
        first = int(np.argmin(steps))
        x = x + steps[first] * (trial - x)
        active[first] = False
        x = np.where(active, np.maximum(x, 0.0), 0.0)
        trial = _eliminate(gram, need, active)
    return trial


def _times(matrix: Array, vector: Array) -> Array:
    return np.array([math.fsum((row * vector).tolist()) for row in matrix])


def _eliminate(gram: Array, need: Array, active: npt.NDArray[np.bool_]) -> Array:
    """The x with ``gram x = need`` in its active part and 0 elsewhere: elimination by element-wise arithmetic only."""
    chosen = np.flatnonzero(active)
    system = np.concatenate([gram[np.ix_(chosen, chosen)], need[chosen, None]], axis=1)
    size = len(chosen)
    for i in range(size):
        if system[i, i] < _TOLERANCE:
            raise SpecError(_DEPENDENT)
        system[i] = system[i] / system[i, i]
        for other in range(size):
            if other != i:
                system[other] = system[other] - system[other, i] * system[i]
    solution = np.zeros_like(need)
    solution[chosen] = system[:, size]
    return solution
