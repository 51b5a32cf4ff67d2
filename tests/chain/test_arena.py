"""Windows and rules as a client meets them: exact at both ends, and each refusal by its name."""

import pytest

import chain.arena
from chain.anchoring import RunAnchorer, read_run
from chain.commitments import run_beacon
from chain.errors import ChainError
from chain.terms import NO_DIGEST
from chain.types import BaseModel, Bond, Phase, Role, tokens
from pol.merkle import MerkleTree
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
        assert arena.segment_count(task.id) == config.work.segments
        phases = arena.phase_times(task.id)
        assert phases.submission_from == config.clock.start
        assert phases.closed_from == phases.challenge_from + config.clock.challenge_length
        first, final = arena.round_times(task.id, 1), arena.round_times(task.id, config.clock.final_round)
        assert first.opens_at == config.clock.start + config.clock.round_length
        assert final.settle_from <= phases.challenge_from
        assert final.settle_until == phases.closed_from

    def test_the_budget_is_paid_in(self, world):
        before = world.reader.token.balance_of(world.creator.address)
        task = world.task()
        assert world.reader.token.balance_of(world.creator.address) == before - task.config.cost
        ledger = world.reader.escrow.budget_of(task.id)
        assert (ledger.budget, ledger.deposit) == (task.config.budget, task.config.pay.deposit)

    def test_unusable_terms_name_the_field(self, world):
        assert refused("BadTerms", world.task, window=0).args_by_name == {"field": "window"}

    def test_phases_follow_the_block_alone(self, world, task):
        phases = world.reader.arena.phase_times(task.id)
        seen = [world.reader.arena.phase(task.id)]
        assert world.reader.arena.current_round(task.id) == 0
        for start in (phases.submission_from, phases.final_from, phases.challenge_from, phases.closed_from):
            task.to(start - 1)
            assert world.reader.arena.phase(task.id) == seen[-1]
            task.to(start)
            seen.append(world.reader.arena.phase(task.id))
        assert seen == list(Phase)
        assert world.reader.arena.current_round(task.id) == task.config.clock.final_round


class TestStake:
    def test_registration_ends_at_the_start(self, world, task):
        last_moment(task, task.config.clock.start)
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
        assert [(s.own, s.delegated, s.commission_bps) for s in vault.stakes(task.id, Role.TRAINER, 1)] == [
            (tokens(103), 0, 3),
            (tokens(101), tokens(7), 1),
            (tokens(102), 0, 2),
        ]
        alice, lender = world.clients[1].address, world.clients[9].address
        assert vault.role(task.id, alice) == Role.TRAINER
        assert vault.role(task.id, lender) == Role.NONE
        assert vault.own_stake(task.id, alice) == vault.slashable(task.id, alice) == tokens(101)
        assert vault.delegation_of(task.id, alice, lender) == tokens(7)

    def test_rules(self, world, task):
        client = world.clients[1]
        refused("StakeTooLow", client.vault.stake, task.id, Role.TRAINER, tokens(99))
        refused("NotStaked", client.vault.delegate, task.id, world.clients[2].address, 1)
        task.trainer(1, tokens(100))
        refused("AlreadyStaked", client.vault.stake, task.id, Role.VALIDATOR, tokens(100))


class TestRun:
    def register(self, task, client, **base):
        return client.arena.register_run(task.id, digest("spec"), digest("key"), task.config.pay.run_bond, **base)

    def test_only_trainers_register_and_each_run_takes_a_bond(self, world, running):
        refused("NotTrainer", self.register, running, world.clients[5])
        before, bond = world.reader.token.balance_of(running.alice.address), running.config.pay.run_bond
        runs = tuple(self.register(running, running.alice) for _ in range(2))
        assert running.reader.arena.runs_of(running.id, running.alice.address) == runs
        assert runs[1] == runs[0] + 1
        assert world.reader.token.balance_of(running.alice.address) == before - 2 * bond
        run = running.reader.arena.run(runs[1])
        assert (run.task_id, run.trainer, run.bond) == (running.id, running.alice.address, Bond.HELD)
        assert (run.spec_digest, run.key_root, run.base_digest) == (digest("spec"), digest("key"), NO_DIGEST)

    def test_the_beacon_is_a_later_block(self, running):
        run_id = self.register(running, running.alice)
        beacon = running.reader.arena.run(run_id).beacon
        assert beacon.block == running.chain.block() + 2
        assert not beacon.latched
        refused("BeaconNotReady", running.bob.arena.latch_beacon, run_id)
        running.chain.mine(2)
        value = running.bob.arena.latch_beacon(run_id)  # anyone may
        assert value == run_beacon(bytes(running.chain.web3.eth.get_block(beacon.block)["hash"]), run_id)
        assert running.reader.arena.run(run_id).beacon.value == value

    def test_a_base_model_is_one_of_the_tasks(self, world):
        tree = MerkleTree([digest("gpt"), digest("llama"), NO_DIGEST])
        task = world.task(bases_root=tree.root)
        alice = task.trainer(1, tokens(1_000))
        for position, base in enumerate((digest("gpt"), digest("llama"), NO_DIGEST)):
            proof = tree.prove(position)
            accepted = BaseModel(base, proof.position, proof.count, proof.siblings)
            assert world.reader.arena.run(self.register(task, alice, base=accepted)).base_digest == base
        refused("BadBase", self.register, task, alice)
        refused("BadBase", self.register, task, alice, base=BaseModel(digest("gpt"), 1, 3, proof.siblings))

    def test_anchors_continue_and_end_with_the_run(self, running):
        alice = running.alice
        refused("UnknownRun", alice.arena.anchor, 10_000, 0, 1, digest("root"))
        run_id = self.register(running, alice)
        refused("BeaconNotLatched", alice.arena.anchor, run_id, 0, 1, digest("root"))
        running.chain.mine(2)
        alice.arena.latch_beacon(run_id)
        refused("NotAllowed", running.bob.arena.anchor, run_id, 0, 1, digest("root"))
        alice.arena.anchor(run_id, 0, 3, digest("root"))
        for first, count in ((2, 1), (4, 1), (3, 2), (3, 0)):
            error = refused("BadAnchor", alice.arena.anchor, run_id, first, count, digest("root"))
            assert error.args_by_name == {"have": 3, "limit": 4}

    def test_openings_are_checked_against_their_own_anchor(self, running):
        alice = running.alice
        proof = running.register(alice)
        running.anchor(alice, proof, parts=(1, 3))
        other = Proof("someone else", running.config)
        other.anchors = proof.anchors
        for index in range(4):
            opening = proof.open(index)
            assert running.reader.arena.verify_opening(proof.run_id, opening)
            assert running.reader.arena.anchored_at(proof.run_id, opening, max(index - 1, 0))
            assert not running.reader.arena.anchored_at(proof.run_id, opening, index + 1)
            assert not running.reader.arena.verify_opening(proof.run_id, other.open(index))
        refused("BadOpeningProof", alice.arena.anchor_reference, proof.run_id, other.open(2))
        alice.arena.anchor_reference(proof.run_id, proof.open(2))
        refused("ReferenceExists", alice.arena.anchor_reference, proof.run_id, proof.open(1))

    def test_nothing_is_anchored_after_submissions_end(self, running):
        alice = running.alice
        proof = running.register(alice)
        root = segment_tree(proof.segments[:1]).root
        running.to_round_end(2)
        refused("WrongPhase", alice.arena.anchor, proof.run_id, 0, 1, root)


class TestBond:
    def test_comes_back_if_something_came_of_the_run_and_burns_if_not(self, world, running):
        alice, token, bond = running.alice, world.reader.token, running.config.pay.run_bond
        shown, dropped = running.submit(alice), running.register(alice, "dropped")
        running.to_round_end(1)
        running.reveal(alice, shown)
        refused("RunAlive", world.creator.arena.void_run, dropped.run_id)
        running.to(running.reader.arena.round_times(running.id, 2).scores_from)
        supply = token.total_supply()
        world.creator.arena.void_run(dropped.run_id)  # anyone may
        assert token.total_supply() == supply - bond
        refused("BondSettled", world.creator.arena.void_run, dropped.run_id)
        refused("RunAlive", world.creator.arena.void_run, shown.run_id)
        refused("WrongPhase", alice.arena.release_run_bond, shown.run_id)
        running.to_closed()
        before = token.balance_of(alice.address)
        alice.arena.release_run_bond(shown.run_id)
        assert token.balance_of(alice.address) == before + bond
        refused("BondSettled", alice.arena.release_run_bond, dropped.run_id)
        bonds = [running.reader.arena.run(proof.run_id).bond for proof in (shown, dropped)]
        assert bonds == [Bond.RETURNED, Bond.BURNED]


class TestSubmission:
    def test_needs_the_mark_and_is_one_a_round(self, running):
        alice = running.alice
        proof = running.register(alice)
        running.anchor(alice, proof, parts=(3,))
        proof.branch = 2
        refused("MarkNotLatched", running.commit, alice, proof)
        running.mark(alice, proof)
        running.commit(alice, proof)
        refused("AlreadyCommitted", running.commit, alice, proof)
        held = running.reader.arena.submission(running.id, alice.address, 1)
        assert (held.run_id, held.order, held.anchored, held.revealed) == (proof.run_id, 1, 3, False)
        assert not running.reader.arena.submission(running.id, alice.address, 2).committed

    def test_only_a_whole_run_stands_in_the_final_round(self, running):
        alice, arena = running.alice, running.reader.arena
        proof = running.register(alice)
        running.anchor(alice, proof, parts=(3,))
        running.mark(alice, proof)
        running.commit(alice, proof)
        running.to_round_end(1)
        running.reveal(alice, proof)
        assert [arena.standing_order(running.id, alice.address, round_) for round_ in (1, 2, 3)] == [1, 1, 0]
        RunAnchorer(alice, proof.run_id).anchor(3, 1, segment_tree(proof.segments[3:]).root)
        assert arena.standing_orders(running.id, 3) == (1, 0)

    def test_a_promise_that_the_next_round_took_is_noticed(self, running):
        """The round is read, then ends, and the promise arrives."""
        alice, proof = running.alice, running.register(running.alice)
        running.anchor(alice, proof)
        running.mark(alice, proof)
        opens_at = running.reader.arena.round_times(running.id, 1).opens_at
        last_moment(running, opens_at)
        running.chain.mine()
        assert alice.arena.current_round(running.id) == 1
        with pytest.raises(ChainError, match="round 1 ended"):
            running.commit(alice, proof)

    def test_a_promise_for_another_round_is_not_sent(self, running):
        """The salt is filed under the round: it could never be shown."""
        alice, proof = running.alice, running.submit(running.alice)
        running.to_round_end(1)
        promise = {"branch": proof.branch, "model_digest": proof.model_digest, "model_cid": proof.model_cid}
        with pytest.raises(ChainError, match="round 1 is not on any more: submit again, in round 2"):
            alice.arena.commit_submission(proof.run_id, round_=1, salt=proof.salt, **promise)
        assert not running.reader.arena.submission(running.id, alice.address, 2).committed
        alice.arena.commit_submission(proof.run_id, round_=2, salt=proof.salt, **promise)

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
        assert running.reader.arena.standing_orders(running.id, 1) == (1, 2)

    def test_the_reveal_window_closes(self, running):
        proof = running.submit(running.alice)
        times = running.reader.arena.round_times(running.id, 1)
        first_moment(running, times.scores_from)
        error = refused("TooLate", running.reveal, running.alice, proof)
        assert error.args_by_name == {"closedAt": times.scores_from}
        assert running.reader.arena.run(proof.run_id).first_order == 0

    @pytest.mark.parametrize("field", ["model_digest", "model_cid", "salt", "branch"])
    def test_a_reveal_must_be_the_promise(self, running, field):
        proof = running.submit(running.alice)
        running.to_round_end(1)
        kept = getattr(proof, field)
        others = {"model_cid": "bafy-other", "branch": proof.branch + 1}
        setattr(proof, field, others.get(field, digest("other")))
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
        assert running.reader.arena.standing_orders(running.id, 1) == (1, 0)
        (submission,) = read_run(running.reader, proofs[bob].run_id).submissions
        assert submission.struck


class TestReadRun:
    def test_grows_with_the_run(self, running):
        alice, read = running.alice, running.reader
        refused("UnknownRun", read_run, read, 10_000)
        proof = running.register(alice)
        record = read_run(read, proof.run_id)
        assert (record.task_id, record.run_id, record.trainer) == (running.id, proof.run_id, alice.address)
        assert (record.spec_digest, record.key_root) == (proof.spec_digest, proof.key_root)
        assert record.beacon.latched
        assert (record.anchors, record.reference_digest, record.submissions) == ((), None, ())
        running.anchor(alice, proof)
        running.mark(alice, proof, segment=0)
        record = read_run(read, proof.run_id)
        assert (record.reference_segment, record.reference_digest) == (0, proof.segments[0].end_digest)
        assert record.mark.latched

    def test_knows_the_submissions_of_its_own_run(self, running):
        alice, read = running.alice, running.reader
        first = running.submit(alice, "first")
        running.to_round_end(1)
        running.reveal(alice, first)
        second = running.submit(alice, "second")
        (shown,), (promised,) = (read_run(read, proof.run_id).submissions for proof in (first, second))
        assert (shown.round, shown.order, promised.round, promised.order) == (1, 1, 2, 2)
        assert (shown.branch, shown.model_digest, shown.model_cid) == (2, first.model_digest, first.model_cid)
        assert (promised.branch, promised.model_digest, promised.model_cid) == (None, None, None)

    @pytest.mark.parametrize("page", [1, 2, 3, 4, 5, 1_000])
    def test_anchors_are_read_in_pages(self, running, monkeypatch, page):
        proof = running.register(running.alice)
        roots = [segment_tree(proof.segments[index : index + 1]).root for index in range(4)]
        for index, root in enumerate(roots):
            running.alice.arena.anchor(proof.run_id, index, 1, root)
        monkeypatch.setattr(chain.arena, "ANCHOR_PAGE", page)
        held = running.reader.arena.anchors(proof.run_id)
        assert [(anchor.first, anchor.root) for anchor in held] == list(enumerate(roots))

    def test_knows_each_anchor_by_its_own_transaction(self, running):
        proofs = {client: running.register(client) for client in (running.alice, running.bob)}
        for index in range(4):  # interleaved, as two trainers would
            for client, proof in proofs.items():
                root = segment_tree(proof.segments[index : index + 1]).root
                proof.anchors.append(RunAnchorer(client, proof.run_id).anchor(index, 1, root))
        for client, proof in proofs.items():
            record = read_run(running.reader, proof.run_id)
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
        refused("TooEarly", judge.scoring.commit_scores, scoring.id, 1, [9_000, 0], salt)
        scoring.to(times.scores_from)
        refused("NotValidator", scoring.alice.scoring.commit_scores, scoring.id, 1, [9_000, 0], salt)
        judge.scoring.commit_scores(scoring.id, 1, [9_000, 0], salt)
        refused("ScoresAlreadyCommitted", judge.scoring.commit_scores, scoring.id, 1, [9_000, 0], salt)
        scoring.to(times.reveal_from)
        refused("BadScoresReveal", judge.scoring.reveal_scores, scoring.id, 1, [9_001, 0], salt)
        judge.scoring.reveal_scores(scoring.id, 1, [9_000, 0], salt)
        refused("ScoresAlreadyRevealed", judge.scoring.reveal_scores, scoring.id, 1, [9_000, 0], salt)
        assert scoring.reader.scoring.scores_of(scoring.id, 1, judge.address) == (9_000, 0)

    @pytest.mark.parametrize("row", [[9_000], [9_000, 0, 0]])
    def test_a_row_has_a_score_a_trainer(self, scoring, row):
        scoring.to(scoring.reveal_by.scores_from)
        scoring.judge.scoring.commit_scores(scoring.id, 1, row, digest("s"))
        scoring.to(scoring.reveal_by.reveal_from)
        refused("BadScoresLength", scoring.judge.scoring.reveal_scores, scoring.id, 1, row, digest("s"))

    def test_the_score_of_a_model_that_does_not_stand_counts_for_nothing(self, scoring):
        scoring.score(1, {scoring.judge: [9_000, 10_000]})
        scoring.settle(1)
        assert [result.rank for result in scoring.reader.scoring.results(scoring.id, 1)] == [1, 0]

    def test_rounds_are_settled_in_order_and_once(self, scoring):
        judge = scoring.judge.scoring
        refused("TooEarly", judge.settle_round, scoring.id, 1)
        scoring.to(scoring.reader.arena.round_times(scoring.id, 2).settle_from)
        assert refused("WrongRound", judge.settle_round, scoring.id, 2).args_by_name == {"next": 1}
        assert judge.settle_round(scoring.id, 1)
        assert judge.settle_round(scoring.id, 1) == []
        assert scoring.reader.scoring.settled_rounds(scoring.id) == 1

    def test_the_final_set_is_what_was_promised(self, world, scoring):
        creator = world.creator.scoring
        scoring.to(scoring.reader.arena.round_times(scoring.id, scoring.config.clock.final_round).opens_at)
        assert scoring.reader.scoring.final_set_root(scoring.id) == NO_DIGEST
        refused("BadFinalSet", creator.open_final_set, scoring.id, digest("other"), digest("final salt"), "bafy")
        refused("NotAllowed", scoring.judge.scoring.open_final_set, scoring.id, digest("x"), digest("y"), "bafy")
        creator.open_final_set(scoring.id, digest("final root"), digest("final salt"), "bafy")
        assert scoring.reader.scoring.final_set_root(scoring.id) == digest("final root")

    def test_the_opening_beacon_waits_until_all_models_are_shown(self, scoring):
        judge = scoring.judge.scoring
        refused("TooEarly", judge.request_opening_beacon, scoring.id)
        scoring.to(scoring.reader.arena.round_times(scoring.id, 2).scores_from)
        judge.request_opening_beacon(scoring.id)
        refused("BeaconAlreadyRequested", judge.request_opening_beacon, scoring.id)
        scoring.chain.mine(2)
        value = judge.latch_opening_beacon(scoring.id)
        assert scoring.reader.scoring.opening_beacon(scoring.id).value == value
