"""Scores, ranking and rewards: the Scoring contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chain.commitments import Site, scores_commitment
from chain.contract import ContractClient, Receipt
from chain.types import Beacon, Progress, Result, Role, from_abi
from chain.vault import Vault

SCORE_BYTES = 2
CHUNK = 64
"""Operators that one transaction deals with: at 512 of a role it stays far below the gas one may use."""


@dataclass(frozen=True)
class Scoring(ContractClient):
    """Client of the Scoring contract. Rounds count from 1 to the task's ``rounds``; the final one comes after."""

    vault: Vault

    @property
    def site(self) -> Site:
        """Where scores are promised, for :mod:`chain.commitments`."""
        return Site(self.connection.web3.eth.chain_id, self.address)

    # Scores

    def commit_scores(self, task_id: int, round_: int, scores: Sequence[int], salt: bytes) -> Receipt:
        """Promise the client's scores in basis points: one a trainer, in the order of ``vault.operators``. Those of
        models that do not stand count for nothing."""
        validator = self.connection.sender()
        commitment = scores_commitment(self.site, task_id, round_, validator, scores=scores, salt=salt)
        return self.send("commitScores", task_id, round_, commitment)

    def reveal_scores(self, task_id: int, round_: int, scores: Sequence[int], salt: bytes) -> Receipt:
        """Show the promised scores."""
        return self.send("revealScores", task_id, round_, pack_scores(scores), salt)

    def scores_commitment(self, task_id: int, round_: int, validator: str) -> bytes:
        """The validator's promise; zeros if there is none."""
        return bytes(self.call("scoresCommitment", task_id, round_, validator))

    def scores_of(self, task_id: int, round_: int, validator: str) -> tuple[int, ...]:
        """The revealed scores; empty if there are none."""
        return unpack_scores(bytes(self.call("scoresOf", task_id, round_, validator)))

    # The final set

    def open_final_set(self, task_id: int, final_root: bytes, salt: bytes, cid: str) -> Receipt:
        """Open the hidden final data set, as the task's creator."""
        return self.send("openFinalSet", task_id, final_root, salt, cid)

    def final_set_root(self, task_id: int) -> bytes:
        """Merkle root of the final data set; zeros until opened."""
        return bytes(self.call("finalSetRoot", task_id))

    def attested(self, task_id: int) -> bool:
        """Whether the creator did its part in the final round, so that its deposit is its own again."""
        return bool(self.call("attested", task_id))

    # Settlement: anyone may, in as many transactions as it takes

    def rank_round(self, task_id: int, round_: int, columns: int) -> Receipt:
        """Aggregate the scores of the next ``columns`` trainers, and rank when all are done."""
        return self.send("rankRound", task_id, round_, columns)

    def pay_trainers(self, task_id: int, round_: int, count: int) -> Receipt:
        """Allot the rewards of the next ``count`` trainers."""
        return self.send("payTrainers", task_id, round_, count)

    def weigh_validators(self, task_id: int, round_: int, count: int) -> Receipt:
        """Find the weights of the next ``count`` validators."""
        return self.send("weighValidators", task_id, round_, count)

    def pay_validators(self, task_id: int, round_: int, count: int) -> Receipt:
        """Allot the rewards of the next ``count`` validators, when all are weighed."""
        return self.send("payValidators", task_id, round_, count)

    def settle_round(self, task_id: int, round_: int, chunk: int = CHUNK) -> list[Receipt]:
        """All of the above that is left to do, ``chunk`` operators a transaction; nothing if the round is settled.

        Where another settles at the same time a transaction may find its part done: it is refused with ``Done``, and
        calling this again goes on from there.
        """
        receipts: list[Receipt] = []
        while not (now := self.progress(task_id, round_)).settled:
            receipts.append(self._step(task_id, round_, chunk, now))
        return receipts

    def progress(self, task_id: int, round_: int) -> Progress:
        """How far the settlement of a round is."""
        return from_abi(Progress, self.call("progress", task_id, round_))

    def settled_rounds(self, task_id: int) -> int:
        """Rounds settled so far, 0 to the final one."""
        return int(self.call("settledRounds", task_id))

    def results(self, task_id: int, round_: int) -> tuple[Result, ...]:
        """How every trainer did in a ranked round, in staking order; empty until it is ranked."""
        return tuple(from_abi(Result, row) for row in self.call("results", task_id, round_))

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

    def _step(self, task_id: int, round_: int, chunk: int, now: Progress) -> Receipt:
        validators = len(self.vault.operators(task_id, Role.VALIDATOR))
        if not now.ranked:  # with many validators, fixing whose scores count fills a transaction
            begun = now.scored_round != 0 or validators <= chunk
            return self.rank_round(task_id, round_, chunk if begun else 0)
        if now.trainers_paid < len(self.vault.operators(task_id, Role.TRAINER)):
            return self.pay_trainers(task_id, round_, chunk)
        if now.validators_weighed < validators:
            return self.weigh_validators(task_id, round_, chunk)
        return self.pay_validators(task_id, round_, chunk)


def pack_scores(scores: Sequence[int]) -> bytes:
    """A row of scores as the contract takes it: two bytes each, big-endian."""
    return b"".join(score.to_bytes(SCORE_BYTES, "big") for score in scores)


def unpack_scores(row: bytes) -> tuple[int, ...]:
    """The inverse of :func:`pack_scores`."""
    return tuple(int.from_bytes(row[at : at + SCORE_BYTES], "big") for at in range(0, len(row), SCORE_BYTES))
