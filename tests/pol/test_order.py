"""The data order is a pure function: every sample once a pass, any step without the steps before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pol.order import DataOrder

GOLDEN_FIRST = (0, 4, 1, 9, 2)
GOLDEN_FOURTH = (3, 0, 5, 2, 6)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 60), st.data())
def test_every_pass_is_a_permutation(seed: bytes, size: int, data: st.DataObject) -> None:
    batch_size = data.draw(st.integers(1, size))
    order, steps = DataOrder(seed, size, batch_size), size // batch_size
    for number in range(2):
        seen = [index for step in range(steps) for index in order.batch(number * steps + step)]
        assert len(seen) == len(set(seen)) == steps * batch_size
        assert set(seen) <= set(range(size))


def test_steps_can_be_asked_for_in_any_order() -> None:
    one, other = DataOrder(bytes(32), 100, 7), DataOrder(bytes(32), 100, 7)
    forward = [one.batch(step) for step in range(50)]
    assert [other.batch(step) for step in reversed(range(50))][::-1] == forward


def test_seed_and_pass_both_matter() -> None:
    order = DataOrder(bytes(32), 100, 100)
    assert order.batch(0) != order.batch(1)
    assert order.batch(0) != DataOrder(b"\1" * 32, 100, 100).batch(0)


def test_golden_vector() -> None:
    """Fixed for ever: an old proof must find the same batches."""
    assert DataOrder(bytes(range(32)), 10, 5).batch(0) == GOLDEN_FIRST
    assert DataOrder(bytes(range(32)), 10, 5).batch(3) == GOLDEN_FOURTH


@pytest.mark.parametrize("batch_size", [0, 11])
def test_impossible_batches_are_refused(batch_size: int) -> None:
    with pytest.raises(ValueError, match="batch size"):
        DataOrder(bytes(32), 10, batch_size)
