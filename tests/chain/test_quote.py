"""What is shown before a transaction is signed, and what is not shown when a node fails."""

import pytest
from eth_abi.abi import decode, encode
from requests import ConnectionError as Unconnected
from requests import HTTPError, Response
from web3 import Web3
from web3.middleware import Web3Middleware

from chain.client import ArenaClient
from chain.errors import ChainError, NetworkUnavailable
from chain.quote import DATA_FEE_ORACLE, GET_L1_FEE
from chain.reverts import refusals

SECRET = "paid-for-key"


class Stop(ChainError):
    """Not sent."""


def quoted(world, web3=None):
    """The quote for a transfer, which is then not sent, and the data of its transaction."""
    quotes = []

    def look(quote):
        quotes.append(quote)
        raise Stop

    client = ArenaClient(web3 or world.chain.web3, world.deployment, world.clients[1].account, before=look)
    with pytest.raises(Stop):
        client.token.transfer(world.creator.address, 5)
    return quotes[0]


def test_a_quote_covers_what_the_transaction_can_cost_and_stops_it(world):
    client, eth = world.clients[1], world.chain.web3.eth
    before = eth.get_transaction_count(client.address)
    quote = quoted(world)
    assert (quote.label, quote.to, quote.value) == ("ArenaToken.transfer", world.deployment.token, 0)
    assert eth.get_transaction_count(client.address) == before
    paid = eth.get_balance(client.address)
    receipt = client.token.transfer(world.creator.address, 5)
    paid -= eth.get_balance(client.address)
    assert 0 < receipt.gas_used <= quote.gas
    assert 0 < paid <= quote.fee_wei


def test_an_op_chains_fee_for_data_is_in_it(world):
    """The oracle has code on OP chains alone; here it asks one gwei a byte."""
    asked = []

    class OpChain(Web3Middleware):
        def wrap_make_request(self, make_request):
            def on_call(method, params):
                if method == "eth_getCode" and params[0] == DATA_FEE_ORACLE:
                    return {"jsonrpc": "2.0", "id": 1, "result": "0x00"}
                if method == "eth_call" and params[0].get("to") == DATA_FEE_ORACLE:
                    data = bytes.fromhex(str(params[0]["data"]).removeprefix("0x"))
                    assert data[:4] == GET_L1_FEE
                    asked.append(decode(("bytes",), data[4:])[0])
                    fee = encode(("uint256",), (len(asked[-1]) * 10**9,))
                    return {"jsonrpc": "2.0", "id": 1, "result": "0x" + fee.hex()}
                return make_request(method, params)

            return on_call

    web3 = Web3(world.chain.web3.provider)
    web3.middleware_onion.add(OpChain, "op")
    there, here = quoted(world, web3), quoted(world)
    (data,) = asked
    call = world.creator.token.connection.contract("ArenaToken", world.deployment.token)
    assert data.startswith(bytes.fromhex(call.encode_abi("transfer", [world.creator.address, 5])[2:]))
    assert there.fee_wei - here.fee_wei == len(data) * 10**9 and there.gas == here.gas


def bad_gateway():
    response = Response()
    response.status_code = 502
    return HTTPError(f"502 Server Error: Bad Gateway for url: https://node.example/{SECRET}", response=response)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (bad_gateway(), "HTTP status 502"),
        (Unconnected(f"HTTPSConnectionPool(host='{SECRET}.example'): url: /{SECRET}"), "ConnectionError"),
        (TimeoutError(f"https://me:{SECRET}@node.example"), "TimeoutError"),
    ],
    ids=["gateway", "connection", "time-out"],
)
def test_a_failing_nodes_address_is_not_repeated(failure, reason):
    """Addresses of paid nodes contain a key, in the path or in the host's name."""
    with pytest.raises(NetworkUnavailable, match=reason) as caught, refusals("asking"):
        raise failure
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__
