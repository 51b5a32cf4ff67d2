"""Case 33: a verifier who does not verify: it copies another's vote, or signs whatever it is shown.

Source: the verifier's dilemma. A check that nearly always passes pays for skipping it; in refereed delegation a second
worker copies the first one's answer; and two lazy jurors agree without having looked.

The half that is seen here: votes are sealed (case 17), and to uphold a case jurors must name the same *reproduction*,
the digest of what their own replay gave. For a proof that lies it is not to be had from the proof: only a replay gives
the states that training really leads to. For an honest proof it can be read off the transcript, so an acquittal shows
no work. (On chain: ``Votes.t.sol``: ``test_aTieIsInconclusive``, ``test_anUnrevealedVoteDoesNotCount``,
``test_onlyWhatWasPromisedIsRevealed``; and a jury that was drawn small and lazy is overruled by a larger one, the last
of which is everybody: ``Juries.t.sol``: ``test_aWonAppealConvicts``, ``test_theLastLevelDecidesAndTheBondsFollow``.)
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from challenge import dispute
from challenge.segments import REPRODUCTION_DOMAIN, Policy
from challenge.verdict import ExitCode, Outcome, Verdict
from pol import Proof
from pol.encoding import digest, to_hex, u64
from pol.proof import TRANSCRIPT
from tests.attacks.forging import copied, edit_segment, edit_state
from tests.attacks.judging import judged


def read_off(folder: Path, segments: list[int]) -> str:
    """The reproduction that a lazy juror can work out: from what the proof promises, without a replay."""
    promised = [Proof.read(folder).segments[index] for index in segments]
    parts = [u64(segment.index) + segment.end_digest + segment.batch_root for segment in promised]
    return to_hex(digest(REPRODUCTION_DOMAIN, b"".join(parts)))


@pytest.fixture
def forged(honest_run: Path, tmp_path: Path) -> Path:
    """A proof that lies about the state after its second segment."""
    folder = copied(honest_run, tmp_path / "forged")

    def lie(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model/layers.0.weight"] += 1e-3

    edit_state(folder, 1, lie)
    return folder


def test_who_did_not_replay_cannot_name_what_came_out(forged: Path) -> None:
    verdict = judged(forged, Policy(segments=[1]))
    assert verdict.exit_code is ExitCode.REPLAY_MISMATCH
    guesses = {read_off(forged, segments) for segments in ([], [0], [1], [0, 1], [0, 1, 2, 3])}
    assert verdict.reproduction not in guesses
    assert judged(forged, Policy(segments=[1])).reproduction == verdict.reproduction, "who did, names the same"


def test_another_lie_in_its_place_is_another_case_with_the_same_truth(forged: Path, honest_run: Path) -> None:
    """What the replay gives does not depend on the lie: it is the honest run's own."""
    assert judged(forged, Policy(segments=[1])).reproduction == read_off(honest_run, [0, 1])


def test_the_whole_replay_is_in_it(honest_run: Path, tmp_path: Path) -> None:
    """Which segments were replayed, what they ended with, and which batches were used."""
    whole, half = (judged(honest_run, Policy(segments=segments)).reproduction for segments in ([0, 1, 2, 3], [2, 3]))
    assert whole != half
    folder = copied(honest_run, tmp_path / "proof")
    edit_segment(folder, 1, batch_root=bytes(32))
    assert judged(folder, Policy(segments=[1])).reproduction != read_off(folder, [0, 1])
    assert (folder / TRANSCRIPT).read_bytes() != (honest_run / TRANSCRIPT).read_bytes()


def test_an_acquittal_shows_no_work(honest_run: Path) -> None:
    """Said plainly: of an honest proof the lazy juror's digest is the right one. That is why faults must be planted."""
    assert judged(honest_run, Policy(segments=[0, 1])).reproduction == read_off(honest_run, [0, 1])


# What a juror makes of it


class Booth:
    """Stands for a client of the chain; keeps what is committed."""

    def __init__(self) -> None:
        self.challenges, self.committed = self, []

    def commit_vote(self, case_id: int, **ballot: object) -> None:
        self.committed.append((case_id, ballot))


def test_a_juror_votes_what_its_own_verdict_says(forged: Path, honest_run: Path) -> None:
    for folder, uphold in ((forged, True), (honest_run, False)):
        booth, verdict = Booth(), judged(folder, Policy(segments=[1]))
        cast = dispute.vote(booth, 7, verdict)
        assert cast is not None and cast[:2] == (uphold, bytes.fromhex(verdict.reproduction[2:]))
        ((case, ballot),) = booth.committed
        assert case == 7 and (ballot["uphold"], ballot["reproduction"]) == cast[:2] and len(ballot["salt"]) == 32


def test_who_could_not_check_does_not_vote() -> None:
    """Neither a pass nor an accusation is made up for the sake of a fee."""
    undecided = Verdict(undecided=["another class"])
    assert undecided.outcome is Outcome.INCONCLUSIVE
    booth = Booth()
    assert dispute.vote(booth, 7, undecided) is None and booth.committed == []


def test_a_proof_too_broken_to_replay_has_a_reason_instead(honest_run: Path, tmp_path: Path) -> None:
    """Jurors agree on the exit code then: one who says 11 does not agree with one who says 10."""
    folder = copied(honest_run, tmp_path / "proof")
    (folder / TRANSCRIPT).write_bytes(b"")
    malformed = judged(folder)
    assert malformed.exit_code is ExitCode.MALFORMED and malformed.reproduction is None
    other = Verdict()
    other.reject(ExitCode.ANCHOR, "not on chain")
    named = {dispute.vote(Booth(), 7, verdict)[1] for verdict in (malformed, other)}
    assert len(named) == 2 and bytes(32) not in named
