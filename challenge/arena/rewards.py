"""What anybody adds to a task's rewards: ``arena sponsor``, and a fund of daily emission with ``arena emission``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.emission import NAME, Emission, Fund, deploy_emission, deployed_emission, open_emission
from chain.errors import ChainError, WrongChain
from chain.records import is_contract
from chain.reverts import refusals
from challenge.arena.amounts import TokensArgument, address
from challenge.arena.session import NotYet, Session, TaskArgument, command, token_amount
from challenge.arena.status import when
from challenge.arena.terms import read_fund_file

RoundArgument = Annotated[int, typer.Argument(metavar="ROUND", min=1, help="The round's number.")]
FundArgument = Annotated[str, typer.Argument(metavar="FUND", parser=address, help="The fund's address.")]
EMISSION = "emission"
DAY_S = 86_400
DAYS_A_POKE = 128
"""Each takes some 30,000 gas."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    command(app, "sponsor")(sponsor)
    group = typer.Typer(no_args_is_help=True, help="Daily emission: a fund that adds to the rewards of its tasks.")
    command(group, "deploy")(deploy)
    command(group, "fill")(fill)
    command(group, "enlist")(enlist)
    command(group, "pay")(pay)
    command(group, "status", reads=True)(status)
    app.add_typer(group, name="emission")


def sponsor(session: Session, task: TaskArgument, round_: RoundArgument, amount: TokensArgument) -> dict[str, Any]:
    """Add to the reward of a round: bring what you have given for it to TOKENS in all. It does not come back.

    Example:

        arena sponsor 1 2 100
    """
    escrow = session.client.escrow
    events = escrow.events("Sponsored", taskId=task, round=round_, sponsor=session.me)
    given = sum(int(event.args["amount"]) for event in events)
    if given > amount:
        raise ChainError(
            f"you have given {token_amount(given)} for round {round_} of task {task}: it does not come back"
        )
    if given < amount:
        escrow.sponsor(task, round_, amount - given)
    reward = escrow.sponsored(task, round_)
    return {"task": task, "round": round_, "given": token_amount(amount), "sponsored": token_amount(reward)}


def deploy(
    session: Session, file: Annotated[Path, typer.Argument(metavar="FILE", help="The fund's TOML file.")]
) -> dict[str, Any]:
    """Deploy a fund with the terms in a TOML file, once. It is empty: `arena emission fill` it.

    The fields are `first_amount`, `epoch`, `decay`, `period`, `beta`, `least_stake` and `least_deposit`.

    Example:

        arena emission deploy fund.toml
    """
    terms = read_fund_file(file)
    found = _deployed(session, terms)
    if found is None:
        with refusals("deploying"):
            nonce = session.web3.eth.get_transaction_count(session.web3.to_checksum_address(session.me))
        session.promises.note(EMISSION, {"nonce": nonce, **_noted(session, terms)})
        found = deploy_emission(session.client, terms)
    return {"fund": found.address, **_terms(terms)}


def fill(session: Session, fund: FundArgument, amount: TokensArgument) -> dict[str, Any]:
    """Bring what a fund holds to TOKENS. It does not come back.

    Example:

        arena emission fill 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 10000
    """
    token, emission = session.client.token, _opened(session, fund)
    held = token.balance_of(emission.address)
    if held < amount:
        token.transfer(emission.address, amount - held)
    return {"fund": emission.address, "holds": token_amount(token.balance_of(emission.address))}


def enlist(session: Session, fund: FundArgument, task: TaskArgument) -> dict[str, Any]:
    """Let a task take part, on the day it starts. Anyone may.

    Example:

        arena emission enlist 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 1
    """
    emission = _opened(session, fund)
    if not emission.enlisted(task).weight:
        emission.enlist(task)
    return _enlisted(emission, task)


def pay(session: Session, fund: FundArgument, task: TaskArgument) -> dict[str, Any]:
    """Move what a task earned in rounds that ended, and are not settled yet, into their rewards. Anyone may.

    Example:

        arena emission pay 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 1
    """
    emission, arena = _opened(session, fund), session.client.arena
    now = session.web3.eth.get_block("latest")["timestamp"]
    rounds = {number: arena.round_times(task, number) for number in range(1, arena.task_config(task).clock.rounds + 1)}
    paid = {int(event.args["round"]): int(event.args["amount"]) for event in emission.events("Emitted", taskId=task)}
    due = [number for number, times in rounds.items() if times.opens_at <= now < times.settle_from]
    if not (due or paid):
        raise NotYet(f"no round of task {task} is between its end and its settlement now")
    for number in due:
        if number not in paid:
            _poke(session, emission)
            paid[number] = int(emission.pay(task, number).event("Emitted").args["amount"])
    return {"fund": emission.address, "task": task, "paid": {str(k): token_amount(paid[k]) for k in sorted(paid)}}


def status(
    session: Session,
    fund: FundArgument,
    task: Annotated[int | None, typer.Argument(metavar="[TASK]", min=1, help="The task's number.")] = None,
) -> dict[str, Any]:
    """Show a fund: its terms, what it holds, and what a task takes part with. Sends nothing.

    Example:

        arena emission status 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 1
    """
    emission = _opened(session, fund)
    answer = {"fund": emission.address, **_terms(emission.fund()), "days_known": emission.poked()}
    answer["holds"] = token_amount(session.client.token.balance_of(emission.address))
    return answer | (_enlisted(emission, task) if task else {})


def _poke(session: Session, emission: Emission) -> None:
    """Bring the books up to the day that it is."""
    now, fund = session.web3.eth.get_block("latest")["timestamp"], emission.fund()
    while (missing := (now - fund.epoch) // DAY_S - emission.poked()) > 0:
        emission.poke(min(missing, DAYS_A_POKE))


def _opened(session: Session, fund: str) -> Emission:
    if not is_contract(session.web3, NAME, fund):
        raise WrongChain(f"no fund of this package's is at {fund}: use another address, or another node")
    return open_emission(session.client, fund)


def _deployed(session: Session, terms: Fund) -> Emission | None:
    """The fund with these terms that this account deployed from this machine before, if there is one."""
    wanted = _noted(session, terms)
    notes = (note for note in session.promises.noted(EMISSION) if wanted.items() <= note.items())
    found = (deployed_emission(session.client, note["nonce"]) for note in notes)
    return next((fund for fund in found if fund is not None), None)


def _noted(session: Session, terms: Fund) -> dict[str, str]:
    return {"arena": session.client.arena.address, **{name: str(value) for name, value in asdict(terms).items()}}


def _terms(fund: Fund) -> dict[str, Any]:
    return {
        "first_amount": token_amount(fund.first_amount),
        "epoch": when(fund.epoch),
        "decay": token_amount(fund.decay),
        "period": fund.period,
        "beta": token_amount(fund.beta),
        "least_stake": token_amount(fund.least_stake),
        "least_deposit": token_amount(fund.least_deposit),
    }


def _enlisted(emission: Emission, task: int) -> dict[str, Any]:
    held = emission.enlisted(task)
    if not held.weight:
        return {"task": task, "enlisted": False}
    return {"task": task, "enlisted": True, "first_day": held.first_day, "last_day": held.last_day}
