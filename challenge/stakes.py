"""What a case holds, and what it can cost: shown before anything of it is sent."""

from __future__ import annotations

from typing import Any

from chain.case import Charge, Stage
from challenge.arena.session import Session, token_amount
from challenge.arena.status import when
from challenge.console import say


def state(session: Session, case_id: int) -> dict[str, Any]:
    """A case as people and programs read it; what is not shown yet is left out."""
    client, held = session.client, session.client.challenges.case(case_id)
    answer: dict[str, Any] = {
        "case": case_id,
        "task": held.task_id,
        "challenger": held.challenger,
        "stage": held.stage.name.lower(),
        "verdict": held.verdict.name.lower(),
        "bond": token_amount(client.arena.task_config(held.task_id).court.bond),
    }
    if held.run_id:
        answer |= {
            "trainer": held.charge.trainer,
            "round": held.charge.round,
            "ground": held.charge.ground.name.lower(),
            "slashable": token_amount(client.vault.slashable(held.task_id, held.charge.trainer)),
            "reward": token_amount(client.escrow.allocated(held.task_id, held.charge.trainer)),
        }
    if held.seed.latched:
        answer["segments"] = ",".join(map(str, client.challenges.segments_to_open(case_id)))
    if held.stage is not Stage.SETTLED:
        answer |= {"until": when(held.deadline)}
    if held.stage is Stage.VOTING:
        tally = held.tally
        answer |= {"reveal_until": when(held.reveal_by), "level": held.level}
        answer |= {"uphold": tally.uphold, "reject": tally.reject, "unavailable": tally.unavailable}
    return answer


def say_charged(session: Session, task: int, charge: Charge) -> None:
    """Say what a charge puts at stake, for its challenger and for the trainer."""
    court = session.client.arena.task_config(task).court
    most = court.opening_cost * (court.sampled + len(charge.named))
    named = f", named segments {', '.join(map(str, charge.named))}" if charge.named else ""
    say(f"{'charge':<14}{charge.ground.name.lower()} of round {charge.round}{named}")
    say(
        f"{'at stake':<14}your bond of {token_amount(court.bond)}: if the case is rejected or inconclusive, at most "
        f"{token_amount(most)} of it goes to the trainer; if rejected, the rest burns; if you do not go on in time, all"
    )
    say_stakes(session, task, charge.trainer, "if the case is upheld,")


def say_stakes(session: Session, task: int, trainer: str, condition: str) -> None:
    """Say what the trainer loses on the ``condition``, which the sentence begins with."""
    client = session.client
    slashable = token_amount(client.vault.slashable(task, trainer))
    reward = token_amount(client.escrow.allocated(task, trainer))
    kept = 100 - client.arena.task_config(task).court.burn_bps / 100
    say(
        f"{'at stake':<14}{condition} {slashable} tokens of the trainer's stake burn, and {kept:g} % of its reward, "
        f"{reward} so far, go to the first challenger who was right"
    )
