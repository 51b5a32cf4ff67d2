"""Refusals decoded from every form a node gives them, transactions, receipts, and clients that cannot act."""

import dataclasses
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from web3 import Web3
from web3.providers.base import BaseProvider

from chain.accounts import dev_account
from chain.arena import NO_BASE
from chain.artifact import ALL_CONTRACTS, artifact
from chain.client import ArenaClient
from chain.contract import Connection
from chain.errors import ChainError, ContractReverted, NetworkUnavailable, WrongChain
from chain.reverts import HINTS, explain_revert
from chain.types import Phase, Role, to_abi, tokens
from pol.errors import Unreachable
from tests.chain.play import digest, refused

TOO_EARLY = keccak(text="TooEarly(uint256)")[:4] + encode(("uint256",), (5,))
DATA = "0x" + TOO_EARLY.hex()


class OneAnswer(BaseProvider):
    """A node that gives the same answer to every call."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def make_request(self, method, params):
        if isinstance(self.answer, Exception):
            raise self.answer
        if method == "eth_chainId":
            return {"jsonrpc": "2.0", "id": 1, "result": "0x1"}
        return {"jsonrpc": "2.0", "id": 1, **self.answer}


def ask(answer):
    return ask_at(OneAnswer(answer))


def ask_at(provider):
    connection = Connection(Web3(provider))
    call = connection.contract("Arena", dev_account(0).address).functions["taskCount"]()
    return connection.read(call, "Arena.taskCount")


@pytest.mark.parametrize(
    "error",
    [
        {"code": 3, "message": "execution reverted", "data": DATA},  # geth, reth, erigon
        {"code": 3, "message": "execution reverted: custom error 0x085de625", "data": DATA},  # anvil
        {"code": -32603, "message": "Error: VM Exception while processing", "data": {"data": DATA}},  # hardhat
    ],
    ids=["geth", "anvil", "hardhat"],
)
def test_a_custom_error_is_decoded_from_any_node(error):
    with pytest.raises(ContractReverted) as caught:
        ask({"error": error})
    assert (caught.value.name, caught.value.args_by_name) == ("TooEarly", {"opensAt": 5})
    assert (
        str(caught.value) == "Arena.taskCount was refused: TooEarly(opensAt=5). Wait until then (seconds since 1970)."
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (keccak(text="Panic(uint256)")[:4] + encode(("uint256",), (0x11,)), "Panic(code=17). arithmetic overflow."),
        (keccak(text="Error(string)")[:4] + encode(("string",), ("no",)), "Error(message=no)."),
        (b"\xde\xad\xbe\xef", "no reason given."),
        (TOO_EARLY[:20], "no reason given."),
    ],
    ids=["panic", "require", "unknown", "cut short"],
)
def test_other_refusals_read_well(data, message):
    with pytest.raises(ContractReverted) as caught:
        ask({"error": {"code": 3, "message": "execution reverted", "data": "0x" + data.hex()}})
    assert str(caught.value) == f"Arena.taskCount was refused: {message}"


@pytest.mark.parametrize("failure", [ConnectionError("refused"), TimeoutError("slow")])
def test_a_silent_node_is_named(failure):
    with pytest.raises(NetworkUnavailable, match="node did not answer"):
        ask(failure)


@pytest.mark.parametrize(
    ("status", "body", "length"),
    [
        (502, b"", 0),
        (429, b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "slow down"}}', None),
        (200, b"<html>down for maintenance</html>", None),
        (200, b'{"jsonrpc": "2.0", "id": 1, "resu', None),
        (200, b'{"jsonrpc": "2.0", "id": 1, "resu', 1_000),
        (200, b'{"jsonrpc": "2.0", "id": 1}', None),
        (200, b"[]", None),
        (200, b"\xff\xfe", None),
    ],
    ids=["gateway", "rate limit", "html", "torn", "cut off", "no result", "no object", "no text"],
)
def test_an_endpoint_that_answers_no_json_rpc_is_as_good_as_silent(status, body, length):
    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Endpoint) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(Unreachable, match="node did not answer") as caught:
            ask_at(Web3.HTTPProvider(url, exception_retry_configuration=None))
        server.shutdown()
    assert isinstance(caught.value, NetworkUnavailable)


def test_a_chain_without_the_contract_is_the_wrong_one():
    with pytest.raises(WrongChain, match="no such contract"):
        ask({"result": "0x"})


def test_every_refusal_says_what_to_do():
    named = {item["name"] for name in ALL_CONTRACTS for item in artifact(name).abi if item["type"] == "error"}
    # These can only come of a fault in the contracts, or of a token that is not ours.
    internal = {"OverBudget", "ReentrancyGuardReentrantCall", "SafeERC20FailedOperation"}
    internal |= {"CheckpointUnorderedInsertion", "SafeCastOverflowedUintDowncast"}
    internal |= {name for name in named if name.startswith("ERC20Invalid")}
    assert named - internal == set(HINTS)


def test_enums_are_named():
    data = keccak(text="WrongPhase(uint8,uint8)")[:4] + encode(("uint8", "uint8"), (1, 4))
    error = explain_revert(data, "X")
    assert error.args_by_name == {"have": Phase.SUBMISSION, "need": Phase.CLOSED}
    assert "WrongPhase(have=SUBMISSION, need=CLOSED)" in str(error)


def test_any_other_answer_of_the_node_is_passed_on():
    with pytest.raises(ChainError, match="rate limit"):
        ask({"error": {"code": -32_005, "message": "rate limit exceeded"}})


class TestOnTheEmbeddedChain:
    """eth-tester gives refusals another form; they must read the same."""

    def test_a_custom_error_with_arguments(self, world):
        poor = world.clients[12]
        error = refused("ERC20InsufficientBalance", poor.token.transfer, world.creator.address, tokens(10**7))
        assert error.function == "ArenaToken.transfer"
        assert error.args_by_name["needed"] == tokens(10**7)

    def test_a_view(self, world):
        assert refused("UnknownTask", world.reader.arena.task_config, 999).args_by_name == {"taskId": 999}

    def test_an_argument_of_zero(self, world):
        # All-zero data also reads as an empty string: the decoder must go by the selector.
        assert refused("UnknownTask", world.reader.arena.task_config, 0).args_by_name == {"taskId": 0}
        assert refused("UnknownRound", world.reader.arena.round_times, world.task().id, 0).args_by_name == {"round": 0}
        refused("UnknownTask", world.creator.scoring.rank_round, 0, 1, 1)

    def test_a_transaction_that_fails_only_when_mined(self, world):
        class Hopeful:
            """A call whose estimate was fine, as if the chain moved right after it."""

            def __init__(self, call):
                self.estimate_gas = lambda _: 200_000
                self.build_transaction = call.build_transaction

        task = world.task()
        connection = world.clients[1].arena.connection
        contract = connection.contract("Arena", world.deployment.arena)
        call = Hopeful(contract.functions["registerRun"](task.id, digest("spec"), digest("key"), to_abi(NO_BASE)))
        refused("NotTrainer", connection.transact, call, "Arena.registerRun")

    def test_an_account_without_gas(self, world):
        stranger = ArenaClient(world.chain.web3, world.deployment, dev_account(99))
        assert stranger.token.balance_of(stranger.address) == 0
        with pytest.raises(ChainError, match="cannot afford"):
            stranger.token.approve(world.creator.address, 1)

    def test_a_receipt_carries_decoded_events(self, world):
        receipt = world.creator.token.transfer(world.clients[1].address, 5)
        event = receipt.event("Transfer")
        assert (event.contract, event.tx, event.block) == ("ArenaToken", receipt.tx, receipt.block)
        assert event.args == {"from": world.creator.address, "to": world.clients[1].address, "value": 5}
        assert world.reader.token.events("Transfer", first_block=receipt.block) == [event]
        with pytest.raises(ChainError, match="emitted no Approval"):
            receipt.event("Approval")


class TestClient:
    def test_a_reading_client_cannot_act(self, world):
        assert world.reader.token.total_supply() > 0
        for call in (lambda: world.reader.address, lambda: world.reader.token.approve(world.creator.address, 1)):
            with pytest.raises(ChainError, match="account"):
                call()

    def test_another_chain_is_noticed(self, world):
        elsewhere = dataclasses.replace(world.deployment, chain_id=1)
        with pytest.raises(WrongChain, match="serves chain"):
            ArenaClient(world.chain.web3, elsewhere)

    def test_missing_contracts_are_noticed(self, world):
        nowhere = dataclasses.replace(world.deployment, challenges=dev_account(50).address)
        with pytest.raises(WrongChain, match="no ChallengeManager"):
            ArenaClient(world.chain.web3, nowhere)

    def test_paying_in_approves_exactly_what_is_needed(self, world):
        task, client = world.task(), world.clients[8]
        before = client.token.balance_of(client.address)
        client.vault.stake(task.id, Role.VALIDATOR, tokens(150))
        assert client.token.balance_of(client.address) == before - tokens(150)
        assert client.token.allowance(client.address, world.deployment.vault) == 0

    def test_an_argument_out_of_range_is_explained(self, world):
        with pytest.raises(ChainError, match="out of range"):
            world.clients[1].vault.stake(1, Role.TRAINER, 1, commission_bps=2**16)
