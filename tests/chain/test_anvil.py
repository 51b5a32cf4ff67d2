"""The local chain with a node of its own: what it says where it cannot start, its clock, and the file it keeps."""

import socket

import pytest

import chain.anvil
from chain.anvil import Anvil, find_anvil
from chain.devnet import BALANCE_WEI, GENESIS_TIME
from chain.errors import ChainError, MissingExtra
from tests.chain.anvil import require_anvil


def test_without_anvil_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(chain.anvil, "__file__", str(tmp_path / "chain" / "anvil.py"))
    with pytest.raises(MissingExtra, match="install Foundry"):
        find_anvil()


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ChainError, match=f"port {port} is taken"):
            Anvil(tmp_path / "chain.json", port=port).start()
    assert not (tmp_path / "chain.json").exists()


@pytest.mark.node
def test_its_clock_moves_ahead_only_and_its_chain_is_kept(tmp_path):
    require_anvil()
    node = Anvil(tmp_path / "chain.json", accounts=2, genesis_time=GENESIS_TIME, chain_id=84_532)
    with node:
        assert node.web3.eth.chain_id == 84_532
        node.advance_to(GENESIS_TIME + 5_000)
        now, block = node.now(), node.block()
        assert GENESIS_TIME + 5_000 <= now <= GENESIS_TIME + 5_002
        with pytest.raises(ChainError, match="cannot move to"):
            node.advance_to(now)
        with pytest.raises(ChainError, match="refused"):
            node.ask("anvil_noSuchMethod")
        first = node.web3.eth.get_block(0)["hash"]
    with node:
        assert (node.block(), node.web3.eth.get_block(0)["hash"]) == (block, first) and node.now() == now
        assert [node.web3.eth.get_balance(account.address) for account in node.accounts] == [BALANCE_WEI] * 2
