"""Operators that work element by element, as chains of operations that IEEE 754 fixes one by one.

``addcmul``, ``lerp`` and ``alpha=`` are contracted into fused multiply-adds on some devices, and division by a number
becomes multiplication by its inverse: here every step is an operator of its own, and a divisor is a tensor.

Error: half a unit in the last place, 2**-24 of its result, for each step.

Half precision (bfloat16, float16) is computed in float32 and rounded once at the end, numbers among the operands
included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeAlias

import torch
from torch import Tensor

from pol.errors import SpecError
from pol.portable.functions import pow_scalar

Number: TypeAlias = bool | int | float
P = ParamSpec("P")
HALVES = (torch.bfloat16, torch.float16)


def single(x: Tensor) -> Tensor:
    """``x`` in float32, exactly; :class:`SpecError` for float64, which has no exact sums, products and functions."""
    if x.dtype is torch.float32:
        return x
    if x.dtype not in HALVES:
        raise SpecError(f"{str(x.dtype).removeprefix('torch.')} tensors have no portable form here: use float32")
    return x.float()


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A float64 or float32 result, rounded to float32 and, if ``dtype`` is a half, from there."""
    return x.to(dtype) if dtype is torch.float64 else x.float().to(dtype)


def in_single(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Compute ``function`` in float32 where its operands are halves, and round its result to what torch would give."""

    def computed(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        first = next(value for value in args if isinstance(value, Tensor))
        if first.dtype is torch.float32:
            return function(*args, **kwargs)
        operands = [value for value in args if isinstance(value, Tensor)]
        if not any(value.dtype in HALVES for value in operands):
            return function(*args, **kwargs)
        dtype = _promoted(operands)
        raised: Any = [
            value.float() if isinstance(value, Tensor) and value.dtype in HALVES else value for value in args
        ]
        return function(*raised, **kwargs).to(dtype)

    return computed


@in_single
def add(a: Tensor, b: Tensor | Number, *, alpha: Number = 1) -> Tensor:
    """a + b * alpha: the product is rounded, then the sum."""
    return torch.add(a, b if alpha == 1 else torch.mul(_tensor(b, a), alpha))


@in_single
def sub(a: Tensor, b: Tensor | Number, *, alpha: Number = 1) -> Tensor:
    """a - b * alpha: the product is rounded, then the difference."""
    return torch.sub(a, b if alpha == 1 else torch.mul(_tensor(b, a), alpha))


@in_single
def rsub(a: Tensor, b: Tensor | Number, alpha: Number = 1) -> Tensor:
    """b - a * alpha: the product is rounded, then the difference."""
    return torch.sub(_tensor(b, a), a if alpha == 1 else torch.mul(a, alpha))


@in_single
def mul(a: Tensor, b: Tensor | Number) -> Tensor:
    """a * b."""
    return torch.mul(a, b)


@in_single
def div(a: Tensor, b: Tensor | Number) -> Tensor:
    """a / b, correctly rounded: by a tensor, since CUDA multiplies by the inverse of a number."""
    return torch.div(a, _tensor(b, a))


def div_mode(a: Tensor, b: Tensor | Number, *, rounding_mode: str | None) -> Tensor:
    """a / b rounded down or to zero, for integers; of floats, :func:`div` without a mode only."""
    if rounding_mode is None:
        return div(a, b)
    _integers_only(a, b)
    return torch.div(a, b, rounding_mode=rounding_mode)


@in_single
def reciprocal(x: Tensor) -> Tensor:
    """1 / x, correctly rounded."""
    return torch.div(torch.ones((), dtype=x.dtype, device=x.device), x)


def square(x: Tensor) -> Tensor:
    """x * x."""
    return mul(x, x)


def power(x: Tensor, exponent: Number) -> Tensor:
    """x ** exponent: by one to three multiplications, a root or an inverse where that does, else by a function."""
    if exponent in SIMPLE_POWERS:
        return SIMPLE_POWERS[exponent](x)
    return pow_scalar(x, exponent) if x.is_floating_point() else torch.pow(x, exponent)


@in_single
def sqrt(x: Tensor) -> Tensor:
    """The square root, correctly rounded."""
    return torch.sqrt(x)


@in_single
def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x): two correctly rounded steps, where CUDA's own is an approximation."""
    return reciprocal(torch.sqrt(x))


@in_single
def addcmul(a: Tensor, b: Tensor, c: Tensor, *, value: Number = 1) -> Tensor:
    """a + (b * c) * value: three rounded steps."""
    return torch.add(a, _scaled(torch.mul(b, c), value))


@in_single
def addcdiv(a: Tensor, b: Tensor, c: Tensor, *, value: Number = 1) -> Tensor:
    """a + (b / c) * value: three rounded steps."""
    return torch.add(a, _scaled(torch.div(b, c), value))


@in_single
def lerp(a: Tensor, b: Tensor, weight: Tensor | Number) -> Tensor:
    """a + weight * (b - a), or b - (b - a) * (1 - weight) from a weight of one half: three rounded steps, as torch."""
    difference = torch.sub(b, a)
    if isinstance(weight, Tensor):
        near = torch.add(a, torch.mul(difference, weight))
        far = torch.sub(b, torch.mul(difference, torch.sub(1, weight)))
        return torch.where(weight.abs() < 0.5, near, far)
    if abs(weight) < 0.5:
        return torch.add(a, torch.mul(difference, weight))
    return torch.sub(b, torch.mul(difference, 1 - weight))


SIMPLE_POWERS: dict[Number, Callable[[Tensor], Tensor]] = {
    -1: reciprocal, -0.5: rsqrt, 0.5: sqrt, 1: torch.clone, 2: square,
    3: lambda x: mul(square(x), x), 4: lambda x: square(square(x)),
}  # fmt: skip


def relu(x: Tensor) -> Tensor:
    """x where it is not below zero, else 0; never -0, whose fate differs between vector and scalar code."""
    return torch.where(x <= 0, 0, x)


def clamp(x: Tensor, low: Tensor | Number | None = None, high: Tensor | Number | None = None) -> Tensor:
    """x between ``low`` and ``high`` (which wins): selected by comparisons, so that zeros keep a defined sign."""
    if low is not None:
        x = torch.where(x < low, low, x)
    return x if high is None else torch.where(x > high, high, x)


def clamp_max(x: Tensor, high: Tensor | Number) -> Tensor:
    """x, at most ``high``."""
    return clamp(x, None, high)


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """The larger of each pair; a zero is +0. NaN if either is."""
    return unsigned_zero(torch.maximum(a, b))


def minimum(a: Tensor, b: Tensor) -> Tensor:
    """The smaller of each pair; a zero is +0. NaN if either is."""
    return unsigned_zero(torch.minimum(a, b))


def to_copy(x: Tensor, **options: Any) -> Tensor:
    """A copy in another type or place. Halves are rounded from float32; floats too large for an integer are refused."""
    dtype = options.get("dtype") or x.dtype
    if dtype not in PLAIN:
        raise SpecError(f"{dtype} has no portable arithmetic: use float32, bfloat16, float16, bool or integers")
    if x.dtype is torch.float64 and dtype in HALVES:
        x = x.float()
    if x.is_floating_point() and not dtype.is_floating_point and dtype is not torch.bool:
        low, high = torch.iinfo(dtype).min, torch.iinfo(dtype).max
        if not bool(((x > low - 1.0) & (x < high + 1.0)).all()):
            raise SpecError(f"a float that {dtype} cannot hold is converted to it: the result depends on the device")
    copied: Tensor = torch.ops.aten._to_copy.default(x, **options)
    return copied


def copy_(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """``source`` into ``target``, converted as by :func:`to_copy`."""
    converted = source if source.dtype == target.dtype else to_copy(source, dtype=target.dtype)
    return target.copy_(converted, non_blocking)


PLAIN = frozenset(
    [torch.float32, torch.float64, *HALVES, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
)


def arange(*bounds: Number, dtype: torch.dtype | None = None, **options: Any) -> Tensor:
    """``torch.arange`` of whole numbers, counted in integers and then converted; :class:`SpecError` for others."""
    if any(bound != int(bound) for bound in bounds):
        raise SpecError("a range of fractions is rounded as the device likes: count in integers, and scale")
    counted: Tensor = torch.ops.aten.arange.start_step(*_range(*map(int, bounds)), **options)
    fractions = any(isinstance(bound, float) for bound in bounds)
    return counted.to(dtype or (torch.get_default_dtype() if fractions else torch.int64))


def _range(first: int, end: int | None = None, step: int = 1) -> tuple[int, int, int]:
    return (0, first, step) if end is None else (first, end, step)


def sort(x: Tensor, dim: int = -1, descending: bool = False) -> tuple[Tensor, Tensor]:
    """Sorted values and their places; equal ones keep their order."""
    return torch.sort(x, dim=dim, descending=descending, stable=True)


def integers_only(name: str) -> Callable[..., Any]:
    """torch's own operator ``name``, for operands without floats; others raise :class:`SpecError`."""
    base, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.aten, base), overload or "default")

    def checked(*args: Any, **kwargs: Any) -> Any:
        _integers_only(*args, *kwargs.values())
        return operator(*args, **kwargs)

    return checked


def _integers_only(*values: Any) -> None:
    for value in values:
        if isinstance(value, float) or (isinstance(value, Tensor) and value.is_floating_point()):
            raise SpecError("it is portable for integers only: write it with +, -, *, / and comparisons")


def _scaled(x: Tensor, value: Number) -> Tensor:
    return x if value == 1 else torch.mul(x, value)


def unsigned_zero(x: Tensor) -> Tensor:
    """``x`` with +0 for -0."""
    return torch.add(x, 0) if x.is_floating_point() else x


def _tensor(value: Tensor | Number, like: Tensor) -> Tensor:
    """A number as a tensor beside ``like``, of the type torch gives it; a tensor of another device comes over."""
    if isinstance(value, Tensor):
        return value if value.device == like.device else value.to(like.device)
    return torch.full((), value, dtype=torch.result_type(like, value), device=like.device)


def _promoted(operands: list[Tensor]) -> torch.dtype:
    if len(operands) == 1:
        return operands[0].dtype
    dtype = torch.result_type(operands[0], operands[1])
    return dtype if len(operands) == 2 else torch.promote_types(dtype, operands[2].dtype)
