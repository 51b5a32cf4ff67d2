"""Cases on the EVM: the draw is the one computed here, and each way a case can end pays whom it should."""

import pytest

from chain.anchoring import RunAnchorer
from chain.commitments import case_seed, sampled_segments
from chain.types import CaseVerdict, tokens
from tests.chain.play import Proof, digest, refused

BOND, OPENING_COST = tokens(50), tokens(5)


class Court:
    """A task in its challenging phase. Alice is honest; Mallory's segments do not join."""

    def __init__(self, world, **changes):
        terms = {"challenge_length": 50_000, "challenge_bond": BOND, "opening_cost": OPENING_COST, **changes}
        self.task = task = world.task(**terms)
        self.world, self.reader = world, world.reader
        self.alice, self.mallory = task.trainer(1, tokens(2_000)), task.trainer(2, tokens(2_000))
        stakes = {5: 1_000, 6: 1_000, 7: 1_000, 8: 1_500}
        self.challenger, *self.jury = [task.validator(index, tokens(stake)) for index, stake in stakes.items()]
        task.to_submission()
        self.proofs = {self.alice: self.submit(self.alice, "honest"), self.mallory: self.submit(self.mallory, "broken")}
        task.to_round_end(1)
        for trainer, proof in self.proofs.items():
            task.reveal(trainer, proof)
        task.score(1, {judge: [9_000, 9_500] for judge in (self.challenger, *self.jury)})
        task.settle(1)
        task.to_challenging()

    def submit(self, trainer, label):
        proof = self.task.register(trainer, (label, self.task.id))
        if label == "broken":
            other = Proof("elsewhere", self.task.config).segments
            proof.segments = [proof.segments[0], *other[1:]]
        self.task.anchor(trainer, proof)
        self.task.mark(trainer, proof)
        self.task.commit(trainer, proof)
        return proof

    def open(self, trainer):
        """Open a case and draw its segments."""
        case = self.challenger.challenges.open_case(self.task.id, trainer.address, digest("evidence"), bond=BOND)
        self.task.chain.mine(2)
        self.challenger.challenges.latch_seed(case)
        return case

    def answer(self, trainer, case):
        drawn = self.reader.challenges.sampled_segments(case)
        trainer.challenges.respond(case, [self.proofs[trainer].open(index) for index in drawn], "bafy-bundle")

    def vote(self, case, *votes):
        """Each of the jury in turn: ``(uphold, reproduction)``, or ``None`` to stay away."""
        cast = [(juror, vote) for juror, vote in zip(self.jury, votes, strict=False) if vote is not None]
        for juror, (uphold, reproduction) in cast:
            ballot = {"uphold": uphold, "reproduction": reproduction, "salt": digest("vote", juror.address, case)}
            juror.challenges.commit_vote(case, **ballot)
        self.task.to(self.reader.challenges.case(case).commit_by)
        for juror, (uphold, reproduction) in cast:
            ballot = {"uphold": uphold, "reproduction": reproduction, "salt": digest("vote", juror.address, case)}
            juror.challenges.reveal_vote(case, **ballot)
        self.task.to(self.reader.challenges.case(case).reveal_by)

    def credit(self, client):
        return self.reader.challenges.credit(client.address)


@pytest.fixture(scope="module")
def opened(world):
    return Court(world)


@pytest.fixture
def court(opened):
    """The same court for each test, wound back afterwards."""
    with opened.world.wound_back():
        yield opened


def test_the_draw_equals_the_contracts(world):
    # As many draws as segments: duplicates are certain, and each must be skipped alike.
    court = Court(world, steps=160, sampled_segments=16, opening_cost=tokens(1), answer_window=1_000)
    for trainer in (court.alice, court.mallory, court.alice, court.alice):
        case = court.open(trainer)
        seed = case_seed(court.reader.challenges.case(case).seed.value, case)
        assert court.reader.challenges.sampled_segments(case) == sampled_segments(seed, 16, 16)


@pytest.mark.parametrize(("segments", "drawn"), [(5, 5), (12, 8)], ids=["fewer than the sample", "more"])
def test_the_draw_of_a_stopped_run_is_from_its_declared_segments(world, segments, drawn):
    class Stopped(Court):
        def submit(self, trainer, label):
            proof = self.task.register(trainer, (label, self.task.id))
            self.task.anchor(trainer, proof, parts=(3, segments - 3))
            RunAnchorer(trainer, self.task.id).stop(segments)
            self.task.mark(trainer, proof)
            self.task.commit(trainer, proof)
            return proof

    with world.wound_back():
        court = Stopped(world, steps=160, sampled_segments=8, opening_cost=tokens(1), answer_window=1_000)
        for trainer in (court.mallory, court.alice):
            case = court.open(trainer)
            seed = case_seed(court.reader.challenges.case(case).seed.value, case)
            assert court.reader.challenges.sampled_segments(case) == sampled_segments(seed, segments, drawn)
            court.answer(trainer, case)
        court.vote(case, (False, bytes(32)), (False, bytes(32)), (False, bytes(32)))
        assert court.challenger.challenges.settle(case) == CaseVerdict.REJECTED
        assert court.credit(court.alice) == drawn * tokens(1)


def test_the_draw_waits_for_its_block(court):
    case = court.challenger.challenges.open_case(court.task.id, court.alice.address, digest("evidence"), bond=BOND)
    refused("SeedNotLatched", court.reader.challenges.sampled_segments, case)
    refused("BeaconNotReady", court.alice.challenges.latch_seed, case)
    state = court.reader.challenges.case(case)
    assert (state.challenger, state.trainer) == (court.challenger.address, court.alice.address)
    assert (state.verdict, state.answer_by, state.seed.latched) == (CaseVerdict.PENDING, 0, False)
    assert court.reader.challenges.pending_cases(court.task.id, court.alice.address) == 1
    assert court.reader.challenges.case_count() == case


def test_only_validators_challenge_and_only_standing_models(court):
    refused(
        "NotValidator", court.alice.challenges.open_case, court.task.id, court.mallory.address, digest("e"), bond=BOND
    )
    nobody = court.world.clients[3].address
    refused("NotStanding", court.challenger.challenges.open_case, court.task.id, nobody, digest("e"), bond=BOND)


def test_an_answer_opens_the_drawn_segments_in_order(court):
    case = court.open(court.alice)
    proof, respond = court.proofs[court.alice], court.alice.challenges.respond
    first, second = court.reader.challenges.sampled_segments(case)
    good = [proof.open(first), proof.open(second)]
    other = next(index for index in range(4) if index not in (first, second))
    forged = Proof("someone else", court.task.config)
    forged.anchors = proof.anchors
    refused("NotTrainer", court.mallory.challenges.respond, case, good, "bafy")
    assert refused("WrongOpeningCount", respond, case, good[:1], "bafy").args_by_name == {"have": 1, "need": 2}
    assert refused("BadOpening", respond, case, good[::-1], "bafy").args_by_name == {"k": 0}
    assert refused("BadOpening", respond, case, [good[0], proof.open(other)], "bafy").args_by_name == {"k": 1}
    assert refused("BadOpening", respond, case, [forged.open(first), good[1]], "bafy").args_by_name == {"k": 0}
    refused("NotAnswered", court.jury[0].challenges.commit_vote, case, uphold=False, salt=digest("s"))
    respond(case, good, "bafy")
    refused("AlreadyAnswered", respond, case, good, "bafy")


def test_rejected_pays_the_trainer_its_cost_and_burns_the_rest(court):
    case, supply = court.open(court.alice), court.reader.token.total_supply()
    court.answer(court.alice, case)
    court.vote(case, (False, bytes(32)), (False, bytes(32)), (True, digest("mine")))
    assert court.challenger.challenges.settle(case) == CaseVerdict.REJECTED
    assert (court.credit(court.alice), court.credit(court.challenger)) == (2 * OPENING_COST, 0)
    assert court.reader.token.total_supply() == supply - (BOND - 2 * OPENING_COST)
    assert not court.reader.escrow.forfeited(court.task.id, court.alice.address)
    before = court.reader.token.balance_of(court.alice.address)
    court.alice.challenges.withdraw_credit()
    assert court.reader.token.balance_of(court.alice.address) == before + 2 * OPENING_COST
    refused("NothingToPay", court.alice.challenges.withdraw_credit)


def test_upheld_by_two_equal_reproductions(court):
    case = court.open(court.mallory)
    court.answer(court.mallory, case)
    allotted = court.reader.escrow.allocated(court.task.id, court.mallory.address)
    court.vote(case, (True, digest("found")), (True, digest("found")), None)
    assert court.jury[0].challenges.settle(case) == CaseVerdict.UPHELD
    assert court.credit(court.challenger) == BOND + allotted - allotted * court.task.config.burn_bps // 10_000
    assert court.reader.vault.slashed(court.task.id, court.mallory.address) == tokens(2_000)
    refused(
        "NothingAtStake",
        court.challenger.challenges.open_case,
        court.task.id,
        court.mallory.address,
        digest("again"),
        bond=BOND,
    )


@pytest.mark.parametrize(
    "votes",
    [
        [(True, digest("one")), (True, digest("two")), (True, digest("three"))],
        [(True, bytes(32)), (True, bytes(32)), (True, bytes(32))],
        [(True, digest("one")), None, None],
        [None, None, None],
    ],
    ids=["nobody agrees with anybody", "nobody reproduced anything", "too few", "silence"],
)
def test_inconclusive_returns_the_bond_and_convicts_nobody(court, votes):
    case = court.open(court.alice)
    court.answer(court.alice, case)
    court.vote(case, *votes)
    assert court.challenger.challenges.settle(case) == CaseVerdict.INCONCLUSIVE
    assert (court.credit(court.challenger), court.credit(court.alice)) == (BOND, 0)
    assert not court.reader.escrow.forfeited(court.task.id, court.alice.address)


def test_segments_that_do_not_join_convict_without_a_vote(court):
    case = court.open(court.mallory)
    proof = court.proofs[court.mallory]
    refused("NoDiscontinuity", court.jury[0].challenges.prove_discontinuity, case, proof.open(1), proof.open(2))
    assert refused(
        "BadOpening", court.jury[0].challenges.prove_discontinuity, case, proof.open(0), proof.open(2)
    ).args_by_name == {"k": 1}
    court.jury[0].challenges.prove_discontinuity(case, proof.open(0), proof.open(1))
    assert court.reader.challenges.case(case).verdict == CaseVerdict.UPHELD
    refused("CaseSettledAlready", court.challenger.challenges.settle, case)


def test_segments_that_join_convict_nobody(court):
    case = court.open(court.alice)
    proof = court.proofs[court.alice]
    for index in range(3):
        refused(
            "NoDiscontinuity",
            court.jury[0].challenges.prove_discontinuity,
            case,
            proof.open(index),
            proof.open(index + 1),
        )


def test_a_case_whose_seed_nobody_latches_lapses(court):
    supply = court.reader.token.total_supply()
    case = court.challenger.challenges.open_case(court.task.id, court.alice.address, digest("evidence"), bond=BOND)
    court.task.to(court.reader.challenges.case(case).latch_by)
    assert court.jury[0].challenges.settle(case) == CaseVerdict.LAPSED
    assert court.credit(court.challenger) == court.credit(court.alice) == 0
    assert court.reader.token.total_supply() == supply - BOND


def test_votes_are_their_owners_promise(court):
    case = court.open(court.alice)
    court.answer(court.alice, case)
    juror, other = court.jury[:2]
    vote = {"uphold": False, "reproduction": bytes(32), "salt": digest("salt")}
    refused("NotAllowed", court.challenger.challenges.commit_vote, case, **vote)
    refused("NotValidator", court.mallory.challenges.commit_vote, case, **vote)
    juror.challenges.commit_vote(case, **vote)
    refused("TooEarly", juror.challenges.reveal_vote, case, **vote)
    court.task.to(court.reader.challenges.case(case).commit_by)
    refused("VoteNotCommitted", other.challenges.reveal_vote, case, **vote)
    refused("BadVoteReveal", juror.challenges.reveal_vote, case, **{**vote, "uphold": True})
    juror.challenges.reveal_vote(case, **vote)
    refused("VoteAlreadyRevealed", juror.challenges.reveal_vote, case, **vote)
    assert court.reader.challenges.case(case).reject_weight == tokens(1_000)
