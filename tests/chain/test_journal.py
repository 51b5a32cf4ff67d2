"""What is in the journal survives every kill, and what was signed is done once, whenever its process died."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from web3 import Web3
from web3.middleware import Web3Middleware

from chain.accounts import dev_account
from chain.anvil import Anvil
from chain.client import ArenaClient
from chain.deployment import deploy
from chain.errors import ChainError, NetworkUnavailable
from chain.journal import open_journal
from tests.chain.anvil import require_anvil

ME = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "31337" / "me.jsonl"


class TestFile:
    def test_the_same_content_keeps_its_salt_and_another_gets_another(self, path):
        with open_journal(path, ME) as journal:
            salt = journal.salt("scores", {"task": 1, "scores": [1, 2]})
            assert len(salt) == 32
            assert journal.salt("scores", {"scores": [1, 2], "task": 1}) == salt
            other = journal.salt("scores", {"task": 1, "scores": [1, 3]})
            elsewhere = journal.salt("votes", {"task": 1, "scores": [1, 2]})
        assert len({salt, other, elsewhere}) == 3
        with open_journal(path, ME) as journal:
            assert journal.salt("scores", {"task": 1, "scores": [1, 2]}) == salt
            assert [kept for _, kept in journal.salted("scores")] == [other, salt]

    def test_a_lent_account_is_had_in_turns_and_each_knows_what_the_other_wrote(self, path):
        with open_journal(path, ME) as training:
            with training.lent():
                with open_journal(path, ME) as other:
                    salt = other.salt("scores", {"task": 1})
                    with pytest.raises(NetworkUnavailable, match="another command"), training.turn():
                        pass
                with training.turn():
                    assert training.salt("scores", {"task": 1}) == salt
                    with pytest.raises(NetworkUnavailable), open_journal(path, ME):
                        pass
            with pytest.raises(NetworkUnavailable), open_journal(path, ME):
                pass

    def test_notes_are_kept_in_order(self, path):
        with open_journal(path, ME) as journal:
            journal.note("deploy", {"first": 1})
            journal.note("deploy", {"first": 7})
        with open_journal(path, ME) as journal:
            assert journal.noted("deploy") == [{"first": 7}, {"first": 1}] and journal.noted("other") == []

    def test_only_its_owner_can_read_it(self, path):
        with open_journal(path, ME):
            assert path.stat().st_mode & 0o77 == 0 and path.parent.stat().st_mode & 0o77 == 0

    def test_two_cannot_act_for_an_account_at_once(self, path):
        with open_journal(path, ME), pytest.raises(NetworkUnavailable, match="another command"), open_journal(path, ME):
            pass
        with open_journal(path, ME):
            pass

    @pytest.mark.parametrize("keep", [0, 1, 40, -1])
    def test_a_line_cut_short_had_not_happened(self, path, keep):
        with open_journal(path, ME) as journal:
            salt = journal.salt("scores", {"task": 1})
        whole = path.read_bytes()
        path.write_bytes(whole + whole[:keep])
        with open_journal(path, ME) as journal:
            assert journal.salted("scores") == [({"task": 1}, salt)]
            other = journal.salt("scores", {"task": 2})
        with open_journal(path, ME) as journal:
            assert [kept for _, kept in journal.salted("scores")] == [other, salt]

    @pytest.mark.parametrize(
        "line",
        [
            b"", b"x", b"[]", b"{}", b'{"what": "salt"}', b"\xff",
            b'{"what": "ended", "tx": "zz", "block": 1}', b'{"what": "ended", "tx": "00", "block": "1"}',
            b'{"what": "note", "kind": "a", "content": {}, "more": 1}',
        ],
    )  # fmt: skip
    def test_a_damaged_line_is_named_and_nothing_is_overwritten(self, path, line):
        with open_journal(path, ME) as journal:
            journal.salt("scores", {"task": 1})
        content = path.read_bytes() + line + b"\n"
        path.write_bytes(content)
        with pytest.raises(ChainError, match="line 2 is damaged"), open_journal(path, ME):
            pass
        assert path.read_bytes() == content

    def test_a_full_disk_leaves_a_whole_file(self, path, monkeypatch):
        with open_journal(path, ME) as journal:
            salt = journal.salt("scores", {"task": 1})
            write = os.write
            with monkeypatch.context() as full:
                full.setattr(os, "write", lambda file, data: write(file, data[:10]))
                with pytest.raises(OSError, match="cannot grow"):
                    journal.salt("scores", {"task": 2})
            assert journal.salted("scores") == [({"task": 1}, salt)]
            journal.salt("scores", {"task": 3})
        with open_journal(path, ME) as journal:
            assert [content for content, _ in journal.salted("scores")] == [{"task": 3}, {"task": 1}]


WRITER = """
import itertools, sys
from pathlib import Path
from chain.journal import open_journal
with open_journal(Path(sys.argv[1]), sys.argv[2]) as journal:
    for number in itertools.count(len(journal.salted("scores"))):
        print(number, journal.salt("scores", {"number": number}).hex(), flush=True)
"""


def test_whatever_a_killed_process_was_told_is_kept(path):
    """Killed with SIGKILL at once, and again: every salt it had in its hands is in the file."""
    told = {}
    for wait in (0.0, 0.1):
        command = [sys.executable, "-c", WRITER, str(path), ME]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            first = process.stdout.readline()
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            lines = [first, *process.stdout]
        for line in lines:
            if line.endswith("\n"):
                number, salt = line.split()
                assert told.setdefault(int(number), salt) == salt
        with open_journal(path, ME) as journal:
            kept = {content["number"]: salt.hex() for content, salt in journal.salted("scores")}
        assert told.items() <= kept.items() and sorted(kept) == list(range(len(kept)))
    assert len(told) >= 2


class Killed(BaseException):
    """The process dies here."""


class DiesAt(Web3Middleware):
    """A way to the node on which the process dies ``before`` or ``after`` it sent a transaction."""

    moment = ""

    def wrap_make_request(self, make_request):
        def on_call(method, params):
            if method == "eth_sendRawTransaction" and self.moment == "before":
                raise Killed
            answer = make_request(method, params)
            if method == "eth_sendRawTransaction" and self.moment == "after":
                raise Killed
            return answer

        return on_call


@contextmanager
def acting(world, path, moment=""):
    """A client of account 5 with a journal, whose process dies at the moment given."""
    web3 = Web3(world.chain.web3.provider)
    web3.middleware_onion.add(type("Dies", (DiesAt,), {"moment": moment}), "dies")
    with open_journal(path, world.clients[5].address) as journal:
        yield ArenaClient(web3, world.deployment, world.clients[5].account, journal=journal)


def journalled(path):
    return [json.loads(line)["what"] for line in path.read_text().splitlines()]


class TestTransactions:
    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_a_process_that_dies_around_sending_has_sent_once(self, world, path, moment):
        friend, me = world.clients[6].address, world.clients[5].address
        count, held = world.chain.web3.eth.get_transaction_count, world.reader.token.balance_of
        before, had = count(me), held(friend)
        with pytest.raises(Killed), acting(world, path, moment) as client:
            client.token.transfer(friend, 7)
        assert journalled(path) == ["sent"]
        assert count(me) == before + (moment == "after")
        for _ in range(2):
            with acting(world, path) as client:
                client.resume()
                assert held(friend) == had + 7 and count(me) == before + 1
        assert journalled(path) == ["sent", "ended"]

    def test_an_honest_run_leaves_nothing_outstanding(self, world, path):
        with acting(world, path) as client:
            receipt = client.token.transfer(world.creator.address, 1)
            client.resume()
        assert journalled(path) == ["sent", "ended"]
        assert json.loads(path.read_text().splitlines()[1]) == {
            "what": "ended", "tx": receipt.tx.hex(), "block": receipt.block,
        }  # fmt: skip

    def test_a_transaction_whose_nonce_went_to_another_never_comes(self, world, path):
        friend = world.clients[6].address
        with pytest.raises(Killed), acting(world, path, "before") as client:
            client.token.transfer(friend, 7)
        world.clients[5].token.transfer(world.creator.address, 1)
        had = world.reader.token.balance_of(friend)
        with acting(world, path) as client:
            client.resume()
            assert client.token.connection.journal.outstanding() == []
        assert world.reader.token.balance_of(friend) == had
        assert json.loads(path.read_text().splitlines()[-1])["block"] is None

    def test_a_transaction_that_no_node_takes_is_given_up(self, world, path):
        poor, eth = dev_account(98), world.chain.web3.eth
        transaction = {"to": ME, "value": 1, "gas": 21_000, "gasPrice": 10**10, "nonce": 0, "chainId": eth.chain_id}
        signed = poor.sign_transaction(transaction)
        with open_journal(path, poor.address) as journal:
            journal.sending("paying", 0, bytes(signed.hash), bytes(signed.raw_transaction))
            journal.follow(world.chain.web3, 1.0)
            assert journal.outstanding() == []

    def test_what_the_user_declines_is_neither_signed_nor_written_down(self, world, path):
        def decline(quote):
            raise ChainError(f"declined {quote.label}")

        with open_journal(path, world.clients[5].address) as journal:
            client = ArenaClient(
                world.chain.web3, world.deployment, world.clients[5].account, journal=journal, before=decline
            )
            with pytest.raises(ChainError, match=r"declined ArenaToken\.transfer"):
                client.token.transfer(world.creator.address, 1)
        assert path.read_text() == ""


PAYER = """
import sys
from pathlib import Path
from chain.accounts import dev_account
from chain.anvil import connect
from chain.client import ArenaClient
from chain.deployment import Deployment
from chain.journal import open_journal
url, record, path, friend = sys.argv[1:]
with open_journal(Path(path), dev_account(1).address) as journal:
    client = ArenaClient(connect(url, {"timeout": 10}), Deployment.load(Path(record)), dev_account(1), journal=journal)
    client.resume()
    print("ready", flush=True)
    while client.token.balance_of(friend) < 25:
        client.token.transfer(friend, 1)
"""


@pytest.mark.slow
@pytest.mark.node
def test_killed_again_and_again_a_payer_pays_exactly_what_it_wanted(tmp_path):
    """Each process dies by SIGKILL at another moment of its work; the chain is the judge."""
    require_anvil()
    friend = dev_account(90).address
    with Anvil(tmp_path / "state.json", accounts=2) as node:
        deployment = deploy(node.web3, node.accounts[0], 1_000)
        ArenaClient(node.web3, deployment, node.accounts[0]).token.transfer(node.accounts[1].address, 100)
        deployment.save(tmp_path / "deployment.json")
        arguments = [node.url, tmp_path / "deployment.json", tmp_path / "me.jsonl", friend]
        command = [sys.executable, "-c", PAYER, *map(str, arguments)]
        for wait in (0.0, 0.03, 0.07, 0.11, 0.2):
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout.readline() == "ready\n"
                time.sleep(wait)
                process.send_signal(signal.SIGKILL)
        subprocess.run(command, check=True, timeout=60)
        assert ArenaClient(node.web3, deployment).token.balance_of(friend) == 25
        assert node.web3.eth.get_transaction_count(dev_account(1).address) == 25
        with open_journal(tmp_path / "me.jsonl", dev_account(1).address) as journal:
            assert journal.outstanding() == []
