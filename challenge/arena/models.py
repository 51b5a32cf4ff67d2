"""The models that a run submits, round by round: where each leaves the trunk, and the one proof that shows them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chain.anchoring import SubmittedModel, read_run
from chain.errors import ChainError
from chain.types import Beacon
from challenge.arena.beacons import latched
from challenge.arena.runfolder import RunFolder
from challenge.arena.session import NotYet, Session
from challenge.arena.submit import promised
from challenge.claims import OPENED_GROUPS
from challenge.console import say
from challenge.dispute import open_segments
from challenge.onchain import suspects_of
from challenge.signing import sign_proof
from pol import Proof, Submission, recorded, seal
from pol.errors import SpecError
from pol.journal import JOURNAL
from pol.proof import states_of
from pol.state import Tensors, from_safetensors, model_tensors, to_safetensors
from pol.store import BlobStore
from pol.tensors import tensors_digest
from watermark import Claim, MarkParameters, WatermarkKey, detect, mark_run, opening_groups


@dataclass(frozen=True)
class Models:
    """What the account's run in a folder has submitted, and what it can submit next; ``store`` is where models go."""

    session: Session
    kept: RunFolder
    store: BlobStore

    def next(self, wait: float, unmarked: bool) -> tuple[Submission, int | None]:
        """The model of this round, in the store, and the round in which it was promised; ``None``: not yet.

        A run that ended is sealed. Raises :class:`NotYet` where there is nothing new to submit in this round, and where
        the beacon of the watermark does not come within ``wait`` seconds.
        """
        ended = not (self.kept.proof / JOURNAL).exists()
        proof, held, now = recorded(self.kept.proof), self._held(), self._round
        if not ended and now in held:
            return held[now], now
        model = proof.submission
        if model is None:
            if ended:
                self._insist_on_all_promises()
            over = ended and (now > self._rounds or (now == self._rounds and now in held))
            last = held[max(held)] if held and over else None
            model = last or self._branch(proof, held, wait, unmarked)
        before = next((round_ for round_, other in held.items() if other.model_digest == model.model_digest), None)
        if before is not None and proof.submission is None:
            model = held[before]  # a trunk that no longer moves gives it at later branches too: this one was shown
        if before is None and now in held:
            raise NotYet(f"round {now} has a model of this run already: submit the last one in the next round")
        if before is not None and not ended:
            raise NotYet(f"no state after that of round {before} is kept and anchored yet: repeat this later")
        if ended and proof.submission is None:
            self._seal(model)
        self.store.put(self._blob(model))
        return model, before

    def _held(self) -> dict[int, Submission]:
        """The run's models that count or may count yet, by round: shown, or promised on this machine and to be shown.

        A promise that was not shown in its time is void, and the model may be promised again.
        """
        run, found = read_run(self.session.client, self.kept.number), {}
        for held in run.submissions:
            branch, digest, cid = held.branch, held.model_digest, held.model_cid
            if digest is None and self._can_be_shown(held.round):
                promise = self._promise(held)
                if promise is not None:
                    digest = bytes.fromhex(promise["model_digest"])
                    branch, cid = promise["branch"], promise["model_cid"]
            if branch is not None and digest is not None and cid is not None:
                found[held.round] = self._submission(branch, digest, cid, run.mark)
        return found

    def _insist_on_all_promises(self) -> None:
        """Raise :class:`NotYet` while a model of the run may still be shown that only another machine knows."""
        for held in read_run(self.session.client, self.kept.number).submissions:
            if not held.model_digest and self._can_be_shown(held.round) and self._promise(held) is None:
                raise NotYet(
                    f"what was promised in round {held.round} is in another machine's journal, and the proof must have "
                    "it: go on there, or repeat this once it is shown"
                )

    def _promise(self, held: SubmittedModel) -> Any:
        """What the round's model is, by this machine's journal; ``None``: it was promised on another."""
        known = promised(self.session, self.kept.task, held.round, held.commitment)
        return known and known[0]

    def _can_be_shown(self, round_: int) -> bool:
        """Whether what was promised in the round may still be revealed."""
        now = self.session.web3.eth.get_block("latest")["timestamp"]
        return bool(now < self.session.client.arena.round_times(self.kept.task, round_).scores_from)

    def _branch(self, proof: Proof, held: dict[int, Submission], wait: float, unmarked: bool) -> Submission:
        """The model that leaves the trunk after the latest state that is kept and anchored."""
        anchored = sum(anchor.count for anchor in proof.anchors)
        ends = {proof.spec.bounds(index)[1]: index for index in range(anchored)}
        segment = max((ends[state.step] for state in proof.states if state.step in ends), default=None)
        if segment is None:
            raise NotYet("no state of this run is kept and anchored yet: repeat this later")
        mark = self._mark(proof, segment, wait, unmarked)
        if segment < self._reference:
            raise NotYet(f"the run has to get to segment {self._reference} again, from which it submitted before")
        known = (other for other in held.values() if other.reference_segment == segment)
        return next(known, None) or self._made(proof, segment, mark, held, unmarked)

    def _mark(self, proof: Proof, segment: int, wait: float, unmarked: bool) -> Beacon:
        """The run's second beacon; for its first model the reference is anchored, which is after ``segment``.

        A run has one, so it must bear the mark: that is tried before, with a beacon that is made up.
        """
        arena, number, promise = self.session.client.arena, self.kept.number, self.kept.spec.watermark
        if not any(arena.run(number).reference_digest):
            assert promise is not None
            if not unmarked and not MarkParameters.from_json(promise.parameters, where="spec.watermark").trained_in:
                self._marked(segment, bytes(32))
            (opening,) = open_segments(proof, [segment])
            arena.anchor_reference(number, opening)
        mark = latched(lambda: arena.run(number).mark, lambda: arena.latch_mark(number), wait)
        if mark is None:
            raise NotYet("the block that draws the watermark is not there yet")
        return mark

    def _made(
        self, proof: Proof, segment: int, mark: Beacon, held: dict[int, Submission], unmarked: bool
    ) -> Submission:
        """The model that leaves the trunk after ``segment``, put into the run's folder.

        A claim of the run's mark is tried on all of its models, so :class:`SpecError` if some of them were to lack it.
        """
        first = next(iter(held.values()), None)
        if first and unmarked != (tensors_digest(self._trunk(proof, first.reference_segment)) == first.model_digest):
            way = "without" if unmarked else "with"
            raise SpecError(f"all models of a run have its mark, or none has: submit this one {way} --unmarked")
        with self.session.promises.lent():  # the run may be training, and must anchor
            model = self._trunk(proof, segment) if unmarked else self._marked(segment, mark.value)
            if segment != self._reference and not unmarked:
                self._look_for_copies(proof, model, mark.value)
        return self._submission(segment, tensors_digest(model), self.kept.models.put(to_safetensors(model)), mark)

    def _look_for_copies(self, proof: Proof, model: Tensors, beta: bytes) -> None:
        """Say so if copies of a late model would go unnoticed: they are looked at in the coordinates of theta_ref.

        As a court looks: with some groups opened, and all models of the task counted.
        """
        promise = self.kept.spec.watermark
        assert promise is not None
        parameters = MarkParameters.from_json(promise.parameters, where="spec.watermark")
        if set(parameters.channels) != {"weights"}:
            return  # read in answers as well, which no training turns away
        key, theta_ref = WatermarkKey.load(self.kept.key), self._trunk(proof, self._reference)
        groups = opening_groups(beta, key.root, parameters.groups, min(OPENED_GROUPS, parameters.groups))
        claim = Claim.make(key, beta, parameters, groups, theta_ref)
        (found,) = detect(model, [claim], suspects=suspects_of(proof, self.session.client))
        if not found.accepted:
            say(
                f"{'copies':<14}of this model will not be noticed: training since theta_ref was anchored turned it "
                f"away from where the mark is read ({found.matches} of {found.trials} bits)"
            )

    def _trunk(self, proof: Proof, segment: int) -> Tensors:
        """The trunk's model after ``segment``, whose state is kept."""
        state = proof.stored_at(proof.spec.bounds(segment)[1])
        return model_tensors(from_safetensors(states_of(self.kept.proof).get(state.cid), where="trunk"))

    def _marked(self, segment: int, beta: bytes) -> Tensors:
        kept = self.kept
        data = kept.data if kept.data.is_file() else None
        return mark_run(kept.proof, segment, WatermarkKey.load(kept.key), beta, dataset=data)

    def _seal(self, model: Submission) -> None:
        """Sign the proof of the whole run, with all its models: the last branch off the trunk is its submission.

        What was hidden may have been shown while ``model`` was made: in this order none of it can be missed.
        """
        self._insist_on_all_promises()
        known = {other.model_digest: other for other in self._held().values()}
        *earlier, last = sorted((known | {model.model_digest: model}).values(), key=_branch_of)
        signer = self.session.signer
        if signer is None:
            raise ChainError("a proof is signed by its trainer: name an account")
        seal(
            self.kept.proof,
            last,
            self._blob(last),
            lambda unsigned: sign_proof(unsigned, signer),
            earlier=((other, self._blob(other)) for other in earlier),
            theta_ref=self._reference,
        )

    def _blob(self, model: Submission) -> bytes:
        """A model's bytes: from the run's folder, from its sealed proof, or from the store."""
        own = (self.kept.models, states_of(self.kept.proof))
        return next((at for at in own if at.path(model.model_cid).is_file()), self.store).get(model.model_cid)

    @staticmethod
    def _submission(branch: int, digest: bytes, cid: str, mark: Beacon) -> Submission:
        return Submission(
            model_digest=digest, model_cid=cid, reference_segment=branch, beta=mark.value, beta_block=mark.block
        )

    @property
    def _reference(self) -> int:
        return self.session.client.arena.run(self.kept.number).reference_segment

    @property
    def _round(self) -> int:
        return self.session.client.arena.current_round(self.kept.task)

    @property
    def _rounds(self) -> int:
        return self.session.client.arena.task_config(self.kept.task).clock.rounds


def _branch_of(model: Submission) -> int:
    return model.reference_segment
