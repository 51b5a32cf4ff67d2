"""Two claims on one model: the two-claims table must agree before another trainer's mark convicts.

Mallory took Alice's model and put a mark of her own on top, so hers carries both. Other stories are told by showing
another model as Alice's committed one.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from chain.anchoring import read_run
from challenge import verify as engine
from challenge.claims import TiedClaim, read_claim
from challenge.demo.story import Story
from challenge.demo.trainer import trunk_end
from challenge.dispute import with_model
from challenge.onchain import committed_model
from challenge.segments import Policy
from challenge.states import load_blob
from challenge.verdict import ExitCode, Verdict
from pol import Proof
from pol.program import load_program
from pol.state import Tensors, model_tensors
from pol.tensors import tensors_digest
from watermark import Claim


def submitted(story: Story, name: str) -> Tensors:
    proof = Proof.read(story.runs / name)
    assert proof.submission
    return load_blob(story.runs / name, proof.submission.model_cid)


@pytest.fixture
def alices(story: Story) -> TiedClaim:
    """Alice's claim, with the model that she revealed."""
    return with_model(read_claim(story.claims["alice"]), story.setting.clients["vera"], story.setting.store)


@pytest.fixture
def mallorys(story: Story) -> TiedClaim:
    """Mallory's own claim on her model, which opens everything."""
    entry, proof = story.submissions["mallory"].entry, Proof.read(story.runs / "mallory")
    state = trunk_end(proof, story.runs / "mallory")
    assert proof.submission and proof.submission.beta
    parameters = read_claim(story.claims["alice"]).claim.parameters
    claim = Claim.make(entry.key, proof.submission.beta, parameters, range(parameters.groups), model_tensors(state))
    return TiedClaim(claim, proof.spec, proof.segments[-1].end_digest)


def judged(story: Story, own: list[TiedClaim], foreign: TiedClaim) -> Verdict:
    """What is found in Mallory's model."""
    proof, verdict = Proof.read(story.runs / "mallory"), Verdict()
    built = load_program(proof.spec.program, proof.spec.program_digest).build(proof.spec.config, proof.seed)
    initial, chain = built.capture(proof.seed), story.setting.clients["vera"]
    assert proof.submission
    own = [replace(tied, claim=replace(tied.claim, theta_0=model_tensors(initial))) for tied in own]
    where, model = story.runs / "mallory", submitted(story, "mallory")
    engine._check_claims(where, proof, proof.submission, model, own, [foreign], chain, Policy(), verdict)
    assert verdict.watermarks[-1]["found"], "Alice's mark is there, whoever it speaks against"
    return verdict


def codes(verdict: Verdict) -> set[ExitCode]:
    return {finding.code for finding in verdict.findings}


def test_the_thief_is_convicted_by_the_table(story: Story, alices: TiedClaim, mallorys: TiedClaim) -> None:
    assert alices.model is not None and tensors_digest(alices.model) == tensors_digest(submitted(story, "alice"))
    assert committed_model(alices, Proof.read(story.runs / "mallory"), story.setting.clients["vera"]) is not None
    verdict = judged(story, [mallorys], alices)
    assert verdict.watermarks[0]["own"] and verdict.watermarks[0]["found"]
    assert codes(verdict) == {ExitCode.WATERMARK}


def test_each_in_the_others_model_is_undecided(
    story: Story, alices: TiedClaim, mallorys: TiedClaim, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = submitted(story, "mallory")
    monkeypatch.setattr(engine, "committed_model", lambda *_: both)
    verdict = judged(story, [mallorys], alices)
    assert not verdict.findings and "carries this trainer's own" in verdict.undecided[0]


def test_a_mark_that_is_not_in_its_own_model_convicts_nobody(
    story: Story, alices: TiedClaim, mallorys: TiedClaim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "committed_model", lambda *_: alices.claim.theta_ref)
    verdict = judged(story, [mallorys], alices)
    assert not verdict.findings and not verdict.undecided
    assert any("does not count" in note for note in verdict.limits)


def test_a_model_that_was_not_committed_is_not_looked_at(story: Story, alices: TiedClaim, mallorys: TiedClaim) -> None:
    shown = replace(alices, model=submitted(story, "mallory"))
    assert committed_model(shown, Proof.read(story.runs / "mallory"), story.setting.clients["vera"]) is None
    assert codes(judged(story, [mallorys], shown)) == {ExitCode.WATERMARK}


def test_without_a_claim_of_the_trainers_own_time_decides(story: Story, alices: TiedClaim) -> None:
    assert codes(judged(story, [], alices)) == {ExitCode.WATERMARK}


def test_a_claim_brings_the_first_model_of_its_run(story: Story, alices: TiedClaim, monkeypatch) -> None:
    """It lies nearest to theta_ref, by which the mark is read; of a later one a thief might say that it has none."""
    client = story.setting.clients["vera"]
    (first,) = read_run(client, story.submissions["alice"].entry.run_id).submissions
    (other,) = read_run(client, story.submissions["mallory"].entry.run_id).submissions
    assert first.branch is not None
    later = replace(other, branch=first.branch + 1)
    for shown in ([first, later], [later, first]):
        monkeypatch.setattr("challenge.dispute.read_run", lambda *_, shown=shown: SimpleNamespace(submissions=shown))
        model = with_model(alices, client, story.setting.store).model
        assert model is not None and tensors_digest(model) == first.model_digest
