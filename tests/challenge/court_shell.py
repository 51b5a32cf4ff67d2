"""A task in its challenging phase, brought there by commands: an honest trainer, a cheat, one whose segments do not
join, and three validators. All cases are then typed."""

import shutil

import torch

from chain.accounts import dev_account
from chain.anchoring import RunAnchorer
from chain.client import ArenaClient
from chain.types import open_segment
from challenge.arena.runfolder import RunFolder
from challenge.arena_cli import app as arena_app
from challenge.cli import CASES
from challenge.cli import app as challenge_app
from pol import Recorder
from pol.data import digits
from pol.encoding import canonical_json
from pol.transcript import Segment, segment_tree
from tests.chain.play import digest
from tests.challenge.arena_shell import Shell, task_text

CREATOR, ALICE, MALLORY, BRUCE, VERA, VICTOR, VIOLA = range(7)
VALIDATORS = (VERA, VICTOR, VIOLA)
TERMS = {
    "steps": 40, "width": 512, "learning_rate": "1e-2", "rounds": 1, "sampled": 2, "jurors": 31, "appeals": 1,
    "show_window": '"1h"', "answer_window": '"1h"', "vote_window": '"1h"', "appeal_window": '"1h"',
}  # fmt: skip


def address(who):
    return dev_account(who).address


class Courtroom(Shell):
    """The commands ``arena`` and ``challenge``, on one chain; with "arena" in front where both have one of the name."""

    def __call__(self, who, *words, code=0):
        if self.dies:  # so that a promised block is always there
            self.chain.mine(3)
        self.app = challenge_app if words[0] in CASES or words[0] == "verify" else arena_app
        return super().__call__(who, *(words[1:] if words[0] == "arena" else words), code=code)

    def task_file(self, start):
        path = self.folder / "task.toml"
        path.write_text(task_text(start, **TERMS))
        return path

    @property
    def store(self):
        return self.folder / "store"

    def proof(self, who):
        """The folder of the proof of a trainer."""
        return self.folder / f"run-{who}" / "proof"

    def acting(self, who):
        """A client that acts as somebody, for what no command does."""
        return ArenaClient(self.chain.web3, self.client.deployment, dev_account(who))

    def to_court(self):
        """From nothing to the challenging phase."""
        self(CREATOR, "deploy", "--purse", 5_000)
        start = self.chain.now() + 3_600
        self(CREATOR, "task", "create", self.task_file(start), "--store", self.store)
        for who in (ALICE, MALLORY, BRUCE):
            self(who, "stake", 1, "trainer", 1_000)
        for who in VALIDATORS:
            self(who, "stake", 1, "validator", 1_000)
        self.to(start)
        for who in (ALICE, MALLORY):
            self.submit(who)
        broken = self.submit_broken(BRUCE)
        times = self.client.arena.round_times(1, 1)
        self.to(times.opens_at)
        for who in (ALICE, MALLORY):
            self(who, "submit", "reveal", 1)
        broken()
        self.to(times.scores_from)
        for who in VALIDATORS:
            self(who, "score", "commit", 1, "--store", self.store, "--scores", "9000,9500,9300")
        self.to(times.reveal_from)
        for who in VALIDATORS:
            self(who, "score", "reveal", 1)
        self.to(times.settle_from)
        self(CREATOR, "score", "settle", 1)
        self.to(self.client.arena.phase_times(1).challenge_from)

    def submit(self, who):
        """Train and promise; Mallory pushes her weights as she goes."""
        folder = self.folder / f"run-{who}"
        words = ("run", "register", 1, folder, "--store", self.store, "--wait", 0)
        self(who, *words, code=3)
        self.chain.mine(3)
        self(who, *words)
        if who == MALLORY:
            self.cheat(who, folder)
        else:
            self(who, "run", "train", folder)
        words = ("submit", "commit", folder, "--store", self.store, "--wait", 0)
        self(who, *words, code=3)
        self.chain.mine(3)
        self(who, *words)

    def cheat(self, who, folder):
        kept = RunFolder.load(folder)
        anchorer = RunAnchorer(self.acting(who), kept.number)
        with Recorder(kept.spec, kept.proof, seed_source=kept.seed, anchorer=anchorer) as recorder:
            state = recorder.program.build(kept.spec.config, recorder.seed)
            recorder.attach(model=state.model, optimizer=state.optimizer, scheduler=state.scheduler)
            for step, batch in enumerate(recorder.batches(digits("train"))):
                if step > 2:
                    with torch.no_grad():
                        next(state.model.parameters()).add_(1e-3)
                recorder.step(recorder.program.train_step(state, batch))

    def submit_broken(self, who):
        """A run whose second segment does not start where its first ends; returns what shows its model."""
        client, segments = self.acting(who), self.broken_segments()
        arena, bond = client.arena, client.arena.task_config(1).pay.run_bond
        run = arena.register_run(1, digest("spec"), digest("key"), bond)
        self.chain.mine(3)
        arena.latch_beacon(run)
        anchors = [RunAnchorer(client, run).anchor(0, len(segments), segment_tree(segments).root)]
        arena.anchor_reference(run, open_segment(segments, anchors, 2))
        self.chain.mine(3)
        arena.latch_mark(run)
        model = {"branch": 2, "model_digest": digest("model"), "model_cid": "bafy-none", "salt": digest("salt")}
        arena.commit_submission(run, round_=1, **model)
        return lambda: arena.reveal_submission(1, 1, **model)

    def broken_segments(self):
        states = [digest("state", index) for index in range(5)]
        return [
            Segment(
                index=index,
                start_step=index * 10,
                end_step=index * 10 + 10,
                start_digest=digest("elsewhere") if index == 1 else states[index],
                end_digest=states[index + 1],
                batch_root=digest("batches", index),
            )
            for index in range(4)
        ]

    def break_transcript(self, folder):
        """A folder with Bruce's transcript, which no reader of proofs takes."""
        shutil.copytree(self.proof(ALICE), folder)
        lines = [canonical_json(segment.to_json()) + b"\n" for segment in self.broken_segments()]
        (folder / "transcript.jsonl").write_bytes(b"".join(lines))
        return folder
