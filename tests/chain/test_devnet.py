"""The embedded chain: an exact clock, the same chain every time, local signatures only."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.devnet import BALANCE_WEI, GENESIS_TIME, EmbeddedChain
from chain.errors import ChainError, MissingExtra


@pytest.fixture(scope="module")
def chain():
    return EmbeddedChain(accounts=2)


def test_accounts_are_funded(chain):
    assert [chain.web3.eth.get_balance(account.address) for account in chain.accounts] == [BALANCE_WEI] * 2


@settings(max_examples=20)
@given(ahead=st.integers(1, 10**6))
def test_the_clock_is_exact(chain, ahead):
    target, block = chain.now() + ahead, chain.block()
    chain.advance_to(target)
    assert (chain.now(), chain.block()) == (target, block + 1)
    chain.mine(2)
    assert (chain.now(), chain.block()) == (target + 2, block + 3)
    chain.advance(ahead)
    assert chain.now() == target + 2 + ahead


def test_time_does_not_run_back(chain):
    for moment in (chain.now(), chain.now() - 1):
        with pytest.raises(ChainError, match="already at"):
            chain.advance_to(moment)


def test_the_same_calls_give_the_same_chain():
    def history():
        chain = EmbeddedChain(accounts=1)
        chain.mine(3)
        chain.advance(100)
        return chain.now(), bytes(chain.web3.eth.get_block("latest")["hash"])

    first = history()
    assert first == history()
    assert first[0] == GENESIS_TIME + 103


def test_without_eth_tester_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "eth_tester", None)
    with pytest.raises(MissingExtra, match=r"pip install 'aiarena\[demo\]'"):
        EmbeddedChain(accounts=1)
