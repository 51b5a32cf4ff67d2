"""Vault, escrow and emission through their clients: delegations over rounds, sponsors, deposits, a fund's days."""

from fractions import Fraction

import pytest

from chain.delegation import Delegations
from chain.emission import Fund, deploy_emission, open_emission
from chain.types import Role, Stretch, tokens
from tests.chain.play import World, digest, refused

DAY = 86_400


@pytest.fixture(scope="module")
def world():
    return World()


def staked_task(world):
    """One trainer, one validator; rounds of two days."""
    task = world.task(start=world.chain.now() + DAY, round_length=2 * DAY)
    task.trainer(1, tokens(1_000), commission_bps=1_000)
    task.validator(2, tokens(500))
    return task


@pytest.fixture
def task(world):
    with world.wound_back():
        yield staked_task(world)


@pytest.fixture(scope="module")
def played(world):
    """A task that is over: Dora lent before it, Dan in its first round, somebody added to the final round's reward; and
    the creator opened the final set."""
    task = staked_task(world)
    creator, alice, vera, dora, dan, sponsor = world.clients[:6]
    dora.vault.delegate(task.id, alice.address, tokens(33))
    sponsor.escrow.sponsor(task.id, 3, tokens(7))
    task.to_submission()
    proof = task.submit(alice)
    dan.vault.delegate(task.id, alice.address, tokens(77))
    task.to_round_end(1)
    task.reveal(alice, proof)
    for number in (1, 2, 3):
        task.to(task.reader.arena.round_times(task.id, number).opens_at)
        if number == 3:
            creator.scoring.open_final_set(task.id, digest("final root"), digest("final salt"), "bafy-final")
        task.score(number, {vera: [9_000]})
        task.settle(number)
    task.to_closed()
    return task


def test_delegators_are_paid_what_the_model_says(played):
    alice, _, dora, dan = played.world.clients[1:5]
    vault, escrow, token = played.reader.vault, played.reader.escrow, played.reader.token
    assert vault.delegation_history(played.id, alice.address, dan.address) == (Stretch(2, tokens(77)),)
    assert vault.delegation_of(played.id, alice.address, dora.address) == tokens(33)
    assert [vault.stakes(played.id, Role.TRAINER, r)[0].delegated for r in (1, 2)] == [tokens(33), tokens(110)]

    model, operator = Delegations(tokens(1_000), Fraction(1, 10)), 0
    rewards = {e.args["round"]: e.args["amount"] for e in escrow.events("Allocated", operator=alice.address)}
    assert len(rewards) > 1
    model.lend("dora", tokens(33), 0)
    for number in (1, 2, 3):
        if number == 2:
            model.lend("dan", tokens(77), 1)
        operator += model.settle(rewards.get(number, 0))
    assert escrow.claimable(played.id, alice.address) == operator
    for name, client in {"dora": dora, "dan": dan}.items():
        assert escrow.claimable_delegated(played.id, alice.address, client.address) == model.claimable(name)
        before = token.balance_of(client.address)
        client.escrow.claim_delegated(played.id, alice.address)
        assert token.balance_of(client.address) - before == model.claimable(name) > 0


def test_the_creator_who_opened_the_final_set_gets_its_deposit_back(played):
    creator, escrow, token = played.world.creator, played.reader.escrow, played.reader.token
    assert escrow.sponsored(played.id, 3) == tokens(7)
    refused("DepositEarned", creator.escrow.burn_deposit, played.id)
    books, before = escrow.budget_of(played.id), token.balance_of(creator.address)
    creator.escrow.reclaim(played.id)
    back = max(0, books.budget - books.allocated) + books.deposit
    assert token.balance_of(creator.address) - before == back > books.deposit
    assert escrow.budget_of(played.id).reclaimed


def test_an_absent_creators_deposit_burns(task):
    task.to_closed()
    supply, deposit = task.reader.token.total_supply(), task.config.pay.deposit
    task.world.clients[5].escrow.burn_deposit(task.id)
    assert task.reader.token.total_supply() == supply - deposit


def test_a_fund_adds_to_the_rounds_of_the_tasks_enlisted(task):
    terms = Fund(
        first_amount=tokens(100),
        epoch=task.chain.now(),
        decay=tokens("0.5"),
        period=2,
        beta=tokens(1),
        least_stake=tokens(100),
        least_deposit=tokens(10),
    )
    emission = deploy_emission(task.world.creator, terms)
    assert open_emission(task.world.clients[1], emission.address).fund() == terms
    assert [emission.amount_of(day) for day in (1, 2, 4)] == [tokens(100), tokens(50), tokens(25)]
    task.world.creator.token.transfer(emission.address, tokens(1_000))

    task.to_submission()
    receipt = emission.enlist(task.id)
    assert receipt.event("EnlistedTask").args["weight"] == emission.enlisted(task.id).weight == tokens(1_500)
    task.to_round_end(1)
    refused("NotPoked", emission.pay, task.id, 1)
    emission.poke(100)
    due = emission.earned(task.id, 1)
    emission.pay(task.id, 1)
    days = range(emission.enlisted(task.id).first_day, emission.poked())
    assert task.reader.escrow.sponsored(task.id, 1) == due
    assert 0 <= sum(emission.amount_of(day) for day in days) - due < 2
