"""``arena status``: what the chain holds of the arena, of a task, and of oneself. Sends nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from chain.types import Role
from challenge.arena.amounts import address
from challenge.arena.session import Session, command, token_amount


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "status", reads=True)(status)


def status(
    session: Session,
    task: Annotated[int | None, typer.Argument(metavar="[TASK]", min=1, help="The task's number.")] = None,
    of: Annotated[str | None, typer.Option("--of", parser=address, help="Also what this address has there.")] = None,
) -> dict[str, Any]:
    """Show the contracts, or a task: its phase and windows, who takes part, what stands, what was settled, its cases.

    Example:

        arena status 1 --of 0x70997970C51812dc3A010C7d01b50e0d17dc79C8
    """
    answer = _arena(session) if task is None else _task(session, task)
    if of is not None:
        answer |= {"account": of, "tokens": token_amount(session.client.token.balance_of(of))}
    if of is not None and task is not None:
        answer |= _account(session, task, of)
    return answer


def _arena(session: Session) -> dict[str, Any]:
    client = session.client
    return {
        "network": session.network.name,
        "block": session.web3.eth.block_number,
        "tasks": client.arena.task_count(),
        "cases": client.challenges.case_count(),
        **client.deployment.to_json(),
    }


def _task(session: Session, task: int) -> dict[str, Any]:
    client, arena = session.client, session.client.arena
    config, times, budget = arena.task_config(task), arena.phase_times(task), client.escrow.budget_of(task)
    return {
        "task": task,
        "creator": arena.creator_of(task),
        "phase": arena.phase(task).name.lower(),
        "round": arena.current_round(task),
        "rounds": config.clock.final_round,
        "settled_rounds": client.scoring.settled_rounds(task),
        "submission_from": when(times.submission_from),
        "final_from": when(times.final_from),
        "challenge_from": when(times.challenge_from),
        "closed_from": when(times.closed_from),
        "budget": token_amount(budget.budget),
        "allocated": token_amount(budget.allocated),
        "trainers": _operators(session, task, Role.TRAINER, arena.current_round(task)),
        "validators": _operators(session, task, Role.VALIDATOR, arena.current_round(task)),
        "cases": _cases(session, task),
    }


def _operators(session: Session, task: int, role: Role, round_: int) -> list[dict[str, Any]]:
    client = session.client
    orders = client.arena.standing_orders(task, max(1, round_)) if role is Role.TRAINER else ()
    rows = []
    for index, operator in enumerate(client.vault.operators(task, role)):
        row = {"address": operator, "own": token_amount(client.vault.own_stake(task, operator))}
        row |= {"allocated": token_amount(client.escrow.allocated(task, operator))}
        rows.append(row | ({"stands": bool(orders[index])} if orders else {}))
    return rows


def _cases(session: Session, task: int) -> list[dict[str, Any]]:
    challenges = session.client.challenges
    cases = {number: challenges.case(number) for number in range(1, challenges.case_count() + 1)}
    return [
        {
            "case": number,
            "trainer": case.charge.trainer,
            "challenger": case.challenger,
            "verdict": case.verdict.name.lower(),
        }
        for number, case in cases.items()
        if case.task_id == task
    ]


def _account(session: Session, task: int, whom: str) -> dict[str, Any]:
    client = session.client
    return {
        "role": client.vault.role(task, whom).name.lower(),
        "slashable": token_amount(client.vault.slashable(task, whom)),
        "claimable": token_amount(client.escrow.claimable(task, whom)),
        "credit": token_amount(client.challenges.credit(whom)),
        "runs": list(client.arena.runs_of(task, whom)),
    }


def when(timestamp: int) -> str:
    """A time (seconds since 1970) as people read it, in UTC."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
