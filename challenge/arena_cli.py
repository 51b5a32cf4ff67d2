"""The ``arena`` command. So far it plays the demo; the commands for real networks come with the complete chain."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from chain.errors import ChainError
from challenge.console import console, fail, print_verdict, run, say
from challenge.demo.story import Story, play
from pol.errors import PolError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
MARKER = ".arena-demo"
WEI = 10**18


@app.callback()
def arena() -> None:
    """The training arena: tasks, stakes, runs, scores and claims."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the proofs; an earlier demo in it is replaced.")] = Path("runs"),
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of an error.")] = False,
) -> None:
    """Play the whole story on an embedded chain: honest training, a theft, a challenge, and who is paid in the end.

    Examples:

        arena demo

        arena demo --out /tmp/story
    """
    try:
        _fresh(out)
        story = play(out, say)
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
    command = _challenge_command()
    say(f"  {command} verify {out / 'alice'}      (exit code 0)")
    say(f"  {command} verify {out / 'mallory'} --claim {story.claims['alice']}      (exit code 11)")


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
    run(app)
