"""The transcendental functions of training, with the same bits on every device.

Each takes float32, bfloat16, float16 or float64 tensors of any shape and returns a new contiguous tensor of the same
shape and dtype: the value is computed in float64 by :mod:`pol.portable.elementary`, whose operations IEEE 754 fixes,
and rounded once to float32 (from there, for the 16-bit types, once more). That is the whole argument why they are
portable: no library decides anything. Unless a docstring says otherwise a float64 value has a relative error below
2^-30, so that a float32 result is within 0.508 units in the last place. NaN gives NaN, infinities what is said.

Arguments go through in pieces that fit a core's cache, which cannot change a bit: every element is on its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pol.errors import SpecError
from pol.portable import fused
from pol.portable.elementary import (
    BELL,
    CUBE,
    SLOPE,
    erf64,
    exp64,
    expm1_64,
    log64,
    normal_tail,
    quarter_turns,
    sine_cosine,
)

PIECE = 2**15  # elements a thread: 256 KiB of float64, and what one thread takes of an element-wise operation
MAX_POWER = 1024
_ROUNDED = frozenset({torch.float32, torch.bfloat16, torch.float16})


def exp(x: Tensor) -> Tensor:
    """e^x; 0 at -inf, inf at inf."""
    return _by_pieces(exp64, x, kernel="exp")


def log(x: Tensor) -> Tensor:
    """The natural logarithm; relative error of the float64 value below 2^-50. -inf at zeros, NaN below, inf at inf."""
    return _by_pieces(log64, x, kernel="log")


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent, as (e^2x - 1) / (e^2x + 1). The sign of zero is lost."""
    return _by_pieces(_tanh, x, kernel="tanh")


def tanh_backward(grad: Tensor, output: Tensor) -> Tensor:
    """grad (1 - output^2), in float64; relative error below 2^-50."""
    return _by_pieces(lambda g, y: (y * y).neg_().add_(1.0).mul_(g), grad, output, kernel="tanh_backward")


def erf(x: Tensor) -> Tensor:
    """The error function."""
    return _by_pieces(erf64, x, kernel="erf")


def erfinv(x: Tensor) -> Tensor:
    """The inverse of :func:`erf`; relative error below 2^-28. NaN outside [-1, 1], infinities at its ends."""
    return _by_pieces(_erfinv, x)


def sin(x: Tensor) -> Tensor:
    """The sine of every float32, however large; NaN at infinities. Raises SpecError for float64."""
    return _by_pieces(lambda value: sine_cosine(*quarter_turns(value))[0], _at_most_float32(x, "sin"))


def cos(x: Tensor) -> Tensor:
    """The cosine of every float32, however large; NaN at infinities. Raises SpecError for float64."""
    return _by_pieces(lambda value: sine_cosine(*quarter_turns(value))[1], _at_most_float32(x, "cos"))


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x)."""
    return _by_pieces(_sigmoid, x, kernel="sigmoid")


def sigmoid_backward(grad: Tensor, output: Tensor) -> Tensor:
    """grad (1 - output) output, in float64; relative error below 2^-50."""
    return _by_pieces(lambda g, y: (1.0 - y).mul_(y).mul_(g), grad, output, kernel="sigmoid_backward")


def silu(x: Tensor) -> Tensor:
    """x / (1 + e^-x); NaN at -inf, as in torch."""
    return _by_pieces(lambda value: _sigmoid(value).mul_(value), x, kernel="silu")


def silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    """grad s (1 + x (1 - s)) with s the sigmoid; the error is below 2^-30 |grad| s (1 + |x| (1 - s))."""
    return _by_pieces(_silu_backward, grad, x, kernel="silu_backward")


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x Phi(x) with the normal distribution function, or with ``tanh`` x s(2 sqrt(2/pi) (x + 0.044715 x^3)).

    s is the sigmoid: (1 + tanh(u)) / 2 = s(2u). NaN at -inf, as in torch.
    """
    if _is_tanh(approximate):
        return _by_pieces(_gelu_tanh, x, kernel="gelu_tanh")
    return _by_pieces(_gelu, x, kernel="gelu")


def gelu_backward(grad: Tensor, x: Tensor, approximate: str = "none") -> Tensor:
    """The derivative of :func:`gelu` times ``grad``; the error is below 2^-29 of its terms' magnitudes."""
    if _is_tanh(approximate):
        return _by_pieces(_gelu_tanh_backward, grad, x, kernel="gelu_tanh_backward")
    return _by_pieces(_gelu_backward, grad, x, kernel="gelu_backward")


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e^(beta x)) / beta, and x itself where beta x is above ``threshold``."""

    def core(value: Tensor) -> Tensor:
        e = exp64(value * beta)
        v = e + 1.0
        # log(v) misses what 1 + e lost by rounding
        found = log64(v).add_(e.sub_(v - 1.0).div_(v))
        return torch.where(value * beta > threshold, value, _over(found, beta))

    return _by_pieces(core, x)


def softplus_backward(grad: Tensor, x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """grad s(beta x), with s the sigmoid, and ``grad`` itself where beta x is above ``threshold``."""

    def core(g: Tensor, value: Tensor) -> Tensor:
        scaled = value * beta
        return torch.where(scaled > threshold, g, _sigmoid(scaled).mul_(g))

    return _by_pieces(core, grad, x)


def rsqrt(x: Tensor) -> Tensor:
    """1 / sqrt(x), two correctly rounded operations of float64; relative error below 2^-51."""
    return _by_pieces(lambda value: torch.reciprocal(torch.sqrt(value)), x)


def pow_scalar(x: Tensor, exponent: float) -> Tensor:
    """x to the power ``exponent``.

    Integers of at most MAX_POWER by products, relative error below 2^-40; 1/2 and -1/2 by the square root; the rest as
    e^(exponent log x), NaN for negative x. Raises SpecError for larger integers.
    """
    if float(exponent).is_integer():
        if abs(exponent) > MAX_POWER:
            raise SpecError(f"pow: the exponent {exponent:g} is beyond {MAX_POWER}; pol.exact has no such power")
        return _by_pieces(lambda value: _integer_power(value, int(exponent)), x)
    if abs(exponent) == 0.5:
        return _by_pieces(torch.sqrt, x) if exponent > 0 else rsqrt(x)
    return _by_pieces(lambda value: exp64(log64(value).mul_(exponent)), x)


def scalar_pow(base: float, x: Tensor) -> Tensor:
    """``base`` to the powers ``x``, as e^(x log(base)); raises SpecError unless ``base`` is positive and finite."""
    if not 0 < base < math.inf:
        raise SpecError(f"pow: the base {base:g} is not positive and finite; pol.exact has no such power")
    logarithm = log64(torch.tensor(float(base), dtype=torch.float64)).item()
    return _by_pieces(lambda value: exp64(value * logarithm), x)


def _by_pieces(core: Callable[..., Tensor], *arguments: Tensor, kernel: str | None = None) -> Tensor:
    """``core`` of the arguments in float64, rounded once; ``core`` leaves its arguments as they are.

    ``kernel`` is its name among those of :mod:`pol.portable.compiled`.
    """
    first = arguments[0]
    if first.dtype not in _ROUNDED and first.dtype != torch.float64:
        raise SpecError(f"pol.exact has no functions of {first.dtype}: convert to float32 first")
    halves = first.dtype in (torch.bfloat16, torch.float16)
    fast = fused.of_elements(kernel, *(a.float() if halves else a for a in arguments)) if kernel else None
    if fast is not None:
        return fast.to(first.dtype)
    flat = [argument.reshape(-1) for argument in arguments]
    found = torch.empty(first.shape, dtype=first.dtype, device=first.device)
    piece = PIECE * torch.get_num_threads() if first.device.type == "cpu" else max(1, first.numel())
    out = found.view(-1)
    for start in range(0, first.numel(), piece):
        value = core(*(argument[start : start + piece].to(torch.float64) for argument in flat))
        out[start : start + piece] = value if first.dtype == torch.float64 else value.to(torch.float32)
    return found


def _at_most_float32(x: Tensor, name: str) -> Tensor:
    if x.dtype == torch.float64:
        raise SpecError(f"pol.exact has no {name} of float64: convert to float32 first")
    return x


def _is_tanh(approximate: str) -> bool:
    if approximate not in ("none", "tanh"):
        raise SpecError(f"gelu: approximate is {approximate!r}; use 'none' or 'tanh'")
    return approximate == "tanh"


def _over(value: Tensor, divisor: float) -> Tensor:
    """``value`` divided in place: by a tensor, since CUDA turns division by a number into a product."""
    return value.div_(torch.full((), divisor, dtype=torch.float64, device=value.device))


def _tanh(x: Tensor) -> Tensor:
    e = expm1_64(x.clamp(-22.0, 22.0).mul_(2.0))
    return e.div_(e + 2.0)


def _sigmoid(x: Tensor) -> Tensor:
    return exp64(-x).add_(1.0).reciprocal_()


def _silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    s = _sigmoid(x)
    return (1.0 - s).mul_(x).add_(1.0).mul_(s).mul_(grad)


def _gelu(x: Tensor) -> Tensor:
    return _normal(x)[0].mul_(x)


def _gelu_backward(grad: Tensor, x: Tensor) -> Tensor:
    below, bell = _normal(x)
    return bell.mul_(BELL).mul_(x).add_(below).mul_(grad)


def _normal(x: Tensor) -> tuple[Tensor, Tensor]:
    """Phi(x) and exp(-x^2 / 2)."""
    tail, bell = normal_tail(x.abs())
    return torch.where(x < 0, tail, 1.0 - tail), bell


def _gelu_tanh(x: Tensor) -> Tensor:
    return _sigmoid((x * x).mul_(CUBE).add_(1.0).mul_(x).mul_(SLOPE)).mul_(x)


def _gelu_tanh_backward(grad: Tensor, x: Tensor) -> Tensor:
    square = x * x
    s = _sigmoid((square * CUBE).add_(1.0).mul_(x).mul_(SLOPE))
    slope = square.mul_(3.0 * CUBE).add_(1.0).mul_(SLOPE)
    return slope.mul_(x).mul_(1.0 - s).add_(1.0).mul_(s).mul_(grad)


def _integer_power(x: Tensor, exponent: int) -> Tensor:
    """By squaring, the bits of the exponent from below."""
    result, square, rest = torch.ones_like(x), x, abs(exponent)
    while rest:
        if rest & 1:
            result = result * square
        square, rest = square * square, rest >> 1
    return torch.reciprocal(result) if exponent < 0 else result


def _erfinv(y: Tensor) -> Tensor:
    """Giles' approximation (GPU Computing Gems, 2011, chapter 10), then one step of Newton's against :func:`erf`."""
    w = log64((1.0 - y).mul_(1.0 + y)).neg_()
    near, far = w - 2.5, torch.sqrt(w) - 3.0
    x = torch.where(w < 5.0, _nested(near, _CENTRE), _nested(far, _ENDS)).mul_(y)
    tail, bell = normal_tail(x.abs().mul_(math.sqrt(2.0)))
    beyond = (tail * 2.0).sub_(1.0 - y.abs())
    missing = torch.where(y.abs() < 0.5, y - erf64(x), torch.where(y < 0, -beyond, beyond))
    found = missing.mul_(math.sqrt(math.pi) / 2.0).div_(bell).add_(x)
    return torch.where(y.abs() < 1.0, found, torch.where(y.abs() == 1.0, y * math.inf, math.nan))


def _nested(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value.mul_(x).add_(coefficient)
    return value


_CENTRE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
_ENDS = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip
