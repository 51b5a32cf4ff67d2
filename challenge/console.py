"""What both commands share: text for people on stderr, verdicts too, and one place where unforeseen errors end."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from chain.errors import ChainError
from challenge.verdict import ExitCode, Outcome, Tier, Verdict
from pol.errors import PolError

console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

MAX_LINE = 4000
_COLOURS = {Outcome.VERIFIED: "bold green", Outcome.REJECTED: "bold red", Outcome.INCONCLUSIVE: "bold yellow"}
_TIERS = {
    Tier.BITS: "bit for bit",
    Tier.EXACT: "bit for bit, on any class of machine",
    Tier.TOLERANCE: "single steps, within a tolerance measured here",
}


def say(text: str, style: str | None = None) -> None:
    """One line for people. Control characters, line ends too, are shown as such: proofs and file names are hostile.

    What is longer than ``MAX_LINE`` characters is cut, and how much is said.
    """
    more = len(text) - MAX_LINE
    text = f"{text[:MAX_LINE]} ... and {more} characters more" if more > 0 else text
    visible = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)
    console.print(visible, style=style)


def print_verdict(title: str, verdict: Verdict) -> None:
    """The verdict as people read it: what was checked, what was found, what a pass does not cover, the outcome."""
    print_lines([("proof", title), *verdict.checks])
    for row in verdict.comparisons:
        if row["problem"] is None:
            numbers = ", ".join(f"{name} {_short(row[name])}" for name in ("error", "tolerance", "movement"))
            say(f"{'':<14}segment {row['segment']}: {numbers} ({row['tensor']})")
    for mark in verdict.watermarks:
        owner = "the trainer's own" if mark["own"] else f"of {mark['key_root'][:14]}…"
        owner += f", in the model after segment {mark['branch']}"
        found = "found" if mark["found"] else "not found"
        say(f"{'watermark':<14}{owner}: {found}, {mark['matches']}/{mark['trials']} bits, p = 2^{mark['log2_p']}")
    for finding in verdict.findings:
        say(f"{'REJECTED':<14}{finding.message}", "red")
    for line in verdict.undecided:
        say(f"{'UNDECIDED':<14}{line}", "yellow")
    if verdict.strength:
        say(f"{'strength':<14}{verdict.strength}")
        say(f"{'tier':<14}{verdict.tier.value}, {_TIERS[verdict.tier]}")
    for line in verdict.limits:
        say(f"{'note':<14}{line}", "dim")
    say(f"{verdict.outcome.value} (exit code {int(verdict.exit_code)})", _COLOURS[verdict.outcome])


def print_lines(lines: Iterable[tuple[str, str]]) -> None:
    """Lines of a label (at most 13 characters) and a text; notes are dim."""
    for label, text in lines:
        say(f"{label:<14}{text}", "dim" if label == "note" else None)


def _short(number: float | None) -> str:
    return "not finite" if number is None else f"{number:.2g}"


def print_failure(message: str, code: int = ExitCode.CANNOT_RUN) -> None:
    """The one JSON object of a command that found nothing to tell."""
    print(json.dumps({"format": "aiarena.error/1", "exit_code": int(code), "error": message}, sort_keys=True))


def fail(message: str) -> None:
    """Say that the command could not run, and leave with exit code 1."""
    say(f"could not run: {message}", "red")
    raise typer.Exit(int(ExitCode.CANNOT_RUN))


@contextmanager
def failing(as_json: bool, verbose: bool) -> Iterator[None]:
    """What cannot be done here ends with exit code 1 and one message."""
    try:
        yield
    except (PolError, ChainError, OSError) as error:
        if verbose:
            traceback.print_exc()
        if as_json:
            print_failure(str(error))
        fail(str(error))


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
