"""The demo's story, with its balances: who is paid, who is slashed, and that every wei is somewhere."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from chain.case import CaseVerdict
from chain.types import Bond, tokens
from challenge.claims import read_claim
from challenge.demo.setting import DELEGATIONS, STAKES, SUPPLY, VALIDATORS
from challenge.demo.story import CONTRACTS, Story
from challenge.verdict import ExitCode, Outcome
from pol import Proof
from pol.proof import states_of
from pol.state import from_safetensors
from tests.watermark import digits
from tests.watermark.test_null import wrong_keys
from watermark import Claim, Evidence, LeafOpening, detect
from watermark.detect import count_matches, read

BURN, SLASHED, BOND, ANSWER_COST = Fraction(1, 10), STAKES["mallory"], tokens(50), tokens(5) * 4
RUN_BOND = tokens(20)
INNOCENTS, WRONG_KEYS = 50, 1000


def change(story: Story, name: str) -> int:
    return story.after[name] - story.before[name]


def submitted_model(story: Story, name: str) -> dict:
    proof = Proof.read(story.runs / name)
    assert proof.submission is not None
    return from_safetensors(states_of(story.runs / name).get(proof.submission.model_cid), where="test")


def test_honest_proofs_verify_and_the_forged_one_does_not(story: Story) -> None:
    for name in ("alice", "bob"):
        assert story.verdicts[name].outcome is Outcome.VERIFIED
        assert story.verdicts[name].anchors_checked
    assert story.verdicts["mallory"].exit_code is ExitCode.REPLAY_MISMATCH
    findings = story.verdicts["mallory"].findings
    assert {finding.code for finding in findings} == {ExitCode.REPLAY_MISMATCH, ExitCode.WATERMARK}


def test_cases_end_as_they_should(story: Story) -> None:
    assert story.cases == {"mallory": CaseVerdict.UPHELD, "alice": CaseVerdict.REJECTED}


def test_every_wei_is_somewhere(story: Story) -> None:
    assert sum(story.before.values()) == story.supply_before == SUPPLY
    assert sum(story.after.values()) == story.supply_after
    assert all(story.after[name] <= len(DELEGATIONS) for name in CONTRACTS), "contracts keep rounding dust at most"


def test_the_thief_loses_her_stake_and_gets_nothing(story: Story) -> None:
    assert story.rewards["mallory"] > 0, "there must have been something to redirect"
    assert change(story, "mallory") == -SLASHED - RUN_BOND


def test_the_honest_get_the_bonds_of_their_runs_back_and_the_thiefs_burns(story: Story) -> None:
    arena = story.setting.clients["vera"].arena
    bonds = {name: arena.run(submitted.entry.run_id).bond for name, submitted in story.submissions.items()}
    assert bonds == {"alice": Bond.RETURNED, "bob": Bond.RETURNED, "mallory": Bond.BURNED}


def test_burned_are_the_slash_the_share_of_the_reward_and_the_lost_bonds(story: Story) -> None:
    burned_reward = int(story.rewards["mallory"] * BURN)
    expected = SLASHED + RUN_BOND + burned_reward + BOND - ANSWER_COST
    assert abs(story.supply_before - story.supply_after - expected) <= 1


def test_the_challenger_gets_the_redirected_reward(story: Story) -> None:
    """Vera and Wanda stake alike and score alike, so the difference is the delegation, the case and the bond."""
    redirected = story.rewards["mallory"] * (1 - BURN)
    assert change(story, "vera") > redirected
    assert change(story, "vera") - change(story, "wanda") > redirected + BOND - tokens(60)


def test_alice_is_paid_and_compensated(story: Story) -> None:
    own, lent, sigma = STAKES["alice"], DELEGATIONS["dora"][1], Fraction(1, 5)
    pool = int(story.rewards["alice"] * (1 - sigma) * Fraction(lent, own + lent))
    assert abs(change(story, "dora") - pool) <= 2
    assert abs(change(story, "alice") - (story.rewards["alice"] - pool + ANSWER_COST)) <= 2


def test_bob_is_paid_his_reward(story: Story) -> None:
    assert change(story, "bob") == story.rewards["bob"] > 0


def test_validators_are_paid_and_wanda_lost_her_bond(story: Story) -> None:
    for name in VALIDATORS:
        assert change(story, name) + (BOND if name == "wanda" else 0) > 0
    assert change(story, "victor") - change(story, "wanda") > BOND - tokens(20)


@pytest.fixture(scope="module")
def claim(story: Story) -> Claim:
    return read_claim(story.claims["alice"]).claim


def test_alices_mark_is_in_her_model_and_in_the_altered_copy(story: Story, claim: Claim) -> None:
    for name in ("alice", "mallory"):
        evidence = detect(submitted_model(story, name), [claim])[0]
        assert evidence.accepted and evidence.log2_p <= -64


def test_alices_mark_is_not_in_bobs_model(story: Story, claim: Claim) -> None:
    assert detect(submitted_model(story, "bob"), [claim])[0].log2_p > -20


def test_alices_mark_is_in_none_of_fifty_other_models(claim: Claim) -> None:
    models = digits.train_many(range(500, 500 + INNOCENTS), (64, 512, 512, 10), steps=40, rate=2e-3)
    assert min(digits.accuracy(model) for model in models) > 0.8
    weights = [read(model, claim) for model in models]
    assert min(Evidence(*count_matches(weight, claim)).log2_p for weight in weights) > -20


def test_a_thousand_wrong_keys_find_nothing_in_alices_model(story: Story, claim: Claim) -> None:
    weight = read(submitted_model(story, "alice"), claim)
    assert count_matches(weight, claim) == (256, 256)  # the honest twin
    for key in wrong_keys(0, WRONG_KEYS):
        leaves = tuple(LeafOpening(leaf.index, leaf.seed, leaf.salt, ()) for leaf in key.leaves)
        wrong = Claim(key.root, claim.beta, claim.parameters, tuple(range(32)), leaves, claim.theta_ref)
        assert Evidence(*count_matches(weight, wrong)).log2_p > -20


def test_the_forgery_was_consistent_enough_to_be_worth_catching(story: Story) -> None:
    """Mallory's folder parses, is signed, and her anchors are on chain: only replay and the mark convict her."""
    checks = dict(story.verdicts["mallory"].checks)
    assert {"signature", "files", "anchors", "initial state"} <= set(checks)


def test_folders_are_left_for_the_reader(story: Story) -> None:
    for name in ("alice", "bob", "mallory"):
        assert isinstance(Proof.read(Path(story.runs / name)), Proof)
