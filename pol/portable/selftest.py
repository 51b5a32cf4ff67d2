"""What the argument for portable bits presumes of a machine, tried once a process and device before anything runs.

The operators of :mod:`pol.portable` are fixed by IEEE 754 and by integers, if float64 is IEEE's, denormals are kept,
and a float64 matrix product adds and multiplies (a library may emulate it, or use Strassen's algorithm, whose
intermediate numbers are others). Python's own powers and cosines, from which optimizers and schedules make their
numbers, are the C library's. A machine that fails could not be told from a cheat later, so it is refused here.
"""

from __future__ import annotations

import hashlib
import math
import os
from functools import cache

import torch
from torch import Tensor

from pol.errors import CannotRun
from pol.portable.dot import product_bits
from pol.portable.elementary import erf64, exp64, expm1_64, log64, normal_tail

UNSAFE_VARIABLES = (
    "CUBLAS_EMULATE_DOUBLE_PRECISION",
    "CUBLAS_EMULATION_STRATEGY",
    "TORCHINDUCTOR_CPP_ENABLE_FLOATING_POINT_CONTRACT_FLAG",
    "TORCHINDUCTOR_CPP_ENABLE_UNSAFE_MATH_OPT_FLAG",
)
# (batch, rows, contraction, columns): a vector, blocked kernels, many small ones, and one that is worth a shortcut
_PRODUCTS = ((1, 1, 4096, 3), (1, 33, 512, 17), (6, 5, 7, 9), (1, 640, 640, 640))
_PRIME = 2**29 - 3
_FUNCTIONS = "09d1255a56ca88281c89b06a6673b27baf5a5621fdec81d63c6263a7a5eaeaaa"
_LIBRARY = "25d14e5454eae6b82b056b54cb76d8593778d71daecf261addad9d9b5608f143"


def check() -> None:
    """Raise :class:`CannotRun` if pol.exact cannot keep its promise on this machine, saying what to do.

    Looks at the CPU, and at CUDA once this process uses it; what was found in order is not looked at again, but for
    the switches that a program may turn.
    """
    for name in UNSAFE_VARIABLES:
        if os.environ.get(name, "0").lower() not in ("0", ""):
            raise CannotRun(f"pol.exact: the environment variable {name} allows inexact products here: unset it")
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    for device in ("cpu", "cuda") if cuda else ("cpu",):
        check_rounding(device)
        _check_once(device)


def check_rounding(device: str) -> None:
    """Denormals are kept and halves round to even, in every thread that works; raises :class:`CannotRun`."""
    count = 2**15 * torch.get_num_threads() if device == "cpu" else 2**15
    for dtype, least in ((torch.float32, 2.0**-149), (torch.float64, 2.0**-1074)):
        tiny = torch.full((count,), 2 * least, dtype=dtype, device=device)
        if not bool((tiny * 0.5 == tiny - least).all()) or bool((tiny * 0.5 == 0).any()):
            raise CannotRun(
                f"pol.exact: {dtype} denormals are flushed to zero on {device}: call torch.set_flush_denormal(False) "
                "in every thread, and keep libraries built with -ffast-math out of the process"
            )
    halves = torch.tensor([1.0, 1.0 + 2**-52, -1.0], dtype=torch.float64, device=device)
    rounded = halves + torch.tensor([2**-53, 2**-53, -(2**-53)], dtype=torch.float64, device=device)
    if rounded.tolist() != [1.0, 1.0 + 2**-51, -1.0]:
        raise CannotRun(f"pol.exact: float64 on {device} does not round to nearest, ties to even: reset the mode")


@cache
def _check_once(device: str) -> None:
    check_products(device)
    if _digest_of_functions(device) != _FUNCTIONS:
        raise CannotRun(
            f"pol.exact: float64 on {device} is not IEEE 754's (fused or reordered operations): use an official build "
            "of torch, or another device"
        )
    if _digest_of_library() != _LIBRARY:
        raise CannotRun(
            "pol.exact: this machine's C library rounds powers or cosines otherwise, and optimizers and schedules use "
            "them: use glibc 2.28 or newer on a processor with fused multiply-add"
        )


def check_products(device: str) -> None:
    """float64 matrix products of integers are exact on ``device``; raises :class:`CannotRun`."""
    for batch, rows, length, columns in _PRODUCTS:
        most = 2 ** product_bits(length)
        a, b = integers((batch, rows, length), most, 1), integers((batch, length, columns), most, 2)
        found = (a.to(device, torch.float64) @ b.to(device, torch.float64)).cpu()
        if not is_product(found, a, b):
            raise CannotRun(
                f"pol.exact: a float64 matrix product of integers on {device} is not exact (emulation, or a shortcut "
                "of its library): switch that off, or use another device"
            )


def is_product(found: Tensor, a: Tensor, b: Tensor) -> bool:
    """Freivalds' test, in integers that fit 64 bits: both sides times a vector, modulo a prime."""
    factors = integers((b.shape[0], b.shape[2], 1), 2**21, 3)
    if bool((found != found.round()).any()):
        return False
    left = (found.to(torch.int64) % _PRIME) @ factors % _PRIME
    right = a @ (b @ factors % _PRIME) % _PRIME
    return bool((left == right).all())


def integers(shape: tuple[int, ...], most: int, key: int) -> Tensor:
    """Integers of at most ``most``, both signs, from a multiplicative generator; the largest are among them."""
    count = math.prod(shape)
    values = (torch.arange(1, count + 1, dtype=torch.int64) * (2654435761 + 2 * key)) % 2**32 % (2 * most + 1) - most
    values[:: max(1, count // 7)] = most
    return values.view(shape)


def _digest_of_functions(device: str) -> str:
    """Of float64 bits, which a single fused multiply-add would change somewhere."""
    x = torch.arange(-250, 251, dtype=torch.int64, device=device).to(torch.float64) * 0.016
    values = [exp64(x), expm1_64(x), log64(x.abs() + 0.125), erf64(x), *normal_tail(x.abs())]
    return hashlib.sha256(torch.stack(values).cpu().numpy().tobytes()).hexdigest()


def _digest_of_library() -> str:
    """Of powers as in bias corrections and cosines as in schedules: about one in a thousand is hard to round."""
    powers = [base**step for base in (0.9, 0.95, 0.98, 0.99, 0.999, 0.9999) for step in map(float, range(1, 2001))]
    cosines = [math.cos(math.pi * part / 4000) for part in range(4001)]
    return hashlib.sha256(",".join(map(float.hex, powers + cosines)).encode("ascii")).hexdigest()
