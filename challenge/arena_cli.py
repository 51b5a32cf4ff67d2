"""The ``arena`` command: tasks, stakes, runs, scores and claims on a chain, and the demo."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from chain.anvil import Anvil
from chain.devnet import GENESIS_TIME, DevChain, EmbeddedChain
from chain.errors import ChainError
from challenge.arena import claim, rewards, run, score, stake, status, submit, task, up
from challenge.arena.session import EXIT_CODES
from challenge.console import console, fail, print_verdict, say
from challenge.console import run as run_app
from pol.errors import PolError

if TYPE_CHECKING:
    from challenge.demo.story import Story

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
MARKER = ".arena-demo"
STATE = "chain.json"
WEI = 10**18


class Stage(Enum):
    """Where the demo is played."""

    EMBEDDED = "embedded"
    ANVIL = "anvil"


@app.callback(help=f"The training arena: tasks, stakes, runs, scores and claims. {EXIT_CODES}")
def arena() -> None:
    """What all commands have in common."""


for group in (up, task, stake, run, submit, score, rewards, claim, status):
    group.add_to(app)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the proofs; an earlier demo in it is replaced.")] = Path("runs"),
    chain: Annotated[
        Stage, typer.Option(help="Inside this process, or on a node of its own (anvil), which keeps its state in OUT.")
    ] = Stage.EMBEDDED,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of an error.")] = False,
) -> None:
    """Play the whole story on a local chain: honest training, a theft, a challenge, and who is paid in the end.

    Examples:

        arena demo

        arena demo --out /tmp/story --chain anvil
    """
    from challenge.demo.story import play

    try:
        _fresh(out)
        with _stage(chain, out / STATE) as stage:
            story = play(out, say, stage)
    except (PolError, ChainError, OSError) as error:
        if verbose:
            traceback.print_exc()
        fail(str(error))
    for name in ("alice", "mallory"):
        console.print()
        print_verdict(str(out / name), story.verdicts[name])
    console.print()
    console.print(balance_table(story))
    say("Check them yourself, each in a process of its own that knows nothing of this one:")
    command, asking = _challenge_command(), ""
    if chain is Stage.ANVIL:
        asking = f" --network local --arena {story.setting.clients['vera'].deployment.arena}"
        say(f"  the chain is kept in {out / STATE}: arena up --state {out / STATE} starts it again")
    say(f"  {command} verify {out / 'alice'}{asking}      (exit code 0)")
    say(f"  {command} verify {out / 'mallory'} --claim {story.claims['alice']}{asking}      (exit code 11)")


@contextmanager
def _stage(kind: Stage, state: Path) -> Iterator[DevChain]:
    """The chain that the demo is played on, with an account for everybody; anvil's ends, its state kept, as the block
    does."""
    from challenge.demo.setting import PEOPLE

    if kind is Stage.EMBEDDED:
        yield EmbeddedChain(accounts=len(PEOPLE))
        return
    with Anvil(state, accounts=len(PEOPLE), genesis_time=GENESIS_TIME) as node:
        yield node


def balance_table(story: Story) -> Table:
    """Every account before and after, in whole tokens; the sums are the token's supply, and burned tokens the rest."""
    table = Table(title="Balances (ARENA)")
    for heading in ("account", "before", "after", "change"):
        table.add_column(heading, justify="left" if heading == "account" else "right")
    for name, before in story.before.items():
        after = story.after[name]
        table.add_row(name, _tokens(before), _tokens(after), f"{(after - before) / WEI:+,.2f}")
    burned = story.supply_before - story.supply_after
    table.add_section()
    table.add_row("sum", _tokens(sum(story.before.values())), _tokens(sum(story.after.values())), "")
    table.add_row("supply", _tokens(story.supply_before), _tokens(story.supply_after), f"{-burned / WEI:+,.2f} burned")
    return table


def _challenge_command() -> str:
    """How to type ``challenge`` here: its name if the shell finds it, else its path beside this interpreter."""
    beside = Path(os.path.relpath(Path(sys.executable).parent / "challenge"))
    return "challenge" if shutil.which("challenge") else str(beside)


def _tokens(wei: int) -> str:
    return f"{wei / WEI:,.2f}"


def _fresh(out: Path) -> None:
    """Make ``out`` empty, but only if it is new or holds an earlier demo."""
    if out.exists() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise PolError(f"{out} is not empty and holds no earlier demo; give another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARKER).touch()


def main() -> None:
    """The console script."""
    run_app(app)
