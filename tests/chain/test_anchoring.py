"""A recorder's anchors and early stop: once each, whatever answers get lost, and read back as they were promised."""

import itertools

import pytest
from web3.middleware import Web3Middleware

from chain.anchoring import RunAnchorer, read_run
from chain.errors import NetworkUnavailable
from chain.types import tokens
from pol.errors import CannotRun, Unreachable
from pol.transcript import Anchor, Stop, segment_tree, transcript_digest
from tests.chain.play import refused

SEND, RECEIPT, VIEW = "eth_sendRawTransaction", "eth_getTransactionReceipt", "eth_call"


@pytest.fixture(scope="module")
def started(world):
    """A task in its submission phase whose two trainers have a latched run each."""
    task = world.task()
    task.alice, task.bob = task.trainer(1, tokens(1_000)), task.trainer(2, tokens(1_000))
    task.to_submission()
    task.proofs = {client: task.register(client) for client in (task.alice, task.bob)}
    return task


@pytest.fixture
def running(started):
    """The same task for each test, wound back afterwards."""
    with started.world.wound_back():
        yield started


@pytest.fixture
def anchorer(running):
    return RunAnchorer(running.alice, running.proofs[running.alice].run_id)


@pytest.fixture
def root(running):
    """The root of Alice's segments [first, first + count)."""
    segments = running.proofs[running.alice].segments
    return lambda first, count: segment_tree(segments[first : first + count]).root


@pytest.fixture
def wire(world):
    """What happens between web3 and the node: nothing, until a test says so."""

    class Wire(Web3Middleware):
        on_call = staticmethod(lambda make_request, method, params: make_request(method, params))

        def wrap_make_request(self, make_request):
            return lambda method, params: Wire.on_call(make_request, method, params)

    onion = world.chain.web3.middleware_onion
    onion.add(Wire, "wire")
    yield Wire
    onion.remove("wire")


def lose_answer(method, times):
    """The node acts on the next ``times`` such calls, but its answers get lost."""
    left = itertools.count(times, -1)

    def on_call(make_request, called, params):
        answer = make_request(called, params)
        if called == method and next(left) > 0:
            raise ConnectionError("the connection broke before the answer came")
        return answer

    return on_call


def break_after(method, *, delivered):
    """The line breaks at the first such call, before or after it reached the node, and stays broken."""
    broken = False

    def on_call(make_request, called, params):
        nonlocal broken
        if called == method and not broken:
            broken = True
            if delivered:
                make_request(called, params)
        if broken:
            raise ConnectionError("no route to the node")
        return make_request(called, params)

    return on_call


def record(method):
    """Every answer to such calls is kept."""
    answers = []

    def on_call(make_request, called, params):
        answer = make_request(called, params)
        if called == method:
            answers.append(answer)
        return answer

    return on_call, answers


def sent(task, client):
    """How many transactions the client has sent so far."""
    return task.chain.web3.eth.get_transaction_count(client.address)


class TestAnchor:
    def test_held_is_what_was_anchored(self, running, anchorer, root):
        assert anchorer.held() == ()
        anchors = [anchorer.anchor(0, 1, root(0, 1)), anchorer.anchor(1, 3, root(1, 3))]
        assert all(isinstance(anchor, Anchor) for anchor in anchors)
        assert anchorer.held() == tuple(anchors)
        assert RunAnchorer(running.bob, running.proofs[running.bob].run_id).held() == ()

    def test_a_second_call_sends_nothing_and_gives_the_same_receipt(self, running, anchorer, root):
        first = anchorer.anchor(0, 1, root(0, 1))
        anchorer.anchor(1, 1, root(1, 1))
        before, run_id = sent(running, running.alice), running.proofs[running.alice].run_id
        assert anchorer.anchor(0, 1, root(0, 1)) == first
        assert RunAnchorer(running.alice, run_id).anchor(0, 1, root(0, 1)) == first  # another process
        assert sent(running, running.alice) == before

    @pytest.mark.parametrize(
        ("first", "count", "rooted"),
        [(0, 2, (0, 3)), (0, 1, (0, 1)), (0, 1, (0, 2)), (1, 1, (1, 1))],
        ids=["another root", "fewer segments", "another count", "inside"],
    )
    def test_anything_else_for_the_same_segments_is_refused(self, anchorer, root, first, count, rooted):
        held = anchorer.anchor(0, 2, root(0, 2))
        error = refused("BadAnchor", anchorer.anchor, first, count, root(*rooted))
        assert error.args_by_name == {"have": 2, "limit": 4}
        assert anchorer.held() == (held,)

    @pytest.mark.parametrize("method", [SEND, RECEIPT])
    def test_a_lost_answer_costs_nothing(self, running, wire, anchorer, root, method):
        before = sent(running, running.alice)
        wire.on_call = lose_answer(method, times=1)
        anchor = anchorer.anchor(0, 1, root(0, 1))
        assert anchorer.held() == (anchor,)
        assert sent(running, running.alice) == before + 1

    @pytest.mark.parametrize("delivered", [True, False])
    @pytest.mark.parametrize("method", [SEND, RECEIPT, VIEW])
    def test_an_outage_at_any_moment_is_made_up_for_later(self, running, wire, anchorer, root, method, delivered):
        through, before = wire.on_call, sent(running, running.alice)
        wire.on_call = break_after(method, delivered=delivered)
        for _ in range(3):
            with pytest.raises(Unreachable, match="did not answer"):
                anchorer.anchor(0, 1, root(0, 1))
        with pytest.raises(Unreachable, match="did not answer"):
            anchorer.held()
        wire.on_call = through
        anchor = anchorer.anchor(0, 1, root(0, 1))
        assert anchorer.held() == (anchor,)
        assert sent(running, running.alice) == before + 1

    def test_a_node_that_lags_behind_is_no_reason_to_give_up(self, running, wire, anchorer, root):
        """It does not know the anchor yet, so it is tried again, refused, and found after all."""
        through, before = wire.on_call, sent(running, running.alice)
        wire.on_call, yesterday = record(VIEW)
        running.alice.arena.run(running.proofs[running.alice].run_id)
        wire.on_call = through
        anchor = anchorer.anchor(0, 1, root(0, 1))
        wire.on_call = lambda make_request, method, params: (
            yesterday.pop() if method == VIEW and yesterday else make_request(method, params)
        )
        assert anchorer.anchor(0, 1, root(0, 1)) == anchor
        assert not yesterday
        assert sent(running, running.alice) == before + 1

    def test_an_outage_is_a_chain_error_and_a_machine_that_cannot_run(self):
        assert issubclass(NetworkUnavailable, CannotRun)


class TestStop:
    def test_it_is_declared_once_and_read_back(self, running, anchorer, root):
        alice, bob, arena = running.alice, running.bob, running.reader.arena
        proof, bobs = running.proofs[alice], RunAnchorer(bob, running.proofs[bob].run_id)
        bobs.anchor(0, 1, root(0, 1))
        bobs.stop(1)
        anchors = (anchorer.anchor(0, 2, root(0, 2)),)
        assert read_run(running.reader, proof.run_id).stopped is None
        assert arena.run_segments(proof.run_id) == running.config.work.segments
        stop = anchorer.stop(2)
        assert stop == Stop(segments=2, block=running.chain.block(), tx=stop.tx)
        transaction = running.chain.web3.eth.get_transaction(stop.tx)
        assert (transaction["from"], transaction["blockNumber"]) == (alice.address, stop.block)
        before = sent(running, alice)
        assert anchorer.stop(2) == RunAnchorer(alice, proof.run_id).stop(2) == stop
        assert sent(running, alice) == before
        record = read_run(running.reader, proof.run_id)
        assert (record.stopped, record.anchors) == (stop, anchors)
        assert record.transcript_digest == transcript_digest(proof.spec_digest, anchors)
        assert arena.run_segments(proof.run_id) == 2
        assert arena.run_segments(running.proofs[bob].run_id) == 1

    @pytest.mark.parametrize("segments", [0, 1, 3, 4])
    def test_only_what_is_anchored_can_be_declared(self, running, anchorer, root, segments):
        anchorer.anchor(0, 2, root(0, 2))
        error = refused("BadStop", anchorer.stop, segments)
        assert error.args_by_name == {"have": 2, "limit": 4}

    def test_another_number_is_refused_after_the_stop(self, running, anchorer, root):
        anchorer.anchor(0, 2, root(0, 2))
        anchorer.stop(2)
        refused("BadStop", anchorer.stop, 1)
        assert refused("BadAnchor", anchorer.anchor, 2, 1, root(2, 1)).args_by_name == {"have": 2, "limit": 2}

    def test_a_whole_run_is_not_stopped(self, running, anchorer, root):
        anchorer.anchor(0, 4, root(0, 4))
        refused("BadStop", anchorer.stop, 4)

    @pytest.mark.parametrize("method", [SEND, RECEIPT])
    def test_a_lost_answer_costs_nothing(self, running, wire, anchorer, root, method):
        anchorer.anchor(0, 2, root(0, 2))
        before = sent(running, running.alice)
        wire.on_call = lose_answer(method, times=1)
        stop = anchorer.stop(2)
        assert read_run(running.reader, running.proofs[running.alice].run_id).stopped == stop
        assert sent(running, running.alice) == before + 1

    @pytest.mark.parametrize("delivered", [True, False])
    def test_an_outage_is_made_up_for_later(self, running, wire, anchorer, root, delivered):
        anchorer.anchor(0, 2, root(0, 2))
        through, before = wire.on_call, sent(running, running.alice)
        wire.on_call = break_after(SEND, delivered=delivered)
        with pytest.raises(Unreachable):
            anchorer.stop(2)
        wire.on_call = through
        anchorer.stop(2)
        assert sent(running, running.alice) == before + 1

    def test_a_stopped_run_stands_in_the_end_and_one_cut_short_in_silence_does_not(self, running, anchorer, root):
        for client, proof in running.proofs.items():
            proof.anchors = [RunAnchorer(client, proof.run_id).anchor(0, 2, segment_tree(proof.segments[:2]).root)]
            running.mark(client, proof, segment=1)
            running.commit(client, proof)
        anchorer.stop(2)
        running.to_round_end(1)
        for client, proof in running.proofs.items():
            running.reveal(client, proof)
        assert running.reader.arena.standing_orders(running.id, 1) == (1, 2)
        assert running.reader.arena.standing_orders(running.id, running.config.clock.final_round) == (1, 0)

    def test_a_stop_belongs_to_the_submission_phase(self, running, anchorer, root):
        anchorer.anchor(0, 2, root(0, 2))
        running.to_round_end(2)
        refused("WrongPhase", anchorer.stop, 2)
