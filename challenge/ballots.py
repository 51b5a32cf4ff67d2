"""A juror's vote in a case: judged once, promised with a salt that the journal keeps, and shown later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chain.commitments import vote_commitment
from chain.errors import ChainError
from chain.terms import NO_DIGEST
from chain.types import Beacon
from challenge.arena.beacons import latched
from challenge.arena.session import NotYet, Session
from challenge.console import print_verdict
from pol.store import BlobStore

if TYPE_CHECKING:
    from challenge.claims import TiedClaim
    from challenge.segments import Policy

VOTE = "vote"


def require_juror(session: Session, case_id: int, wait: float) -> int:
    """What the account's vote weighs; its jury is drawn first, where nobody has.

    Raises :class:`ChainError` if it does not sit in it, :class:`NotYet` if the jury cannot be drawn within ``wait`` s.
    """
    challenges = session.client.challenges
    drawn: Beacon | None = challenges.case(case_id).jury
    if drawn and drawn.block:
        drawn = latched(lambda: challenges.case(case_id).jury, lambda: challenges.latch_jury(case_id), wait)
    if drawn is None:
        raise NotYet("the block that draws the jury is not there yet")
    weight = challenges.juror_weight(case_id, session.me)
    if not weight:
        raise ChainError(f"{session.me} does not sit in the jury of case {case_id} on this level")
    return weight


def promise_vote(session: Session, case_id: int, store: BlobStore, claims: list[TiedClaim], policy: Policy) -> str:
    """Judge a case and promise the vote, once; returns it in words. An inconclusive verdict promises nothing.

    Raises as :func:`challenge.dispute.judge_case`.
    """
    from challenge.dispute import ballot, judge_case

    challenges = session.client.challenges
    if challenges.vote_commitment(case_id, session.me) == NO_DIGEST:
        verdict = judge_case(session.client, case_id, store, claims=claims, policy=policy)
        print_verdict(f"case {case_id}", verdict)
        cast = ballot(verdict)
        if cast is None:
            return "none: inconclusive"
        uphold, reproduction = cast
        held = challenges.case(case_id)
        content = {
            "manager": challenges.address, "case": case_id, "level": held.level, "again": held.served_again,
            "uphold": uphold, "reproduction": reproduction.hex(),
        }  # fmt: skip
        salt = session.promises.salt(VOTE, content)
        challenges.commit_vote(case_id, uphold=uphold, reproduction=reproduction, salt=salt)
    return f"{_named(_promised_vote(session, case_id)[0])}, promised"


def show_vote(session: Session, case_id: int) -> str:
    """Show the promised vote, once; returns it in words. Raises :class:`ChainError` if this machine promised none."""
    uphold, reproduction, salt = _promised_vote(session, case_id)
    if not has_cast(session, case_id, "VoteRevealed"):
        session.client.challenges.reveal_vote(case_id, uphold=uphold, reproduction=reproduction, salt=salt)
    return f"{_named(uphold)}, shown"


def _named(uphold: bool) -> str:
    return "uphold" if uphold else "reject"


def _promised_vote(session: Session, case_id: int) -> tuple[bool, bytes, bytes]:
    """The vote and the salt under the promise that the chain holds, from the journal."""
    challenges = session.client.challenges
    held = challenges.vote_commitment(case_id, session.me)
    if held == NO_DIGEST:
        raise ChainError(f"{session.me} promised no vote in this sitting of case {case_id}: there is nothing to show")
    for content, salt in session.promises.salted(VOTE):
        vote = {"uphold": content["uphold"], "reproduction": bytes.fromhex(content["reproduction"])}
        if held == vote_commitment(challenges.site, case_id, session.me, **vote, salt=salt):
            return vote["uphold"], vote["reproduction"], salt
    raise ChainError("this machine's journal has no salt for your vote: show it on the machine that promised it")


def has_cast(session: Session, case_id: int, event: str) -> bool:
    """Whether the account made ``event`` (of a juror) happen in the present sitting."""
    challenges = session.client.challenges
    sittings = challenges.events("VotingOpened", caseId=case_id)
    return bool(challenges.events(event, first_block=sittings[-1].block, caseId=case_id, juror=session.me))
