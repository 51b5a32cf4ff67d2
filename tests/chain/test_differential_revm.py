"""Thousands of random rounds on the EVM against the reference model, to the wei: see :mod:`tests.chain.rounds`."""

import pytest
from mpmath import mp

from tests.chain.revm import Revm
from tests.chain.rounds import LENDERS, Play, Sizes

MOST = 8
TASKS, MANY = 75, 2_500  # of four rounds each


@pytest.fixture(scope="module")
def chain():
    revm = Revm()
    revm.enroll(2 * MOST + LENDERS)
    return revm


def play(chain, seeds):
    for seed in seeds:
        with chain.wound_back(), mp.workdps(50):
            try:
                Play(chain, seed, Sizes.drawn(seed, MOST)).play()
            except BaseException as error:
                error.add_note(f"the play of seed {seed}")
                raise


def test_the_contracts_pay_what_the_model_says_to_the_wei(chain):
    play(chain, range(TASKS))


@pytest.mark.slow
def test_ten_thousand_rounds_to_the_wei(chain):
    play(chain, range(1_000, 1_000 + MANY))
