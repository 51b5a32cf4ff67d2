"""``arena stake`` and ``arena delegate``: tokens at work in a task."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import typer

from chain.errors import ChainError
from chain.types import Role
from challenge.arena.amounts import TokensArgument, address
from challenge.arena.session import Session, TaskArgument, command, token_amount


class Side(Enum):
    """What one can stake as, as typed."""

    TRAINER = "trainer"
    VALIDATOR = "validator"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "stake")(stake)
    command(app, "delegate")(delegate)


def stake(
    session: Session,
    task: TaskArgument,
    side: Annotated[Side, typer.Argument(help="What to take part as.")],
    amount: TokensArgument,
    commission: Annotated[
        int, typer.Option(min=0, max=10_000, help="Your share of what delegators' stake earns (bps).")
    ] = 0,
) -> dict[str, Any]:
    """Stake for a role in a task, once, before it starts. The stake of a convicted trainer is burned.

    Example:

        arena stake 1 trainer 1000 --commission 2000
    """
    vault, role = session.client.vault, Role[side.name]
    held = vault.role(task, session.me)
    if held is Role.NONE:
        vault.stake(task, role, amount, commission)
    own = vault.own_stake(task, session.me)
    if held is not Role.NONE and (held is not role or own != amount):
        raise ChainError(
            f"{session.me} has staked {token_amount(own)} as {held.name.lower()} in task {task}: a stake is made once"
        )
    return {"task": task, "role": side.value, "staked": token_amount(own)}


def delegate(
    session: Session,
    task: TaskArgument,
    operator: Annotated[str, typer.Argument(parser=address, help="The address of a staked trainer or validator.")],
    amount: TokensArgument,
) -> dict[str, Any]:
    """Lend tokens to an operator until the task is closed: bring what you have lent it to AMOUNT in all.

    It counts from the next round on, is never slashed, and earns a share of what the operator earns.

    Example:

        arena delegate 1 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 500
    """
    vault = session.client.vault
    lent = vault.delegation_of(task, operator, session.me)
    if lent > amount:
        raise ChainError(f"you have lent {token_amount(lent)} to {operator}: it comes back when the task is closed")
    if lent < amount:
        vault.delegate(task, operator, amount - lent)
    return {"task": task, "operator": operator, "lent": token_amount(amount)}
