"""torch's random operators, by the numbers of :mod:`pol.portable.random`: what the table runs in their place.

Floating-point numbers are drawn as float32 and then converted to the dtype that was asked for. Every operator draws one
key, so that an operator more or less in a step changes all that are drawn after it, and nothing in other steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from pol.errors import SpecError
from pol.portable import random

Handler: TypeAlias = Callable[..., Tensor]
Generator: TypeAlias = torch.Generator | None

WHY = "Philox4x32-10 in integers, keyed from the CPU generator, and a chain of operations that IEEE 754 fixes"


def rand(size: Sequence[int], *, generator: Generator = None, **options: Any) -> Tensor:
    """Uniform in [0, 1)."""
    return _as_asked(random.uniform(size, 0.0, 1.0, device=_device(options), generator=generator), options)


def randn(size: Sequence[int], *, generator: Generator = None, **options: Any) -> Tensor:
    """Standard normal."""
    return _as_asked(random.normal(size, 0.0, 1.0, device=_device(options), generator=generator), options)


def rand_like(like: Tensor, **options: Any) -> Tensor:
    """Uniform in [0, 1), of the shape (and unless said otherwise dtype and device) of ``like``."""
    return rand(like.shape, **_like(like, options))


def randn_like(like: Tensor, **options: Any) -> Tensor:
    """Standard normal, of the shape (and unless said otherwise dtype and device) of ``like``."""
    return randn(like.shape, **_like(like, options))


def uniform_(target: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Generator = None) -> Tensor:
    """Fill with uniform numbers in [low, high]."""
    return target.copy_(random.uniform(target.shape, low, high, device=target.device, generator=generator))


def normal_(target: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator = None) -> Tensor:
    """Fill with normal numbers."""
    return target.copy_(random.normal(target.shape, mean, std, device=target.device, generator=generator))


def bernoulli_(target: Tensor, p: float | Tensor = 0.5, *, generator: Generator = None) -> Tensor:
    """Fill with ones of probability ``p``, and zeros."""
    if not isinstance(p, Tensor):
        return target.copy_(random.bernoulli(target.shape, p, device=target.device, generator=generator))
    return target.copy_(_below(p.expand(target.shape).to(target.device), generator))


def bernoulli(p: Tensor, *, generator: Generator = None) -> Tensor:
    """Ones of the probabilities ``p`` (to within 2^-24), and zeros."""
    return _below(p, generator).to(p.dtype)


def bernoulli_p(like: Tensor, p: float, *, generator: Generator = None) -> Tensor:
    """Ones of probability ``p``, and zeros, of the shape and dtype of ``like``."""
    return random.bernoulli(like.shape, p, device=like.device, generator=generator).to(like.dtype)


def randint(high: int, size: Sequence[int], *, low: int = 0, generator: Generator = None, **options: Any) -> Tensor:
    """Integers in [low, high), int64 unless said otherwise."""
    found = random.randint(low, high, size, device=_device(options), generator=generator)
    return found.to(options.get("dtype") or torch.int64)


def randint_low(low: int, high: int, size: Sequence[int], **options: Any) -> Tensor:
    """:func:`randint` in torch's other order of arguments."""
    return randint(high, size, low=low, **options)


def random_(target: Tensor, *, generator: Generator = None) -> Tensor:
    """Fill an int64 tensor with 63 random bits each; SpecError for another dtype."""
    if target.dtype != torch.int64:
        raise SpecError(f"random_ without bounds fills int64, not {target.dtype}: give the bounds")
    return target.copy_(random.words63(target.shape, device=target.device, generator=generator))


def random_from(target: Tensor, low: int, high: int, *, generator: Generator = None) -> Tensor:
    """Fill with integers in [low, high)."""
    return target.copy_(random.randint(low, high, target.shape, device=target.device, generator=generator))


def random_to(target: Tensor, high: int, *, generator: Generator = None) -> Tensor:
    """Fill with integers in [0, high)."""
    return random_from(target, 0, high, generator=generator)


def randperm(n: int, *, generator: Generator = None, **options: Any) -> Tensor:
    """A permutation of 0 ... n - 1, int64 unless said otherwise."""
    found = random.randperm(n, device=_device(options), generator=generator)
    return found.to(options.get("dtype") or torch.int64)


def linspace(start: float, end: float, steps: int, **options: Any) -> Tensor:
    """``steps`` numbers from ``start`` to ``end``."""
    return _as_asked(random.linspace(start, end, steps, device=_device(options)), options)


OPERATORS: dict[str, Handler] = {
    "rand": rand, "rand.generator": rand, "rand_like": rand_like,
    "randn": randn, "randn.generator": randn, "randn_like": randn_like,
    "uniform_": uniform_, "normal_": normal_,
    "bernoulli": bernoulli, "bernoulli.p": bernoulli_p, "bernoulli_.float": bernoulli_, "bernoulli_.Tensor": bernoulli_,
    "randint": randint, "randint.generator": randint, "randint.low": randint_low, "randint.low_generator": randint_low,
    "random_": random_, "random_.from": random_from, "random_.to": random_to,
    "randperm": randperm, "randperm.generator": randperm, "linspace": linspace,
}  # fmt: skip
"""By the names of the overloads in ``torch.ops.aten``."""


def _below(p: Tensor, generator: torch.Generator | None) -> Tensor:
    return (random.uniform(p.shape, 0.0, 1.0, device=p.device, generator=generator) < p).to(torch.float32)


def _device(options: dict[str, Any]) -> torch.device:
    return torch.device(options.get("device") or torch.get_default_device())


def _as_asked(found: Tensor, options: dict[str, Any]) -> Tensor:
    return found.to(options.get("dtype") or torch.get_default_dtype())


def _like(like: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    own = {"dtype": like.dtype, "device": like.device}
    return own | {name: value for name, value in options.items() if value is not None}
