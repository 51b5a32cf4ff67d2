"""Cases, votes and bonds: the ChallengeManager."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chain.commitments import Site, vote_commitment
from chain.contract import ContractClient, Receipt
from chain.token import Token
from chain.types import NO_DIGEST, Case, CaseVerdict, Opening, from_abi


@dataclass(frozen=True)
class Challenges(ContractClient):
    """Client of the ChallengeManager contract."""

    token: Token

    @property
    def site(self) -> Site:
        """Where votes are promised, for :mod:`chain.commitments`."""
        return Site(self.connection.web3.eth.chain_id, self.address)

    def open_case(self, task_id: int, trainer: str, evidence_digest: bytes, *, bond: int) -> int:
        """Challenge a standing submission; approves the ``bond`` (the task's ``challenge_bond``, wei) first.

        Returns the case's id. The segments to open follow from a block that this fixes: see :meth:`latch_seed`.
        """
        self.token.ensure_allowance(self.address, bond)
        receipt = self.send("openCase", task_id, trainer, evidence_digest)
        return int(receipt.event("CaseOpened").args["caseId"])

    def latch_seed(self, case_id: int) -> Receipt:
        """Store the promised block's hash, which draws the segments and starts the trainer's clock; anyone may."""
        return self.send("latchSeed", case_id)

    def respond(self, case_id: int, openings: Sequence[Opening], bundle_cid: str) -> Receipt:
        """Answer as the trainer: exactly the drawn segments, in order, and where states and batches are served."""
        return self.send("respond", case_id, [opening.to_abi() for opening in openings], bundle_cid)

    def prove_discontinuity(self, case_id: int, first: Opening, second: Opening) -> Receipt:
        """End a case at once: ``second`` follows ``first`` but does not start where it ends. Anyone may."""
        return self.send("proveDiscontinuity", case_id, first.to_abi(), second.to_abi())

    def commit_vote(self, case_id: int, *, uphold: bool, reproduction: bytes = NO_DIGEST, salt: bytes) -> Receipt:
        """Promise the client's vote; keep ``salt`` (32 bytes, :func:`chain.commitments.new_salt`) to show it later."""
        juror = self.connection.sender()
        commitment = vote_commitment(self.site, case_id, juror, uphold=uphold, reproduction=reproduction, salt=salt)
        return self.send("commitVote", case_id, commitment)

    def reveal_vote(self, case_id: int, *, uphold: bool, reproduction: bytes = NO_DIGEST, salt: bytes) -> Receipt:
        """Show the promised vote. ``reproduction`` is the digest of what the juror's own replay gave; zeros = none."""
        return self.send("revealVote", case_id, uphold, reproduction, salt)

    def settle(self, case_id: int) -> CaseVerdict:
        """End a case whose windows are over; anyone may. Returns how it ended."""
        receipt = self.send("settle", case_id)
        return CaseVerdict(receipt.event("CaseSettled").args["verdict"])

    def withdraw_credit(self) -> Receipt:
        """Take what the manager owes the client: bonds returned, rewards redirected, costs paid."""
        return self.send("withdrawCredit")

    def case(self, case_id: int) -> Case:
        """The case's state."""
        return from_abi(Case, self.call("caseOf", case_id))

    def case_count(self) -> int:
        """How many cases exist; ids run from 1 to this."""
        return int(self.call("caseCount"))

    def sampled_segments(self, case_id: int) -> list[int]:
        """The segments to open, in order; refused with ``SeedNotLatched`` before the seed is there."""
        return list(self.call("sampledSegments", case_id))

    def pending_cases(self, task_id: int, trainer: str) -> int:
        """Cases against the trainer that are not settled."""
        return int(self.call("pendingCases", task_id, trainer))

    def credit(self, account: str) -> int:
        """What ``withdraw_credit`` would pay the account."""
        return int(self.call("credit", account))
