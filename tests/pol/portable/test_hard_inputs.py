"""Inputs on which little decides: values between two floats, borders of branches, multiples of a quarter turn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pol.portable import functions
from pol.portable.elementary import quarter_turns
from pol.portable.trial import AROUND, same
from tests.pol.portable.test_compiled import agree, compiled, needs_compiler
from tests.pol.portable.test_functions import MP, SCALARS, assert_close, digest_of

HALFWAY: dict[str, list[str]] = json.loads((Path(__file__).parents[2] / "golden/hard-float32.json").read_text())
GOLDEN = "7389dd2c20a81918eb48c785ccb5f0215ced239c1ab0f7df602b74e8ead11eea"
BORDERS = (
    0.0, 2.0**-149, 2.0**-126, 0.5**0.5, 0.6875, 1.0, 2**0.5, 2.0, 3.0, 9.01, 15.0, 16.6355, 17.33, 20.0, 20 / 3, 22.0,
    25.0, 37.5, 38.0, 87.3365, 88.3763, 88.7228, 103.2789, 103.9721, 104.0, 709.0, 2.0**24, 3.4028235e38,
)  # fmt: skip


def from_bits(bits: list[int]) -> Tensor:
    return torch.tensor(bits, dtype=torch.int64).to(torch.uint32).view(torch.float32)


def halfway(name: str) -> Tensor:
    return from_bits([int(bits, 16) for bits in HALFWAY[name]])


def at_borders() -> Tensor:
    """Every border, its negative, and three floats to either side of both."""
    bits = torch.tensor(BORDERS).view(torch.int32).unsqueeze(1) + torch.arange(-3, 4)
    x = bits.clamp(0, 0x7F7FFFFF).to(torch.int32).view(torch.float32).flatten().unique()
    return torch.cat([x, -x])


@pytest.mark.parametrize("name", HALFWAY)
def test_values_near_the_middle_of_two_floats(name: str) -> None:
    """Found among all float32 from 2**-30 on: the 2**-25 of a unit next to a halfway point holds the float64 value."""
    function, reference = SCALARS[name]
    x = halfway(name)
    for value, found in zip(x.tolist(), function(x).tolist(), strict=True):
        truth = reference(MP.mpf(value))
        units = MP.ldexp(abs(truth), 24 - MP.frexp(truth)[1])
        assert abs(units - MP.floor(units) - MP.mpf(0.5)) < MP.ldexp(1, -23)
        assert_close(found, truth)


def test_the_bits_of_these_values_are_kept() -> None:
    assert digest_of({name: SCALARS[name][0](halfway(name)) for name in HALFWAY}) == GOLDEN


@pytest.mark.parametrize("name", SCALARS)
def test_values_at_borders(name: str) -> None:
    function, reference = SCALARS[name]
    x = at_borders()
    for value, found in zip(x.tolist(), function(x).tolist(), strict=True):
        if value == 0:
            continue
        truth = reference(MP.mpf(value))
        if MP.isnan(truth):
            assert math.isnan(found)
        else:
            assert_close(found, truth)


@needs_compiler
@pytest.mark.parametrize("name", AROUND)
def test_kernels_have_the_same_values_there(name: str) -> None:
    x = torch.cat([at_borders(), *map(halfway, HALFWAY)])
    arguments = (x.flip(0), x) if name.endswith("backward") else (x,)
    assert agree(compiled.built(), lambda: AROUND[name](*arguments))


def nearest_to_quarter_turns() -> Iterator[tuple[int, int]]:
    """m, k with 2**23 <= m < 2**24 for every k: m 2**k quarter turns are as near to whole ones as any get.

    The fraction of 2**k 2/pi has a best approximation p/q: the fraction of m 2**k 2/pi is least for multiples m of q.
    """
    places = 400
    turns = int(MP.floor(MP.ldexp(2 / MP.pi, places)))
    for k in range(-23, 105):
        rest, whole = (turns << k if k > 0 else turns >> -k) % (1 << places), 1 << places
        before, q = 0, 1
        while rest and q < 2**24:
            yield from {(q * count, k) for count in (-(-(2**23) // q), (2**24 - 1) // q) if 2**23 <= q * count < 2**24}
            part, (whole, rest) = whole // rest, (rest, whole % rest)
            before, q = q, part * q + before


def test_angles_next_to_whole_quarter_turns() -> None:
    MP.prec = 500
    try:
        cases = list(nearest_to_quarter_turns())
        x = torch.tensor([m * 2.0**k for m, k in cases], dtype=torch.float32)
        turns, rests = quarter_turns(x.double())
        for value, turn, rest in zip(x.tolist(), turns.tolist(), rests.tolist(), strict=True):
            exactly = MP.mpf(value) * 2 / MP.pi
            nearest = MP.nint(exactly)
            assert (turn - int(nearest)) % 4 == 0
            assert abs(rest) >= 2.0**-32 and abs(rest - (exactly - nearest)) <= MP.ldexp(abs(rest), -50)
        assert min(abs(rests)) < 2.0**-29, "the hardest are among them"
        for function, reference in ((functions.sin, MP.sin), (functions.cos, MP.cos)):
            for value, found in zip(x.tolist(), function(x).tolist(), strict=True):
                assert_close(found, reference(MP.mpf(value)))
    finally:
        MP.prec = 240


def test_rounding_them_twice_is_rounding_them_once_on_every_path() -> None:
    x = torch.cat([at_borders(), *map(halfway, HALFWAY)])
    for name in HALFWAY:
        assert same(SCALARS[name][0](x), SCALARS[name][0](x.double()).float()), name
