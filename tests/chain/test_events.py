"""Events are looked for from the deployment on, in ranges that public nodes allow."""

from itertools import pairwise

import pytest
from web3 import Web3
from web3.middleware import Web3Middleware

import chain.contract
from chain.accounts import dev_account
from chain.anvil import Anvil
from chain.client import ArenaClient
from chain.deployment import code_since, deploy, find_deployment
from chain.errors import ChainError
from tests.chain.anvil import require_anvil

pytestmark = pytest.mark.node
EARLIER, PAYMENTS = 30, 12


@pytest.fixture(scope="module")
def paying(tmp_path_factory):
    """Contracts deployed after some blocks, and a payment in every second block since."""
    require_anvil()
    with Anvil(tmp_path_factory.mktemp("anvil") / "state.json", accounts=2) as node:
        node.mine(EARLIER)
        deployment = deploy(node.web3, node.accounts[0], 1_000)
        client = ArenaClient(node.web3, deployment, node.accounts[0])
        for amount in range(1, PAYMENTS + 1):
            client.token.transfer(dev_account(60).address, amount)
            node.mine()
        yield node, deployment


def picky(node, allowed):
    """A way to the node on which ranges of more blocks than ``allowed`` are refused; and the ranges that were not."""
    asked = []

    class Picky(Web3Middleware):
        def wrap_make_request(self, make_request):
            def on_call(method, params):
                if method == "eth_getLogs":
                    first, last = (int(params[0][name], 16) for name in ("fromBlock", "toBlock"))
                    if last - first >= allowed:
                        return {"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "range too wide"}}
                    asked.append((first, last))
                return make_request(method, params)

            return on_call

    web3 = Web3(node.web3.provider)
    web3.middleware_onion.add(Picky, "picky")
    return web3, asked


@pytest.mark.parametrize("allowed", [1, 7, 1_000])
def test_every_event_is_found_in_ranges_that_the_node_allows(paying, allowed):
    node, deployment = paying
    web3, asked = picky(node, allowed)
    events = ArenaClient(web3, deployment).token.events("Transfer", to=dev_account(60).address)
    assert [event.args["value"] for event in events] == list(range(1, PAYMENTS + 1))
    assert asked[0][0] == deployment.since > EARLIER and asked[-1][1] == node.block()
    assert all(second[0] == first[1] + 1 for first, second in pairwise(asked)), "no gap, no overlap"


def test_ranges_are_bounded_on_any_node(paying, monkeypatch):
    node, deployment = paying
    monkeypatch.setattr(chain.contract, "EVENT_BLOCKS", 5)
    web3, asked = picky(node, 1_000)
    assert len(ArenaClient(web3, deployment).token.events("Transfer")) == PAYMENTS + 1
    assert max(last - first for first, last in asked) == 4


def test_a_node_that_serves_no_logs_at_all_is_named(paying):
    node, deployment = paying
    web3, _ = picky(node, 0)
    with pytest.raises(ChainError, match=r"Transfer events.*range too wide"):
        ArenaClient(web3, deployment).token.events("Transfer")


def test_the_block_is_found_by_the_arenas_address_alone(paying):
    node, deployment = paying
    assert deployment.since == find_deployment(node.web3, deployment.arena).since
    assert deployment.since == code_since(node.web3, deployment.token)
    there = [bool(node.web3.eth.get_code(deployment.token, deployment.since + before)) for before in (-1, 0)]
    assert there == [False, True]


def test_a_node_without_old_states_is_searched_from_the_beginning(paying):
    node, deployment = paying

    class Pruned(Web3Middleware):
        def wrap_make_request(self, make_request):
            def on_call(method, params):
                if method == "eth_getCode" and params[1] != "latest":
                    return {"jsonrpc": "2.0", "id": 1, "error": {"code": -32000, "message": "missing trie node"}}
                return make_request(method, params)

            return on_call

    web3 = Web3(node.web3.provider)
    web3.middleware_onion.add(Pruned, "pruned")
    assert find_deployment(web3, deployment.arena).since == 0
