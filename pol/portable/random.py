"""Random numbers that are the same on every device: Philox4x32-10 in 64-bit integers.

Every call draws one 63-bit key from torch's default CPU generator (or the CPU generator given), whatever the device of
the result; the numbers are a function of that key and of the element's place. torch's CPU generator is a Mersenne
twister whose integers are the same everywhere, and it is part of the training state: recorder and replay key it by
(seed, step) before every step (:func:`pol.machine.seed_everything`), so the key's place in its stream is the site. Who
resumes inside a step needs nothing else than that generator's state. No generator of another device matters.

Philox: J. K. Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pol.errors import SpecError
from pol.portable.elementary import log64, sine_cosine

Lanes = tuple[Tensor, Tensor, Tensor, Tensor]

PIECE = 2**13  # blocks a thread: four words of 64 KiB each
_MASK = 0xFFFFFFFF
# The multipliers less 2^32, so that their products with a word fit 64 bits with a sign
_FIRST, _SECOND = 0xD2511F53 - 2**32, 0xCD9E8D57 - 2**32
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: Lanes, key: tuple[int, int]) -> Lanes:
    """Philox4x32-10 of four int64 tensors of 32-bit words, of one shape, under a key of two words."""
    a, b, c, d = counter
    low_key, high_key = key
    for _ in range(_ROUNDS):
        high_a, low_a = _product(a, _FIRST)
        high_c, low_c = _product(c, _SECOND)
        a, b = high_c.bitwise_xor_(b).bitwise_xor_(low_key), low_c
        c, d = high_a.bitwise_xor_(d).bitwise_xor_(high_key), low_a
        low_key, high_key = (low_key + _KEY_STEPS[0]) & _MASK, (high_key + _KEY_STEPS[1]) & _MASK
    return a, b, c, d


def draw_key(generator: torch.Generator | None = None) -> int:
    """The next 63-bit key of ``generator`` (None: torch's default one); SpecError for one that is not on the CPU."""
    if generator is not None and generator.device.type != "cpu":
        raise SpecError(
            f"a generator on {generator.device} has no portable numbers: use torch.Generator() (on the CPU)"
        )
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())


def bernoulli(
    shape: Sequence[int], p: float, *, device: torch.device | str, generator: torch.Generator | None = None
) -> Tensor:
    """float32 ones with probability ``p``, to within 2^-33, and zeros; SpecError unless 0 <= p <= 1."""
    if not 0 <= p <= 1:
        raise SpecError(f"bernoulli: the probability {p} is not in [0, 1]")
    below = round(p * 2**32)
    return _filled(shape, lambda lanes: [word < below for word in lanes], torch.float32, device, generator)


def uniform(
    shape: Sequence[int],
    low: float,
    high: float,
    *,
    device: torch.device | str,
    generator: torch.Generator | None = None,
) -> Tensor:
    """float32 in [low, high]: low + (high - low) u in float64, rounded once, with u a multiple of 2^-24 below 1."""
    width = high - low

    def values(lanes: Lanes) -> list[Tensor]:
        return [(word >> 8).to(torch.float64).mul_(2.0**-24).mul_(width).add_(low) for word in lanes]

    return _filled(shape, values, torch.float32, device, generator)


def normal(
    shape: Sequence[int],
    mean: float,
    std: float,
    *,
    device: torch.device | str,
    generator: torch.Generator | None = None,
) -> Tensor:
    """float32 from the normal distribution, by Box and Muller's transform in float64, rounded once.

    The largest deviation is sqrt(66 log 2) = 6.76 standard deviations; SpecError if ``std`` is negative.
    """
    if not std >= 0:
        raise SpecError(f"normal: the standard deviation {std} is negative")

    def values(lanes: Lanes) -> list[Tensor]:
        pairs = _box_muller(lanes[0], lanes[1]) + _box_muller(lanes[2], lanes[3])
        return [value.mul_(std).add_(mean) for value in pairs]

    return _filled(shape, values, torch.float32, device, generator)


def randint(
    low: int, high: int, shape: Sequence[int], *, device: torch.device | str, generator: torch.Generator | None = None
) -> Tensor:
    """int64 in [low, high): 63 bits modulo the range, so the probabilities differ by less than (high - low) / 2^63."""
    if not low < high or high - low > 2**62:
        raise SpecError(f"randint: the range [{low}, {high}) is empty or beyond 2^62")
    return words63(shape, device=device, generator=generator).remainder_(high - low).add_(low)


def randperm(n: int, *, device: torch.device | str, generator: torch.Generator | None = None) -> Tensor:
    """A permutation of 0 ... n - 1 (int64): the order of n words of 63 bits, equal ones by place."""
    keys = words63((n,), device=device, generator=generator)
    return torch.sort(keys, stable=True).indices


def words63(shape: Sequence[int], *, device: torch.device | str, generator: torch.Generator | None = None) -> Tensor:
    """int64 of 63 random bits."""
    high, low = _filled((2, *shape), lambda lanes: lanes, torch.int64, device, generator)
    joined: Tensor = ((high >> 1) << 32).bitwise_or_(low)
    return joined


def linspace(start: float, end: float, steps: int, *, device: torch.device | str) -> Tensor:
    """``steps`` float32 from ``start`` to ``end``, each a product and a sum in float64, rounded once.

    As in torch the first half counts from ``start`` and the second back from ``end``.
    """
    width = (end - start) / (steps - 1) if steps > 1 else 0.0
    index = torch.arange(steps, dtype=torch.int64, device=device)
    back = (steps - 1 - index).to(torch.float64).mul_(width)
    up = index.to(torch.float64).mul_(width).add_(start)
    return torch.where(index < (steps + 1) // 2, up, end - back).to(torch.float32)


def _product(word: Tensor, less: int) -> tuple[Tensor, Tensor]:
    """High and low word of the 64-bit product with ``less`` + 2^32."""
    product = word * less
    return (product >> 32).add_(word), product.bitwise_and_(_MASK)


def _filled(
    shape: Sequence[int],
    values: Callable[[Lanes], Sequence[Tensor]],
    dtype: torch.dtype,
    device: torch.device | str,
    generator: torch.Generator | None,
) -> Tensor:
    """Four values a block: that of lane i of block j is element i * blocks + j."""
    count, key = math.prod(shape), draw_key(generator)
    blocks = -(-count // 4)
    found = torch.empty((4, blocks), dtype=dtype, device=device)
    piece = PIECE * torch.get_num_threads() if found.device.type == "cpu" else max(1, blocks)
    for start in range(0, blocks, piece):
        stop = min(start + piece, blocks)
        index = torch.arange(start, stop, dtype=torch.int64, device=device)
        zero = torch.zeros_like(index)
        lanes = philox((index & _MASK, index >> 32, zero, zero), (key & _MASK, key >> 32))
        for row, value in zip(found, values(lanes), strict=True):
            row[start:stop] = value
    flat = found.view(-1)[:count]
    whole: Tensor = flat if count == found.numel() else flat.clone()
    return whole.view(list(shape))


def _box_muller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent standard normal numbers of two words: a radius and an angle, which is exact in quarter turns."""
    radius = log64((first.to(torch.float64).add_(0.5)).mul_(2.0**-32)).mul_(-2.0).sqrt_()
    turns = (second + 2**29) >> 30
    rest = (second - (turns << 30)).to(torch.float64).mul_(2.0**-30)
    sine, cosine = sine_cosine(turns, rest)
    return cosine.mul_(radius), sine.mul_(radius)
