"""``arena claim``: everything of a task that is one's own, once it is closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import typer

from chain.case import CaseVerdict
from chain.errors import ContractReverted
from chain.types import Bond, Role
from challenge.arena.session import Session, TaskArgument, command, token_amount
from challenge.console import say

Taking = tuple[str, Callable[[], object]]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "claim")(claim)


def claim(session: Session, task: TaskArgument) -> dict[str, Any]:
    """Take what is yours of a closed task: rewards, stake, run bonds, delegations, credit of cases, a creator's rest.

    What is refused, because a case is pending, is named, and can be claimed later.

    Example:

        arena claim 1
    """
    session.client.arena.phase(task)  # refused for a task that there is not
    token = session.client.token
    before = token.balance_of(session.me)
    refused: list[ContractReverted] = []
    for what, take in _takings(session, task):
        try:
            take()
        except ContractReverted as error:
            say(f"{'refused':<14}{what}: {error}", "yellow")
            refused.append(error)
    if refused:
        raise refused[0]
    taken = token.balance_of(session.me) - before
    return {"task": task, "taken": token_amount(taken), "tokens": token_amount(before + taken)}


def _takings(session: Session, task: int) -> Iterator[Taking]:
    """What there is to take, found on the chain: a claim that was made is not there any more."""
    yield from _of_operator(session, task)
    yield from _of_runs(session, task)
    yield from _of_delegator(session, task)
    yield from _of_creator(session, task)
    yield from _of_challenger(session, task)


def _of_operator(session: Session, task: int) -> Iterator[Taking]:
    escrow, vault, me = session.client.escrow, session.client.vault, session.me
    if vault.role(task, me) is Role.NONE:
        return
    if escrow.claimable(task, me):
        yield "the reward", partial(escrow.claim, task)
    left = vault.own_stake(task, me) > vault.slashed(task, me)
    if left and not vault.events("Withdrawn", taskId=task, operator=me):
        yield "the stake", partial(vault.withdraw, task)


def _of_runs(session: Session, task: int) -> Iterator[Taking]:
    arena, escrow = session.client.arena, session.client.escrow
    for number in arena.runs_of(task, session.me):
        run = arena.run(number)
        if run.bond is Bond.HELD and run.first_order and not escrow.forfeited(task, session.me):
            yield f"the bond of run {number}", partial(arena.release_run_bond, number)


def _of_delegator(session: Session, task: int) -> Iterator[Taking]:
    escrow, vault, me = session.client.escrow, session.client.vault, session.me
    lent_to = {str(event.args["operator"]) for event in vault.events("Delegated", taskId=task, delegator=me)}
    back = {str(event.args["operator"]) for event in vault.events("Undelegated", taskId=task, delegator=me)}
    for operator in sorted(lent_to):
        if escrow.claimable_delegated(task, operator, me):
            yield f"the share of {operator}", partial(escrow.claim_delegated, task, operator)
    for operator in sorted(lent_to - back):
        yield f"what was lent to {operator}", partial(vault.undelegate, task, operator)


def _of_challenger(session: Session, task: int) -> Iterator[Taking]:
    challenges, me = session.client.challenges, session.me
    awarded = {str(event.args["trainer"]) for event in challenges.events("Awarded", taskId=task)}
    cases = [challenges.case(number) for number in range(1, challenges.case_count() + 1)]
    won = [case for case in cases if case.task_id == task and case.verdict is CaseVerdict.UPHELD]
    for convict in sorted({case.charge.trainer for case in won if case.challenger == me} - awarded):
        yield f"the reward of {convict}", partial(challenges.award, task, convict)
    if challenges.credit(me):
        yield "the credit of cases", challenges.withdraw_credit


def _of_creator(session: Session, task: int) -> Iterator[Taking]:
    escrow = session.client.escrow
    if session.client.arena.creator_of(task) == session.me and not escrow.budget_of(task).reclaimed:
        yield "the creator's rest", partial(escrow.reclaim, task)
