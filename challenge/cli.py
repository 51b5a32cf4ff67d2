"""The ``challenge`` command: the only place that prints verdicts and exits with their codes."""

from __future__ import annotations

import json
import re
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from chain.errors import ChainError
from challenge.claims import read_claim
from challenge.console import console, fail, print_failure, run, say
from challenge.sampling import DEFAULT_SEGMENTS
from challenge.segments import Policy
from challenge.verdict import Outcome, Verdict
from challenge.verify import verify
from pol.errors import PolError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_COLOURS = {Outcome.VERIFIED: "bold green", Outcome.REJECTED: "bold red", Outcome.INCONCLUSIVE: "bold yellow"}


@app.callback()
def challenge() -> None:
    """Check proofs of learning. Exit codes: 0 verified, 1 could not run, 2 usage, 10 malformed, 11 replay mismatch,
    12 watermark, 13 anchor, 20 inconclusive."""


@app.command("verify")
def verify_command(
    folder: Annotated[Path, typer.Argument(help="The proof: a folder with manifest.json.")],
    segments: Annotated[
        str, typer.Option(help="How many segments to draw at random, 'all', or a list such as 3,17,48.")
    ] = str(DEFAULT_SEGMENTS),
    claim: Annotated[
        list[Path] | None, typer.Option(help="Folder of a watermark claim to test the model against; repeatable.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Dataset blob, where the spec names no built-in data set.")] = None,
    trust_program: Annotated[
        list[str] | None, typer.Option(help="Source digest (0x…) of a program that may run here; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of an error.")] = False,
) -> None:
    """Verify a proof folder: commitments, signature, replay of sampled segments, the submitted model, watermarks.

    Examples:

        challenge verify runs/alice

        challenge verify runs/mallory --segments all --claim runs/alice-claim --json
    """
    policy = Policy(
        segments=_segments(segments), dataset=data, trusted=frozenset(_digest(value) for value in trust_program or [])
    )
    try:
        claims = [read_claim(path) for path in claim or []]
        with _progress() as progress:
            task = progress.add_task("replay", total=None)

            def on_segment(index: int, matched: bool) -> None:
                progress.advance(task)
                if not console.is_terminal and not as_json:
                    say(f"{'replay':<14}segment {index} {'matches' if matched else 'DOES NOT MATCH'}")

            verdict = verify(folder, policy, claims=claims, on_segment=on_segment)
    except (PolError, ChainError, OSError) as error:
        if verbose:
            traceback.print_exc()
        if as_json:
            print_failure(str(error))
        fail(str(error))
    if as_json:
        print(json.dumps(verdict.to_json() | {"proof": str(folder)}, sort_keys=True))
    else:
        print_verdict(str(folder), verdict)
    raise typer.Exit(int(verdict.exit_code))


def print_verdict(title: str, verdict: Verdict) -> None:
    """The verdict as people read it: what was checked, what was found, what a pass does not cover, the outcome."""
    say(f"{'proof':<14}{title}")
    for check, result in verdict.checks:
        say(f"{check:<14}{result}")
    for mark in verdict.watermarks:
        owner = "the trainer's own" if mark["own"] else f"of {mark['key_root'][:14]}…"
        found = "found" if mark["found"] else "not found"
        say(f"{'watermark':<14}{owner}: {found}, {mark['matches']}/{mark['trials']} bits, p = 2^{mark['log2_p']}")
    for finding in verdict.findings:
        say(f"{'REJECTED':<14}{finding.message}", "red")
    for line in verdict.undecided:
        say(f"{'UNDECIDED':<14}{line}", "yellow")
    if verdict.strength:
        say(f"{'strength':<14}{verdict.strength}")
    for line in verdict.limits:
        say(f"{'note':<14}{line}", "dim")
    say(f"{verdict.outcome.value} (exit code {int(verdict.exit_code)})", _COLOURS[verdict.outcome])


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _segments(value: str) -> int | list[int] | None:
    if value == "all":
        return None
    if re.fullmatch(r"\d{1,6}", value) and int(value) > 0:
        return int(value)
    if re.fullmatch(r"\d{1,6}(,\d{1,6})+,?|\d{1,6},", value):
        return [int(part) for part in value.split(",") if part]
    raise typer.BadParameter(
        f"{value!r}: give a number above 0, 'all', or a list such as 3,17,48", param_hint="--segments"
    )


def _digest(value: str) -> bytes:
    if not re.fullmatch(r"0x[0-9a-f]{64}", value):
        raise typer.BadParameter(f"{value!r} is not 0x and 64 hex digits", param_hint="--trust-program")
    return bytes.fromhex(value[2:])


def main() -> None:
    """The console script."""
    run(app)
