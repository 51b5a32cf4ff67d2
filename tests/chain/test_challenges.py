"""Cases on the EVM: the draw is the one computed here, and each way a case can end pays whom it should."""

from dataclasses import replace

import pytest

from chain.anchoring import RunAnchorer
from chain.case import CaseVerdict, Charge, Ground, LeafRange, MarkChannel, Stage
from chain.commitments import case_seed, charge_commitment, sampled_segments, vote_commitment
from chain.types import tokens
from tests.chain.play import Proof, digest, refused

BOND, OPENING_COST = tokens(50), tokens(5)
SALT = digest("the challenger's salt")


def charge_against(trainer, **changes):
    """What the challenger seals against the trainer's submission of round 1."""
    plain = Charge(trainer=trainer.address, round=1, ground=Ground.REPLAY, evidence_digest=digest("evidence"))
    return replace(plain, **changes)


class Court:
    """A task in its challenging phase. Alice is honest; Mallory's segments do not join."""

    def __init__(self, world, **changes):
        terms = {"challenge_length": 50_000, "bond": BOND, "opening_cost": OPENING_COST, **changes}
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

    def seal(self, trainer, **changes):
        """Seal a charge; returns its case and the charge."""
        charge = charge_against(trainer, **changes)
        return self.challenger.challenges.seal_case(self.task.id, charge, SALT, bond=BOND), charge

    def open(self, trainer, **changes):
        """Seal and show a case, and draw its segments."""
        case, charge = self.seal(trainer, **changes)
        self.challenger.challenges.show_case(case, charge, SALT)
        self.task.chain.mine(2)
        self.challenger.challenges.latch_seed(case)
        return case

    def answer(self, trainer, case):
        drawn = self.reader.challenges.segments_to_open(case)
        trainer.challenges.respond(case, [self.proofs[trainer].open(index) for index in drawn], "bafy-bundle")

    def vote(self, case, *votes):
        """Each of the jury in turn: ``(uphold, reproduction)``, or ``None`` to stay away."""
        cast = [(juror, vote) for juror, vote in zip(self.jury, votes, strict=False) if vote is not None]
        for juror, (uphold, reproduction) in cast:
            ballot = {"uphold": uphold, "reproduction": reproduction, "salt": digest("vote", juror.address, case)}
            juror.challenges.commit_vote(case, **ballot)
        self.task.to(self.reader.challenges.case(case).deadline)
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
    court = Court(world, steps=160, sampled=16, opening_cost=tokens(1), answer_window=1_000)
    for trainer in (court.alice, court.mallory, court.alice, court.alice):
        case = court.open(trainer)
        seed = case_seed(court.reader.challenges.case(case).seed.value, case)
        assert court.reader.challenges.segments_to_open(case) == sampled_segments(seed, 16, 16)


@pytest.mark.parametrize(("segments", "drawn"), [(5, 5), (12, 8)], ids=["fewer than the sample", "more"])
def test_the_draw_of_a_stopped_run_is_from_its_declared_segments(world, segments, drawn):
    class Stopped(Court):
        def submit(self, trainer, label):
            proof = self.task.register(trainer, (label, self.task.id))
            self.task.anchor(trainer, proof, parts=(3, segments - 3))
            RunAnchorer(trainer, proof.run_id).stop(segments)
            self.task.mark(trainer, proof)
            self.task.commit(trainer, proof)
            return proof

    with world.wound_back():
        court = Stopped(world, steps=160, sampled=8, opening_cost=tokens(1), answer_window=1_000)
        for trainer in (court.mallory, court.alice):
            case = court.open(trainer)
            seed = case_seed(court.reader.challenges.case(case).seed.value, case)
            assert court.reader.challenges.segments_to_open(case) == sampled_segments(seed, segments, drawn)
            court.answer(trainer, case)
        court.vote(case, (False, bytes(32)), (False, bytes(32)), (False, bytes(32)))
        assert court.challenger.challenges.settle(case) == CaseVerdict.REJECTED
        assert court.credit(court.alice) == drawn * tokens(1)


def test_a_charge_is_sealed_first_and_shown_later(court):
    case, charge = court.seal(court.alice)
    site = court.challenger.challenges.site
    state = court.reader.challenges.case(case)
    assert state.commitment == charge_commitment(site, court.task.id, court.challenger.address, charge, SALT)
    assert (state.stage, state.verdict, state.run_id) == (Stage.SEALED, CaseVerdict.PENDING, 0)
    assert court.reader.challenges.pending_cases(court.task.id, court.alice.address) == 0
    refused("BadCharge", court.challenger.challenges.show_case, case, charge_against(court.mallory), SALT)
    refused("BadCharge", court.challenger.challenges.show_case, case, charge, digest("another salt"))
    refused("NotAllowed", court.jury[0].challenges.show_case, case, charge, SALT)
    court.challenger.challenges.show_case(case, charge, SALT)
    state = court.reader.challenges.case(case)
    assert (state.stage, state.charge, state.run_id) == (Stage.SHOWN, charge, court.proofs[court.alice].run_id)
    assert court.reader.challenges.pending_cases(court.task.id, court.alice.address) == 1


def test_the_draw_waits_for_its_block(court):
    case, charge = court.seal(court.alice)
    court.challenger.challenges.show_case(case, charge, SALT)
    refused("WrongStage", court.reader.challenges.segments_to_open, case)
    refused("BeaconNotReady", court.alice.challenges.latch_seed, case)
    assert not court.reader.challenges.case(case).seed.latched
    assert court.reader.challenges.case_count() == case


def test_named_segments_are_opened_besides(court):
    case = court.open(court.alice, named=(3, 0))
    assert court.reader.challenges.segments_to_open(case)[:2] == [3, 0]
    assert len(court.reader.challenges.segments_to_open(case)) == 4
    court.answer(court.alice, case)
    assert court.reader.challenges.case(case).stage is Stage.VOTING


def test_only_operators_challenge_and_only_standing_models(court):
    stranger = court.world.clients[3]
    refused("NotAllowed", stranger.challenges.seal_case, court.task.id, charge_against(court.alice), SALT, bond=BOND)
    for charge in (charge_against(stranger), charge_against(court.alice, round=2)):
        case = court.challenger.challenges.seal_case(court.task.id, charge, SALT, bond=BOND)
        refused("NotStanding", court.challenger.challenges.show_case, case, charge, SALT)


def test_an_answer_opens_the_drawn_segments_in_order(court):
    case = court.open(court.alice)
    proof, respond = court.proofs[court.alice], court.alice.challenges.respond
    first, second = court.reader.challenges.segments_to_open(case)
    good = [proof.open(first), proof.open(second)]
    other = next(index for index in range(4) if index not in (first, second))
    forged = Proof("someone else", court.task.config)
    forged.anchors = proof.anchors
    refused("NotTrainer", court.mallory.challenges.respond, case, good, "bafy")
    assert refused("WrongOpeningCount", respond, case, good[:1], "bafy").args_by_name == {"have": 1, "need": 2}
    assert refused("BadOpening", respond, case, good[::-1], "bafy").args_by_name == {"k": 0}
    assert refused("BadOpening", respond, case, [good[0], proof.open(other)], "bafy").args_by_name == {"k": 1}
    assert refused("BadOpening", respond, case, [forged.open(first), good[1]], "bafy").args_by_name == {"k": 0}
    refused("WrongStage", court.jury[0].challenges.commit_vote, case, uphold=False, salt=digest("s"))
    respond(case, good, "bafy")
    refused("WrongStage", respond, case, good, "bafy")


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


def test_upheld_by_two_equal_reproductions_and_awarded_when_closed(court):
    case = court.open(court.mallory)
    court.answer(court.mallory, case)
    mallory, allotted = court.mallory.address, court.reader.escrow.allocated(court.task.id, court.mallory.address)
    court.vote(case, (True, digest("found")), (True, digest("found")), None)
    assert court.jury[0].challenges.settle(case) == CaseVerdict.UPHELD
    assert court.credit(court.challenger) == BOND
    assert court.reader.vault.slashed(court.task.id, mallory) == tokens(2_000)
    refused("WrongPhase", court.jury[0].challenges.award, court.task.id, mallory)
    court.task.to_closed()
    award = allotted - allotted * court.task.config.court.burn_bps // 10_000
    assert court.jury[0].challenges.award(court.task.id, mallory) == award
    assert court.credit(court.challenger) == BOND + award


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
def test_inconclusive_pays_the_answer_returns_the_rest_and_convicts_nobody(court, votes):
    case = court.open(court.alice)
    court.answer(court.alice, case)
    court.vote(case, *votes)
    assert court.challenger.challenges.settle(case) == CaseVerdict.INCONCLUSIVE
    paid = OPENING_COST * len(court.reader.challenges.segments_to_open(case))
    assert (court.credit(court.challenger), court.credit(court.alice)) == (BOND - paid, paid)
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
    refused("WrongStage", court.challenger.challenges.settle, case)


def test_what_is_as_it_should_be_convicts_nobody(court):
    case = court.open(court.alice)
    proof, juror = court.proofs[court.alice], court.jury[0].challenges
    for index in range(3):
        refused("NoDiscontinuity", juror.prove_discontinuity, case, proof.open(index), proof.open(index + 1))
    for index in range(4):
        refused("NoBadBounds", juror.prove_bad_bounds, case, proof.open(index))
    refused("NotRefuted", juror.prove_step, case, proof.open(0), b"")


def test_a_case_that_nobody_shows_or_latches_lapses(court):
    supply = court.reader.token.total_supply()
    (sealed, _), (shown, charge) = court.seal(court.alice), court.seal(court.alice)
    court.challenger.challenges.show_case(shown, charge, SALT)
    for case in (sealed, shown):
        court.task.to(court.reader.challenges.case(case).deadline)
        assert court.jury[0].challenges.settle(case) == CaseVerdict.LAPSED
    assert court.credit(court.challenger) == court.credit(court.alice) == 0
    assert court.reader.token.total_supply() == supply - 2 * BOND


def test_votes_are_their_owners_promise(court):
    case = court.open(court.alice)
    court.answer(court.alice, case)
    juror, other = court.jury[:2]
    vote = {"uphold": False, "reproduction": bytes(32), "salt": digest("salt")}
    refused("NotJuror", court.challenger.challenges.commit_vote, case, **vote)
    refused("NotJuror", court.mallory.challenges.commit_vote, case, **vote)
    juror.challenges.commit_vote(case, **vote)
    promise = vote_commitment(juror.challenges.site, case, juror.address, **vote)
    assert court.reader.challenges.vote_commitment(case, juror.address) == promise
    refused("TooEarly", juror.challenges.reveal_vote, case, **vote)
    court.task.to(court.reader.challenges.case(case).deadline)
    refused("VoteNotCommitted", other.challenges.reveal_vote, case, **vote)
    refused("BadVoteReveal", juror.challenges.reveal_vote, case, **{**vote, "uphold": True})
    juror.challenges.reveal_vote(case, **vote)
    refused("AlreadyDone", juror.challenges.reveal_vote, case, **vote)
    assert court.reader.challenges.case(case).tally.reject == tokens(1_000)


def test_what_jurors_could_not_have_is_served_once_more(court):
    case = court.open(court.alice)
    court.answer(court.alice, case)
    for juror in court.jury[1:]:  # 2,500 of 3,500
        juror.challenges.vote_unavailable(case)
    assert court.reader.challenges.case(case).stage is Stage.SERVING
    refused("NotTrainer", court.mallory.challenges.serve_again, case, "bafy-again")
    court.alice.challenges.serve_again(case, "bafy-again")
    court.vote(case, (False, bytes(32)), (False, bytes(32)), (False, bytes(32)))
    assert court.challenger.challenges.settle(case) == CaseVerdict.REJECTED


def test_a_drawn_jury_is_overruled_by_everybody(world):
    with world.wound_back():
        court = Court(world, appeals=1, vote_window=500)
        case = court.open(court.alice)
        court.answer(court.alice, case)
        court.task.chain.mine(2)
        court.jury[0].challenges.latch_jury(case)
        drawn = sum(court.reader.challenges.juror_weight(case, juror.address) for juror in court.jury)
        assert 0 < drawn <= 5  # the challenger's draws seat nobody
        court.task.to(court.reader.challenges.case(case).reveal_by)  # and the jury stays away
        court.alice.challenges.appeal(case, bond=2 * BOND)
        assert court.reader.challenges.juror_weight(case, court.jury[0].address) == tokens(1_000)
        court.vote(case, (False, bytes(32)), (False, bytes(32)), (False, bytes(32)))
        assert court.challenger.challenges.settle(case) == CaseVerdict.REJECTED
        assert court.credit(court.alice) == 2 * BOND + 2 * OPENING_COST


def test_an_accuser_claims_a_run_of_its_own_and_opens_what_is_drawn(court):
    """Alice's key is a made-up digest here; tests/golden/mark.json has real leaves, which the forge tests open."""
    mine = court.proofs[court.alice].run_id
    charge = charge_against(court.mallory, ground=Ground.WATERMARK, claim=mine)
    stolen = court.challenger.challenges.seal_case(court.task.id, charge, SALT, bond=BOND)
    assert refused("BadClaim", court.challenger.challenges.show_case, stolen, charge, SALT).args_by_name == {
        "claim": mine
    }
    case = court.alice.challenges.seal_case(court.task.id, charge, SALT, bond=BOND)
    court.alice.challenges.show_case(case, charge, SALT)
    court.task.chain.mine(2)
    court.alice.challenges.latch_seed(case)
    leaf = LeafRange((digest("seed"), digest("salt")), (digest("sibling"),))
    refused("BeaconNotRequested", court.alice.challenges.open_leaves, case, [MarkChannel(1, 2)], [leaf])
    court.alice.scoring.request_opening_beacon(court.task.id)
    court.task.chain.mine(2)
    court.alice.scoring.latch_opening_beacon(court.task.id)
    refused("BadLeaf", court.alice.challenges.open_leaves, case, [MarkChannel(1, 2)], [leaf])
    court.answer(court.mallory, case)
    court.task.to(court.reader.challenges.case(case).deadline)
    assert court.mallory.challenges.settle(case) == CaseVerdict.REJECTED
    assert court.credit(court.mallory) == 2 * OPENING_COST
