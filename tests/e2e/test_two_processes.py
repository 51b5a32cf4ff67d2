"""One account, two processes: a run is trained in one while another submits its model, is killed, and goes on."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chain.accounts import dev_account
from chain.anvil import Anvil
from chain.client import ArenaClient
from chain.deployment import planned_deployment
from chain.journal import open_journal
from challenge.onchain import check_run_on_chain
from challenge.verdict import Verdict
from pol import Proof
from pol.journal import JOURNAL
from tests.chain.anvil import ACCOUNTS, require_anvil
from tests.challenge.arena_shell import task_text

pytestmark = [pytest.mark.slow, pytest.mark.node]

CREATOR, ALICE = range(2)
TERMS = {"steps": 80, "width": 512, "learning_rate": "1e-2", "rounds": 2}
KEPT = 3
"""A state is kept after so many segments, and each segment is an anchor: five more are to come."""
NOT_YET, PATIENCE_S = 3, 300


class Desk:
    """Commands typed on one machine, each a process."""

    def __init__(self, folder, node, arena):
        self.folder, self.node, self.arena = folder, node, arena
        self.run, self.store = folder / "run", ("--store", str(folder / "store"))

    def start(self, who, *words):
        environment = {
            **os.environ,
            "ARENA_HOME": str(self.folder / "home"),
            "ARENA_NETWORK": "local",
            "ARENA_RPC_LOCAL": self.node.url,
            "ARENA_ADDRESS": self.arena,
            "AIARENA_KEY_PASSPHRASE": "a passphrase of the tests",
            "OMP_NUM_THREADS": "1",
        }
        line = [sys.executable, "-c", "from challenge.arena_cli import main; main()", *map(str, words)]
        output = (self.folder / "output").open("ab")
        return subprocess.Popen(
            [*line, "--account", f"dev:{who}", "--yes", "--json"], env=environment, stdout=output, stderr=output
        )

    def __call__(self, who, *words):
        """Type a command until it is anything but "not yet", which must be success."""
        while code := self.start(who, *words).wait(PATIENCE_S):
            assert code == NOT_YET, (self.folder / "output").read_text()[-2_000:]
            time.sleep(1)

    def free(self):
        """Whether no process acts for Alice at the moment."""
        (journal,) = (self.folder / "home").rglob(f"{dev_account(ALICE).address}.jsonl")
        with journal.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True


def wait(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_model_is_submitted_while_another_process_trains(tmp_path):
    require_anvil()
    with Anvil(tmp_path / "chain.json", accounts=ACCOUNTS, block_time_s=1) as node:
        plan = planned_deployment(node.web3.eth.chain_id, dev_account(CREATOR).address, 0)
        desk, text, start = Desk(tmp_path, node, plan.arena), task_text(node.now() + 3_600), node.now() + 3_600
        for name, value in TERMS.items():
            text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
        (tmp_path / "task.toml").write_text(text)
        desk(CREATOR, "deploy", "--purse", 5_000)
        desk(CREATOR, "task", "create", tmp_path / "task.toml", *desk.store)
        desk(ALICE, "stake", 1, "trainer", 1_000)
        node.advance_to(start)
        desk(ALICE, "run", "register", 1, desk.run, *desk.store)
        training, commit = desk.start(ALICE, "run", "train", desk.run), ("submit", "commit", desk.run, *desk.store)
        try:
            submit_beside(desk, training, commit)
            assert training.wait(PATIENCE_S) == 0, (tmp_path / "output").read_text()[-2_000:]
        finally:
            training.kill()
            training.wait()
        reader = ArenaClient(node.web3, plan)
        node.advance_to(reader.arena.round_times(1, 1).opens_at)
        desk(ALICE, "submit", "reveal", 1)
        desk(ALICE, *commit)
        check(desk, reader)


def submit_beside(desk, training, commit):
    """Submit, by a process that dies when its model is marked, and by a second one, while the training waits."""
    pause(desk, training)
    while not marked(desk):
        die_once_marked(desk, commit)
    second = desk.start(ALICE, *commit)
    wait(lambda: second.poll() is not None or not desk.free())
    training.send_signal(signal.SIGCONT)  # it wants to anchor, and has to wait its turn
    assert second.wait(PATIENCE_S) == 0, (desk.folder / "output").read_text()[-2_000:]


def die_once_marked(desk, commit):
    process = desk.start(ALICE, *commit)
    wait(lambda: process.poll() is not None or marked(desk))
    process.kill()
    process.wait()


def marked(desk):
    return any((desk.run / "models").glob("baf*"))


def pause(desk, training):
    """Stop the training between two anchors, when a state is kept and anchored."""
    seen = KEPT - 1
    while True:
        while anchored(desk) <= seen:
            time.sleep(0.005)
        training.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        if desk.free():
            return
        seen = anchored(desk)
        training.send_signal(signal.SIGCONT)


def anchored(desk):
    journal = desk.run / "proof" / JOURNAL
    return journal.read_text().count('{"anchor"') if journal.exists() else 0


def check(desk, reader):
    proof, verdict = Proof.read(desk.run / "proof"), Verdict()
    first, last = proof.submissions
    assert first.reference_segment < last.reference_segment == 7
    check_run_on_chain(proof, reader, verdict)
    assert not verdict.findings
    held = [reader.arena.submission(1, dev_account(ALICE).address, round_) for round_ in (1, 2)]
    assert [submission.committed for submission in held] == [True, True]
    (journal,) = (desk.folder / "home").rglob(f"{dev_account(ALICE).address}.jsonl")
    with open_journal(Path(journal), dev_account(ALICE).address) as kept:
        labels = [label for label, _ in kept.mined()]
    assert labels.count("Arena.commitSubmission") == 2 and labels.count("Arena.anchorReference") == 1
    assert labels.count("Arena.anchor") == len(proof.anchors), "nothing was sent twice"
