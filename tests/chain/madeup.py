"""A run that nobody trained, for games on :class:`tests.chain.revm.Chain`: honest structure, made-up states."""

from chain.commitments import submission_commitment
from chain.types import BaseModel, ChainAnchor, Run, from_abi, open_segment, to_abi
from pol.transcript import Segment, segment_tree
from tests.chain.play import digest

SALT = digest("salt")


class MadeUpRun:
    """One run of ``who``, registered when it is made; segments of one step. ``label`` tells its states from others'.

    ``key_root`` is that of a real key, if its leaves are to be opened.
    """

    def __init__(self, chain, who, task, label=None, segments=1, key_root=None):
        self.chain, self.who, self.task, self.label = chain, who, task, label or who
        states = [digest("state", self.label, index) for index in range(segments + 1)]
        self.segments = [
            Segment(
                index=index, start_step=index, end_step=index + 1, start_digest=states[index],
                end_digest=states[index + 1], batch_root=digest("batch", index),
            )
            for index in range(segments)
        ]  # fmt: skip
        self.root = segment_tree(self.segments).root
        promised = (digest("spec", self.label), key_root or digest("key", self.label), to_abi(BaseModel()))
        self.id = self.arena("registerRun", task, *promised)

    def arena(self, name, *args):
        return self.chain.send(self.who, "Arena", name, *args)

    def held(self):
        return from_abi(Run, self.chain.call("Arena", "run", self.id))

    def open(self, index):
        anchors = [ChainAnchor(0, len(self.segments), 0, self.root)]
        return open_segment(self.segments, anchors, index).to_abi()

    def train(self):
        """From the registered run to one from which models can be promised."""
        self.latch()
        self.anchor()
        self.refer()
        self.latch_mark()

    def latch(self):
        self.chain.mine(3)
        self.arena("latchBeacon", self.id)

    def anchor(self):
        self.arena("anchor", self.id, 0, len(self.segments), self.root)

    def refer(self):
        self.arena("anchorReference", self.id, self.open(0))

    def latch_mark(self):
        self.chain.mine(3)
        self.arena("latchMark", self.id)

    def commit(self, round_):
        """Promise the round's model."""
        commitment = submission_commitment(
            self.chain.site("Arena"),
            self.task,
            self.who,
            run_id=self.id,
            round_=round_,
            branch=0,
            model_digest=self.model(round_),
            transcript_digest=self.held().transcript_digest,
            model_cid="bafy",
            salt=SALT,
        )
        self.arena("commitSubmission", self.id, commitment)

    def reveal(self, round_):
        self.arena("revealSubmission", self.task, round_, 0, self.model(round_), "bafy", SALT)

    def model(self, round_):
        return digest("model", self.label, round_)
