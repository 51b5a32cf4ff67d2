"""Copies handed from one thread to another: every bit, in order, in bounded memory, and nobody waits for the dead."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pol.relay import Relay
from pol.tensors import same_bits

Tensors = dict[str, torch.Tensor]
shapes = st.lists(st.sampled_from([(), (3,), (4, 2), (0,), (5,)]), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def behind() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as executor:
        yield executor


def state_of(sizes: list[tuple[int, ...]], number: int) -> Tensors:
    generator = torch.Generator().manual_seed(number)
    return {f"t{index}": torch.randn(size, generator=generator) for index, size in enumerate(sizes)}


def read(relay: Relay, look: Callable[[], None] = lambda: None) -> list[tuple[str, torch.Tensor]]:
    found = []
    with relay.reading() as copies:
        for name, copy in copies:
            look()
            found.append((name, copy.clone()))
    return found


def passed(relay: Relay, state: Tensors, behind: ThreadPoolExecutor) -> list[tuple[str, torch.Tensor]]:
    relay.open(state)
    reading = behind.submit(read, relay)
    relay.send(state, list(state))
    return reading.result()


@settings(max_examples=60)
@given(states=st.lists(shapes, min_size=1, max_size=4), spare=st.sampled_from([0, 8, 40, 10_000]))
def test_every_bit_arrives_in_order_and_in_bounded_memory(
    states: list[list[tuple[int, ...]]], spare: int, behind: ThreadPoolExecutor
) -> None:
    relay = Relay(spare)
    for number, sizes in enumerate(states):
        state = state_of(sizes, number)
        found = passed(relay, state, behind)
        assert [name for name, _ in found] == list(state)
        assert all(same_bits(copy, state[name]) for name, copy in found)
        largest, total = max(value.nbytes for value in state.values()), sum(value.nbytes for value in state.values())
        assert relay.held <= max(largest, total - spare)


def test_a_copy_is_not_written_over_while_it_is_read(behind: ThreadPoolExecutor) -> None:
    relay, state = Relay(spare=10_000), state_of([(1000,)] * 20, 0)
    relay.open(state)
    go = threading.Event()

    def read_slowly() -> list[bool]:
        same = []
        with relay.reading() as copies:
            for name, copy in copies:
                before = copy.clone()
                go.wait(0.01)
                same.append(same_bits(copy, before) and same_bits(copy, state[name]))
        return same

    reading = behind.submit(read_slowly)
    relay.send(state, list(state))
    assert reading.result() == [True] * 20


def test_what_is_sent_may_change_afterwards(behind: ThreadPoolExecutor) -> None:
    relay, state = Relay(spare=0), state_of([(4,)] * 3, 1)
    wanted = {name: value.clone() for name, value in state.items()}
    relay.open(state)
    relay.send(state, list(state))
    for value in state.values():
        value.zero_()
    assert all(same_bits(copy, wanted[name]) for name, copy in behind.submit(read, relay).result())


def test_a_sender_does_not_wait_for_a_reader_that_failed(behind: ThreadPoolExecutor) -> None:
    relay, state = Relay(spare=10_000), state_of([(50,)] * 8, 2)

    def fail() -> None:
        raise OSError("no space left")

    relay.open(state)
    reading: Future[object] = behind.submit(read, relay, fail)
    relay.send(state, list(state))
    with pytest.raises(OSError, match="no space"):
        reading.result()
    assert len(passed(relay, state, behind)) == 8, "the next state passes again"


def test_a_reader_that_fails_before_it_asks_is_noticed_too(behind: ThreadPoolExecutor) -> None:
    relay, state = Relay(spare=10_000), state_of([(50,)] * 8, 3)

    def fail() -> None:
        with relay.reading():
            raise OSError("no space left")

    relay.open(state)
    reading = behind.submit(fail)
    relay.send(state, list(state))
    with pytest.raises(OSError, match="no space"):
        reading.result()


def test_who_reads_after_the_sender_failed_is_told() -> None:
    """What was copied by then is no state: it may not be taken for one."""
    relay, state = Relay(spare=0), state_of([(50,)] * 3, 4)
    relay.open(state)
    with pytest.raises(KeyError):
        relay.send(state, ["another"])
    with pytest.raises(RuntimeError, match="not copied to its end"):
        read(relay)


def test_a_reader_does_not_wait_for_a_sender_that_failed(behind: ThreadPoolExecutor) -> None:
    relay, state = Relay(spare=0), state_of([(50,)] * 3, 4)
    relay.open(state)
    reading = behind.submit(read, relay)
    with pytest.raises(KeyError):
        relay.send(state, ["t0", "another"])
    with pytest.raises(RuntimeError, match="not copied to its end"):
        reading.result()
    assert len(passed(relay, state, behind)) == 3, "the next state passes again"
