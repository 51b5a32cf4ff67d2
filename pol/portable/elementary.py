"""exp, log, the normal distribution's tail and quarter turns in float64, out of operations that IEEE 754 fixes.

Why portable: every line is one addition, subtraction, multiplication, division, square root, comparison or selection
of float64, each rounded once as IEEE 754 says, or an operation on the bits of one. Each is an operator of its own, so
nothing is contracted into a fused multiply-add; no library function is called, so there is no list of hard inputs.
Coefficients are numbers in this file. (:mod:`pol.portable.selftest` refuses a machine that flushes denormals.)

Why good enough: a result here has a relative error below 2^-30 (stated and tested for each function), so that rounding
it once to float32 gives at most 0.508 units in the last place. For float64 results the error is that of the
polynomials: fit for training, no replacement of a mathematical library.

Adding 1.5 * 2^52 rounds to an integer and leaves it in the low bits (J.-M. Muller et al., Handbook of Floating-Point
Arithmetic, 2018, chapter 10). The polynomials are minimax fits by Remez' algorithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LOG2_E = float.fromhex("0x1.71547652b82fep+0")
LN_2 = float.fromhex("0x1.62e42fefa39efp-1")
ROUNDER = 1.5 * 2.0**52
# (2^f - 1) / f on [-1/2, 1/2], relative error 2.4e-10
_EXP2 = tuple(
    map(
        float.fromhex,
        (
            "0x1.62e42fefd337ep-1", "0x1.ebfbe04530057p-3", "0x1.c6b08cb149b13p-5", "0x1.3b2a1c360b535p-7",
            "0x1.5d88bdc72aecfp-10", "0x1.443f626da31e3p-13", "0x1.ffcbcd77df7f4p-17",
        ),
    )
)  # fmt: skip
# artanh(s) / s in z = s^2 up to tan(pi/8)^2, relative error 1.8e-16
_ARTANH = tuple(
    map(
        float.fromhex,
        (
            "0x1.0000000000001p+0", "0x1.5555555552cecp-2", "0x1.999999a4486c4p-3", "0x1.249240ad72b74p-3",
            "0x1.c722d290c0643p-4", "0x1.7322767a4019ap-4", "0x1.58dd5cd6046b2p-4",
        ),
    )
)  # fmt: skip
# sin(pi/2 f) / f and cos(pi/2 f) in z = f^2 up to 1/4, relative errors 6.8e-15 and 6.6e-14
_SINE = tuple(
    map(
        float.fromhex,
        (
            "0x1.921fb54442cfap+0", "-0x1.4abbce6257a19p-1", "0x1.466bc671228cdp-4", "-0x1.32d2c6436d172p-8",
            "0x1.5071cd6eedeb2p-13", "-0x1.dd5419648e748p-19",
        ),
    )
)  # fmt: skip
_COSINE = tuple(
    map(
        float.fromhex,
        (
            "0x1.ffffffffffdafp-1", "-0x1.3bd3cc9bd08e6p+0", "0x1.03c1f073c7620p-2", "-0x1.55d3b96dd0cddp-6",
            "0x1.e1e75e53a5e42p-11", "-0x1.a0d80c8421262p-16",
        ),
    )
)  # fmt: skip
# erf(x) / x in z = x^2 up to 1/2, relative error 1.2e-11
_ERF = tuple(
    map(
        float.fromhex,
        (
            "0x1.20dd75041d235p+0", "-0x1.812746896484bp-2", "0x1.ce2f0e0c6afe7p-4", "-0x1.b8292dca0becdp-6",
            "0x1.5605e00cf7ff7p-8", "-0x1.b821bfaf39107p-11", "0x1.98173f9ceac4ap-14",
        ),
    )
)  # fmt: skip
# exp(a^2 / 2) Phi(-a) / u in u = 4 / (a + 4) for a up to 15, relative error 2.3e-10
_TAIL = tuple(
    map(
        float.fromhex,
        (
            "0x1.98824cc11477ap-4", "0x1.98b6c3026895bp-4", "0x1.7cd7e1bce6b53p-4", "0x1.5939ab8a2e604p-4",
            "0x1.a0a58d65fab91p-5", "0x1.31dc477208968p-4", "-0x1.854b490cc0dcap-6", "0x1.37a8c4b095073p-5",
            "0x1.49cb6a4a6566dp-6", "-0x1.23d28ed08da3ap-4", "0x1.5f8b4700e5ecep-5", "-0x1.130954770135ap-7",
        ),
    )
)  # fmt: skip
# 2 / pi, 320 binary places
_TWO_OVER_PI = int("a2f9836e4e441529fc2757d1f534ddc0db6295993c439041fe5163abdebbc561b7246e3a424dd2e0", 16)
_PLACES = 320
BELL = float.fromhex("0x1.9884533d43651p-2")  # 1 / sqrt(2 pi)
SLOPE = float.fromhex("0x1.9884533d43651p+0")  # 2 sqrt(2 / pi)
CUBE = 0.044715
CONSTANTS: dict[str, float | tuple[float, ...]] = {
    "LOG2_E": LOG2_E, "LN_2": LN_2, "ROUNDER": ROUNDER, "ROOT_2": math.sqrt(2.0), "BELL": BELL, "SLOPE": SLOPE,
    "CUBE": CUBE, "CUBE_3": 3.0 * CUBE, "EXP2": _EXP2, "ARTANH": _ARTANH, "ERF": _ERF, "TAIL": _TAIL,
}  # fmt: skip
"""What the compiled forms of these functions need; by their names in elements.c."""
_LEAST, _MOST = -149, 128  # exponents of float32: the least denormal, and that of infinity and NaN


def exp64(x: Tensor) -> Tensor:
    """e^x for float64 ``x`` of any shape; relative error below 2^-31, +0 below -709.08, infinity from 709.44."""
    tail, scale = _power_of_two(x * LOG2_E)
    return tail.add_(1.0).mul_(scale)


def expm1_64(x: Tensor) -> Tensor:
    """e^x - 1 for float64 ``x``; relative error below 2^-31, small ``x`` included. The sign of zero is lost."""
    tail, scale = _power_of_two(x * LOG2_E)
    return tail.mul_(scale).add_(scale.sub_(1.0))


def log64(x: Tensor) -> Tensor:
    """The natural logarithm of normal float64 ``x``; relative error below 2^-50. -inf at zeros, NaN below."""
    bits = x.view(torch.int64)
    # an exponent k with m = x / 2^k in [sqrt(1/2), sqrt(2))
    k = (bits - 0x3FE6A09E667F3BCD).bitwise_right_shift_(52)
    m = (bits - (k << 52)).view(torch.float64)
    s = (m - 1.0).div_(m + 1.0)
    found = _horner(s * s, _ARTANH).mul_(s).mul_(2.0).add_(k.to(torch.float64).mul_(LN_2))
    outside = torch.where(x == 0, -math.inf, torch.where(x < 0, math.nan, x))
    return torch.where((x > 0) & (x < math.inf), found, outside)


def normal_tail(a: Tensor) -> tuple[Tensor, Tensor]:
    """Phi(-a) and exp(-a^2 / 2) for float64 ``a`` >= 0, Phi the normal distribution function.

    Relative errors below 2^-30 where the square of ``a`` is exact (every float32); beyond 38 both are zero.
    """
    bell = exp64((a * a).mul_(-0.5))
    u = torch.reciprocal(a.clamp(max=15.0).add_(4.0)).mul_(4.0)
    return _horner(u, _TAIL).mul_(u).mul_(bell), bell


def erf64(x: Tensor) -> Tensor:
    """The error function of float64 ``x``; relative error below 2^-30. Zeros keep their sign."""
    tail, _ = normal_tail(x.abs().mul_(math.sqrt(2.0)))
    far = torch.copysign(tail.mul_(-2.0).add_(1.0), x)
    return torch.where(x.abs() < 0.6875, _horner(x * x, _ERF).mul_(x), far)


def quarter_turns(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` radians, float32 values held in float64, as ``n`` whole quarter turns (int64) and a rest in [-1/2, 1/2].

    Payne and Hanek's reduction for every float32: ``x`` = m 2^e with an integer m below 2^24, and 2^e 2/pi modulo 4 is
    kept in three parts, of which the first two have 29 bits, so that their products with m are exact. The rest is at
    least 2^-32 for x beyond 1 and its relative error below 2^-50. NaN for infinities and NaN.
    """
    exponent = ((x.view(torch.int64) >> 52) & 0x7FF).sub_(1023).clamp_(_LEAST, _MOST)
    m = x * ((1046 - exponent) << 52).view(torch.float64)
    high, middle, low = (part.to(x.device)[exponent - _LEAST].mul_(m) for part in _turn_parts())
    whole = (high + ROUNDER).sub_(ROUNDER)
    rest = high.sub_(whole).add_(middle).add_(low)
    more = (rest + ROUNDER).sub_(ROUNDER)
    rest = rest.sub_(more)
    return torch.where(rest.isnan(), 0.0, whole.add_(more)).to(torch.int64), rest


def sine_cosine(turns: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
    """sin and cos of ``turns`` whole quarter turns (int64) and a ``rest`` in [-1/2, 1/2]; relative errors < 2^-43."""
    square = rest * rest
    sine, cosine = _horner(square, _SINE).mul_(rest), _horner(square, _COSINE)
    odd = (turns & 1) != 0
    first, second = torch.where(odd, cosine, sine), torch.where(odd, sine, cosine)
    return torch.where((turns & 2) != 0, -first, first), torch.where(((turns + 1) & 2) != 0, -second, second)


def _power_of_two(y: Tensor) -> tuple[Tensor, Tensor]:
    """2^f - 1 and 2^k for y = k + f, which is overwritten; k is an integer from -1023 (then 2^k is 0) to 1024 (inf)."""
    y = y.clamp_(-1023.0, 1024.0)
    shifted = y + (ROUNDER + 1023.0)
    f = y.sub_(shifted - (ROUNDER + 1023.0))
    scale = shifted.view(torch.int64).bitwise_left_shift_(52).view(torch.float64)  # k + 1023, the exponent's field
    return _horner(f, _EXP2).mul_(f), scale


def _horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The polynomial with ``coefficients`` (lowest first) at ``x``, in a new tensor."""
    value = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        value.add_(coefficient).mul_(x)
    return value.add_(coefficients[0])


def _turn_parts() -> tuple[Tensor, Tensor, Tensor]:
    """2^(e - 23) 2/pi modulo 4 for every float32 exponent e, as multiples of 2^-27 and 2^-56, and the rest."""
    if not _PARTS:
        rows = [_split(exponent - 23) for exponent in range(_LEAST, _MOST + 1)]
        _PARTS.extend(torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    high, middle, low = _PARTS
    return high, middle, low


_PARTS: list[Tensor] = []


def _split(power: int) -> tuple[float, float, float]:
    bits = _PLACES - power  # the number is _TWO_OVER_PI / 2^bits
    value = _TWO_OVER_PI % (4 << bits)
    high, rest = divmod(value, 1 << (bits - 27))
    middle, low = divmod(rest, 1 << (bits - 56))
    return math.ldexp(high, -27), math.ldexp(middle, -56), low / (1 << bits)
