"""Windows and rules as a client meets them: exact at both ends, and each refusal by its name."""

import pytest

from chain.anchoring import RunAnchorer, read_run
from chain.errors import ChainError
from chain.types import FINAL_ROUND, NO_DIGEST, Phase, Role, tokens
from pol.transcript import segment_tree
from tests.chain.play import Proof, digest, refused


@pytest.fixture
def task(world):
    return world.task()


@pytest.fixture(scope="module")
def started(world):
    """A task in its submission phase with two trainers and a validator."""
    task = world.task()
    task.alice, task.bob = task.trainer(1, tokens(1_000)), task.trainer(2, tokens(1_000))
    task.validator(5, tokens(1_000))
    task.to_submission()
    return task


@pytest.fixture
def running(started):
    """The same task for each test, wound back afterwards."""
    with started.world.wound_back():
        yield started


def last_moment(task, end):
    """The next transaction runs one second before ``end``."""
    task.to(end - 2)


def first_moment(task, start):
    """The next transaction runs at ``start`` exactly."""
    task.to(start - 1)


class TestTask:
    def test_terms_and_times_come_back(self, world, task):
        arena, config = world.reader.arena, task.config
        assert arena.task_config(task.id) == config
        assert arena.creator_of(task.id) == world.creator.address
        assert arena.task_count() == task.id
        assert arena.segment_count(task.id) == config.segments
        phases = arena.phase_times(task.id)
        assert phases.submission_from == config.start
        assert phases.closed_from == phases.challenge_from + config.challenge_length
        first, final = arena.round_times(task.id, 1), arena.round_times(task.id, FINAL_ROUND)
        assert first.opens_at == config.start + config.round_length
        assert final.settle_from <= phases.challenge_from
        assert final.settle_until == phases.closed_from

    def test_the_budget_is_paid_in(self, world):
        before = world.reader.token.balance_of(world.creator.address)
        task = world.task()
        assert world.reader.token.balance_of(world.creator.address) == before - task.config.budget
        assert world.reader.escrow.budget_of(task.id).budget == task.config.budget

    def test_unusable_terms_name_the_field(self, world):
        assert refused("BadTerms", world.task, window=0).args_by_name == {"field": "window"}

    def test_phases_follow_the_block_alone(self, world, task):
        phases = world.reader.arena.phase_times(task.id)
        seen = [world.reader.arena.phase(task.id)]
        for start in (phases.submission_from, phases.final_from, phases.challenge_from, phases.closed_from):
            task.to(start - 1)
            assert world.reader.arena.phase(task.id) == seen[-1]
            task.to(start)
            seen.append(world.reader.arena.phase(task.id))
        assert seen == list(Phase)


class TestStake:
    def test_registration_ends_at_the_start(self, world, task):
        last_moment(task, task.config.start)
        client = world.clients[1]
        client.token.approve(world.deployment.vault, tokens(1_000))  # takes the last second but one
        error = refused("WrongPhase", client.vault.stake, task.id, Role.TRAINER, tokens(1_000))
        assert error.args_by_name == {"have": Phase.SUBMISSION, "need": Phase.REGISTRATION}

    def test_stakes_are_listed_in_order(self, world, task):
        for index in (3, 1, 2):
            task.trainer(index, tokens(100 + index), commission_bps=index)
        world.clients[9].vault.delegate(task.id, world.clients[1].address, tokens(7))
        vault = world.reader.vault
        assert vault.operators(task.id, Role.TRAINER) == tuple(world.clients[i].address for i in (3, 1, 2))
        assert [(s.own, s.delegated) for s in vault.stakes(task.id, Role.TRAINER)] == [
            (tokens(103), 0),
            (tokens(101), tokens(7)),
            (tokens(102), 0),
        ]
        alice, lender = world.clients[1].address, world.clients[9].address
        assert vault.role(task.id, alice) == Role.TRAINER
        assert vault.role(task.id, lender) == Role.NONE
        assert vault.commission_bps(task.id, alice) == 1
        assert vault.own_stake(task.id, alice) == vault.slashable(task.id, alice) == tokens(101)
        assert vault.delegated_stake(task.id, alice) == vault.delegation_of(task.id, alice, lender) == tokens(7)

    def test_rules(self, world, task):
        client = world.clients[1]
        refused("StakeTooLow", client.vault.stake, task.id, Role.TRAINER, tokens(99))
        refused("NotStaked", client.vault.delegate, task.id, world.clients[2].address, 1)
        task.trainer(1, tokens(100))
        refused("AlreadyStaked", client.vault.stake, task.id, Role.VALIDATOR, tokens(100))


class TestRun:
    def test_only_trainers_register_and_once(self, world, running):
        outsider = world.clients[5]
        refused("NotTrainer", outsider.arena.register_run, running.id, digest("spec"), digest("key"))
        running.alice.arena.register_run(running.id, digest("spec"), digest("key"))
        refused("RunExists", running.alice.arena.register_run, running.id, digest("spec"), digest("key"))

    def test_the_beacon_is_a_later_block(self, running):
        receipt = running.alice.arena.register_run(running.id, digest("spec"), digest("key"))
        beacon = running.reader.arena.run(running.id, running.alice.address).beacon
        assert beacon.block == receipt.block + 2
        assert not beacon.latched
        refused("BeaconNotReady", running.bob.arena.latch_beacon, running.id, running.alice.address)
        running.chain.mine(2)
        value = running.bob.arena.latch_beacon(running.id, running.alice.address)  # anyone may
        assert value == bytes(running.chain.web3.eth.get_block(beacon.block)["hash"])
        assert running.reader.arena.run(running.id, running.alice.address).beacon.value == value

    def test_anchors_continue_and_end_with_the_run(self, running):
        alice = running.alice
        refused("UnknownRun", alice.arena.anchor, running.id, 0, 1, digest("root"))
        alice.arena.register_run(running.id, digest("spec"), digest("key"))
        refused("BeaconNotLatched", alice.arena.anchor, running.id, 0, 1, digest("root"))
        running.chain.mine(2)
        alice.arena.latch_beacon(running.id, alice.address)
        alice.arena.anchor(running.id, 0, 3, digest("root"))
        for first, count in ((2, 1), (4, 1), (3, 2), (3, 0)):
            error = refused("BadAnchor", alice.arena.anchor, running.id, first, count, digest("root"))
            assert error.args_by_name == {"have": 3, "limit": 4}

    def test_openings_are_checked_against_their_own_anchor(self, running):
        alice = running.alice
        proof = running.register(alice)
        running.anchor(alice, proof, parts=(1, 3))
        other = Proof("someone else", running.config)
        other.anchors = proof.anchors
        for index in range(4):
            assert running.reader.arena.verify_opening(running.id, alice.address, proof.open(index))
            assert not running.reader.arena.verify_opening(running.id, alice.address, other.open(index))
        refused("BadOpeningProof", alice.arena.anchor_reference, running.id, other.open(2))
        alice.arena.anchor_reference(running.id, proof.open(2))
        refused("ReferenceExists", alice.arena.anchor_reference, running.id, proof.open(1))

    def test_nothing_is_anchored_after_submissions_end(self, running):
        alice = running.alice
        proof = running.register(alice)
        root = segment_tree(proof.segments[:1]).root
        running.to_round_end(2)
        refused("WrongPhase", alice.arena.anchor, running.id, 0, 1, root)


class TestSubmission:
    def test_needs_the_whole_transcript_and_the_mark(self, running):
        alice = running.alice
        proof = running.register(alice)
        anchorer = RunAnchorer(alice, running.id)
        proof.anchors.append(anchorer.anchor(0, 3, segment_tree(proof.segments[:3]).root))
        assert refused("TranscriptIncomplete", running.commit, alice, proof).args_by_name == {"have": 3, "need": 4}
        proof.anchors.append(anchorer.anchor(3, 1, segment_tree(proof.segments[3:]).root))
        refused("MarkNotLatched", running.commit, alice, proof)
        running.mark(alice, proof)
        running.commit(alice, proof)
        refused("AlreadyCommitted", running.commit, alice, proof)

    def test_a_foreign_transcript_is_noticed_before_the_promise(self, running):
        proof = running.register(running.alice)
        with pytest.raises(ChainError, match="anchor this proof's segments"):
            running.alice.arena.commit_submission(
                running.id,
                model_digest=proof.model_digest,
                transcript_digest=digest("another"),
                model_cid="bafy",
                salt=digest("salt"),
            )

    def test_the_reveal_window_is_exact(self, running):
        alice, bob = running.alice, running.bob
        proofs = {alice: running.submit(alice), bob: running.submit(bob)}
        times = running.reader.arena.round_times(running.id, 1)
        last_moment(running, times.opens_at)
        error = refused("TooEarly", running.reveal, alice, proofs[alice])
        assert error.args_by_name == {"opensAt": times.opens_at}
        first_moment(running, times.opens_at)
        running.reveal(alice, proofs[alice])
        last_moment(running, times.scores_from)
        running.reveal(bob, proofs[bob])
        assert running.reader.arena.standing(running.id, bob.address, 1)

    def test_the_reveal_window_closes(self, running):
        proof = running.submit(running.alice)
        times = running.reader.arena.round_times(running.id, 1)
        first_moment(running, times.scores_from)
        error = refused("TooLate", running.reveal, running.alice, proof)
        assert error.args_by_name == {"closedAt": times.scores_from}
        assert running.reader.arena.abandoned(running.id, running.alice.address)

    @pytest.mark.parametrize("field", ["model_digest", "model_cid", "salt"])
    def test_a_reveal_must_be_the_promise(self, running, field):
        proof = running.submit(running.alice)
        running.to_round_end(1)
        kept = getattr(proof, field)
        setattr(proof, field, kept + "x" if isinstance(kept, str) else digest("other"))
        refused("BadReveal", running.reveal, running.alice, proof)
        setattr(proof, field, kept)
        running.reveal(running.alice, proof)

    def test_of_equal_models_the_earlier_promise_stands(self, running):
        alice, bob = running.alice, running.bob
        proofs = {alice: running.submit(alice), bob: running.register(bob)}
        running.anchor(bob, proofs[bob])
        running.mark(bob, proofs[bob])
        proofs[bob].model_digest = proofs[alice].model_digest
        running.commit(bob, proofs[bob])
        running.to_round_end(1)
        running.reveal(bob, proofs[bob])  # revealed first, committed second
        running.reveal(alice, proofs[alice])
        assert running.reader.arena.standing(running.id, alice.address, 1)
        assert not running.reader.arena.standing(running.id, bob.address, 1)
        assert read_run(running.reader, running.id, bob.address).submission.struck


class TestReadRun:
    def test_grows_with_the_run(self, running):
        alice, address = running.alice, running.alice.address
        with pytest.raises(ChainError, match="registered no run"):
            read_run(running.reader, running.id, address)
        proof = running.register(alice)
        record = read_run(running.reader, running.id, address)
        assert (record.spec_digest, record.key_root) == (proof.spec_digest, proof.key_root)
        assert record.beacon.latched
        assert (record.anchors, record.reference_digest, record.submission) == ((), None, None)
        running.anchor(alice, proof)
        running.mark(alice, proof, segment=0)
        record = read_run(running.reader, running.id, address)
        assert (record.reference_segment, record.reference_digest) == (0, proof.segments[0].end_digest)
        assert record.mark.latched

    def test_knows_each_anchor_by_its_own_transaction(self, running):
        proofs = {client: running.register(client) for client in (running.alice, running.bob)}
        for index in range(4):  # interleaved, as two trainers would
            for client, proof in proofs.items():
                root = segment_tree(proof.segments[index : index + 1]).root
                proof.anchors.append(RunAnchorer(client, running.id).anchor(index, 1, root))
        for client, proof in proofs.items():
            record = read_run(running.reader, running.id, client.address)
            assert record.anchors == tuple(proof.anchors)
            for anchor in record.anchors:
                sent = running.chain.web3.eth.get_transaction(anchor.tx)
                assert (sent["from"], sent["blockNumber"]) == (client.address, anchor.block)


class TestScores:
    @pytest.fixture
    def scoring(self, world, running):
        running.judge = world.clients[5]
        running.reveal_by = running.reader.arena.round_times(running.id, 1)
        proof = running.submit(running.alice)
        running.to_round_end(1)
        running.reveal(running.alice, proof)
        return running

    def test_a_promise_is_shown_once_and_whole(self, scoring):
        judge, times, salt = scoring.judge, scoring.reveal_by, digest("s")
        refused("TooEarly", judge.arena.commit_scores, scoring.id, 1, [9_000, 0], salt)
        scoring.to(times.scores_from)
        refused("NotValidator", scoring.alice.arena.commit_scores, scoring.id, 1, [9_000, 0], salt)
        judge.arena.commit_scores(scoring.id, 1, [9_000, 0], salt)
        refused("ScoresAlreadyCommitted", judge.arena.commit_scores, scoring.id, 1, [9_000, 0], salt)
        scoring.to(times.reveal_from)
        refused("BadScoresReveal", judge.arena.reveal_scores, scoring.id, 1, [9_001, 0], salt)
        judge.arena.reveal_scores(scoring.id, 1, [9_000, 0], salt)
        refused("ScoresAlreadyRevealed", judge.arena.reveal_scores, scoring.id, 1, [9_000, 0], salt)
        assert scoring.reader.arena.scores_of(scoring.id, 1, judge.address) == (9_000, 0)

    def test_a_model_that_does_not_stand_has_no_score(self, scoring):
        scoring.to(scoring.reveal_by.scores_from)
        scoring.judge.arena.commit_scores(scoring.id, 1, [9_000, 1], digest("s"))
        scoring.to(scoring.reveal_by.reveal_from)
        error = refused("BadScores", scoring.judge.arena.reveal_scores, scoring.id, 1, [9_000, 1], digest("s"))
        assert error.args_by_name == {"index": 1}

    def test_rounds_are_settled_in_order_and_once(self, scoring):
        refused("TooEarly", scoring.judge.arena.settle_round, scoring.id, 1)
        scoring.settle(1)
        error = refused("WrongRound", scoring.judge.arena.settle_round, scoring.id, 1)
        assert error.args_by_name == {"next": 2}

    def test_the_final_set_is_what_was_promised(self, world, scoring):
        creator = world.creator.arena
        scoring.to(scoring.reader.arena.round_times(scoring.id, FINAL_ROUND).opens_at)
        assert scoring.reader.arena.final_set_root(scoring.id) == NO_DIGEST
        refused("BadFinalSet", creator.open_final_set, scoring.id, digest("other"), digest("final salt"), "bafy")
        refused("NotAllowed", scoring.judge.arena.open_final_set, scoring.id, digest("x"), digest("y"), "bafy")
        creator.open_final_set(scoring.id, digest("final root"), digest("final salt"), "bafy")
        assert scoring.reader.arena.final_set_root(scoring.id) == digest("final root")

    def test_the_opening_beacon_waits_until_all_models_are_shown(self, scoring):
        arena = scoring.judge.arena
        refused("TooEarly", arena.request_opening_beacon, scoring.id)
        scoring.to(scoring.reader.arena.round_times(scoring.id, 2).scores_from)
        arena.request_opening_beacon(scoring.id)
        refused("BeaconAlreadyRequested", arena.request_opening_beacon, scoring.id)
        scoring.chain.mine(2)
        value = arena.latch_opening_beacon(scoring.id)
        assert scoring.reader.arena.opening_beacon(scoring.id).value == value
