"""The order of the data: a pure function of seed and size, never an observation of a loader."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pol.encoding import digest, u64

ORDER_DOMAIN = "aiarena/data-order/v1"


@dataclass(frozen=True, slots=True)
class DataOrder:
    """Which samples each step sees: a fresh keyed permutation a pass, cut in batches, the remainder dropped.

    ``size`` samples, ``batch_size`` of them a step (1 <= batch_size <= size), ``seed`` 32 bytes.
    """

    seed: bytes
    size: int
    batch_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.size:
            raise ValueError(f"batch size {self.batch_size} does not fit {self.size} samples")

    def batch(self, step: int) -> tuple[int, ...]:
        """The ``batch_size`` sample indices of ``step`` (from 0), in order; any step can be asked for directly."""
        number, slot = divmod(step, self.size // self.batch_size)
        start = slot * self.batch_size
        return _permutation(self.seed, self.size, number)[start : start + self.batch_size]


@lru_cache(maxsize=4)
def _permutation(seed: bytes, size: int, number: int) -> tuple[int, ...]:
    # Sorting by a keyed digest needs no arithmetic that two languages could do differently.
    keys = {index: digest(ORDER_DOMAIN, seed, u64(number), u64(index)) for index in range(size)}
    return tuple(sorted(keys, key=keys.__getitem__))
