"""The ``challenge`` command: the only place that prints verdicts and exits with their codes.

What needs torch is imported inside the commands, so that looking at a proof and planning an audit start at once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from challenge.arena.amounts import address
from challenge.console import failing, print_failure, print_lines, print_verdict, run, say
from challenge.doctor_cli import doctor_command
from challenge.places import asking, located, watching
from challenge.sampling import DEFAULT_SEGMENTS
from challenge.sealing_cli import juror_key_command, read_claims, seal_command
from challenge.verdict import ExitCode, Verdict
from pol.encoding import MAX_INTEGER
from pol.errors import ProofError, SpecError

CASES = ("claim", "open", "respond", "vote", "appeal", "settle", "status")


class Commands(TyperGroup):
    """The commands of this file, and those of cases, which import web3: only who asks for one waits for that."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names."""
        return [*super().list_commands(ctx), *CASES]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command called ``cmd_name``, if there is one."""
        if cmd_name not in CASES:
            return super().get_command(ctx, cmd_name)
        from challenge.case_cli import commands

        group = typer.main.get_command(commands())
        assert isinstance(group, TyperGroup)
        return group.get_command(ctx, cmd_name)


app = typer.Typer(cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("doctor")(doctor_command)
app.command("juror-key")(juror_key_command)
app.command("seal")(seal_command)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of an error.")]
ProofPlace = Annotated[str, typer.Argument(metavar="PROOF", help="A folder with manifest.json, or a bundle's CID.")]
Store = Annotated[
    str | None,
    typer.Option(
        help="Where a CID, and what the task lists, is fetched from: a folder, 'ipfs', or the address of an IPFS node."
    ),
]


@app.callback()
def challenge() -> None:
    """Check proofs of learning, and bring what is wrong before a jury. Exit codes: 0 verified, or done; 1 could not
    run; 2 usage; 3 not yet (cases only): repeat it later; 10 malformed; 11 replay mismatch; 12 watermark; 13 anchor;
    20 inconclusive."""


@app.command("verify")
def verify_command(
    proof: ProofPlace,
    segments: Annotated[
        str,
        typer.Option(
            help="How many segments to draw, besides the first, the last and those that submitted models come from; "
            "'all'; or a list such as 3,17,48."
        ),
    ] = str(DEFAULT_SEGMENTS),
    claim: Annotated[
        list[Path] | None,
        typer.Option(help="A watermark claim to test the model against: its folder, or a sealed file; repeatable."),
    ] = None,
    juror_key: Annotated[Path | None, typer.Option(help="Your juror key, if a claim is sealed to it.")] = None,
    case: Annotated[
        int | None, typer.Option(min=0, max=MAX_INTEGER, help="The case you judge, if a claim is sealed for one.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The data set, where the spec names no built-in one.")] = None,
    trust_program: Annotated[
        list[str] | None, typer.Option(help="Source digest (0x…) of a program that may run here; repeatable.")
    ] = None,
    store: Store = None,
    network: Annotated[
        str | None, typer.Option(help="The chain to ask: base, base-sepolia, local, or a node's address.")
    ] = None,
    arena: Annotated[
        str | None, typer.Option(parser=address, help="The Arena's address there, if not deployed from here.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where steps are computed: cpu, cuda, or cuda:1.")] = "cpu",
    executor: Annotated[
        str, typer.Option(help="Who replays: process, pool:4 (that many), ray (here), or ray://host:port.")
    ] = "process",
    max_memory: Annotated[float, typer.Option(min=0.1, help="GiB of memory that one replay may take.")] = 8,
    max_seconds: Annotated[float, typer.Option(min=1, help="Seconds that the replay of one segment may take.")] = 3600,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Verify a proof: commitments, signature, replay of sampled segments, the submitted model, watermarks.

    Examples:

        challenge verify runs/alice

        challenge verify runs/mallory --segments all --claim runs/alice-claim --json

        challenge verify bafkrei... --store ipfs --executor pool:4

        challenge verify runs/mallory --claim alice.sealed --juror-key juror.json --case 1

        challenge verify runs/alice --network base-sepolia --arena 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
    """
    chosen = _segments(segments)
    trusted = frozenset(_digest(value) for value in trust_program or [])
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device):
        raise typer.BadParameter(f"{device!r}: give cpu, cuda or cuda:1", param_hint="--device")
    with failing(as_json, verbose), ExitStack() as stack:
        from challenge.executors import parse_executor
        from challenge.segments import Policy
        from challenge.verify import verify
        from pol.confine import Limits
        from pol.store import open_store

        with _usage("--executor"):
            replays = parse_executor(executor)
        limits = Limits(memory=int(max_memory * 2**30), seconds=max_seconds)
        policy = Policy(
            segments=chosen, dataset=data, trusted=trusted, device=device, executor=replays, limits=limits
        )  # fmt: skip
        claims = read_claims(claim or [], juror_key, case)
        chain = stack.enter_context(asking(network, arena))
        try:
            folder = stack.enter_context(located(proof, store))
        except ProofError as error:
            verdict = Verdict()
            verdict.reject(ExitCode.MALFORMED, str(error))
        else:
            watcher, blobs = stack.enter_context(watching(as_json)), open_store(store) if store else None
            verdict = verify(folder, policy, claims=claims, chain=chain, watcher=watcher, store=blobs)
    if as_json:
        print(json.dumps(verdict.to_json() | {"proof": proof}, sort_keys=True))
    else:
        print_verdict(proof, verdict)
    raise typer.Exit(int(verdict.exit_code))


@app.command("inspect")
def inspect_command(
    proof: ProofPlace,
    store: Store = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what a proof promises and holds, and what checking it would cost, without running anything of it.

    Exit code 10 if it is malformed or its signature does not hold.

    Examples:

        challenge inspect runs/alice

        challenge inspect bafkrei... --store /srv/blobs --json
    """
    from challenge.inspect import inspect_proof, lines

    with failing(as_json, verbose), ExitStack() as stack:
        try:
            found = inspect_proof(stack.enter_context(located(proof, store)), DEFAULT_SEGMENTS)
        except ProofError as error:
            if as_json:
                print_failure(str(error), ExitCode.MALFORMED)
            say(f"malformed: {error}", "red")
            raise typer.Exit(int(ExitCode.MALFORMED)) from error
    if as_json:
        print(json.dumps(found | {"proof": proof}, sort_keys=True))
    else:
        print_lines([("proof", proof), *lines(found)])
    raise typer.Exit(int(ExitCode.MALFORMED if found["signature"]["problem"] else ExitCode.VERIFIED))


@app.command("plan")
def plan_command(
    proof: Annotated[Path | None, typer.Argument(metavar="[PROOF]", help="A proof whose segments count.")] = None,
    segments: Annotated[int | None, typer.Option(help="Segments of the run, where no proof is given.")] = None,
    sample: Annotated[int, typer.Option(help="Segments that a challenger draws.")] = DEFAULT_SEGMENTS,
    forged: Annotated[int | None, typer.Option(help="Segments that a cheat forges.")] = None,
    fraction: Annotated[str, typer.Option(help="The same as a share of all, such as 0.1, 10% or 1/10.")] = "0.1",
    stake: Annotated[str, typer.Option(help="What the trainer loses besides the reward; any one unit.")] = "0",
    reward: Annotated[str, typer.Option(help="What it is paid.")] = "1",
    cost: Annotated[str, typer.Option(help="What honest training costs.")] = "1",
    lie: Annotated[str, typer.Option(help="What a lie in the model is worth to it, besides the training saved.")] = "0",
    audit: Annotated[str, typer.Option(help="Probability that the run is audited at all.")] = "1",
    challengers: Annotated[int, typer.Option(help="Challengers who each draw a sample of their own.")] = 1,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say what an audit detects and costs, and whether honest training pays best.

    Examples:

        challenge plan --segments 1000 --sample 30 --fraction 5% --stake 20 --reward 1.2

        challenge plan runs/alice --lie 10
    """
    from challenge.plan import Plan, lines, read_starts

    amounts = {"stake": stake, "reward": reward, "cost": cost, "lie": lie, "audit": audit}
    exact = {name: _amount(text, f"--{name}") for name, text in amounts.items()}
    share = _amount(fraction, "--fraction")
    if (proof is None) == (segments is None):
        raise typer.BadParameter("give a proof or --segments, one of them", param_hint="--segments")
    with failing(as_json, verbose), _usage("plan"):
        starts, total = read_starts(proof) if proof else (None, segments or 0)
        count = forged if forged is not None else math.ceil(share * total)
        plan = Plan(segments=total, sampled=min(sample, total), forged=count, challengers=challengers, **exact)
        found = plan.to_json(starts)
    if as_json:
        print(json.dumps(found, sort_keys=True))
    else:
        print_lines(lines(found))


@contextmanager
def _usage(option: str) -> Iterator[None]:
    """Values that are refused are a wrong command line."""
    try:
        yield
    except SpecError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


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


def _amount(value: str, option: str) -> Fraction:
    if not re.fullmatch(r"\d{1,30}(\.\d{1,30}|/0*[1-9]\d{0,29})?%?", value):
        raise typer.BadParameter(f"{value[:40]!r}: give a number such as 0.1, 10% or 1/10", param_hint=option)
    return Fraction(value.removesuffix("%")) / (100 if value.endswith("%") else 1)


def main() -> None:
    """The console script."""
    run(app)
