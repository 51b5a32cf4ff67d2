"""The ``arena`` command in this process, on the embedded chain, as people with development accounts type it."""

import json
import re
from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner
from web3 import Web3
from web3.middleware import Web3Middleware

from chain.accounts import dev_account
from chain.client import ArenaClient
from chain.deployment import Deployment
from chain.devnet import EmbeddedChain
from chain.networks import find_network
from challenge.arena import session
from challenge.arena_cli import app

EXAMPLES = Path(__file__).parents[2] / "examples"


class Killed(BaseException):
    """The process of the command dies."""


class Shell:
    """Commands on one embedded chain; ``folder`` is the home of all accounts.

    ``dies`` is the moment at which the process of the next command that sends something dies: ``before`` or ``after``
    its first transaction is sent, or ``""``. ``app`` is the command that is typed.
    """

    app = app

    def __init__(self, folder, monkeypatch, node=None):
        self.folder, self.dies = folder, ""
        self.chain = node or EmbeddedChain(accounts=16)
        self.web3 = Web3(self.chain.web3.provider)
        self.web3.middleware_onion.add(self._deadly(), "deadly")
        chain_id = self.chain.web3.eth.chain_id
        monkeypatch.setattr("chain.networks.LOCAL_CHAIN_ID", chain_id)
        monkeypatch.setenv("ARENA_HOME", str(folder / "home"))
        monkeypatch.setenv("AIARENA_KEY_PASSPHRASE", "a passphrase of the tests")
        network = replace(find_network("local"), chain_id=chain_id)
        monkeypatch.setattr(session, "open_network", lambda name: (network, self.web3))

    def __call__(self, who, *words, code=0):
        """The answer of a command typed by development account ``who``, which must end with ``code``."""
        account = [] if who is None else ["--account", f"dev:{who}", "--yes"]
        done = CliRunner().invoke(self.app, [*map(str, words), *account, "--json"])
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout) if code != 2 else None

    def twice(self, who, *words):
        """The same, typed a second time, which must send nothing and find the same."""
        first = self(who, *words)
        assert first["transactions"]
        again = self(who, *words)
        assert again == {**first, "transactions": []}
        return first

    def mortally(self, who, *words):
        """The same, by processes that die in turn before and after they send a transaction, until one lives.

        However often they die, a transaction is sent once.
        """
        count = self.sent(who)
        for deaths in range(40):
            self.dies = ("before", "after")[deaths % 2]
            try:
                answer = self(who, *words)
            except Killed:
                continue
            break
        self.dies = ""
        assert deaths, "nothing was sent"
        again = self(who, *words)
        assert again == {**answer, "transactions": []}
        return answer, self.sent(who) - count

    @property
    def client(self):
        """A reading client of the contracts that were deployed."""
        (record,) = self.folder.glob("home/*/deployment.json")
        return ArenaClient(self.chain.web3, Deployment.load(record))

    def sent(self, who):
        """How many transactions of the account are mined."""
        return self.chain.web3.eth.get_transaction_count(dev_account(who).address)

    def to(self, timestamp):
        """Move the clock, if it is not there yet."""
        if self.chain.now() < timestamp:
            self.chain.advance_to(timestamp)

    def _deadly(self):
        shell = self

        class Deadly(Web3Middleware):
            def wrap_make_request(self, make_request):
                def on_call(method, params):
                    moment = shell.dies if method == "eth_sendRawTransaction" else ""
                    if moment == "before":
                        raise Killed
                    answer = make_request(method, params)
                    if moment == "after":
                        raise Killed
                    return answer

                return on_call

        return Deadly

    def task_file(self, start):
        """The example's task, starting then (seconds since 1970)."""
        path = self.folder / f"task-{start}.toml"
        path.write_text(task_text(start))
        return path


def task_text(start, **terms):
    """The example's task, starting then, with these terms instead of its own."""
    text = (EXAMPLES / "task.toml").read_text()
    for name, value in {"start": start, **terms}.items():
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    return text
