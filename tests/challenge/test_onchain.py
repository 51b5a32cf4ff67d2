"""What only the chain can tell: anchors, beacons, the registered spec, and claims promised in time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chain.anchoring import read_run
from chain.types import Beacon
from challenge.claims import OPENED_GROUPS, TiedClaim, read_claim
from challenge.demo.story import Story
from challenge.dispute import judge_case, shows_accused
from challenge.onchain import check_claim_on_chain, check_run_on_chain, run_of
from challenge.segments import Policy
from challenge.signing import sign_proof
from challenge.verdict import ExitCode, Outcome, Verdict
from challenge.verify import foreign_claims, own_claims, verify
from pol import Proof
from pol.errors import CannotRun
from watermark import Claim

ONE = Policy(segments=[0])


def on_chain(story: Story, proof: Proof) -> Verdict:
    verdict = Verdict()
    check_run_on_chain(proof, story.setting.clients["vera"], verdict, story.setting.store)
    return verdict


def test_an_honest_proof_is_what_the_chain_says(story: Story) -> None:
    verdict = on_chain(story, Proof.read(story.runs / "alice"))
    assert verdict.anchors_checked and not verdict.findings
    assert dict(verdict.checks)["anchors"].startswith("8 anchors in blocks")


def other_block(proof: Proof) -> Proof:
    return replace(proof, anchors=(replace(proof.anchors[0], block=1), *proof.anchors[1:]))


def other_transaction(proof: Proof) -> Proof:
    return replace(proof, anchors=(replace(proof.anchors[0], tx=bytes(32)), *proof.anchors[1:]))


def other_beacon(proof: Proof) -> Proof:
    return replace(proof, seed_source=replace(proof.seed_source, value=bytes(32)))


def other_mark(proof: Proof) -> Proof:
    return replace(proof, submission=replace(proof.submission, beta=bytes(32)))


def other_branch(proof: Proof) -> Proof:
    return replace(proof, submission=replace(proof.submission, reference_segment=22))


def other_reference(proof: Proof) -> Proof:
    return replace(proof, theta_ref=0)


def other_model(proof: Proof) -> Proof:
    return replace(proof, submission=replace(proof.submission, model_digest=bytes(32)))


def only_half(proof: Proof) -> Proof:
    """The trunk alone: a cheap honest run would hide a stolen model."""
    return replace(proof, submission=None)


def no_mark(proof: Proof) -> Proof:
    return replace(proof, submission=replace(proof.submission, beta=None, beta_block=0))


def other_steps(proof: Proof) -> Proof:
    return replace(proof, spec=replace(proof.spec, steps=230))


@pytest.mark.parametrize(
    "change",
    [
        other_block, other_transaction, other_beacon, other_mark, other_branch, other_reference, other_model,
        other_steps, only_half, no_mark,
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_what_is_not_on_chain_is_an_anchor_finding(story: Story, change: Callable[[Proof], Proof]) -> None:
    verdict = on_chain(story, change(Proof.read(story.runs / "alice")))
    assert verdict.outcome is Outcome.REJECTED
    assert ExitCode.ANCHOR in {finding.code for finding in verdict.findings}


@pytest.mark.parametrize(
    ("known", "is_missed"),
    [
        ({"model_digest": bytes(32)}, True),
        ({"model_digest": None}, False),
        ({"model_digest": bytes(32), "struck": True}, False),
        ({"branch": 0}, True),
        ({}, False),
    ],
    ids=["shown", "never shown", "struck", "of another branch", "the proof's own"],
)
def test_a_model_that_the_run_showed_is_in_its_proof(
    story: Story, monkeypatch: pytest.MonkeyPatch, known: dict[str, Any], is_missed: bool
) -> None:
    """But not what was only promised, nor what somebody else was the first to promise."""
    proof, chain = Proof.read(story.runs / "alice"), story.setting.clients["vera"]
    number = run_of(proof, chain)
    assert number
    run = read_run(chain, number)
    held = replace(run, submissions=(*run.submissions, replace(run.submissions[0], round=2, **known)))
    monkeypatch.setattr("challenge.onchain.read_run", lambda *_: held)
    assert [finding.code for finding in on_chain(story, proof).findings] == [ExitCode.ANCHOR] * is_missed


def test_what_is_not_the_registered_run_is_not_even_run(story: Story, tmp_path: Path) -> None:
    """Else a served proof of a program nobody trusts would make every juror abstain."""
    folder = Path(shutil.copytree(story.runs / "bob", tmp_path / "bob"))
    proof = Proof.read(folder)
    elsewhere = replace(proof.spec, program="elsewhere:Program", program_digest=bytes(32))
    other = replace(proof, spec=elsewhere, signature=None)
    replace(other, signature=sign_proof(other, story.setting.clients["bob"].account)).write(folder)
    with pytest.raises(CannotRun, match="not trusted"):
        verify(folder, ONE)
    verdict = verify(folder, ONE, chain=story.setting.clients["vera"])
    assert verdict.outcome is Outcome.REJECTED and not verdict.segments


def test_a_copied_key_root_does_not_hide_the_victims_mark(story: Story, alices: TiedClaim, tmp_path: Path) -> None:
    """Alice's root is public when Mallory registers; a claim belongs to its trainer, not to a root."""
    proof = Proof.read(story.runs / "mallory")
    copied = replace(proof, spec=replace(proof.spec, watermark=alices.spec.watermark))
    assert foreign_claims(copied, [alices]) == [alices]
    assert own_claims(copied, [alices], Verdict()) == []


def test_a_spec_outside_the_tasks_terms_is_malformed(story: Story) -> None:
    proof = Proof.read(story.runs / "alice")
    spec = replace(proof.spec, machine=dict(proof.spec.machine) | {"processor": "an exotic one"})
    verdict = on_chain(story, replace(proof, spec=spec))
    assert any("machine class" in finding.message for finding in verdict.findings)
    assert verdict.exit_code is ExitCode.MALFORMED


def test_serving_the_trunk_without_the_model_is_no_pass(story: Story, tmp_path: Path) -> None:
    """The whole path, signed: a thief trains a cheap trunk honestly and shows only that."""
    folder = Path(shutil.copytree(story.runs / "bob", tmp_path / "bob"))
    proof = Proof.read(folder)
    (folder / "states" / f"{proof.submission.model_cid}.safetensors").unlink()
    half = replace(proof, submission=None, signature=None)
    replace(half, signature=sign_proof(half, story.setting.clients["bob"].account)).write(folder)
    verdict = verify(folder, ONE, chain=story.setting.clients["vera"])
    assert verdict.exit_code is ExitCode.ANCHOR and "only half" in verdict.findings[0].message


def test_an_honest_model_of_the_run_does_not_answer_for_a_stolen_one(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may submit in every round: the proof of one round's model says nothing of another's."""
    vera, proof = story.setting.clients["vera"], Proof.read(story.runs / "alice")
    cases = range(1, vera.challenges.case_count() + 1)
    case_id = next(k for k in cases if vera.challenges.case(k).charge.trainer == story.setting.address("alice"))
    case = vera.challenges.case(case_id)
    assert shows_accused(vera, case, proof)
    assert not shows_accused(vera, case, replace(proof, submission=None))
    submitted = vera.arena.submission(case.task_id, case.charge.trainer, case.charge.round)
    accused = replace(submitted, model_digest=bytes(32))
    monkeypatch.setattr(type(vera.arena), "submission", lambda *which: accused)
    verdict = judge_case(vera, case_id, story.setting.store)
    assert verdict.exit_code is ExitCode.MALFORMED and "does not show the model" in verdict.findings[0].message


def test_a_run_nobody_registered_is_an_anchor_finding(story: Story) -> None:
    proof = Proof.read(story.runs / "alice")
    verdict = on_chain(story, replace(proof, spec=replace(proof.spec, trainer=b"\1" * 20)))
    assert verdict.exit_code is ExitCode.ANCHOR and "no run" in verdict.findings[0].message


def test_a_malformed_machine_is_malformed_with_a_chain_too(story: Story, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(story.runs / "bob", tmp_path / "bob"))
    proof = Proof.read(folder)
    broken = replace(proof, spec=replace(proof.spec, machine={}), signature=None)
    replace(broken, signature=sign_proof(broken, story.setting.clients["bob"].account)).write(folder)
    assert verify(folder, ONE, chain=story.setting.clients["vera"]).exit_code is ExitCode.MALFORMED


def test_late_anchors_signed_by_their_trainer_exit_13(story: Story, tmp_path: Path) -> None:
    """The whole path: a proof that is right in itself, and signed, but was anchored elsewhere."""
    folder = Path(shutil.copytree(story.runs / "alice", tmp_path / "alice"))
    proof = replace(other_block(Proof.read(folder)), signature=None)
    account = story.setting.clients["alice"].account
    replace(proof, signature=sign_proof(proof, account)).write(folder)
    assert verify(folder, ONE).exit_code is ExitCode.VERIFIED, "nothing else is wrong with it"
    assert verify(folder, ONE, chain=story.setting.clients["vera"]).exit_code is ExitCode.ANCHOR


def test_a_proof_signed_by_somebody_else_is_malformed(story: Story, tmp_path: Path) -> None:
    """Proof theft: Alice's folder under Mallory's signature."""
    folder = Path(shutil.copytree(story.runs / "alice", tmp_path / "alice"))
    proof = replace(Proof.read(folder), signature=None)
    thief = replace(proof, spec=replace(proof.spec, trainer=Proof.read(story.runs / "mallory").spec.trainer))
    signature = sign_proof(thief, story.setting.clients["mallory"].account)
    replace(proof, signature=signature).write(folder)
    verdict = verify(folder, ONE)
    assert verdict.exit_code is ExitCode.MALFORMED and "signed by" in verdict.findings[0].message


@pytest.fixture
def alices(story: Story) -> TiedClaim:
    return read_claim(story.claims["alice"])


def counts(story: Story, claim: TiedClaim, against: str) -> tuple[bool, list[str]]:
    verdict = Verdict()
    proof = Proof.read(story.runs / against)
    return check_claim_on_chain(claim, proof, proof.submission, story.setting.clients["vera"], verdict), verdict.limits


def test_an_earlier_claim_counts_and_a_later_one_does_not(story: Story, alices: TiedClaim) -> None:
    assert counts(story, alices, "mallory") == (True, [])
    sound, notes = counts(story, read_claim(story.claims["bob"]), "alice")
    assert not sound and "later" in notes[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: replace(c, claim=replace(c.claim, beta=bytes(32))), "beacon"),
        (lambda c: replace(c, reference_digest=bytes(32)), "reference state"),
        (lambda c: replace(c, claim=replace(c.claim, groups=tuple(range(OPENED_GROUPS)))), "groups"),
        (lambda c: replace(c, claim=replace(c.claim, key_root=bytes(32))), "registered"),
        (lambda c: replace(c, spec=replace(c.spec, trainer=b"\1" * 20)), "registered"),
        (lambda c: replace(c, spec=replace(c.spec, steps=1)), "registered"),
    ],
    ids=["beacon", "reference", "groups", "key", "trainer", "spec"],
)
def test_a_claim_that_was_not_promised_does_not_count(
    story: Story, alices: TiedClaim, change: Callable[[TiedClaim], TiedClaim], why: str
) -> None:
    sound, notes = counts(story, change(alices), "mallory")
    assert not sound and why in notes[0]


# One opening of a key, drawn by the task's beacon


def opening(story: Story, groups: Iterable[int]) -> TiedClaim:
    """Alice's own and sound claim with these groups open: nobody else has the key for it."""
    tied, key = read_claim(story.claims["alice"]), story.submissions["alice"].entry.key
    claim = tied.claim
    return replace(tied, claim=Claim.make(key, claim.beta, claim.parameters, list(groups), claim.theta_ref))


def other_groups(story: Story) -> list[int]:
    drawn = read_claim(story.claims["alice"]).claim
    return [group for group in range(drawn.parameters.groups) if group not in drawn.groups]


def test_a_second_opening_of_the_same_key_convicts_nobody(story: Story, alices: TiedClaim) -> None:
    """Alice opens what the beacon left closed, or some of what it drew, or that in another order."""
    drawn = alices.claim.groups
    assert counts(story, opening(story, drawn), "mallory") == (True, []), "the honest twin"
    for groups in (other_groups(story), drawn[:16], drawn[::-1], [*drawn, other_groups(story)[0]]):
        second = opening(story, groups)
        second.claim.check()
        sound, notes = counts(story, second, "mallory")
        assert not sound and "groups the task's beacon drew" in notes[0]
    second = opening(story, other_groups(story))
    verdict = verify(story.runs / "mallory", ONE, claims=[second], chain=story.setting.clients["vera"])
    assert verdict.watermarks[0]["found"], "the statistics alone would convict"
    assert ExitCode.WATERMARK not in {finding.code for finding in verdict.findings}


def test_nor_does_a_trainer_choose_what_it_opens_of_its_own(story: Story, alices: TiedClaim) -> None:
    """Or it would embed few groups and open those."""
    chain = story.setting.clients["vera"]
    chosen = verify(story.runs / "alice", ONE, claims=[opening(story, other_groups(story))], chain=chain)
    assert not chosen.watermarks and any("groups the task's beacon drew" in note for note in chosen.limits)
    drawn = verify(story.runs / "alice", ONE, claims=[alices], chain=chain)
    assert drawn.watermarks[0]["own"] and drawn.watermarks[0]["found"], "the honest twin"


def test_before_the_beacon_is_drawn_nothing_is_to_be_opened(story: Story, alices: TiedClaim) -> None:
    class Undrawn:
        """The contract as it was before the opening beacon."""

        def opening_beacon(self, task_id: int) -> Beacon:
            return Beacon(value=bytes(32), block=0)

    chain = SimpleNamespace(arena=story.setting.clients["vera"].arena, scoring=Undrawn())
    verdict, proof = Verdict(), Proof.read(story.runs / "mallory")
    assert not check_claim_on_chain(alices, proof, proof.submission, chain, verdict)  # type: ignore[arg-type]
    assert "not drawn yet" in verdict.limits[0]
