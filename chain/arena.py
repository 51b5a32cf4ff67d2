"""Tasks, runs, submissions, scores and settlement: the Arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chain.commitments import Site, scores_commitment, submission_commitment
from chain.contract import ContractClient, Receipt
from chain.errors import ChainError
from chain.token import Token
from chain.types import (
    Beacon,
    ChainAnchor,
    Opening,
    Phase,
    PhaseTimes,
    Result,
    RoundTimes,
    Run,
    TaskConfig,
    from_abi,
    to_abi,
)


@dataclass(frozen=True)
class Arena(ContractClient):
    """Client of the Arena contract. Rounds count from 1; round 3 is the final validation."""

    token: Token

    @property
    def site(self) -> Site:
        """Where submissions and scores are promised, for :mod:`chain.commitments`."""
        return Site(self.connection.web3.eth.chain_id, self.address)

    # Tasks

    def create_task(self, config: TaskConfig, metadata_cid: str) -> int:
        """Publish a task and pay its budget in (approved first); returns its id. Nobody can change it afterwards."""
        self.token.ensure_allowance(self.address, config.budget)
        receipt = self.send("createTask", to_abi(config), metadata_cid)
        return int(receipt.event("TaskCreated").args["taskId"])

    def task_count(self) -> int:
        """How many tasks exist; ids run from 1 to this."""
        return int(self.call("taskCount"))

    def task_config(self, task_id: int) -> TaskConfig:
        """The terms; refused with ``UnknownTask``."""
        return from_abi(TaskConfig, self.call("taskConfig", task_id))

    def creator_of(self, task_id: int) -> str:
        """Who published the task."""
        return str(self.call("creatorOf", task_id))

    def phase(self, task_id: int) -> Phase:
        """The phase at the latest block's time."""
        return Phase(self.call("phase", task_id))

    def phase_times(self, task_id: int) -> PhaseTimes:
        """When the phases begin."""
        return from_abi(PhaseTimes, self.call("phaseTimes", task_id))

    def round_times(self, task_id: int, round_: int) -> RoundTimes:
        """When the windows of a round begin."""
        return from_abi(RoundTimes, self.call("roundTimes", task_id, round_))

    def segment_count(self, task_id: int) -> int:
        """Segments that the task promises."""
        return int(self.call("segmentCount", task_id))

    # Runs and submissions

    def register_run(self, task_id: int, spec_digest: bytes, key_root: bytes) -> Receipt:
        """Promise a run, and thereby the block that seeds it."""
        return self.send("registerRun", task_id, spec_digest, key_root)

    def latch_beacon(self, task_id: int, trainer: str) -> bytes:
        """Store the hash of the block promised at registration, and return it; anyone may."""
        return bytes(self.send("latchBeacon", task_id, trainer).event("BeaconLatched").args["beacon"])

    def anchor(self, task_id: int, first: int, count: int, root: bytes) -> Receipt:
        """Promise segments [first, first + count) of the client's trunk by their Merkle root."""
        return self.send("anchor", task_id, first, count, root)

    def declare_stop(self, task_id: int, segments: int) -> Receipt:
        """Declare that the client's run ends early, with the ``segments`` anchored so far. Once, and for good."""
        return self.send("declareStop", task_id, segments)

    def anchor_reference(self, task_id: int, opening: Opening) -> Receipt:
        """Name the anchored end state that the watermark goes into, and thereby the block that draws its bits."""
        return self.send("anchorReference", task_id, opening.to_abi())

    def latch_mark(self, task_id: int, trainer: str) -> bytes:
        """Store the hash of the block promised with the reference, and return it; anyone may."""
        return bytes(self.send("latchMark", task_id, trainer).event("MarkLatched").args["mark"])

    def commit_submission(
        self, task_id: int, *, model_digest: bytes, transcript_digest: bytes, model_cid: str, salt: bytes
    ) -> Receipt:
        """Promise the client's model in the current round. Keep all four values: the reveal needs them.

        Raises :class:`ChainError` if ``transcript_digest`` is not what the Arena holds: such a promise could never be
        shown.
        """
        trainer = self.connection.sender()
        held = self.run(task_id, trainer).transcript_digest
        if held != transcript_digest:
            raise ChainError(
                f"the Arena holds transcript digest 0x{held.hex()} for {trainer}, the proof has "
                f"0x{transcript_digest.hex()}: anchor this proof's segments first, and no others"
            )
        commitment = submission_commitment(
            self.site,
            task_id,
            trainer,
            model_digest=model_digest,
            transcript_digest=transcript_digest,
            model_cid=model_cid,
            salt=salt,
        )
        return self.send("commitSubmission", task_id, commitment)

    def reveal_submission(self, task_id: int, *, model_digest: bytes, model_cid: str, salt: bytes) -> Receipt:
        """Show the promised model, in the window after the round it was committed in."""
        return self.send("revealSubmission", task_id, model_digest, model_cid, salt)

    def run(self, task_id: int, trainer: str) -> Run:
        """Everything the Arena holds of a run; all zero if there is none."""
        return from_abi(Run, self.call("run", task_id, trainer))

    def anchors(self, task_id: int, trainer: str) -> tuple[ChainAnchor, ...]:
        """The run's anchors, in order."""
        return tuple(from_abi(ChainAnchor, row) for row in self.call("anchors", task_id, trainer))

    def run_segments(self, task_id: int, trainer: str) -> int:
        """Segments of the trainer's whole run: all that the task promises, or those it was declared to end with."""
        return int(self.call("runSegments", task_id, trainer))

    def standing(self, task_id: int, trainer: str, round_: int) -> bool:
        """Whether the trainer has a revealed, unstruck submission of this round or an earlier one."""
        return bool(self.call("standing", task_id, trainer, round_))

    def abandoned(self, task_id: int, trainer: str) -> bool:
        """Whether the trainer registered a run and revealed nothing so far."""
        return bool(self.call("abandoned", task_id, trainer))

    def verify_opening(self, task_id: int, trainer: str, opening: Opening) -> bool:
        """Whether the opened segment is the one anchored there, at the steps the task gives it."""
        return bool(self.call("verifyOpening", task_id, trainer, opening.to_abi()))

    # Scores, ranking, rewards

    def commit_scores(self, task_id: int, round_: int, scores: Sequence[int], salt: bytes) -> Receipt:
        """Promise the client's scores in basis points: one a trainer, in the order of ``vault.operators``; 0 for
        those whose model does not stand."""
        validator = self.connection.sender()
        commitment = scores_commitment(self.site, task_id, round_, validator, scores=scores, salt=salt)
        return self.send("commitScores", task_id, round_, commitment)

    def reveal_scores(self, task_id: int, round_: int, scores: Sequence[int], salt: bytes) -> Receipt:
        """Show the promised scores."""
        return self.send("revealScores", task_id, round_, list(scores), salt)

    def open_final_set(self, task_id: int, final_root: bytes, salt: bytes, cid: str) -> Receipt:
        """Open the hidden final data set, as its creator."""
        return self.send("openFinalSet", task_id, final_root, salt, cid)

    def settle_round(self, task_id: int, round_: int) -> Receipt:
        """Rank, compute and allot a round's rewards; anyone may, once a round, in order."""
        return self.send("settleRound", task_id, round_)

    def scores_of(self, task_id: int, round_: int, validator: str) -> tuple[int, ...]:
        """The revealed scores; empty if there are none."""
        return tuple(self.call("scoresOf", task_id, round_, validator))

    def result(self, task_id: int, round_: int, trainer: str) -> Result:
        """A trainer's aggregate score and rank in a settled round."""
        return from_abi(Result, self.call("result", task_id, round_, trainer))

    def settled_rounds(self, task_id: int) -> int:
        """Rounds settled so far, 0 to 3."""
        return int(self.call("settledRounds", task_id))

    def final_set_root(self, task_id: int) -> bytes:
        """Merkle root of the final data set; zeros until opened."""
        return bytes(self.call("finalSetRoot", task_id))

    # The beacon that picks which watermark leaves accusers open

    def request_opening_beacon(self, task_id: int) -> Receipt:
        """Promise its block: anyone may, once all models are shown."""
        return self.send("requestOpeningBeacon", task_id)

    def latch_opening_beacon(self, task_id: int) -> bytes:
        """Store the hash of that block, and return it; anyone may."""
        return bytes(self.send("latchOpeningBeacon", task_id).event("OpeningBeaconLatched").args["beacon"])

    def opening_beacon(self, task_id: int) -> Beacon:
        """The beacon that picks the leaves."""
        return from_abi(Beacon, self.call("openingBeacon", task_id))
