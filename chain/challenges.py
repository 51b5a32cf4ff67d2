"""Cases from the sealed charge to the withdrawn credit: the ChallengeManager."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chain.case import BlockOpening, Case, CaseVerdict, Charge, LeafRange, MarkChannel
from chain.commitments import Site, charge_commitment, vote_commitment
from chain.contract import ContractClient, Receipt
from chain.terms import NO_DIGEST
from chain.token import Token
from chain.types import Opening, from_abi, to_abi


@dataclass(frozen=True)
class Challenges(ContractClient):
    """Client of the ChallengeManager contract."""

    token: Token

    @property
    def site(self) -> Site:
        """Where charges and votes are promised, for :mod:`chain.commitments`."""
        return Site(self.connection.web3.eth.chain_id, self.address)

    # Charge

    def seal_case(self, task_id: int, charge: Charge, salt: bytes, *, bond: int) -> int:
        """Seal a charge as an operator of the task; approves the ``bond`` (the task's ``court.bond``, wei) first.

        Returns the case's id. Keep ``salt`` (32 bytes, :func:`chain.commitments.new_salt`) to show it later: a charge
        that is not shown in time costs the bond.
        """
        commitment = charge_commitment(self.site, task_id, self.connection.sender(), charge, salt)
        self.token.ensure_allowance(self.address, bond)
        return int(self.send("sealCase", task_id, commitment).event("CaseSealed").args["caseId"])

    def show_case(self, case_id: int, charge: Charge, salt: bytes) -> Receipt:
        """Show what was sealed, and thereby promise the block that draws the segments: see :meth:`latch_seed`."""
        return self.send("showCase", case_id, to_abi(charge), salt)

    def latch_seed(self, case_id: int) -> Receipt:
        """Store the promised block's hash, which draws the segments and starts the clock of the answers; anyone may."""
        return self.send("latchSeed", case_id)

    # Answers

    def respond(self, case_id: int, openings: Sequence[Opening], bundle_cid: str) -> Receipt:
        """Answer as the trainer: exactly the segments to open, in order, and where states and batches are served."""
        return self.send("respond", case_id, [opening.to_abi() for opening in openings], bundle_cid)

    def open_leaves(self, case_id: int, shape: Sequence[MarkChannel], ranges: Sequence[LeafRange]) -> Receipt:
        """Open, as the challenger of a watermark case, the next of the leaves that the task's opening beacon drew.

        Call again with those that follow until all are opened.
        """
        return self.send("openLeaves", case_id, [to_abi(part) for part in shape], [to_abi(part) for part in ranges])

    def serve_again(self, case_id: int, bundle_cid: str) -> Receipt:
        """Serve again, as the trainer, what two thirds of the jurors could not have."""
        return self.send("serveAgain", case_id, bundle_cid)

    # Decided by code: each ends a case at once, and anyone may send it

    def prove_discontinuity(self, case_id: int, first: Opening, second: Opening) -> Receipt:
        """``second`` follows ``first`` but does not start where it ends."""
        return self.send("proveDiscontinuity", case_id, first.to_abi(), second.to_abi())

    def prove_bad_bounds(self, case_id: int, opening: Opening) -> Receipt:
        """What was anchored at the proof's position is no segment that the terms allow there."""
        return self.send("proveBadBounds", case_id, opening.to_abi(), opening.proof.position)

    def prove_wrong_start(
        self, case_id: int, first: Opening, mine: BlockOpening, base: BlockOpening, block: bytes
    ) -> Receipt:
        """The state that segment 0 (``first``) starts from does not hold ``block`` of the promised base model."""
        return self.send("proveWrongStart", case_id, first.to_abi(), to_abi(mine), to_abi(base), block)

    def prove_step(self, case_id: int, opening: Opening, proof: bytes) -> Receipt:
        """The task's step verifier refutes the opened segment."""
        return self.send("proveStep", case_id, opening.to_abi(), proof)

    # Jury

    def latch_jury(self, case_id: int) -> Receipt:
        """Store the hash that draws the jury of the case's level; anyone may. The last level's jury is everybody."""
        return self.send("latchJury", case_id)

    def commit_vote(self, case_id: int, *, uphold: bool, reproduction: bytes = NO_DIGEST, salt: bytes) -> Receipt:
        """Promise the client's vote; keep ``salt`` (32 bytes, :func:`chain.commitments.new_salt`) to show it later."""
        juror = self.connection.sender()
        commitment = vote_commitment(self.site, case_id, juror, uphold=uphold, reproduction=reproduction, salt=salt)
        return self.send("commitVote", case_id, commitment)

    def reveal_vote(self, case_id: int, *, uphold: bool, reproduction: bytes = NO_DIGEST, salt: bytes) -> Receipt:
        """Show the promised vote. ``reproduction`` is the digest of what the juror's own replay gave; zeros = none."""
        return self.send("revealVote", case_id, uphold, reproduction, salt)

    def vote_unavailable(self, case_id: int) -> Receipt:
        """Say, instead of a vote, that what was served could not be had."""
        return self.send("voteUnavailable", case_id)

    def appeal(self, case_id: int, *, bond: int) -> Receipt:
        """Take the verdict to the next level; approves ``bond`` (``court.bond * 2 ** (level + 1)``, wei) first."""
        self.token.ensure_allowance(self.address, bond)
        return self.send("appeal", case_id)

    # End

    def settle(self, case_id: int) -> CaseVerdict:
        """End a case whose windows are over; anyone may. Returns how it ended."""
        receipt = self.send("settle", case_id)
        return CaseVerdict(receipt.event("CaseSettled").args["verdict"])

    def award(self, task_id: int, trainer: str) -> int:
        """Credit a convict's reward to the challenger of the first sealed upheld case, once the task is closed; anyone
        may. Returns the amount (wei)."""
        return int(self.send("award", task_id, trainer).event("Awarded").args["amount"])

    def withdraw_credit(self) -> Receipt:
        """Take what the manager owes the client: bonds returned, rewards redirected, costs paid."""
        return self.send("withdrawCredit")

    # Views

    def case(self, case_id: int) -> Case:
        """The case's state; refused with ``UnknownCase``."""
        return from_abi(Case, self.call("caseOf", case_id))

    def case_count(self) -> int:
        """How many cases exist; ids run from 1 to this."""
        return int(self.call("caseCount"))

    def segments_to_open(self, case_id: int) -> list[int]:
        """The segments to open, in order: those named, then those drawn. ``WrongStage`` before the seed is there."""
        return list(self.call("segmentsToOpen", case_id))

    def juror_weight(self, case_id: int, account: str) -> int:
        """What the account's vote weighs on the case's level; 0 = it has none, or the jury is not drawn yet."""
        return int(self.call("jurorWeight", case_id, account))

    def vote_commitment(self, case_id: int, juror: str) -> bytes:
        """The juror's promise in the present sitting; zeros if none."""
        return bytes(self.call("voteCommitment", case_id, juror))

    def pending_cases(self, task_id: int, trainer: str) -> int:
        """Cases shown against the trainer that are not settled."""
        return int(self.call("pendingCases", task_id, trainer))

    def credit(self, account: str) -> int:
        """What ``withdraw_credit`` would pay the account."""
        return int(self.call("credit", account))
