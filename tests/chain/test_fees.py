"""A transaction that is stuck is sent for a higher fee, with bounds, and counts once: on a node that does not mine."""

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chain.contract
import chain.fees
from chain.accounts import dev_account
from chain.anvil import Anvil
from chain.client import ArenaClient
from chain.deployment import deploy
from chain.errors import ChainError, NetworkUnavailable
from chain.fees import MOST, raised
from chain.journal import open_journal
from tests.chain.anvil import require_anvil

ME = dev_account(1)
GWEI = 10**9


def signed(tip, most, **changes):
    plain = {"type": 2, "maxPriorityFeePerGas": tip, "maxFeePerGas": most, "to": dev_account(2).address}
    plain |= {"nonce": 7, "gas": 30_000, "value": 5, "data": b"\1", "chainId": 31_337}
    return bytes(ME.sign_transaction({**plain, **changes}).raw_transaction)


def node_that_suggests(tip, base):
    return SimpleNamespace(
        eth=SimpleNamespace(max_priority_fee=tip, get_block=lambda at: {"baseFeePerGas": base}),
    )


fees = st.integers(1, 10**12)


@given(fees, fees, fees, fees)
def test_both_fees_rise_by_a_tenth_or_nothing_is_sent(tip, more, suggested, base):
    first, web3 = signed(tip, tip + more), node_that_suggests(suggested, base)
    found = raised(web3, first)
    suggestion = 2 * base + suggested
    if found is None:
        assert (tip + more) * 9 / 8 > MOST * suggestion - base or tip * 9 / 8 + 2 * base > MOST * suggestion
        return
    assert found["maxPriorityFeePerGas"] >= tip * 1.1 and found["maxFeePerGas"] >= (tip + more) * 1.1
    assert found["maxPriorityFeePerGas"] <= found["maxFeePerGas"] <= MOST * suggestion
    kept = {name: found[name] for name in ("chainId", "nonce", "gas", "value", "to")}
    assert kept == {"chainId": 31_337, "nonce": 7, "gas": 30_000, "value": 5, "to": dev_account(2).address}
    assert bytes(found["data"]) == b"\1" and ME.sign_transaction(found)


def test_however_often_it_is_raised_there_is_an_end():
    web3, raw, count = node_that_suggests(GWEI, GWEI), signed(GWEI, 3 * GWEI), 0
    while found := raised(web3, raw):
        raw, count = signed(found["maxPriorityFeePerGas"], found["maxFeePerGas"]), count + 1
    assert 5 < count < 15


def test_other_kinds_of_transactions_are_left_alone():
    plain = {"gasPrice": GWEI, "to": ME.address, "nonce": 0, "gas": 21_000, "value": 0, "chainId": 31_337}
    assert raised(node_that_suggests(GWEI, GWEI), bytes(ME.sign_transaction(plain).raw_transaction)) is None
    assert raised(node_that_suggests(GWEI, GWEI), b"") is None


pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    require_anvil()
    with Anvil(tmp_path_factory.mktemp("anvil") / "state.json", accounts=3) as node:
        deployment = deploy(node.web3, node.accounts[0], 1_000)
        ArenaClient(node.web3, deployment, node.accounts[0]).token.transfer(ME.address, 100)
        yield node, deployment


@pytest.fixture
def stuck(deployed, tmp_path, monkeypatch):
    """Who pays 7 on a node that mines nothing, each process waiting for a moment only; ``asked`` are the quotes."""
    node, deployment = deployed
    monkeypatch.setattr(chain.contract, "RECEIPT_TIMEOUT_S", 0.3)
    node.ask("evm_setAutomine", False)
    friend, path = dev_account(50).address, tmp_path / "me.jsonl"
    reader = ArenaClient(node.web3, deployment)
    had, asked = reader.token.balance_of(friend), []

    def process(work):
        with open_journal(path, ME.address) as journal:
            return work(ArenaClient(node.web3, deployment, ME, journal=journal, before=asked.append))

    yield SimpleNamespace(
        node=node, process=process, asked=asked, path=path, pay=lambda client: client.token.transfer(friend, 7),
        paid=lambda: reader.token.balance_of(friend) - had,
    )  # fmt: skip
    node.ask("evm_setAutomine", True)
    node.mine()


def journalled(stuck, what):
    return [row for row in map(json.loads, stuck.path.read_text().splitlines()) if row["what"] == what]


def pooled(stuck):
    """The account's transactions that wait in the node, by nonce."""
    held = stuck.node.ask("txpool_content")["pending"]
    return next((rows for account, rows in held.items() if account.lower() == ME.address.lower()), {})


def test_a_stuck_transaction_is_replaced_and_counts_once(stuck):
    with pytest.raises(NetworkUnavailable):
        stuck.process(stuck.pay)
    with pytest.raises(NetworkUnavailable):
        stuck.process(lambda client: client.resume())
    sent = journalled(stuck, "sent")
    assert len(sent) == 3 and len({row["nonce"] for row in sent}) == 1 and not journalled(stuck, "ended")
    (waiting,) = pooled(stuck).values()
    assert waiting["hash"] == "0x" + sent[-1]["tx"], "the node holds the last one alone"
    fees = [quote.fee_wei for quote in stuck.asked]
    assert len(fees) == 3 and all(later >= earlier * 1.1 for earlier, later in pairwise(fees))
    assert "for a higher fee" in stuck.asked[-1].label
    stuck.node.mine()
    stuck.process(lambda client: client.resume())
    stuck.process(lambda client: client.resume())
    ended = journalled(stuck, "ended")
    assert [row["block"] is not None for row in ended] == [False, False, True] and stuck.paid() == 7


def test_a_replacement_that_no_node_takes_leaves_the_first_one(stuck, monkeypatch):
    monkeypatch.setattr(chain.fees, "RAISE", (101, 100))
    with pytest.raises(NetworkUnavailable):
        stuck.process(stuck.pay)
    stuck.node.mine()
    stuck.process(lambda client: client.resume())
    ended = journalled(stuck, "ended")
    assert len(journalled(stuck, "sent")) == len(ended) and stuck.paid() == 7
    assert sum(row["block"] is not None for row in ended) == 1


def test_what_the_owner_declines_is_not_raised(stuck):
    with pytest.raises(NetworkUnavailable):
        stuck.process(stuck.pay)
    before = len(journalled(stuck, "sent"))

    def decline(client):
        def no(quote):
            raise ChainError("declined")

        object.__setattr__(client.token.connection, "before", no)
        client.resume()

    with pytest.raises(ChainError, match="declined"):
        stuck.process(decline)
    assert len(journalled(stuck, "sent")) == before


def test_a_transaction_that_the_node_forgot_is_brought_back(stuck):
    with pytest.raises(NetworkUnavailable):
        stuck.process(stuck.pay)
    stuck.node.ask("anvil_dropAllTransactions")
    assert not pooled(stuck)
    with pytest.raises(NetworkUnavailable):
        stuck.process(lambda client: client.resume())
    assert pooled(stuck)
    stuck.node.mine()
    stuck.process(lambda client: client.resume())
    assert stuck.paid() == 7
