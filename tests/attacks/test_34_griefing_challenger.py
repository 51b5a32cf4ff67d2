"""Case 34: a challenger who challenges to do harm: to bind an honest trainer's stake, or to convict it on made-up
grounds.

Source: every dispute game in which accusing is free. The strongest accusation here is a watermark claim made up
afterwards: the accuser draws a key and a beacon of his own, arranges the innocent model's hidden units so that every
opened bit agrees, and calls the arrangement (with a carrier tensor that is mostly noise) his reference. Alignment to it
then puts the innocent's units just there, and the statistics are perfect.

The half that is seen here: what is not promised in time convicts nobody, opened leaves that are handed in with some
left out do not speak against their owner, and a challenge of an honest run ends in a pass for every segment it can
name. Only the chain can tell when a reference was anchored. The other half is money, on chain: a challenge takes a bond
(``Cases.t.sol``: ``test_sealingTakesTheBondAndSaysNothing``), the loser pays (``Votes.t.sol``:
``test_rejectingPaysTheTrainerAndBurnsTheRest``), who accuses of a stolen mark opens the key that the beacon draws from
or is rejected (``Leaves.t.sol``: ``test_unopenedLeavesRejectTheCase``), an unlatched case burns it
(``test_anUnlatchedCaseLapsesAndBurnsTheBond``), and its windows must fit into the challenging phase
(``test_aCaseIsSealedWhileAllItsWindowsFit``).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from chain.accounts import dev_account
from challenge.claims import TiedClaim, read_claim, write_claim
from challenge.demo.story import Story
from challenge.segments import Policy
from challenge.verdict import ExitCode, Outcome
from pol import Proof
from pol.errors import CannotRun
from pol.proof import states_of
from pol.spec import WatermarkPromise
from pol.state import Tensors, from_safetensors
from tests.attacks.judging import judged
from watermark import DEFAULT_PARAMETERS, Claim, WatermarkKey, detect
from watermark.bits import mark_bit
from watermark.weights.carriers import carrier_factors

CARRIER, GROUPS, TRIES = DEFAULT_PARAMETERS.weights.tensors[0], tuple(range(32)), 4000


def arranged_rows(weight: np.ndarray, key: WatermarkKey, beta: bytes, dice: np.random.Generator) -> list[int]:
    """An order of the rows in which nearly every bit of the first 32 groups agrees: eight free rows a group."""
    free, order = list(range(len(weight))), []
    for group in GROUPS:
        leaves = [key.leaves[index] for index in DEFAULT_PARAMETERS.indices([group])]
        factors = [carrier_factors(leaf.seed, 8, weight.shape[1]) for leaf in leaves]
        signs = np.array([1 if mark_bit(beta, key.root, leaf.index, leaf.seed) > 0 else -1 for leaf in leaves])
        along = weight @ np.array([v for _, v in factors]).T  # [rows, leaves]
        heads = np.array([u for u, _ in factors])  # [leaves, 8]
        tries = [dice.choice(free, 8, replace=False) for _ in range(TRIES)]
        scores = [int(((heads * along[rows].T).sum(1) * signs > 0).sum()) for rows in tries]
        best = tries[int(np.argmax(scores))]
        order.extend(int(row) for row in best)
        free = [row for row in free if row not in set(order)]
    return order + free


@pytest.fixture(scope="module")
def made_up(story: Story, tmp_path_factory: pytest.TempPathFactory) -> TiedClaim:
    """A claim against Bob, who is innocent."""
    proof = Proof.read(story.runs / "bob")
    model: Tensors = from_safetensors(states_of(story.runs / "bob").get(proof.submission.model_cid), where="test")
    key, beta, dice = WatermarkKey.generate(DEFAULT_PARAMETERS.leaf_count), b"\7" * 32, np.random.default_rng(0)
    rows = torch.tensor(arranged_rows(model[CARRIER].double().numpy(), key, beta, dice))
    reference = {name: value.clone() for name, value in model.items()}
    reference["layers.1.bias"] = model["layers.1.bias"][rows]
    reference["layers.2.weight"] = model["layers.2.weight"][:, rows]
    noise = torch.randn(model[CARRIER].shape, generator=torch.Generator().manual_seed(0)) * model[CARRIER].std()
    # Its own carrier must not match, or the claim is void; but its rows must be like the model's, or nothing is read.
    reference[CARRIER] = noise + 0.25 * model[CARRIER][rows]
    claim = Claim.make(key, beta, DEFAULT_PARAMETERS, GROUPS, reference)
    promise = WatermarkPromise(key_root=key.root, parameters=DEFAULT_PARAMETERS.to_json())
    state = {f"model/{name}": value for name, value in reference.items()} | {"scalars": torch.zeros(1)}
    accuser = dev_account(99)
    accusers_spec = replace(proof.spec, watermark=promise, trainer=bytes.fromhex(accuser.address[2:]))
    folder = tmp_path_factory.mktemp("made up") / "claim"
    write_claim(folder, claim, accusers_spec, state, accuser)
    return read_claim(folder)


def test_the_statistics_alone_would_convict_an_innocent(story: Story, made_up: TiedClaim) -> None:
    proof = Proof.read(story.runs / "bob")
    model = from_safetensors(states_of(story.runs / "bob").get(proof.submission.model_cid), where="test")
    evidence = detect(model, [made_up.claim])[0]
    assert evidence.accepted, f"the attack no longer works ({evidence}); find a stronger one"


def test_without_a_chain_nobody_is_convicted(story: Story, made_up: TiedClaim) -> None:
    verdict = judged(story.runs / "bob", Policy(segments=[0]), claims=[made_up])
    assert verdict.outcome is Outcome.INCONCLUSIVE and not verdict.findings


def test_with_a_chain_the_claim_is_ignored(story: Story, made_up: TiedClaim) -> None:
    verdict = judged(story.runs / "bob", Policy(segments=[0]), claims=[made_up], chain=story.setting.clients["vera"])
    assert verdict.exit_code is ExitCode.VERIFIED
    assert any("ignored" in note for note in verdict.limits)


@pytest.mark.parametrize("kept", [0, 255])
def test_leaves_left_out_of_a_copied_claim_do_not_speak_against_its_owner(story: Story, kept: int) -> None:
    """Opened leaves are public: anybody can hand in Alice's own claim with some of them missing."""
    alices = read_claim(story.claims["alice"])
    maimed = replace(alices, claim=replace(alices.claim, leaves=alices.claim.leaves[:kept]))
    for chain in (None, story.setting.clients["vera"]):
        verdict = judged(story.runs / "alice", Policy(segments=[0]), claims=[maimed, alices], chain=chain)
        assert verdict.exit_code is ExitCode.VERIFIED
        assert any("not whole" in note for note in verdict.limits)


def test_two_claims_of_the_owner_may_share_leaves(story: Story) -> None:
    alices = read_claim(story.claims["alice"])
    first = alices.claim.groups[:3]
    leaves = tuple(leaf for leaf in alices.claim.leaves if leaf.index // DEFAULT_PARAMETERS.weights.leaves in first)
    part = replace(alices, claim=replace(alices.claim, groups=first, leaves=leaves))
    verdict = judged(story.runs / "alice", Policy(segments=[0]), claims=[part, alices])
    assert not [finding for finding in verdict.findings if finding.code is ExitCode.MALFORMED]


def test_the_honest_twin_convicts(story: Story) -> None:
    claim, chain = read_claim(story.claims["alice"]), story.setting.clients["vera"]
    verdict = judged(story.runs / "mallory", Policy(segments=[0]), claims=[claim], chain=chain)
    assert ExitCode.WATERMARK in {finding.code for finding in verdict.findings}


@pytest.mark.parametrize("segments", [[4], [-1], [0, 1, 2, 3, 4], [10**9], []], ids=str)
def test_segments_that_a_run_does_not_have_are_no_accusation(honest_run: Path, segments: list[int]) -> None:
    """Who asks for them is told so; nothing is said of the proof."""
    with pytest.raises(CannotRun, match="choose others"):
        judged(honest_run, Policy(segments=segments))


def test_whatever_a_challenger_names_an_honest_run_passes(honest_run: Path) -> None:
    for segments in ([0], [1, 2], [3, 3, 3], [3, 0]):
        verdict = judged(honest_run, Policy(segments=segments))
        assert verdict.exit_code is ExitCode.VERIFIED and verdict.segments == sorted(set(segments))
