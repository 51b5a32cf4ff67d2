"""What both commands share: text for people on stderr, and one place where unforeseen errors end."""

from __future__ import annotations

import json
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


def print_failure(message: str) -> None:
    """The one JSON object of a command that could not run."""
    failure = {"format": "aiarena.error/1", "exit_code": int(ExitCode.CANNOT_RUN), "error": message}
    print(json.dumps(failure, sort_keys=True))


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
        if "--json" in sys.argv:
            print_failure(f"{type(error).__name__}: {error}")
        say(f"could not run: {type(error).__name__}: {error} (-v shows where)", "red")
        sys.exit(int(ExitCode.CANNOT_RUN))
