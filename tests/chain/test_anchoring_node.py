"""A recorder's anchorer and a real node, which dies, comes back, hangs, loses its chain, and refuses stale anchors."""

import pytest
from web3.exceptions import Web3RPCError
from web3.middleware import Web3Middleware

import chain.contract
from chain.anchoring import RunAnchorer, read_run
from chain.anvil import ANSWER_S, connect
from chain.client import ArenaClient
from chain.errors import WrongChain
from chain.types import tokens
from pol.errors import Unreachable
from pol.transcript import segment_tree
from tests.chain.anvil import Anvil, lossy_line, require_anvil
from tests.chain.play import World

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A task in its submission phase with Alice's run registered and seeded, and the chain as its node kept it."""
    require_anvil()
    node = Anvil(tmp_path_factory.mktemp("anvil"))
    task = World(node).task(round_length=100_000, window=20_000)
    task.alice = task.trainer(1, tokens(1_000))
    task.to_submission()
    task.proof = task.register(task.alice)
    node.stop()
    return task, node.state.read_bytes()


@pytest.fixture
def running(prepared):
    """The same task for each test, on a node of its own."""
    task, state = prepared
    task.chain.state.write_bytes(state)
    task.chain.start()
    yield task
    task.chain.kill()


@pytest.fixture
def node(running):
    return running.chain


@pytest.fixture
def anchorer(running):
    return RunAnchorer(running.alice, running.proof.run_id)


def anchor(running, anchorer, first, count=1):
    return anchorer.anchor(first, count, segment_tree(running.proof.segments[first : first + count]).root)


def sent(running):
    return running.chain.web3.eth.get_transaction_count(running.alice.address)


def test_a_dead_node_is_unreachable_and_a_restarted_one_goes_on(node, running, anchorer):
    first = anchor(running, anchorer, 0)
    node.stop()
    calls = [
        lambda: anchor(running, anchorer, 1),
        lambda: anchorer.stop(1),
        anchorer.held,
        lambda: read_run(running.reader, running.proof.run_id),
        lambda: ArenaClient(node.web3, running.world.deployment),
    ]
    for call in calls:
        with pytest.raises(Unreachable, match="did not answer"):
            call()
    node.start()
    assert anchorer.held() == (first,)
    second = anchor(running, anchorer, 1)
    assert anchor(running, anchorer, 0) == first
    stop = anchorer.stop(2)
    node.stop()
    node.start()
    record = read_run(running.reader, running.proof.run_id)
    assert (record.anchors, record.stopped) == ((first, second), stop)
    assert anchorer.stop(2) == stop


@pytest.mark.parametrize("times", [1, 2], ids=["web3 sends again", "web3 gives up"])
@pytest.mark.parametrize("what", ["anchor", "stop"])
def test_a_lost_answer_does_not_send_twice(node, running, anchorer, what, times):
    anchor(running, anchorer, 0)
    before = sent(running)
    with lossy_line(node.url, "eth_sendRawTransaction", times) as line:
        client = ArenaClient(connect(line, node.request), running.world.deployment, running.alice.account)
        distant = RunAnchorer(client, running.proof.run_id)
        if what == "anchor":
            made = anchor(running, distant, 1)
            assert anchorer.held()[1:] == (made,)
        else:
            made = distant.stop(1)
            assert read_run(running.reader, running.proof.run_id).stopped == made
    assert sent(running) == before + 1


def test_a_node_that_hangs_is_unreachable_until_it_comes_to(node, running, anchorer):
    """It takes the transaction and never answers."""

    class HangUp(Web3Middleware):
        def wrap_make_request(self, make_request):
            def on_call(method, params):
                if method == "eth_sendRawTransaction":
                    node.request["timeout"] = 0.5
                    node.freeze()
                return make_request(method, params)

            return on_call

    before = sent(running)
    node.web3.middleware_onion.add(HangUp, "hang up")
    with pytest.raises(Unreachable, match="did not answer"):
        anchor(running, anchorer, 0)
    node.web3.middleware_onion.remove("hang up")
    node.request["timeout"] = ANSWER_S
    node.thaw()
    held = anchor(running, anchorer, 0)
    assert anchorer.held() == (held,)
    assert sent(running) == before + 1


def test_a_transaction_that_is_not_mined_is_waited_for(node, running, anchorer, monkeypatch):
    monkeypatch.setattr(chain.contract, "RECEIPT_TIMEOUT_S", 0.2)
    before = sent(running)
    node.ask("evm_setAutomine", False)
    with pytest.raises(Unreachable):
        anchor(running, anchorer, 0)
    with pytest.raises(Unreachable, match="not mined yet"):
        anchor(running, anchorer, 0)
    assert node.ask("txpool_status") == {"pending": "0x1", "queued": "0x0"}
    assert anchorer.held() == ()
    node.mine()
    held = anchor(running, anchorer, 0)
    assert anchorer.held() == (held,)
    assert sent(running) == before + 1


def test_an_anchor_that_the_chain_lost_is_missed_and_anchored_anew(node, running, anchorer):
    first = anchor(running, anchorer, 0)
    node.stop()
    node.start()
    lost = anchor(running, anchorer, 1)
    node.kill()
    node.start()
    assert anchorer.held() == (first,)
    again = anchor(running, anchorer, 1)
    assert anchorer.held() == (first, again)
    assert (again.first, again.count, again.root) == (lost.first, lost.count, lost.root)


def test_an_empty_chain_is_the_wrong_chain_and_no_outage(node, running, anchorer):
    anchor(running, anchorer, 0)
    node.stop()
    node.state.unlink()
    node.start()
    for call in (anchorer.held, lambda: anchor(running, anchorer, 1)):
        with pytest.raises(WrongChain, match="no such contract"):
            call()
    with pytest.raises(WrongChain, match="chain"):
        ArenaClient(node.web3, running.world.deployment)


def signed_anchor(running, **changes):
    """Alice's signed transaction that anchors her first segment."""
    arena, sender = running.alice.arena, running.alice.address
    root = segment_tree(running.proof.segments[:1]).root
    call = arena.connection.contract("Arena", arena.address).functions["anchor"](running.proof.run_id, 0, 1, root)
    transaction = call.build_transaction({"from": sender, "nonce": sent(running), "gas": 500_000})
    return running.alice.account.sign_transaction({**transaction, **changes}).raw_transaction


def test_a_stale_anchors_transaction_is_not_taken_again(node, running, anchorer):
    raw = signed_anchor(running)
    node.web3.eth.wait_for_transaction_receipt(node.web3.eth.send_raw_transaction(raw))
    (held,) = anchorer.held()
    with pytest.raises(Web3RPCError, match="nonce"):
        node.web3.eth.send_raw_transaction(raw)
    assert anchorer.held() == (held,)


def test_an_anchors_transaction_of_another_chain_is_not_taken(node, running, anchorer):
    """Signed for a chain on which the same contracts have the same addresses; its twin is for this one."""
    with pytest.raises(Web3RPCError, match="chain"):
        node.web3.eth.send_raw_transaction(signed_anchor(running, chainId=node.web3.eth.chain_id + 1))
    assert anchorer.held() == ()
    node.web3.eth.wait_for_transaction_receipt(node.web3.eth.send_raw_transaction(signed_anchor(running)))
    assert len(anchorer.held()) == 1
