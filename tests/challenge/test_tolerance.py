"""Tier T2: what honest rounding passes, and that nothing else does. Never an accusation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from challenge.tolerance import CEILING, Comparison, Deviation, deviations, settings
from pol.errors import ProofError
from pol.state import Tensors

NAME = "model/w"


def state(value: torch.Tensor, **others: torch.Tensor) -> Tensors:
    return {NAME: value, "scalars": torch.tensor([1, 2], dtype=torch.uint8), **others}


def step(size: int = 64, *, seed: int = 0, spread: float = 1e-6) -> tuple[Tensors, list[torch.Tensor]]:
    """A start, and three honest ends that moved by about one and lie ``spread`` apart, the first in the middle."""
    made = torch.Generator().manual_seed(seed)
    start, move, noise = torch.randn(3, size, generator=made)
    unit = noise / noise.norm() * spread
    end = start + move / move.norm()
    return state(start), [end, end + unit / 2, end - unit / 2]


def judged(start: Tensors, claimed: torch.Tensor, ends: list[torch.Tensor]) -> Deviation:
    found = deviations(start, state(claimed), [state(end) for end in ends])
    return max(found, key=lambda deviation: deviation.ratio)


@given(st.integers(0, 1000), st.floats(1e-5, 1e-4))
def test_an_honest_end_is_within_and_twenty_spreads_off_is_not(seed: int, spread: float) -> None:
    start, ends = step(seed=seed, spread=spread)
    noise = torch.randn(64, generator=torch.Generator().manual_seed(seed + 1))
    unit = noise / noise.norm() * spread
    assert judged(start, ends[0] + unit, ends).ratio < 1
    assert judged(start, ends[0] + 20 * unit, ends).ratio > 1


@given(st.integers(0, 1000), st.floats(0, 100), st.floats(0, 3))
def test_what_passes_goes_where_the_step_goes(seed: int, spread: float, off: float) -> None:
    """However far apart honest replays lie, an error beyond the ceiling, or another direction, never passes."""
    start, ends = step(seed=seed, spread=spread)
    noise = torch.randn(64, generator=torch.Generator().manual_seed(seed + 1))
    claimed = ends[0] + noise / noise.norm() * off * CEILING
    if judged(start, claimed, ends).ratio <= 1:
        mine, theirs = (ends[0] - start[NAME]).double(), (claimed - start[NAME]).double()
        assert (theirs - mine).norm() <= CEILING * mine.norm()
        assert torch.nn.functional.cosine_similarity(mine, theirs, dim=0) > 0.9999


@pytest.mark.parametrize("spread", [0.0, 1e-6, 1.0, 1e6])
def test_a_step_that_was_not_taken_never_passes(spread: float) -> None:
    start, ends = step(spread=spread)
    assert judged(start, start[NAME], ends).ratio > 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_passes(bad: float) -> None:
    start, ends = step(spread=1e6)
    for broken in range(4):
        values = [value.clone() for value in (ends[0], *ends)]
        values[broken][3] = bad
        comparison = Comparison(segment=0, worst=judged(start, values[0], values[1:]))
        assert not comparison.accepted
        row = comparison.to_json()
        assert row["error"] is None or math.isfinite(row["error"])


@pytest.mark.parametrize("name", ["rng/torch", "scalars", "scaler/scale", "pinned"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_what_every_machine_computes_alike_is_compared_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    start, ends = step(spread=1.0)
    value = torch.ones(3, dtype=dtype)
    other = value.clone()
    other[1] = 2
    replays = [state(end) | {name: value} for end in ends]
    (found,) = (d for d in deviations(start, state(ends[0]) | {name: other}, replays) if d.tensor == name)
    assert (found.error, found.tolerance, found.ratio) == (1, 0, math.inf)
    assert all(d.ratio <= 1 for d in deviations(start, state(ends[0]) | {name: value}, replays))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8])
def test_counters_are_exact(dtype: torch.dtype) -> None:
    start, ends = step(spread=1.0)
    replays = [state(end, count=torch.ones(2, dtype=dtype)) for end in ends]
    claimed = state(ends[0], count=torch.tensor([1, 0], dtype=dtype))
    assert max(d.ratio for d in deviations(start, claimed, replays)) == math.inf


@pytest.mark.parametrize("off", [1e-30, 1e-6, 1.0])
def test_a_tensor_that_no_replay_moves_may_not_move(off: float) -> None:
    start, ends = step()
    start |= {"model/frozen": torch.zeros(4)}
    replays = [state(end) | {"model/frozen": torch.zeros(4)} for end in ends]
    for value in (torch.full((4,), off), -torch.zeros(4)):
        found = deviations(start, state(ends[0]) | {"model/frozen": value}, replays)
        assert max(d.ratio for d in found) == math.inf


def test_new_tensors_move_from_zero() -> None:
    start, ends = step()
    slot = torch.ones(4)
    replays = [state(end) | {"optimizer/0/exp_avg": slot} for end in ends]
    found = {d.tensor: d for d in deviations(start, state(ends[0]) | {"optimizer/0/exp_avg": slot}, replays)}
    assert found["optimizer/0/exp_avg"].movement == 2.0 and found["optimizer/0/exp_avg"].ratio == 0


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "dtype"])
def test_other_tensors_are_not_compared_at_all(change: str) -> None:
    start, ends = step()
    claimed = {
        "missing": {"scalars": start["scalars"]}, "extra": state(ends[0], more=ends[0]),
        "shape": state(ends[0].reshape(8, 8)), "dtype": state(ends[0].double()),
    }[change]  # fmt: skip
    with pytest.raises(ProofError, match="other tensors"):
        deviations(start, claimed, [state(end) for end in ends])


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_settings_begin_with_the_promised_one_and_differ(threads: int) -> None:
    first, *others = settings(threads)
    assert (first.threads, first.environment) == (threads, {})
    assert len(others) >= 2 and first not in others
