"""What both commands share: text for people on stderr, and one place where unforeseen errors end."""

from __future__ import annotations

import sys
import traceback

import typer
from rich.console import Console

from challenge.verdict import ExitCode

console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def say(text: str, style: str | None = None) -> None:
    """One line for people. Control characters are shown as such: proofs and file names are hostile input."""
    visible = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
    console.print(visible, style=style)


def fail(message: str) -> None:
    """Say that the command could not run, and leave with exit code 1."""
    say(f"could not run: {message}", "red")
    raise typer.Exit(int(ExitCode.CANNOT_RUN))


def run(app: typer.Typer) -> None:
    """Run a command; an error nobody foresaw is 'could not run', never a verdict and never a traceback unasked."""
    try:
        app()
    except Exception as error:
        if "-v" in sys.argv or "--verbose" in sys.argv:
            traceback.print_exc()
        say(f"could not run: {type(error).__name__}: {error} (-v shows where)", "red")
        sys.exit(int(ExitCode.CANNOT_RUN))
