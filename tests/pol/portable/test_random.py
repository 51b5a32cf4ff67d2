"""Random numbers of pol.exact: known answers, the distributions, and that only the CPU generator decides."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from pol import exact
from pol.errors import SpecError
from pol.machine import seed_everything
from pol.portable import random as portable

# Random123's kat_vectors: counter, key, answer
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
DRAWS: list[Callable[[], Tensor]] = [
    lambda: portable.bernoulli((7, 5), 0.3, device="cpu"),
    lambda: portable.uniform((35,), -1.0, 2.0, device="cpu"),
    lambda: portable.normal((5, 7), 0.0, 1.0, device="cpu"),
    lambda: portable.randint(0, 1000, (35,), device="cpu"),
    lambda: portable.randperm(35, device="cpu"),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers_of_random123(counter: str, key: str, answer: str) -> None:
    a, b, c, d = (torch.tensor([int(word, 16)]) for word in counter.split())
    low, high = (int(word, 16) for word in key.split())
    found = portable.philox((a, b, c, d), (low, high))
    assert [int(word) for word in found] == [int(word, 16) for word in answer.split()]


@given(words=st.lists(st.integers(0, 2**32 - 1), min_size=6, max_size=6))
def test_philox_is_that_of_plain_integers(words: list[int]) -> None:
    a, b, c, d = (torch.tensor([word]) for word in words[:4])
    found = portable.philox((a, b, c, d), (words[4], words[5]))
    assert [int(word) for word in found] == plain_philox(words[:4], words[4:])


def plain_philox(counter: list[int], key: list[int]) -> list[int]:
    """The definition, in Python's integers."""
    a, b, c, d = counter
    for number in range(10):
        keys = [(k + number * step) % 2**32 for k, step in zip(key, (0x9E3779B9, 0xBB67AE85), strict=True)]
        first, second = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (second >> 32) ^ b ^ keys[0], second % 2**32, (first >> 32) ^ d ^ keys[1], first % 2**32
    return [a, b, c, d]


def test_the_golden_draws() -> None:
    torch.manual_seed(7)
    assert portable.draw_key() == 1407639518939636932
    assert portable.randint(0, 1000, (5,), device="cpu").tolist() == [268, 891, 398, 679, 850]
    assert [value.hex() for value in portable.normal((4,), 0.0, 1.0, device="cpu").tolist()] == [
        "0x1.4d97740000000p+0",
        "0x1.3b86960000000p-2",
        "0x1.3cd4400000000p+0",
        "0x1.32cb5c0000000p-1",
    ]
    assert portable.randperm(6, device="cpu").tolist() == [2, 3, 0, 1, 5, 4]


@pytest.mark.parametrize("draw", DRAWS)
def test_recorder_and_replay_draw_the_same(draw: Callable[[], Tensor]) -> None:
    seed = bytes(range(32))
    seed_everything(seed, 3)
    first, second = draw(), draw()
    torch.rand(5)  # whatever else was drawn in between leaves no trace
    seed_everything(seed, 3)
    assert torch.equal(draw(), first) and torch.equal(draw(), second)
    assert not torch.equal(first, second)
    seed_everything(seed, 4)
    assert not torch.equal(draw(), first)


@pytest.mark.parametrize("draw", DRAWS)
def test_the_generators_state_is_all_that_a_resumed_step_needs(draw: Callable[[], Tensor]) -> None:
    draw()
    state = torch.get_rng_state()
    expected = draw()
    draw()
    torch.set_rng_state(state)
    assert torch.equal(draw(), expected)


def test_a_generator_of_ones_own() -> None:
    def drawn(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return portable.uniform((50,), 0.0, 1.0, device="cpu", generator=generator)

    before = torch.get_rng_state()
    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_and_pieces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> Tensor:
        torch.manual_seed(5)
        return portable.normal((50001,), 1.0, 2.0, device="cpu")

    whole = drawn()
    monkeypatch.setattr(portable, "PIECE", 999)
    assert torch.equal(drawn(), whole)


def test_the_distributions() -> None:
    torch.manual_seed(1)
    count = 40000
    uniform = portable.uniform((count,), -1.0, 3.0, device="cpu").double()
    normal = portable.normal((count,), 1.0, 2.0, device="cpu").double()
    integers = portable.randint(-3, 5, (count,), device="cpu")
    assert stats.kstest(uniform.numpy(), stats.uniform(-1, 4).cdf).pvalue > 1e-4
    assert stats.kstest(normal.numpy(), stats.norm(1, 2).cdf).pvalue > 1e-4
    assert abs(stats.pearsonr(normal[: count // 2].numpy(), normal[count // 2 :].numpy()).statistic) < 0.03
    assert stats.chisquare(torch.bincount(integers + 3).numpy()).pvalue > 1e-4
    assert (int(integers.min()), int(integers.max())) == (-3, 4)
    ones = int(portable.bernoulli((count,), 0.1, device="cpu").sum())
    assert stats.binomtest(ones, count, 0.1).pvalue > 1e-4


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_certain_bernoulli(p: float) -> None:
    assert bool((portable.bernoulli((1000,), p, device="cpu") == p).all())


@given(n=st.integers(0, 300))
def test_a_permutation(n: int) -> None:
    assert sorted(portable.randperm(n, device="cpu").tolist()) == list(range(n))


@given(shape=st.lists(st.integers(0, 5), max_size=3))
def test_shapes(shape: list[int]) -> None:
    for found in (portable.normal(shape, 0.0, 1.0, device="cpu"), portable.randint(0, 9, shape, device="cpu")):
        assert list(found.shape) == shape
        assert found.untyped_storage().nbytes() == found.nbytes


def test_linspace() -> None:
    assert portable.linspace(0.0, 1.0, 5, device="cpu").tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert portable.linspace(2.0, 1.0, 1, device="cpu").tolist() == [2.0]
    assert portable.linspace(2.0, 1.0, 0, device="cpu").shape == (0,)
    found = portable.linspace(-0.1, 0.7, 1000, device="cpu")
    torch.testing.assert_close(found, torch.linspace(-0.1, 0.7, 1000))
    assert (found[0], found[-1]) == (torch.tensor(-0.1), torch.tensor(0.7))


OPERATORS: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
    "rand": (lambda: torch.rand(7), lambda: portable.uniform((7,), 0.0, 1.0, device="cpu")),
    "rand_like": (lambda: torch.rand_like(torch.ones(2, 3)), lambda: portable.uniform((2, 3), 0.0, 1.0, device="cpu")),
    "randn": (
        lambda: torch.randn(7, dtype=torch.bfloat16),
        lambda: portable.normal((7,), 0, 1, device="cpu").bfloat16(),
    ),
    "randn_like": (lambda: torch.randn_like(torch.ones(7)), lambda: portable.normal((7,), 0, 1, device="cpu")),
    "uniform_": (lambda: torch.ones(7).uniform_(-1, 2), lambda: portable.uniform((7,), -1, 2, device="cpu")),
    "normal_": (lambda: torch.ones(7).normal_(1, 2), lambda: portable.normal((7,), 1, 2, device="cpu")),
    "bernoulli_": (lambda: torch.ones(99).bernoulli_(0.3), lambda: portable.bernoulli((99,), 0.3, device="cpu")),
    "bernoulli": (
        lambda: torch.bernoulli(torch.full((99,), 0.25)),
        lambda: portable.uniform((99,), 0.0, 1.0, device="cpu").lt(0.25).float(),
    ),
    "randint": (lambda: torch.randint(5, 90, (9,)), lambda: portable.randint(5, 90, (9,), device="cpu")),
    "random_": (lambda: torch.zeros(9).random_(3, 90), lambda: portable.randint(3, 90, (9,), device="cpu").float()),
    "randperm": (lambda: torch.randperm(9), lambda: portable.randperm(9, device="cpu")),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_operators_of_torch_draw_these_numbers(name: str) -> None:
    operator, expected = OPERATORS[name]
    torch.manual_seed(3)
    native = operator()
    torch.manual_seed(3)
    with exact():
        found = operator()
    torch.manual_seed(3)
    torch.testing.assert_close(found, expected(), rtol=0, atol=0)
    assert not torch.equal(found, native)


@pytest.mark.parametrize(
    "call",
    [
        lambda: portable.bernoulli((3,), 1.5, device="cpu"),
        lambda: portable.bernoulli((3,), float("nan"), device="cpu"),
        lambda: portable.normal((3,), 0.0, -1.0, device="cpu"),
        lambda: portable.randint(3, 3, (3,), device="cpu"),
        lambda: portable.randint(-(2**62), 2**62, (3,), device="cpu"),
    ],
)
def test_what_has_no_distribution_is_refused(call: Callable[[], Tensor]) -> None:
    with pytest.raises(SpecError):
        call()
