"""The functions of pol.exact against mpmath, and why they are portable: the operators that they are made of."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pol.errors import SpecError
from pol.portable import elementary, functions

WORST_ULPS = 0.508
SMALLEST, LARGEST = -149, 127  # exponents of float32
MP: Any = mpmath.mp.clone()
MP.prec = 240

SCALARS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Any], Any]]] = {
    "exp": (functions.exp, MP.exp),
    "log": (functions.log, lambda x: MP.log(x) if x > 0 else MP.nan),
    "tanh": (functions.tanh, MP.tanh),
    "erf": (functions.erf, MP.erf),
    "sin": (functions.sin, MP.sin),
    "cos": (functions.cos, MP.cos),
    "sigmoid": (functions.sigmoid, lambda x: 1 / (1 + MP.exp(-x))),
    "silu": (functions.silu, lambda x: x / (1 + MP.exp(-x))),
    "gelu": (functions.gelu, lambda x: x * MP.erfc(-x / MP.sqrt(2)) / 2),
    "gelu tanh": (
        lambda x: functions.gelu(x, "tanh"),
        lambda x: x / (1 + MP.exp(-2 * MP.sqrt(2 / MP.pi) * (x + MP.mpf(0.044715) * x**3))),
    ),
    "softplus": (functions.softplus, lambda x: MP.log1p(MP.exp(x)) if x <= 20 else x),
    "softplus beta": (
        lambda x: functions.softplus(x, 3.0, 6.0),
        lambda x: MP.log1p(MP.exp(3 * x)) / 3 if 3 * x <= 6 else x,
    ),
    "rsqrt": (functions.rsqrt, lambda x: 1 / MP.sqrt(x) if x > 0 else MP.nan),
    "cube": (lambda x: functions.pow_scalar(x, 3.0), lambda x: x**3),
    "inverse square": (lambda x: functions.pow_scalar(x, -2), lambda x: x**-2),
    "root": (lambda x: functions.pow_scalar(x, 0.5), lambda x: MP.sqrt(x) if x >= 0 else MP.nan),
    "power 0.75": (lambda x: functions.pow_scalar(x, 0.75), lambda x: x ** MP.mpf(0.75) if x > 0 else MP.nan),
    "10000 to the power": (lambda x: functions.scalar_pow(10000.0, x), lambda x: MP.mpf(10000) ** x),
}

every_float32 = st.integers(0, 2**32 - 1).map(lambda bits: torch.tensor(bits).to(torch.uint32).view(torch.float32))
moderate = st.floats(-30, 30, width=32).map(torch.tensor)
near_zero = st.floats(-(2.0**-100), 2.0**-100, width=32).map(torch.tensor)


@pytest.mark.parametrize("name", SCALARS)
@given(x=every_float32 | moderate | near_zero)
def test_a_float32_result_is_the_truth_rounded_almost_always(name: str, x: Tensor) -> None:
    function, reference = SCALARS[name]
    if x == 0 or not bool(x.isfinite()):
        return  # infinities, zeros and NaN: below
    found, truth = function(x), reference(MP.mpf(x.item()))
    assert found.dtype == torch.float32
    if MP.isnan(truth):
        assert bool(found.isnan())
    else:
        assert_close(found.item(), truth)


def assert_close(found: float, truth: Any) -> None:
    """Within WORST_ULPS units in the last place of the truth, those of the least normal number below it."""
    exponent = max(MP.frexp(truth)[1] - 24, SMALLEST) if truth else SMALLEST
    if abs(found) == MP.inf:
        assert MP.sign(found) == MP.sign(truth) and abs(truth) > MP.ldexp(2**25 - 1.02, LARGEST - 24)
    else:
        assert abs(MP.mpf(found) - truth) <= WORST_ULPS * MP.ldexp(1, exponent)


INFINITY, NAN = float("inf"), float("nan")
SPECIAL = {
    "exp": (0.0, INFINITY, 1.0),
    "log": (NAN, INFINITY, -INFINITY),
    "tanh": (-1.0, 1.0, 0.0),
    "erf": (-1.0, 1.0, 0.0),
    "sin": (NAN, NAN, 0.0),
    "cos": (NAN, NAN, 1.0),
    "sigmoid": (0.0, 1.0, 0.5),
    "silu": (NAN, INFINITY, 0.0),
    "gelu": (NAN, INFINITY, 0.0),
    "gelu tanh": (NAN, INFINITY, 0.0),
    "softplus": (0.0, INFINITY, 0.693147182464599609375),
    "rsqrt": (NAN, 0.0, INFINITY),
    "cube": (-INFINITY, INFINITY, 0.0),
    "inverse square": (0.0, 0.0, INFINITY),
    "root": (NAN, INFINITY, 0.0),
    "power 0.75": (NAN, INFINITY, 0.0),
    "10000 to the power": (0.0, INFINITY, 1.0),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_infinities_zero_and_nan(name: str) -> None:
    found = SCALARS[name][0](torch.tensor([-INFINITY, INFINITY, 0.0, NAN]))
    torch.testing.assert_close(found, torch.tensor([*SPECIAL[name], NAN]), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("backward", "forward", "of_output"),
    [
        (functions.tanh_backward, MP.tanh, True),
        (functions.sigmoid_backward, SCALARS["sigmoid"][1], True),
        (functions.silu_backward, SCALARS["silu"][1], False),
        (functions.gelu_backward, SCALARS["gelu"][1], False),
        (lambda g, x: functions.gelu_backward(g, x, "tanh"), SCALARS["gelu tanh"][1], False),
        (functions.softplus_backward, lambda x: MP.log1p(MP.exp(x)), False),
    ],
)
@given(x=moderate, g=moderate)
def test_backwards_are_the_derivatives(
    backward: Callable[[Tensor, Tensor], Tensor], forward: Callable[[Any], Any], of_output: bool, x: Tensor, g: Tensor
) -> None:
    if of_output:
        y = MP.mpf(x.item()) / 32  # the output itself is given, rounded already
        slope = 1 - y * y if forward is MP.tanh else y * (1 - y)
        found = backward(g, x / 32)
    else:
        slope, found = MP.diff(forward, MP.mpf(x.item())), backward(g, x)
    truth = slope * MP.mpf(g.item())
    # their terms cancel where the slope is near zero: the bound is on the terms' magnitudes, 30 at most
    assert abs(MP.mpf(found.item()) - truth) <= MP.ldexp(abs(truth), -24) + MP.ldexp(32 * abs(g.item()), -29) + 1e-45


@given(y=st.floats(-1, 1, width=32, exclude_min=True, exclude_max=True))
def test_erfinv(y: float) -> None:
    found = functions.erfinv(torch.tensor(y, dtype=torch.float64)).item()
    truth = MP.erfinv(MP.mpf(y))
    assert abs(MP.mpf(found) - truth) <= MP.ldexp(abs(truth), -28)


def test_erfinv_at_the_ends() -> None:
    assert functions.erfinv(torch.tensor([-1.0, 1.0])).tolist() == [-INFINITY, INFINITY]
    assert bool(functions.erfinv(torch.tensor([1.5, NAN])).isnan().all())


@pytest.mark.parametrize(
    ("core", "reference", "low", "high", "bound"),
    [
        (elementary.exp64, MP.exp, -700, 700, -31),
        (elementary.expm1_64, MP.expm1, -1, 1, -31),
        (elementary.log64, MP.log, 1e-300, 1e300, -50),
        (elementary.log64, MP.log, 0.5, 2, -50),
        (elementary.erf64, MP.erf, -4, 4, -30),
        (lambda x: elementary.normal_tail(x)[0], lambda x: MP.erfc(x / MP.sqrt(2)) / 2, 0, 14, -30),
    ],
)
def test_the_stated_bounds_in_float64(core: Any, reference: Any, low: float, high: float, bound: int) -> None:
    x = torch.linspace(low, high, 1000, dtype=torch.float64).to(torch.float32 if high < 1e30 else torch.float64)
    found = core(x.to(torch.float64)).tolist()
    truths = [reference(MP.mpf(value)) for value in x.tolist()]
    errors = [abs(y - truth) / abs(truth) for y, truth in zip(found, truths, strict=True) if truth]
    assert max(errors) < MP.ldexp(1, bound)


def test_the_constant_of_the_reduction_is_two_over_pi() -> None:
    wide: Any = mpmath.mp.clone()
    wide.prec = 400
    assert int(wide.floor(wide.ldexp(2 / wide.pi, elementary._PLACES))) == elementary._TWO_OVER_PI


# Every one of these rounds once, or not at all (IEEE 754), or works on integers and bits.
FIXED_BY_IEEE_754 = {
    "abs", "add", "add_", "bitwise_and", "bitwise_and_", "bitwise_left_shift", "bitwise_left_shift_",
    "bitwise_right_shift", "bitwise_right_shift_", "__lshift__", "__rshift__", "clamp", "clamp_", "copysign", "div",
    "div_", "gt", "isnan", "le", "lt", "mul", "mul_", "ne", "neg", "neg_", "eq", "reciprocal", "reciprocal_", "rsub",
    "sqrt", "sub", "sub_", "where", "__and__",
    "_to_copy", "copy_", "empty", "full", "full_like", "ones_like", "index", "lift_fresh", "scalar_tensor", "slice",
    "view", "_unsafe_view", "detach", "_local_scalar_dense",
}  # fmt: skip


class Watched(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        assert name in FIXED_BY_IEEE_754, f"{func} is not fixed by IEEE 754"
        assert (kwargs or {}).get("alpha", 1) == 1, f"{func} multiplies and adds"
        if name in ("div", "div_"):
            assert isinstance(args[1], Tensor), f"{func} by a number is a product on CUDA"
        return func(*args, **(kwargs or {}))


def everything(x: Tensor) -> dict[str, Tensor]:
    """Every function of the module at ``x``."""
    found = {name: function(x) for name, (function, _) in SCALARS.items()}
    grad = x.flip(0)
    return found | {
        "erfinv": functions.erfinv(x),
        "tanh backward": functions.tanh_backward(grad, x),
        "sigmoid backward": functions.sigmoid_backward(grad, x),
        "silu backward": functions.silu_backward(grad, x),
        "gelu backward": functions.gelu_backward(grad, x),
        "gelu tanh backward": functions.gelu_backward(grad, x, "tanh"),
        "softplus backward": functions.softplus_backward(grad, x),
    }


def test_they_are_made_of_nothing_but_what_ieee_754_fixes() -> None:
    x = torch.tensor([-3.0, 0.25, 1.0, 40.0])
    grad = x + 1
    with Watched():
        for function, _ in SCALARS.values():
            function(x)
        functions.erfinv(x)
        for backward in (functions.tanh_backward, functions.sigmoid_backward, functions.silu_backward):
            backward(grad, x)
        functions.gelu_backward(grad, x)
        functions.gelu_backward(grad, x, "tanh")
        functions.softplus_backward(grad, x)


def inputs() -> Tensor:
    """Every exponent, both signs, and mantissas from a counter."""
    counter = torch.arange(2**15, dtype=torch.int64)
    bits = (counter * 2654435761) & 0x7FFFFFFF
    return torch.where(bits < 0x7F800000, bits, bits & 0x3FFFFFFF).to(torch.int32).view(torch.float32) * (
        1 - 2 * (counter & 1)
    )


def digest_of(values: dict[str, Tensor]) -> str:
    """SHA-256 of the bits; every NaN as one."""
    hasher = hashlib.sha256()
    for name in sorted(values):
        value = torch.where(values[name].isnan(), torch.full_like(values[name], NAN), values[name])
        hasher.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()


GOLDEN = "3b8f44bff2a0126d03f40ef0d3f510593a8dae87da47aa2b328b8c831245c96e"


def test_the_golden_digest() -> None:
    assert digest_of(everything(inputs())) == GOLDEN


@pytest.mark.slow
def test_the_same_bits_on_another_class_of_machine() -> None:
    script = "import test_functions as t; t.torch.set_num_threads(2); print(t.digest_of(t.everything(t.inputs())))"
    folder = str(Path(__file__).parent)
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": os.pathsep.join([folder, *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == GOLDEN


@given(rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_layout_and_pieces_do_not_matter(rows: int, columns: int) -> None:
    x = inputs()[: rows * columns].view(rows, columns)
    whole = functions.gelu(x)
    assert torch.equal(functions.gelu(x.t()).t(), whole)
    assert torch.equal(torch.stack([functions.gelu(row) for row in x]), whole)
    assert functions.gelu(x.t()).is_contiguous()


def test_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x = inputs()
    whole = functions.silu_backward(x.flip(0), x)
    monkeypatch.setattr(functions, "PIECE", 1000)
    torch.testing.assert_close(functions.silu_backward(x.flip(0), x), whole, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["exp", "gelu", "sin", "log"])
def test_sixteen_bit_types_are_rounded_from_float32(name: str, dtype: torch.dtype) -> None:
    x = torch.linspace(0.01, 8, 500).to(dtype)
    function = SCALARS[name][0]
    assert torch.equal(function(x), function(x.float()).to(dtype))


def test_arguments_are_left_alone() -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.linspace(-2, 2, 50, dtype=dtype)
        before = x.clone()
        for name, (function, _) in SCALARS.items():
            if not (dtype == torch.float64 and name in ("sin", "cos")):
                function(x)
        functions.gelu_backward(x, x)
        functions.silu_backward(x, x)
        assert torch.equal(x, before)


def test_nothing_and_a_number_without_dimensions() -> None:
    assert functions.exp(torch.empty(0, 3)).shape == (0, 3)
    assert functions.exp(torch.tensor(0.0)).shape == ()


@pytest.mark.parametrize(
    "call",
    [
        lambda: functions.exp(torch.arange(3)),
        lambda: functions.sin(torch.zeros(3, dtype=torch.float64)),
        lambda: functions.gelu(torch.zeros(3), "sigmoid"),
        lambda: functions.pow_scalar(torch.ones(3), 5000.0),
        lambda: functions.scalar_pow(-2.0, torch.ones(3)),
        lambda: functions.scalar_pow(INFINITY, torch.ones(3)),
    ],
)
def test_what_is_not_offered_is_refused(call: Callable[[], Tensor]) -> None:
    with pytest.raises(SpecError):
        call()
