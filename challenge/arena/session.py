"""What every ``arena`` command shares: where and as whom it acts, quotes before, one answer after, exit codes."""

from __future__ import annotations

import inspect
import json
import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from web3 import Web3

from chain.client import ArenaClient
from chain.contract import Connection
from chain.deployment import Deployment, find_deployment
from chain.errors import BadKey, ChainError, ContractReverted, Overtaken
from chain.journal import Journal, open_journal
from chain.networks import Network, open_network
from chain.quote import Quote
from chain.reverts import refusals
from chain.signers import Signer, find_signer
from challenge.arena.amounts import address
from challenge.console import print_failure, say
from challenge.verdict import ExitCode
from pol.errors import PolError, Unreachable

NOT_YET = 3
"""Exit code of a command that would work later: a window is not open, a node is silent. Repeat it."""

EXIT_CODES = "Exit codes: 0 done, or done before; 1 could not; 2 usage; 3 not yet: repeat it later."
FORMAT = "aiarena.arena/1"
ETHER = 10**18

NetworkOption = Annotated[
    str, typer.Option("--network", envvar="ARENA_NETWORK", help="base, base-sepolia, local, or a node's address.")
]
AccountOption = Annotated[
    str,
    typer.Option(
        "--account",
        envvar="ARENA_ACCOUNT",
        help="env:NAME (a private key in that variable), a keystore file, clef:ADDRESS@URL (Clef, hardware wallets), "
        "or dev:NUMBER (local chains only).",
    ),
]
ArenaOption = Annotated[
    str | None,
    typer.Option(
        "--arena", envvar="ARENA_ADDRESS", parser=address, help="The Arena's address, if not deployed from here."
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", help="Send without asking.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def _digests(texts: list[str] | None) -> list[str] | None:
    for text in texts or []:
        if not re.fullmatch(r"0x[0-9a-f]{64}", text):
            raise typer.BadParameter(f"{text[:80]!r} is not 0x and 64 hex digits")
    return texts


TrustOption = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-program", callback=_digests, help="Source digest (0x…) of a program that may run here; repeatable."
    ),
]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of an error.")]
TaskArgument = Annotated[int, typer.Argument(metavar="TASK", min=1, help="The task's number.")]

_COMMON = {
    "network": (NetworkOption, "local"),
    "account": (AccountOption, "env:ARENA_KEY"),
    "arena": (ArenaOption, None),
    "yes": (YesOption, False),
    "as_json": (JsonOption, False),
    "verbose": (VerboseOption, False),
}


class NotYet(ChainError):
    """What was asked for can be done later: repeat the command then."""


@dataclass
class Session:
    """One command at work.

    ``folder`` is what this machine keeps for the chain, readable by its owner only: the deployment made from here and
    a journal for each account. ``journal`` is ``None`` in a command that only reads.
    """

    network: Network
    web3: Web3
    folder: Path
    address: str | None = None
    signer: Signer | None = None
    journal: Journal | None = None
    asks: bool = True

    @property
    def record(self) -> Path:
        """The file with the deployment made from here."""
        return self.folder / "deployment.json"

    @cached_property
    def client(self) -> ArenaClient:
        """All contracts, through the account; raises :class:`ChainError` if it is not known where they are."""
        if self.address is not None:
            deployment = find_deployment(self.web3, self.address)
        elif self.record.is_file():
            deployment = Deployment.load(self.record)
        else:
            raise ChainError(f"no contracts are known on {self.network.name}: give --arena, or `arena deploy` first")
        return ArenaClient(self.web3, deployment, self.signer, before=self.confirm, journal=self.journal)

    def connection(self) -> Connection:
        """The account and the node, without contracts."""
        return Connection(
            self.web3, self.signer, chain_id=self.network.chain_id, before=self.confirm, journal=self.journal
        )

    @property
    def me(self) -> str:
        """The account's checksum address."""
        return self.client.address

    @property
    def promises(self) -> Journal:
        """The journal of a command that acts."""
        assert self.journal is not None, "a command that only reads promises nothing"
        return self.journal

    def confirm(self, quote: Quote) -> None:
        """Show what a transaction will cost at most, and ask; raises :class:`ChainError` if it is not wanted."""
        where = f"to {quote.to}" if quote.to else "a new contract"
        value = f", paying {_ether(quote.value)}" if quote.value else ""
        say(f"{'transaction':<14}{quote.label} {where}: {quote.gas} gas, at most {_ether(quote.fee_wei)}{value}")
        self.ask("send it?", quote.label)

    def ask(self, question: str, what: str) -> None:
        """Ask for a yes, unless it was given on the command line; raises :class:`ChainError` naming ``what``."""
        try:
            wanted = not self.asks or typer.confirm(question, err=True)
        except typer.Abort as error:
            raise ChainError(f"{what} was not sent: nobody answered; give --yes to send without asking") from error
        if not wanted:
            raise ChainError(f"{what} was not sent: you declined")

    def sent(self) -> list[dict[str, Any]]:
        """The transactions of this command that were mined: what, hash, block, gas used and the fee paid (wei)."""
        if self.journal is None:
            return []
        with refusals("reading receipts"):
            return [self._receipt(label, tx) for label, tx in self.journal.mined() if tx in self.journal.followed]

    def _receipt(self, label: str, tx: bytes) -> dict[str, Any]:
        receipt = self.web3.eth.get_transaction_receipt("0x" + tx.hex())  # type: ignore[arg-type]
        data_fee = int(str(receipt.get("l1Fee", "0x0")), 16)
        fee = receipt["gasUsed"] * receipt["effectiveGasPrice"] + data_fee
        url = self.network.transaction_url(tx)
        row = {"call": label, "tx": "0x" + tx.hex(), "block": receipt["blockNumber"], "gas": receipt["gasUsed"]}
        return row | {"fee_wei": fee} | ({"url": url} if url else {})


def home() -> Path:
    """Where this machine keeps journals and deployments: ``ARENA_HOME``, or ``.aiarena`` in the user's home."""
    return Path(os.environ.get("ARENA_HOME") or Path.home() / ".aiarena")


def chain_folder(web3: Web3, chain_id: int) -> Path:
    """The folder of one chain. Local chains all have the same id, so its first block names it as well."""
    with refusals("asking for the first block"):
        genesis = web3.eth.get_block(0)["hash"]
    return home() / f"{chain_id}-{bytes(genesis).hex()[:8]}"


@contextmanager
def open_session(network: str, account: str | None, arena: str | None, *, yes: bool = False) -> Iterator[Session]:
    """A session on ``network``, as ``account`` (``None``: reading only), with what it sent before followed to its end.

    Raises :class:`ChainError`.
    """
    known, web3 = open_network(network)
    folder = chain_folder(web3, known.chain_id)
    if account is None:
        yield Session(known, web3, folder, arena)
        return
    if account.startswith("dev:") and not known.is_local:
        raise ChainError(f"everybody knows the key of {account}: on {known.name} use an account of your own")
    signer = find_signer(account, _password)
    with open_journal(folder / f"{signer.address}.jsonl", signer.address) as journal:
        for sent in journal.outstanding():
            say(f"{'note':<14}{sent.label} was sent before, or was to be: following it", "dim")
        session = Session(known, web3, folder, arena, signer, journal, not yes)
        session.connection().resume()
        yield session


def command(
    app: typer.Typer, name: str, *, reads: bool = False
) -> Callable[[Callable[..., dict[str, Any]]], Callable[..., dict[str, Any]]]:
    """Make a function a command of ``app``: it is given a :class:`Session` and its own options, and returns its answer,
    a JSON object that people read line by line. Network, account and the like are options of every command."""

    def register(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        def run(
            *,
            network: str,
            arena: str | None,
            as_json: bool,
            verbose: bool,
            account: str | None = None,
            yes: bool = False,
            **own: Any,
        ) -> None:
            with _failing(as_json, verbose), ExitStack() as stack:
                session = stack.enter_context(open_session(network, account, arena, yes=yes))
                answer = function(session, **own)
                _answer(answer, session.sent(), as_json)

        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        kind = inspect.Parameter.KEYWORD_ONLY
        common = [
            inspect.Parameter(option, kind, default=default, annotation=annotation)
            for option, (annotation, default) in _COMMON.items()
            if not (reads and option in ("account", "yes"))
        ]
        parameters = [parameter.replace(kind=kind) for parameter in own] + common
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(name, help=inspect.getdoc(function))(run)
        return function

    return register


def token_amount(wei: int) -> str:
    """An amount (wei, not negative) in whole tokens as people read it, exactly."""
    whole, rest = divmod(wei, ETHER)
    return f"{whole:,}" + (f".{rest:018d}".rstrip("0") if rest else "")


@contextmanager
def _failing(as_json: bool, verbose: bool) -> Iterator[None]:
    """Refusals and silence end with one message and an exit code that says whether to come back later."""
    try:
        yield
    except (PolError, ChainError, OSError) as error:
        if verbose:
            traceback.print_exc()
        later = _comes_later(error)
        code = NOT_YET if later else int(ExitCode.CANNOT_RUN)
        if as_json:
            print_failure(str(error), code)
        say(f"{'not yet' if later else 'could not'}: {error}", "yellow" if later else "red")
        raise typer.Exit(code) from None


def _comes_later(error: Exception) -> bool:
    if not isinstance(error, ContractReverted):
        return isinstance(error, Unreachable | NotYet)
    if isinstance(error, Overtaken):
        return True
    if error.name == "WrongPhase":
        return bool(error.args_by_name["have"] < error.args_by_name["need"])  # type: ignore[operator]
    return error.name in ("TooEarly", "BeaconNotReady", "CasePending")


def _answer(answer: dict[str, Any], sent: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"format": FORMAT, "exit_code": 0, **answer, "transactions": sent}, sort_keys=True))
        return
    for name, value in answer.items():
        for line in value if isinstance(value, list) else [value]:
            text = ", ".join(f"{k} {v}" for k, v in line.items()) if isinstance(line, dict) else str(line)
            say(f"{name.replace('_', ' '):<16}{text}")
    for row in sent:
        say(f"{'sent':<16}{row['call']} in block {row['block']}: {row['gas']} gas, {_ether(row['fee_wei'])}")
    if not sent:
        say(f"{'sent':<16}nothing", "dim")


def _ether(wei: int) -> str:
    return f"{wei / ETHER:.9f} ether"


def _password() -> str:
    known = os.environ.get("ARENA_PASSWORD")
    if known is not None:
        return known
    try:
        return str(typer.prompt("password of the keystore", hide_input=True, err=True))
    except typer.Abort as error:
        raise BadKey("nobody gave the keystore's password: type it, or put it into ARENA_PASSWORD") from error
