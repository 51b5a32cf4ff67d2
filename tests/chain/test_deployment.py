"""Deploying, finding and recording the contracts."""

import dataclasses

import pytest

import chain.deployment
from chain.accounts import dev_account
from chain.client import ArenaClient
from chain.deployment import Deployment, deploy, find_deployment
from chain.devnet import EmbeddedChain
from chain.errors import ChainError, WrongChain
from chain.types import tokens


def test_the_contracts_know_each_other(world):
    d = world.deployment
    expected = {
        "vault": {"token": d.token, "arena": d.arena, "manager": d.challenges},
        "escrow": {
            "token": d.token, "arena": d.arena, "scoring": d.scoring, "manager": d.challenges, "vault": d.vault,
        },
        "arena": {
            "token": d.token, "vault": d.vault, "escrow": d.escrow, "scoring": d.scoring, "manager": d.challenges,
        },
        "scoring": {"arena": d.arena, "vault": d.vault, "escrow": d.escrow},
        "challenges": {"token": d.token, "arena": d.arena, "vault": d.vault, "escrow": d.escrow},
    }  # fmt: skip
    for name, links in expected.items():
        client = getattr(world.reader, name)
        assert {link: client.call(link) for link in links} == links
    assert world.reader.scoring.call("rules") == world.reader.arena.call("rules")
    challenges = world.reader.challenges
    rules = challenges.connection.contract("CaseRules", challenges.call("caseRules"))
    assert (rules.functions.arena().call(), rules.functions.scoring().call()) == (d.arena, d.scoring)


def test_one_address_leads_to_all(world):
    assert find_deployment(world.chain.web3, world.deployment.arena) == world.deployment
    with pytest.raises(WrongChain, match="no Arena"):
        find_deployment(world.chain.web3, dev_account(77).address)


def test_the_supply_goes_to_the_deployer_even_after_other_transactions():
    chain_ = EmbeddedChain(accounts=1)
    first = deploy(chain_.web3, chain_.accounts[0], tokens(10))
    second = deploy(chain_.web3, chain_.accounts[0], tokens(20))
    assert set(first.names()).isdisjoint(second.names())
    client = ArenaClient(chain_.web3, second, chain_.accounts[0])
    assert client.token.balance_of(client.address) == client.token.total_supply() == tokens(20)


def test_a_wrong_prediction_is_noticed(monkeypatch):
    predict = chain.deployment._predict
    monkeypatch.setattr(chain.deployment, "_predict", lambda account, nonce: predict(account, nonce + 1))
    chain_ = EmbeddedChain(accounts=1)
    with pytest.raises(ChainError, match="deploy again"):
        deploy(chain_.web3, chain_.accounts[0], tokens(10))


class TestRecord:
    def test_round_trip(self, world, tmp_path):
        path = tmp_path / "deployment.json"
        world.deployment.save(path)
        assert Deployment.load(path) == world.deployment

    @pytest.mark.parametrize(
        "change",
        [
            {"chain_id": 0},
            {"chain_id": True},
            {"chain_id": "1"},
            {"arena": ""},
            {"arena": 7},
            {"arena": "0x" + "ab" * 20},
            {"owner": "0x"},
            {"since": -1},
            {"since": None},
        ],
    )
    def test_anything_else_is_refused(self, world, change):
        with pytest.raises(ChainError, match="deployment"):
            Deployment.from_json({**world.deployment.to_json(), **change})

    def test_missing_and_broken_files_are_refused(self, tmp_path):
        broken = tmp_path / "broken.json"
        broken.write_text("{")
        for path in (broken, tmp_path / "none.json"):
            with pytest.raises(ChainError, match="cannot read the deployment"):
                Deployment.load(path)
        broken.write_text("[]")
        with pytest.raises(ChainError, match="expected an object"):
            Deployment.load(broken)

    def test_is_frozen(self, world):
        with pytest.raises(dataclasses.FrozenInstanceError):
            world.deployment.chain_id = 5
