"""One task from its creation to the last claim, on the EVM: who is paid what, when, and that no wei is lost."""

from fractions import Fraction

import pytest

from chain.anchoring import read_run
from chain.rewards import delegator_pool, delegator_reward
from chain.types import BPS, CaseVerdict, Phase, tokens
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
        """Nothing but burning changes the sum, and nobody was paid: balances are what they were after staking."""
        balances = self.world.balances()
        assert sum(balances.values()) == self.world.reader.token.total_supply()
        return balances

    def nobody_is_paid(self):
        balances = self.check_books()
        for client in [*self.trainers, *self.lenders]:
            assert balances[client.address] == self.staked[client.address]
        assert balances[self.world.deployment.escrow] == self.task.config.budget
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
    record = read_run(reader, task.id, alice.address)
    assert record.anchors == tuple(proofs[alice].anchors)
    assert record.transcript_digest == transcript_digest(proofs[alice].spec_digest, record.anchors)
    assert record.reference_digest == proofs[alice].segments[2].end_digest
    assert record.submission.model_digest is None

    task.to_round_end(1)
    proofs[carol] = task.submit(carol, "carol")  # in the second round
    for trainer in (alice, bob):
        task.reveal(trainer, proofs[trainer])
    assert read_run(reader, task.id, alice.address).submission.model_cid == "bafy-alice"
    story.score(1, [[9_000, 8_000, 0], [9_100, 8_100, 0], [8_800, 8_300, 0]])
    story.nobody_is_paid()

    task.to_round_end(2)
    task.reveal(carol, proofs[carol])
    story.score(2, [[8_000, 7_000, 9_500], [8_100, 7_100, 9_400], [8_200, 7_200, 9_600]])
    story.nobody_is_paid()

    task.to(reader.arena.round_times(task.id, 3).opens_at)
    world.creator.arena.open_final_set(task.id, digest("final root"), digest("final salt"), "bafy-final")
    story.score(3, [[9_000, 7_000, 8_000], [9_000, 7_100, 8_100], [9_000, 6_900, 8_200]])
    assert [reader.arena.result(task.id, 3, trainer.address).rank for trainer in story.trainers] == [1, 3, 2]
    assert reader.arena.settled_rounds(task.id) == 3
    story.nobody_is_paid()

    task.to_challenging()
    story.nobody_is_paid()
    judge_carol(story)
    story.check_books()

    task.to_closed()
    pay_out(story)


def judge_carol(story):
    """A validator challenges Carol; she lets the time pass, so the case is upheld by default."""
    world, task, carol = story.world, story.task, story.carol
    challenger = story.validators[0]
    reader = world.reader
    allotted = reader.escrow.allocated(task.id, carol.address)
    assert 0 < allotted <= reader.vault.slashable(task.id, carol.address)
    case = challenger.challenges.open_case(task.id, carol.address, digest("evidence"), bond=task.config.challenge_bond)
    task.chain.mine(2)
    challenger.challenges.latch_seed(case)
    refused("TooEarly", challenger.challenges.settle, case)
    task.to(reader.challenges.case(case).answer_by)
    supply = reader.token.total_supply()
    assert challenger.challenges.settle(case) == CaseVerdict.UPHELD

    burned = allotted * task.config.burn_bps // BPS
    assert reader.escrow.forfeited(task.id, carol.address)
    assert reader.vault.slashed(task.id, carol.address) == tokens(400)
    assert reader.token.total_supply() == supply - tokens(400) - burned
    assert reader.challenges.credit(challenger.address) == allotted - burned + task.config.challenge_bond
    challenger.challenges.withdraw_credit()
    gained = reader.token.balance_of(challenger.address) - story.staked[challenger.address]
    assert gained == allotted - burned


def pay_out(story):
    world, task = story.world, story.task
    reader = world.reader
    alice, bob, carol = story.trainers
    allotted = reader.escrow.allocated(task.id, alice.address)
    own_part, pool = delegator_pool(allotted, Fraction(COMMISSION, BPS), tokens(5_000), tokens(2_000))
    before = world.balances()

    alice.escrow.claim(task.id)
    assert reader.token.balance_of(alice.address) - before[alice.address] == own_part
    refused("NothingToPay", alice.escrow.claim, task.id)
    for lender, lent in zip(story.lenders, (1_500, 500), strict=True):
        lender.escrow.claim_delegated(task.id, alice.address)
        gained = reader.token.balance_of(lender.address) - before[lender.address]
        assert gained == delegator_reward(pool, tokens(lent), tokens(2_000))
        lender.vault.undelegate(task.id, alice.address)
    bob.escrow.claim(task.id)
    refused("AlreadyForfeited", carol.escrow.claim, task.id)
    for client in [alice, bob, carol, *story.validators]:
        client.vault.withdraw(task.id)
    for validator in story.validators:
        validator.escrow.claim(task.id)
    world.creator.escrow.reclaim(task.id)

    after = story.check_books()
    assert after[carol.address] == PURSE - tokens(400)
    assert after[world.deployment.vault] == after[world.deployment.challenges] == 0
    assert after[world.deployment.escrow] < len(story.lenders)  # less than a wei of dust a delegator
    assert sum(after.values()) == SUPPLY - reader.vault.slashed(task.id, carol.address) - burned_of(story, carol)
    assert all(after[honest.address] > story.before[honest.address] for honest in (alice, bob, *story.lenders))


def burned_of(story, trainer):
    return story.world.reader.escrow.allocated(story.task.id, trainer.address) * story.task.config.burn_bps // BPS
