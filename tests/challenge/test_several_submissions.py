"""A run that submits in every round while it trains: by commands, on a chain, and what its one proof must show."""

import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from mpmath import mp

from chain.accounts import dev_account
from chain.artifact import artifact
from chain.types import Role, tokens
from challenge.claims import read_claim
from challenge.cli import app as challenge_app
from challenge.dispute import shows_accused
from challenge.onchain import check_run_on_chain
from challenge.segments import Policy
from challenge.signing import sign_proof
from challenge.verdict import ExitCode, Outcome, Verdict
from challenge.verify import verify
from pol import Proof, Recorder
from pol.cid import cid_of
from pol.journal import JOURNAL
from pol.proof import states_of
from pol.state import from_safetensors, to_safetensors
from pol.tensors import tensors_digest
from tests.chain.model import Model, Operator
from tests.challenge.arena_shell import Shell, task_text
from watermark import detect

pytestmark = pytest.mark.slow

CREATOR, ALICE, BOB, VERA, VICTOR = range(5)
ROLES = (Role.TRAINER, Role.VALIDATOR)
TERMS = {"steps": 80, "width": 512, "learning_rate": "1e-2", "rounds": 2, "sampled": 2}
KEPT = 60
"""The state in the middle that models branch off, and after how many steps it is kept."""


class Rounds(Shell):
    """Commands on a chain that always has the block that was promised, when the next command comes."""

    def __call__(self, who, *words, code=0):
        self.chain.mine(3)
        return super().__call__(who, *words, code=code)

    @property
    def store(self):
        return ("--store", self.folder / "store")

    def run(self, who):
        return self.folder / f"run-{who}"

    def task_file(self, start):
        path = self.folder / "task.toml"
        path.write_text(task_text(start, **TERMS))
        return path

    def begin(self):
        """From nothing to registered runs in round 1."""
        self(CREATOR, "deploy", "--purse", 5_000)
        start = self.chain.now() + 3_600
        self(CREATOR, "task", "create", self.task_file(start), *self.store)
        for who in (ALICE, BOB):
            self(who, "stake", 1, "trainer", 1_000)
        for who in (VERA, VICTOR):
            self(who, "stake", 1, "validator", 1_000)
        self.to(start)
        for who in (ALICE, BOB):
            words = ("run", "register", 1, self.run(who), *self.store, "--wait", 0)
            self(who, *words, code=3)
            self(who, *words)

    def score(self, round_, scores):
        times = self.client.arena.round_times(1, round_)
        for moment, words in (
            (times.scores_from, ("score", "commit", 1, *self.store, "--scores", scores)),
            (times.reveal_from, ("score", "reveal", 1)),
        ):
            self.to(moment)
            for who in (VERA, VICTOR):
                self(who, *words)
        self.to(times.settle_from)
        self(CREATOR, "score", "settle", 1)


def in_the_middle(monkeypatch, act):
    """Have the training wait five steps after the state in the middle, once, until ``act`` is done."""
    begin_step, left = Recorder.begin_step, [act]

    def beginning(recorder):
        if recorder.state.step == KEPT + 5 and left:
            left.pop()()
        begin_step(recorder)

    monkeypatch.setattr(Recorder, "begin_step", beginning)


def anchored(folder, count):
    """Wait until the recorder has written that so many segments are anchored."""
    while (folder / "proof" / JOURNAL).read_text().count('{"anchor"') < count:
        time.sleep(0.05)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Alice submits in round 1 while she trains, and again at the end, in round 2. Bob is interrupted once his
    reference is anchored, and submits at his run's end only.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        shell, found = Rounds(tmp_path_factory.mktemp("rounds"), monkeypatch), {}
        shell.begin()
        commit, late = (("submit", "commit", shell.run(who), *shell.store, "--wait", 0) for who in (ALICE, BOB))

        def middle():
            anchored(shell.run(ALICE), KEPT // 10)
            assert "not there yet" in shell(ALICE, *commit, code=3)["error"]
            found["first"], found["sent"] = shell.mortally(ALICE, *commit)
            shell.to(shell.client.arena.round_times(1, 1).opens_at)
            found["shown"] = shell.twice(ALICE, "submit", "reveal", 1)
            found["again"] = shell(ALICE, *commit, code=3)["error"]

        def interrupted():
            anchored(shell.run(BOB), KEPT // 10)
            assert "not there yet" in shell(BOB, *late, code=3)["error"]

        with monkeypatch.context() as training:
            in_the_middle(training, middle)
            found["trained"] = shell(ALICE, "run", "train", shell.run(ALICE))
        found["bare"] = shell(ALICE, *commit, "--unmarked", code=1)["error"]
        found["second"] = shell.twice(ALICE, *commit)
        with monkeypatch.context() as training:
            in_the_middle(training, interrupted)
            shell(BOB, "run", "train", shell.run(BOB))
        shell(BOB, *late)
        shell.score(1, "9000,0")
        shell.to(shell.client.arena.round_times(1, 2).opens_at)
        for who in (ALICE, BOB):
            shell(who, "submit", "reveal", 1)
        shell.score(2, "9000,8000")
        shell.to(shell.client.arena.round_times(1, 3).opens_at)
        shell(CREATOR, "task", "final", 1, "digits/final-validation", *shell.store)
        shell.score(3, "9000,8000")
        claim = shell.folder / "claim"
        shell.to(shell.client.arena.phase_times(1).challenge_from)
        shell.app = challenge_app
        shell(ALICE, "claim", shell.run(ALICE), "--out", claim, "--wait", 0, code=3)
        shell(ALICE, "claim", shell.run(ALICE), "--out", claim, "--wait", 0)
        yield SimpleNamespace(shell=shell, folder=shell.run(ALICE) / "proof", claim=claim, **found)


def test_both_rounds_are_in_the_proof(played):
    assert played.first["round"] == 1 and played.sent == 2, "the beacon's latch and the promise, once each"
    assert played.shown["stands"] and "no state after that of round 1" in played.again
    assert played.trained["anchored"] == 8 and played.second["round"] == 2
    proof = Proof.read(played.folder)
    assert [mark.reference_segment for mark in proof.submissions] == [KEPT // 10 - 1, 7]
    cids = [played.first["model"], played.second["model"]]
    assert [mark.model_cid for mark in proof.submissions] == cids


def test_all_models_of_a_run_have_its_mark(played):
    assert "all models of a run have its mark" in played.bare


def test_an_interrupted_submission_leaves_nothing_but_theta_ref(played):
    proof, verdict = Proof.read(played.shell.run(BOB) / "proof"), Verdict()
    assert (proof.theta_ref, [mark.reference_segment for mark in proof.submissions]) == (KEPT // 10 - 1, [7])
    check_run_on_chain(proof, played.shell.client, verdict)
    assert not verdict.findings
    check_run_on_chain(replace(proof, theta_ref=None), played.shell.client, verdict)
    assert [finding.code for finding in verdict.findings] == [ExitCode.ANCHOR]


def test_each_round_is_paid_for_as_the_model_says(played):
    reader = played.shell.client
    arena, config = reader.arena, reader.arena.task_config(1)
    assert arena.standing_orders(1, 1) == (1, 0) and arena.standing_orders(1, 2) == (2, 3)

    def call(_, name, *args):
        rules = reader.web3.eth.contract(arena.call("rules"), abi=artifact("TaskRules").abi)
        return rules.functions[name](*args).call()

    sides = [[Operator(account, tokens(1_000), 0) for account in reader.vault.operators(1, role)] for role in ROLES]
    model = Model(SimpleNamespace(call=call), config, *sides)
    for round_ in range(1, config.clock.final_round + 1):
        for trainer, order in zip(model.trainers, arena.standing_orders(1, round_), strict=True):
            trainer.orders |= {round_: order} if order else {}
        rows = {judge.account: reader.scoring.scores_of(1, round_, judge.account) for judge in model.validators}
        with mp.workdps(50):
            model.settled(round_, rows)
    for operator in (*sides[0], *sides[1]):
        assert reader.escrow.allocated(1, operator.account) == operator.allotted > 0


def test_the_proof_verifies_with_both_branches(played):
    verdict = verify(played.folder, Policy(segments=1), claims=[read_claim(played.claim)], chain=played.shell.client)
    assert verdict.outcome is Outcome.VERIFIED, (verdict.findings, verdict.undecided)
    assert {KEPT // 10 - 1, 7} <= set(verdict.segments), "what a model comes from is always replayed"
    assert len([check for check, _ in verdict.checks if check == "branch"]) == 2
    assert [(row["branch"], row["own"], row["found"]) for row in verdict.watermarks] == [
        (5, True, True),
        (7, True, True),
    ]


def against(played, change):
    """The findings about the proof after a change, as far as the chain tells: exit codes."""
    verdict = Verdict()
    check_run_on_chain(change(Proof.read(played.folder)), played.shell.client, verdict)
    return [int(finding.code) for finding in verdict.findings]


def test_a_model_that_was_shown_cannot_be_left_out(played):
    assert against(played, lambda proof: proof) == [], "the honest twin"
    alone = replace(Proof.read(played.folder), earlier=())
    assert set(against(played, lambda proof: replace(proof, earlier=()))) == {int(ExitCode.ANCHOR)}
    case = SimpleNamespace(task_id=1, charge=SimpleNamespace(trainer=dev_account(ALICE).address, round=1))
    assert shows_accused(played.shell.client, case, Proof.read(played.folder))
    assert not shows_accused(played.shell.client, case, alone), "no juror takes such an answer"


def test_an_earlier_model_that_is_no_branch_is_rejected(played, tmp_path):
    """Alice's last model, in the place of round 1's, but for one number; signed by herself."""
    folder = shutil.copytree(played.folder, tmp_path / "proof")
    proof, states = Proof.read(folder), states_of(folder)
    model = from_safetensors(states.get(proof.submissions[0].model_cid), where="test")
    states.path(proof.submissions[0].model_cid).unlink()
    model["layers.0.bias"][0] += 1e-3
    blob = to_safetensors(model)
    other = replace(proof.earlier[0], model_digest=tensors_digest(model), model_cid=cid_of(blob))
    states.put(blob)
    forged = replace(proof, earlier=(other,), signature=None)
    replace(forged, signature=sign_proof(forged, dev_account(ALICE))).write(folder)
    assert verify(folder, Policy(segments=1)).exit_code is ExitCode.REPLAY_MISMATCH


def test_the_claim_finds_a_copy_of_either_model(played):
    claim, states = read_claim(played.claim).claim, states_of(played.folder)
    for mark in Proof.read(played.folder).submissions:
        copied = from_safetensors(states.get(mark.model_cid), where="copy")
        (evidence,) = detect(copied, [claim], suspects=4)
        assert evidence.accepted
