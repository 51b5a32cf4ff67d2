"""The ``challenge doctor`` command. What needs torch is imported inside it, so that other commands start at once."""

from __future__ import annotations

import json
import tomllib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from challenge.console import fail, print_failure, say
from challenge.verdict import ExitCode
from pol.encoding import digest
from pol.errors import PolError
from pol.spec import NATIVE, TrainingSpec

if TYPE_CHECKING:
    from challenge.doctor import Examination
    from pol.rehearsal import Rehearsal

SEED = digest("aiarena/rehearsal-seed/v1")


def doctor_command(
    program: Annotated[str, typer.Argument(help="A run.toml, or module:attr of a program.")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="For module:attr: an entry of its config, NAME=VALUE as in TOML; repeatable."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="For module:attr: the data set's name in the spec.")] = "digits/train",
    batch_size: Annotated[int, typer.Option(min=1, help="For module:attr: samples a step.")] = 32,
    data: Annotated[Path | None, typer.Option(help="Where the data is, if it is not a built-in data set.")] = None,
    steps: Annotated[int, typer.Option(min=2, help="How many steps to train, several times.")] = 20,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    numerics: Annotated[str, typer.Option(help="For module:attr: native, or exact.")] = NATIVE,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show the traceback of an error.")] = False,
) -> None:
    """Find out why an honest run of a program would not replay, before it is recorded.

    Trains twice in fresh processes, and from the middle. If they differ: the first step, module and operator, and why.

    The program runs here with all your rights: examine only one that you trust.

    Exit codes: 0 nothing found, 1 could not run, 2 usage, 20 something found (which is no verdict on any proof).

    Examples:

        challenge doctor run.toml

        PYTHONPATH=. challenge doctor my_program:Program --set width=64 --set learning_rate=1e-3 --json
    """
    from challenge.doctor import examine
    from pol.rehearsal import Interpreters

    settings = _settings(setting or [])
    if program.endswith(".toml") and (settings or numerics != NATIVE):
        raise typer.BadParameter("a run.toml has its config and numerics in it", param_hint="--set, --numerics")
    try:
        spec = _spec(program, settings, dataset, batch_size, data, device, steps, numerics)
        rehearsal = _rehearsal(spec, data, device, steps)
        with Interpreters() as interpreters:
            found = examine(rehearsal, interpreters)
    except (PolError, OSError) as error:
        if verbose:
            traceback.print_exc()
        if as_json:
            print_failure(str(error))
        fail(str(error))
    code = ExitCode.INCONCLUSIVE if found.complaints else ExitCode.VERIFIED
    if as_json:
        about = {"program": spec.program, "steps": rehearsal.steps, "exit_code": int(code)}
        print(json.dumps(found.to_json() | about, sort_keys=True))
    else:
        print_examination(f"{spec.program}, {rehearsal.steps} steps of {spec.dataset}", found)
    raise typer.Exit(int(code))


def print_examination(title: str, found: Examination) -> None:
    """The examination as people read it: what was compared, every complaint with what to change, and notes."""
    say(f"{'program':<14}{title}")
    for check, result in found.checks:
        say(f"{check:<14}{result}")
    for complaint in found.complaints:
        where = complaint.place.text(found.model)
        say(f"{'FOUND':<14}{complaint.reason.value}{f': {where}' if where else ''}", "red")
        say(f"{'':<14}{complaint.message}")
        for line in complaint.details[:MAX_DETAILS]:
            say(f"{'':<14}- {line}")
        if len(complaint.details) > MAX_DETAILS:
            say(f"{'':<14}- and {len(complaint.details) - MAX_DETAILS} more (--json lists them)")
        say(f"{'what to do':<14}{complaint.advice}")
    for line in found.notes:
        say(f"{'note':<14}{line}", "dim")
    if found.complaints:
        say(f"NOT REPLAYABLE as it is (exit code {int(ExitCode.INCONCLUSIVE)}); mend it and ask again", "bold red")
    else:
        say("nothing found (exit code 0)", "bold green")


MAX_DETAILS = 6


def _spec(
    program: str,
    settings: dict[str, Any],
    dataset: str,
    batch_size: int,
    data: Path | None,
    device: str,
    steps: int,
    numerics: str,
) -> TrainingSpec:
    if program.endswith(".toml"):
        return TrainingSpec.load(program, data=data, device=device)
    values = {
        "program": program, "dataset": dataset, "batch_size": batch_size, "config": settings,
        "steps": steps, "segment_length": steps, "numerics": numerics,
    }  # fmt: skip
    return TrainingSpec.from_values(values, where=program, data=data, device=device)


def _rehearsal(spec: TrainingSpec, data: Path | None, device: str, steps: int) -> Rehearsal:
    from pol.machine import MachineClass
    from pol.rehearsal import Rehearsal

    steps = max(2, min(steps, spec.steps))
    threads = MachineClass.from_json(spec.machine, where="spec.machine").threads
    return Rehearsal(
        spec=spec, seed=SEED, data=data, steps=steps, threads=threads, middle=steps // 2, device=device
    )  # fmt: skip


def _settings(lines: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for line in lines:
        name, _, value = line.partition("=")
        try:
            settings |= {name.strip(): tomllib.loads(f"value = {value}")["value"]}
        except tomllib.TOMLDecodeError as error:
            message = f"{line!r} is not NAME=VALUE in TOML ({error}); texts need quotes"
            raise typer.BadParameter(message, param_hint="--set") from error
    return settings
