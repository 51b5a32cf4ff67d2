"""Tasks, runs and submissions: the Arena."""

from __future__ import annotations

from dataclasses import dataclass

from chain.commitments import Site, submission_commitment
from chain.contract import ContractClient, Receipt
from chain.errors import ChainError
from chain.terms import Clock, Court, Pay, PhaseTimes, RoundTimes, TaskConfig, Work
from chain.token import Token
from chain.types import BaseModel, ChainAnchor, Opening, Phase, Run, Submission, from_abi, to_abi

NO_BASE = BaseModel()
ANCHOR_PAGE = 1_000  # a run may have 65,536, more than a node reads in one call


@dataclass(frozen=True)
class Arena(ContractClient):
    """Client of the Arena contract. Rounds count from 1 to the task's ``rounds``; the final one comes after."""

    token: Token

    @property
    def site(self) -> Site:
        """Where submissions are promised, for :mod:`chain.commitments`."""
        return Site(self.connection.web3.eth.chain_id, self.address)

    # Tasks

    def create_task(self, config: TaskConfig, metadata_cid: str) -> int:
        """Publish a task and pay budget and deposit in (approved first); returns its id. Nobody can change it after."""
        self.token.ensure_allowance(self.address, config.cost)
        receipt = self.send("createTask", to_abi(config), metadata_cid)
        return int(receipt.event("TaskCreated").args["taskId"])

    def task_count(self) -> int:
        """How many tasks exist; ids run from 1 to this."""
        return int(self.call("taskCount"))

    def task_config(self, task_id: int) -> TaskConfig:
        """All terms; refused with ``UnknownTask``."""
        return TaskConfig(
            clock=from_abi(Clock, self.call("clock", task_id)),
            work=from_abi(Work, self.call("work", task_id)),
            pay=from_abi(Pay, self.call("pay", task_id)),
            court=from_abi(Court, self.call("court", task_id)),
        )

    def creator_of(self, task_id: int) -> str:
        """Who published the task."""
        return str(self.call("creatorOf", task_id))

    def phase(self, task_id: int) -> Phase:
        """The phase at the latest block's time."""
        return Phase(self.call("phase", task_id))

    def phase_times(self, task_id: int) -> PhaseTimes:
        """When the phases begin."""
        return from_abi(PhaseTimes, self.call("phaseTimes", task_id))

    def current_round(self, task_id: int) -> int:
        """The round at the latest block's time: 0 in registration, and the final one from the last's end on."""
        return int(self.call("currentRound", task_id))

    def round_times(self, task_id: int, round_: int) -> RoundTimes:
        """When the windows of a round begin."""
        return from_abi(RoundTimes, self.call("roundTimes", task_id, round_))

    def segment_count(self, task_id: int) -> int:
        """Segments that the task promises."""
        return int(self.call("segmentCount", task_id))

    # Runs

    def register_run(
        self, task_id: int, spec_digest: bytes, key_root: bytes, bond: int, base: BaseModel = NO_BASE
    ) -> int:
        """Promise a run, and thereby the block that seeds it; returns the run's id.

        Approves and pays ``bond`` (the task's ``pay.run_bond``, wei). ``base`` is the model that training starts from,
        and its path in the task's list.
        """
        self.token.ensure_allowance(self.address, bond)
        receipt = self.send("registerRun", task_id, spec_digest, key_root, to_abi(base))
        return int(receipt.event("RunRegistered").args["runId"])

    def latch_beacon(self, run_id: int) -> bytes:
        """Draw the run's beacon from the block promised at registration, and return it; anyone may."""
        return bytes(self.send("latchBeacon", run_id).event("BeaconLatched").args["beacon"])

    def anchor(self, run_id: int, first: int, count: int, root: bytes) -> Receipt:
        """Promise segments [first, first + count) of the run's trunk by their Merkle root."""
        return self.send("anchor", run_id, first, count, root)

    def declare_stop(self, run_id: int, segments: int) -> Receipt:
        """Declare that the run ends early, with the ``segments`` anchored so far. Once, and for good."""
        return self.send("declareStop", run_id, segments)

    def anchor_reference(self, run_id: int, opening: Opening) -> Receipt:
        """Name the anchored end state that the watermark goes into, and thereby the block that draws its bits."""
        return self.send("anchorReference", run_id, opening.to_abi())

    def latch_mark(self, run_id: int) -> bytes:
        """Store the hash of the block promised with the reference, and return it; anyone may."""
        return bytes(self.send("latchMark", run_id).event("MarkLatched").args["mark"])

    def void_run(self, run_id: int) -> Receipt:
        """Burn the bond of a run that came to nothing; anyone may."""
        return self.send("voidRun", run_id)

    def release_run_bond(self, run_id: int) -> Receipt:
        """Take the bond of the client's run back, when the task is closed."""
        return self.send("releaseRunBond", run_id)

    def run(self, run_id: int) -> Run:
        """Everything the Arena holds of a run; refused with ``UnknownRun``."""
        return from_abi(Run, self.call("run", run_id))

    def runs_of(self, task_id: int, trainer: str) -> tuple[int, ...]:
        """The ids of the trainer's runs in a task, in the order registered."""
        return tuple(self.call("runsOf", task_id, trainer))

    def anchors(self, run_id: int) -> tuple[ChainAnchor, ...]:
        """The run's anchors, in order."""
        held: list[ChainAnchor] = []
        while True:
            page = self.call("anchors", run_id, len(held), ANCHOR_PAGE)
            held += (from_abi(ChainAnchor, row) for row in page)
            if len(page) < ANCHOR_PAGE:
                return tuple(held)

    def run_segments(self, run_id: int) -> int:
        """Segments of the whole run: all that the task promises, or those it was declared to end with."""
        return int(self.call("runSegments", run_id))

    def verify_opening(self, run_id: int, opening: Opening) -> bool:
        """Whether the opened segment is the one anchored there, at the steps the task's terms give it."""
        return bool(self.call("verifyOpening", run_id, opening.to_abi()))

    def anchored_at(self, run_id: int, opening: Opening, position: int) -> bool:
        """Whether the opened segment, whatever it says of itself, was anchored at leaf ``position`` of its anchor."""
        return bool(self.call("anchoredAt", run_id, opening.to_abi(), position))

    # Submissions

    def commit_submission(
        self, run_id: int, *, round_: int, branch: int, model_digest: bytes, model_cid: str, salt: bytes
    ) -> Receipt:
        """Promise the client's model of ``round_``, the current one, which leaves its run's trunk after ``branch``.

        Keep all five values: the reveal needs them. What is promised is of the segments anchored now, so nothing is
        anchored meanwhile (:meth:`chain.contract.Connection.turn`).
        Raises :class:`ChainError` if another round is on: nothing was sent; or if the round ended on the way: then this
        promise can never be shown.
        """
        with self.connection.turn():
            run = self.run(run_id)
            if (current := self.current_round(run.task_id)) != round_:
                raise ChainError(f"round {round_} is not on any more: submit again, in round {current}")
            commitment = submission_commitment(
                self.site,
                run.task_id,
                self.connection.sender(),
                run_id=run_id,
                round_=round_,
                branch=branch,
                model_digest=model_digest,
                transcript_digest=run.transcript_digest,
                model_cid=model_cid,
                salt=salt,
            )
            receipt = self.send("commitSubmission", run_id, commitment)
        taken = receipt.event("SubmissionCommitted").args["round"]
        if taken != round_:
            raise ChainError(
                f"round {round_} ended while the promise was on its way, and round {taken} took it: it cannot be "
                "shown; submit again in the next round, and earlier"
            )
        return receipt

    def reveal_submission(
        self, task_id: int, round_: int, *, branch: int, model_digest: bytes, model_cid: str, salt: bytes
    ) -> Receipt:
        """Show the model promised in ``round_``, in the window after it."""
        return self.send("revealSubmission", task_id, round_, branch, model_digest, model_cid, salt)

    def submission(self, task_id: int, trainer: str, round_: int) -> Submission:
        """What the trainer committed in a round; all zero if nothing."""
        return from_abi(Submission, self.call("submission", task_id, trainer, round_))

    def standing_order(self, task_id: int, trainer: str, round_: int) -> int:
        """Commit order of the trainer's model that stands in a round; 0 = none."""
        return int(self.call("standingOrder", task_id, trainer, round_))

    def standing_orders(self, task_id: int, round_: int) -> tuple[int, ...]:
        """The same of all trainers, in staking order."""
        return tuple(self.call("standingOrders", task_id, round_))
