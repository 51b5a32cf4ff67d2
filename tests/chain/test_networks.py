"""The table of networks, and that nothing is signed for a chain other than the one that was meant."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from web3 import Web3

from chain.accounts import dev_account
from chain.client import ArenaClient
from chain.contract import Connection
from chain.deployment import deploy
from chain.errors import ChainError, NetworkUnavailable, WrongChain
from chain.networks import NETWORKS, find_network, open_network, require_chain
from chain.types import tokens

SECRET = "paid-for-key"


@contextmanager
def node_of(chain_id):
    """The address of a node that knows its chain's id and nothing else."""

    class Node(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert asked["method"] == "eth_chainId"
            body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": hex(chain_id)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Node) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{SECRET}"
        server.shutdown()


class TestTable:
    def test_has_base_its_test_network_and_a_local_one(self):
        assert {name: network.chain_id for name, network in NETWORKS.items()} == {
            "base": 8453,
            "base-sepolia": 84532,
            "local": 31337,
        }

    def test_nothing_in_it_is_there_twice(self):
        for field in ("chain_id", "rpc_variable", "explorer"):
            assert len({getattr(network, field) for network in NETWORKS.values()}) == len(NETWORKS)
        assert all(network.name == name and network.confirmations > 0 for name, network in NETWORKS.items())

    def test_only_the_local_one_has_a_node_of_its_own(self):
        assert [name for name, network in NETWORKS.items() if network.default_rpc] == ["local"]

    def test_another_name_is_refused_with_the_names_there_are(self):
        with pytest.raises(ChainError, match="base, base-sepolia, local"):
            find_network("base-goerli")

    def test_links_to_transactions(self):
        tx = bytes.fromhex("ab" * 32)
        assert find_network("base").transaction_url(tx) == f"https://basescan.org/tx/0x{'ab' * 32}"
        assert find_network("local").transaction_url(tx) is None


class TestConnect:
    @pytest.mark.parametrize("name", list(NETWORKS))
    def test_reaches_a_node_of_the_network(self, name, monkeypatch):
        network = find_network(name)
        with node_of(network.chain_id) as address:
            monkeypatch.setenv(network.rpc_variable, address)
            assert network.connect().eth.chain_id == network.chain_id

    @pytest.mark.parametrize("chain_id", [1, 84532])
    def test_refuses_a_node_of_another_network_and_keeps_the_address_to_itself(self, chain_id, monkeypatch):
        with node_of(chain_id) as address:
            monkeypatch.setenv("ARENA_RPC_BASE", address)
            with pytest.raises(WrongChain, match=f"for another\\) serves chain {chain_id}, not 8453") as caught:
                find_network("base").connect()
        assert SECRET not in str(caught.value)

    def test_a_silent_node_is_named_by_its_variable_alone(self, monkeypatch):
        with node_of(1) as address:
            monkeypatch.setenv("ARENA_RPC_BASE", address)
        with pytest.raises(NetworkUnavailable, match="set ARENA_RPC_BASE for another\\) did not answer") as caught:
            find_network("base").connect()
        assert SECRET not in str(caught.value)

    def test_asks_for_the_variable(self, monkeypatch):
        monkeypatch.delenv("ARENA_RPC_BASE_SEPOLIA", raising=False)
        with pytest.raises(ChainError, match="environment variable ARENA_RPC_BASE_SEPOLIA"):
            find_network("base-sepolia").connect()

    @pytest.mark.parametrize(
        "start", ["", "host/", "ftp://host/", "file:///", "http:///", "http://[", "http://host:port/"]
    )
    def test_what_is_no_address_is_refused_without_being_repeated(self, start, monkeypatch):
        monkeypatch.setenv("ARENA_RPC_BASE", start + SECRET)
        with pytest.raises(ChainError, match="is no address of a node") as caught:
            find_network("base").connect()
        assert SECRET not in str(caught.value)


class TestOpen:
    def test_by_name(self, monkeypatch):
        with node_of(84532) as address:
            monkeypatch.setenv("ARENA_RPC_BASE_SEPOLIA", address)
            network, web3 = open_network("base-sepolia")
            assert (network.name, web3.eth.chain_id) == ("base-sepolia", 84532)

    @pytest.mark.parametrize(("chain_id", "name"), [(8453, "base"), (31337, "local"), (7, "chain 7")])
    def test_by_address_the_node_says_which_it_is(self, chain_id, name):
        with node_of(chain_id) as address:
            network, web3 = open_network(address)
            assert (network.name, network.chain_id, web3.eth.chain_id) == (name, chain_id, chain_id)
            assert network.is_local == (name == "local") and network.least_window >= 1

    def test_a_silent_node_is_not_named(self):
        with node_of(1) as address:
            pass
        with pytest.raises(NetworkUnavailable, match="did not answer") as caught:
            open_network(address)
        assert SECRET not in str(caught.value)


class Way:
    """A connection to the embedded chain that leads elsewhere once it was asked ``honest`` times for the chain."""

    def __init__(self, web3, honest):
        self.honest, self.calls = honest, []
        self.web3 = Web3(web3.provider)
        self.web3.middleware_onion.add(lambda _: self, "way")

    def wrap_make_request(self, make_request):
        def on_call(method, params):
            self.calls.append(method)
            if method != "eth_chainId" or self.calls.count(method) <= self.honest:
                return make_request(method, params)
            return {"jsonrpc": "2.0", "id": 1, "result": hex(8453)}

        return on_call


class TestSigning:
    def test_a_client_signs_for_its_own_chain(self, world):
        receipt = world.creator.token.transfer(world.clients[1].address, 1)
        sent = world.chain.web3.eth.get_transaction("0x" + receipt.tx.hex())
        assert sent["chainId"] == world.deployment.chain_id == world.chain.web3.eth.chain_id

    def test_nothing_is_signed_once_the_node_serves_another_chain(self, world):
        way = Way(world.chain.web3, honest=1_000)
        client = ArenaClient(way.web3, world.deployment, world.creator.account)
        client.token.transfer(world.clients[1].address, 1)
        way.honest, before = 0, len(way.calls)
        with pytest.raises(WrongChain, match="serves chain 8453"):
            client.token.transfer(world.clients[1].address, 1)
        assert way.calls[before:] == ["eth_chainId"]

    def test_an_account_without_a_chain_signs_nothing(self, world):
        connection = Connection(world.chain.web3, dev_account(0))
        call = connection.contract("ArenaToken", world.deployment.token).functions["approve"](dev_account(1).address, 1)
        with pytest.raises(ChainError, match="a chain to sign for"):
            connection.transact(call, "ArenaToken.approve")

    def test_deploying_stops_when_the_chain_changes(self, world):
        way = Way(world.chain.web3, honest=1)
        with pytest.raises(WrongChain, match="serves chain 8453"):
            deploy(way.web3, world.chain.accounts[0], tokens(1))
        assert "eth_sendRawTransaction" not in way.calls

    def test_a_client_of_another_networks_deployment_is_refused(self, world):
        with pytest.raises(WrongChain):
            ArenaClient(world.chain.web3, replace(world.deployment, chain_id=8453), dev_account(0))

    def test_the_right_chain_passes(self, world):
        require_chain(world.chain.web3, world.deployment.chain_id, "this node")
        assert isinstance(world.chain.web3, Web3)
