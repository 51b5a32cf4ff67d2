"""Case 17: a juror that does not replay, but copies what another one found.

Source: Verde's refereed delegation (arXiv 2502.19405) and what re-implementers noticed: replication proves nothing if a
replica can see the answer of another. It fails here because verdicts are promised before any is shown, each promise is
bound to its juror and sealed with a salt, and what convicts is a digest that only a replay gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chain.case import CaseVerdict
from chain.client import ArenaClient
from chain.commitments import Site, vote_commitment
from challenge.segments import Policy
from tests.attacks.judging import judged
from tests.attacks.ring import Ring
from tests.chain.play import digest, refused
from tests.chain.test_challenges import Court

FOUND = digest("what a replay gave")


@pytest.fixture(scope="module")
def court(ring: Ring) -> Iterator[Court]:
    with ring.world.wound_back():
        yield Court(ring.world)


@pytest.fixture
def case(court: Court) -> Iterator[int]:
    """A case against Mallory, answered, with the jury's votes still to come."""
    with court.world.wound_back():
        case = court.open(court.mallory)
        court.answer(court.mallory, case)
        yield case


def promise(court: Court, juror: ArenaClient, case: int) -> bytes:
    """What a diligent juror commits to."""
    salt = digest("vote", juror.address, case)
    return vote_commitment(juror.challenges.site, case, juror.address, uphold=True, reproduction=FOUND, salt=salt)


def test_a_copied_promise_cannot_be_shown(court: Court, case: int) -> None:
    """Commitments are public: the copyist sends the very bytes, and learns the vote when it is shown."""
    diligent, copyist, _ = court.jury
    copyist.challenges.send("commitVote", case, promise(court, diligent, case))
    vote = {"uphold": True, "reproduction": FOUND, "salt": digest("vote", diligent.address, case)}
    diligent.challenges.commit_vote(case, **vote)
    court.task.to(court.reader.challenges.case(case).deadline)
    diligent.challenges.reveal_vote(case, **vote)
    refused("BadVoteReveal", copyist.challenges.reveal_vote, case, **vote)


def test_a_vote_after_the_first_was_shown_comes_too_late(court: Court, case: int) -> None:
    diligent, copyist, _ = court.jury
    vote = {"uphold": True, "reproduction": FOUND, "salt": digest("vote", diligent.address, case)}
    diligent.challenges.commit_vote(case, **vote)
    refused("TooEarly", diligent.challenges.reveal_vote, case, **vote)
    court.task.to(court.reader.challenges.case(case).deadline)
    diligent.challenges.reveal_vote(case, **vote)
    refused("TooLate", copyist.challenges.commit_vote, case, uphold=True, reproduction=FOUND, salt=digest("late"))


def test_a_guess_does_not_make_two(court: Court, case: int) -> None:
    """Conviction needs two jurors with one and the same reproduction; a juror without one names something else."""
    court.vote(case, (True, FOUND), (True, digest("a guess")), (True, digest("another")))
    assert court.challenger.challenges.settle(case) is not CaseVerdict.UPHELD


def test_nothing_of_a_promise_can_be_read_or_used_elsewhere() -> None:
    """Juror, case, contract, vote, reproduction and salt are all in it."""
    site, other = Site(1, "0x" + "11" * 20), Site(2, "0x" + "11" * 20)
    mine, theirs, salt = "0x" + "22" * 20, "0x" + "33" * 20, digest("salt")
    one = vote_commitment(site, 1, mine, uphold=True, reproduction=FOUND, salt=salt)
    changed = {
        vote_commitment(other, 1, mine, uphold=True, reproduction=FOUND, salt=salt),
        vote_commitment(site, 2, mine, uphold=True, reproduction=FOUND, salt=salt),
        vote_commitment(site, 1, theirs, uphold=True, reproduction=FOUND, salt=salt),
        vote_commitment(site, 1, mine, uphold=False, reproduction=FOUND, salt=salt),
        vote_commitment(site, 1, mine, uphold=True, reproduction=bytes(32), salt=salt),
        vote_commitment(site, 1, mine, uphold=True, reproduction=FOUND, salt=digest("other")),
    }
    assert len(changed | {one}) == 7


def test_only_a_replay_gives_the_digest(honest_run: Path) -> None:
    """It says of every replayed segment how it ended: another sample is another digest, the same sample the same."""
    first, again, other = (
        judged(honest_run, Policy(segments=list(sample))).reproduction for sample in ([1, 2], [1, 2], [2, 3])
    )
    assert first == again != other


def test_the_honest_twin_convicts(court: Court, case: int) -> None:
    """Two jurors that replayed, each for itself."""
    court.vote(case, (True, FOUND), (True, FOUND), None)
    assert court.challenger.challenges.settle(case) == CaseVerdict.UPHELD
