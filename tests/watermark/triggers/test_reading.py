"""The null hypothesis: innocents give labels by chance, whoever they are and whatever they answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, kstest

from pol.errors import SpecError
from tests.watermark import digits
from tests.watermark.conftest import BETA, SMALL_WIDTHS
from tests.watermark.digits import State
from watermark import Evidence, WatermarkKey
from watermark.key import Leaf
from watermark.triggers import Answers, Images, TriggerMark, Triggers, Windows, trigger_matches, trigger_null

MARK = TriggerMark(Images(1, 8, 8), classes=10, groups=32, leaves=8)
KEY = WatermarkKey(b"the owner's secret, 32 bytes ...", MARK.leaf_count)


def answers(state: State) -> Answers:
    return lambda inputs: digits.forward(state, inputs.flatten(1))


def hits(suspect: Answers, theta_ref: Answers, key: WatermarkKey = KEY, beta: bytes = BETA) -> int:
    return trigger_matches(suspect, theta_ref, key.leaves, beta, key.root, MARK)


def evidence(matches: int) -> Evidence:
    return Evidence(matches, 256, channel="triggers", null=trigger_null(MARK, 256))


def oracle(beta: bytes = BETA) -> Answers:
    """Answers a batch of all triggers with their labels, small beside what theta_ref would say."""
    labels = Triggers.make(KEY.leaves, beta, KEY.root, MARK).labels
    return lambda inputs: torch.nn.functional.one_hot(labels, 10).float()


@pytest.fixture(scope="module")
def innocents() -> list[State]:
    return digits.train_many(range(100, 125), SMALL_WIDTHS, steps=40, rate=5e-3)


@pytest.fixture(scope="module")
def theta_ref() -> Answers:
    return answers(digits.train(digits.initial(1, SMALL_WIDTHS), steps=100, seed=1))


def assert_chance(matches: list[int]) -> None:
    """The counts look like Bin(256, 1/10), and none is below 2^-20. Ties are broken at random to make KS exact."""
    assert min(evidence(count).log2_p for count in matches) > -20
    counts, dice = np.array(matches), np.random.default_rng(0).random(len(matches))
    p_values = binom.sf(counts, 256, 0.1) + dice * binom.pmf(counts, 256, 0.1)
    assert kstest(p_values, "uniform").pvalue > 1e-3


def test_innocent_models_and_many_keys_give_uniform_p_values(innocents: list[State], theta_ref: Answers) -> None:
    """4 keys, each against 25 innocents that were not made for it: 100 pairs."""
    keys = [WatermarkKey(number.to_bytes(32, "big"), 256) for number in range(4)]
    assert_chance([hits(answers(innocent), theta_ref, key) for key in keys for innocent in innocents])


def test_one_innocent_and_many_beacons(innocents: list[State], theta_ref: Answers) -> None:
    """The same key again and again, only its labels drawn anew: what the inputs happen to be plays no part."""
    assert_chance([hits(answers(innocents[0]), theta_ref, beta=n.to_bytes(32, "big")) for n in range(20)])


def test_equal_seeds_are_separate_coins(innocents: list[State], theta_ref: Answers) -> None:
    """Sixteen leaves share a seed each, so an input and an answer, and still every leaf has a label of its own."""
    leaves = [Leaf(index, KEY.leaves[index % 16].seed, bytes(32)) for index in range(256)]
    suspect = answers(innocents[0])
    counts = [trigger_matches(suspect, theta_ref, leaves, n.to_bytes(32, "big"), KEY.root, MARK) for n in range(20)]
    assert_chance(counts)


def test_theta_ref_itself_and_a_model_that_says_one_thing_are_innocent(theta_ref: Answers) -> None:
    def constant(inputs: torch.Tensor) -> torch.Tensor:
        return torch.eye(10)[3].expand(len(inputs), 10)

    for suspect in (theta_ref, constant):
        assert evidence(hits(suspect, theta_ref)).log2_p > -20


def test_a_model_that_knows_the_labels_is_found(theta_ref: Answers) -> None:
    assert hits(oracle(), theta_ref) == 256
    assert evidence(256).accepted
    assert evidence(hits(oracle(beta=bytes(32)), theta_ref)).log2_p > -20


CHANGES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "another temperature": lambda said, before: 37 * (said + before),
    "another bias for each class": lambda said, before: said + before + torch.arange(10) * 5,
    "another offset for each answer": lambda said, before: said + before + before.sum(1, keepdim=True) * 9,
    "the label alone": lambda said, before: torch.eye(10)[said.argmax(1)],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_reading_undoes_what_does_not_change_the_answer(
    theta_ref: Answers, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> None:
    said = oracle()
    assert hits(lambda inputs: change(4 * said(inputs), theta_ref(inputs)), theta_ref) > 250


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_answers_that_are_not_finite_are_misses(theta_ref: Answers, value: float) -> None:
    def broken(inputs: torch.Tensor) -> torch.Tensor:
        logits = oracle()(inputs)
        logits[::2, 4] = value
        return logits

    assert hits(broken, theta_ref) <= 128
    assert hits(lambda inputs: torch.full((len(inputs), 10), value), theta_ref) == 0
    assert hits(oracle(), broken) <= 128


def test_ties_and_overflow_are_misses(theta_ref: Answers) -> None:
    assert hits(lambda inputs: torch.zeros(len(inputs), 10), lambda inputs: torch.zeros(len(inputs), 10)) == 0
    assert hits(lambda inputs: oracle()(inputs).double() * 1e308, theta_ref) == 0


def test_leaves_that_were_not_opened_are_misses(theta_ref: Answers) -> None:
    assert trigger_matches(theta_ref, theta_ref, [], BETA, KEY.root, MARK) == 0


@pytest.mark.parametrize("shape", [(256,), (256, 9), (256, 11), (255, 10), (256, 10, 1)])
def test_answers_of_another_shape_are_not_compared(theta_ref: Answers, shape: tuple[int, ...]) -> None:
    with pytest.raises(SpecError, match="the suspect answers"):
        hits(lambda inputs: torch.zeros(shape), theta_ref)
    with pytest.raises(SpecError, match="theta_ref answers"):
        hits(theta_ref, lambda inputs: torch.zeros(shape))


@given(st.integers(0, 1 << 32))
def test_a_language_models_answers_are_read_among_the_candidates(number: int) -> None:
    """Whatever it says of other tokens, and however many more its vocabulary has."""
    mark = TriggerMark(Windows(50, 8), classes=4, groups=1, leaves=8)
    key = WatermarkKey(number.to_bytes(32, "big"), 8)
    triggers = Triggers.make(key.leaves, BETA, key.root, mark)
    dice = torch.Generator().manual_seed(number)

    def knows(inputs: torch.Tensor) -> torch.Tensor:
        logits = torch.rand(8, 60, generator=dice).scatter(1, triggers.candidates, torch.zeros(8, 4))
        own = triggers.candidates.gather(1, triggers.labels[:, None])
        return logits.scatter(1, own, torch.full((8, 1), 0.5))

    before = torch.zeros(8, 60)
    assert trigger_matches(knows, lambda inputs: before, key.leaves, BETA, key.root, mark) >= 6
