"""One task from its creation to the last claim, on the EVM: who is paid what, when, and that no wei is lost."""

from fractions import Fraction

import pytest

from chain.anchoring import read_run
from chain.case import CaseVerdict
from chain.rewards import delegator_pool, delegator_reward
from chain.terms import BPS
from chain.types import Phase, tokens
from pol.transcript import transcript_digest
from tests.chain.play import PURSE, SUPPLY, World, digest, refused

COMMISSION = 2_000


@pytest.fixture(scope="module")
def story():
    return Story(World())


class Story:
    """Alice and Bob are honest; Carol does not answer when challenged. Two delegators lend to Alice."""

    def __init__(self, world):
        self.world = world
        self.before = world.balances()
        self.task = task = world.task()
        self.alice = task.trainer(1, tokens(5_000), COMMISSION)
        self.bob = task.trainer(2, tokens(6_000))
        self.carol = task.trainer(3, tokens(400))
        self.validators = [
            task.validator(index, tokens(stake)) for index, stake in ((5, 2_000), (6, 3_000), (7, 1_000))
        ]
        self.lenders = world.clients[9:11]
        for lender, amount in zip(self.lenders, (1_500, 500), strict=True):
            lender.vault.delegate(task.id, self.alice.address, tokens(amount))
        self.trainers = [self.alice, self.bob, self.carol]
        self.staked = world.balances()

    def check_books(self):
        """Nothing but burning changes the sum."""
        balances = self.world.balances()
        assert sum(balances.values()) == self.world.reader.token.total_supply()
        return balances

    def nobody_is_paid(self):
        """Balances are what they were after staking, but for the bonds of the runs registered since."""
        balances = self.check_books()
        config, arena = self.task.config, self.world.reader.arena
        for client in [*self.trainers, *self.lenders]:
            bonds = len(arena.runs_of(self.task.id, client.address)) * config.pay.run_bond
            assert balances[client.address] == self.staked[client.address] - bonds
        assert balances[self.world.deployment.escrow] == config.cost
        for client in [*self.trainers, *self.validators]:
            assert client.escrow.claimable(self.task.id, client.address) == 0
            refused("WrongPhase", client.escrow.claim, self.task.id)
            refused("WrongPhase", client.vault.withdraw, self.task.id)
        for lender in self.lenders:
            refused("WrongPhase", lender.escrow.claim_delegated, self.task.id, self.alice.address)
            refused("WrongPhase", lender.vault.undelegate, self.task.id, self.alice.address)
        refused("WrongPhase", self.world.creator.escrow.reclaim, self.task.id)

    def score(self, round_, rows):
        self.task.score(round_, dict(zip(self.validators, rows, strict=True)))
        return self.task.settle(round_)


def test_the_whole_story(story):
    world, task = story.world, story.task
    reader = world.reader
    alice, bob, carol = story.trainers
    assert reader.arena.phase(task.id) == Phase.REGISTRATION
    story.nobody_is_paid()

    task.to_submission()
    proofs = {alice: task.submit(alice, "alice"), bob: task.submit(bob, "bob")}
    record = read_run(reader, proofs[alice].run_id)
    assert record.anchors == tuple(proofs[alice].anchors)
    assert record.transcript_digest == transcript_digest(proofs[alice].spec_digest, record.anchors)
    assert record.reference_digest == proofs[alice].segments[2].end_digest
    assert [submission.model_digest for submission in record.submissions] == [None]

    task.to_round_end(1)
    proofs[carol] = task.submit(carol, "carol")  # in the second round
    for trainer in (alice, bob):
        task.reveal(trainer, proofs[trainer])
    assert read_run(reader, proofs[alice].run_id).submissions[0].model_cid == "bafy-alice"
    story.score(1, [[9_000, 8_000, 0], [9_100, 8_100, 0], [8_800, 8_300, 0]])
    story.nobody_is_paid()

    task.to_round_end(2)
    task.reveal(carol, proofs[carol])
    story.score(2, [[8_000, 7_000, 9_500], [8_100, 7_100, 9_400], [8_200, 7_200, 9_600]])
    story.nobody_is_paid()

    task.to(reader.arena.round_times(task.id, 3).opens_at)
    world.creator.scoring.open_final_set(task.id, digest("final root"), digest("final salt"), "bafy-final")
    story.score(3, [[9_000, 7_000, 8_000], [9_000, 7_100, 8_100], [9_000, 6_900, 8_200]])
    assert [result.rank for result in reader.scoring.results(task.id, 3)] == [1, 3, 2]
    assert reader.scoring.settled_rounds(task.id) == 3
    story.nobody_is_paid()

    task.to_challenging()
    story.nobody_is_paid()
    judge_carol(story)
    story.check_books()

    task.to_closed()
    pay_out(story, proofs)


def judge_carol(story):
    """A validator challenges Carol; she lets the time pass, so the case is upheld by default."""
    world, task, carol = story.world, story.task, story.carol
    challenger = story.validators[0]
    reader = world.reader
    allotted = reader.escrow.allocated(task.id, carol.address)
    assert 0 < allotted <= reader.vault.slashable(task.id, carol.address)
    case = task.open_case(challenger, carol, 2)
    refused("TooEarly", challenger.challenges.settle, case)
    task.to(reader.challenges.case(case).deadline)
    supply = reader.token.total_supply()
    assert challenger.challenges.settle(case) == CaseVerdict.UPHELD

    burned = allotted * task.config.court.burn_bps // BPS
    assert reader.escrow.forfeited(task.id, carol.address)
    assert reader.vault.slashed(task.id, carol.address) == tokens(400)
    assert reader.token.total_supply() == supply - tokens(400) - burned
    assert reader.challenges.credit(challenger.address) == task.config.court.bond
    refused("WrongPhase", challenger.challenges.award, task.id, carol.address)


def pay_the_challenger(story, allotted):
    """Carol's reward, less what was burned of it, is the challenger's: the task is closed."""
    world, task, challenger = story.world, story.task, story.validators[0]
    forfeited = allotted - burned_of(story, story.carol)
    assert world.creator.challenges.award(task.id, story.carol.address) == forfeited
    challenger.challenges.withdraw_credit()
    gained = world.reader.token.balance_of(challenger.address) - story.staked[challenger.address]
    assert gained == forfeited


def pay_out(story, proofs):
    world, task = story.world, story.task
    reader = world.reader
    alice, bob, carol = story.trainers
    allotted = reader.escrow.allocated(task.id, alice.address)
    own_part, pool = delegator_pool(allotted, Fraction(COMMISSION, BPS), tokens(5_000), tokens(2_000))
    pay_the_challenger(story, reader.escrow.allocated(task.id, carol.address))
    before = world.balances()

    # three rounds, each rounded down
    alice.escrow.claim(task.id)
    assert 0 <= reader.token.balance_of(alice.address) - before[alice.address] - own_part <= 3
    refused("NothingToPay", alice.escrow.claim, task.id)
    for lender, lent in zip(story.lenders, (1_500, 500), strict=True):
        lender.escrow.claim_delegated(task.id, alice.address)
        gained = reader.token.balance_of(lender.address) - before[lender.address]
        assert 0 <= delegator_reward(pool, tokens(lent), tokens(2_000)) - gained <= 4
        lender.vault.undelegate(task.id, alice.address)
    bob.escrow.claim(task.id)
    refused("AlreadyForfeited", carol.escrow.claim, task.id)
    for client in [alice, bob, carol, *story.validators]:
        client.vault.withdraw(task.id)
    for validator in story.validators:
        validator.escrow.claim(task.id)
    world.creator.escrow.reclaim(task.id)
    for trainer in (alice, bob):
        trainer.arena.release_run_bond(proofs[trainer].run_id)
    refused("BondForfeited", carol.arena.release_run_bond, proofs[carol].run_id)
    world.creator.arena.void_run(proofs[carol].run_id)

    after = story.check_books()
    bond = task.config.pay.run_bond
    assert after[carol.address] == PURSE - tokens(400) - bond
    empty = (world.deployment.vault, world.deployment.arena, world.deployment.challenges)
    assert [after[contract] for contract in empty] == [0, 0, 0]
    assert after[world.deployment.escrow] <= 2 * len(story.lenders) + 3  # dust: two wei a delegator, one a round
    burned = reader.vault.slashed(task.id, carol.address) + burned_of(story, carol) + bond
    assert sum(after.values()) == SUPPLY - burned
    assert all(after[honest.address] > story.before[honest.address] for honest in (alice, bob, *story.lenders))


def burned_of(story, trainer):
    return story.world.reader.escrow.allocated(story.task.id, trainer.address) * story.task.config.court.burn_bps // BPS
