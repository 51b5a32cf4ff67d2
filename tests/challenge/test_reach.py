"""Whatever changes the state of a contract is reached by a command, or is not for people, and it is said why."""

import re
from pathlib import Path

import pytest
import typer

import challenge
from chain.artifact import ALL_CONTRACTS, artifact
from challenge.arena_cli import app as arena_app
from challenge.cli import app as challenge_app

RESERVED = "one of the other contracts alone may call it"
WALLET = "the commands approve and pay what they need; any wallet does the rest"

REACHED = {
    "ArenaToken.approve": ("arena stake", "stake"),
    "ArenaToken.transfer": ("arena emission fill", "transfer"),
    "StakeVault.stake": ("arena stake", "stake"),
    "StakeVault.delegate": ("arena delegate", "delegate"),
    "StakeVault.withdraw": ("arena claim", "withdraw"),
    "StakeVault.undelegate": ("arena claim", "undelegate"),
    "RewardEscrow.sponsor": ("arena sponsor", "sponsor"),
    "RewardEscrow.claim": ("arena claim", "claim"),
    "RewardEscrow.claimDelegated": ("arena claim", "claim_delegated"),
    "RewardEscrow.reclaim": ("arena claim", "reclaim"),
    "RewardEscrow.burnDeposit": ("arena task burn", "burn_deposit"),
    "Arena.createTask": ("arena task create", "create_task"),
    "Arena.registerRun": ("arena run register", "register_run"),
    "Arena.latchBeacon": ("arena run register", "latch_beacon"),
    "Arena.anchor": ("arena run train", "RunAnchorer"),
    "Arena.declareStop": ("arena run train", "RunAnchorer"),
    "Arena.anchorReference": ("arena submit commit", "anchor_reference"),
    "Arena.latchMark": ("arena submit commit", "latch_mark"),
    "Arena.voidRun": ("arena run void", "void_run"),
    "Arena.releaseRunBond": ("arena claim", "release_run_bond"),
    "Arena.commitSubmission": ("arena submit commit", "commit_submission"),
    "Arena.revealSubmission": ("arena submit reveal", "reveal_submission"),
    "Scoring.commitScores": ("arena score commit", "commit_scores"),
    "Scoring.revealScores": ("arena score reveal", "reveal_scores"),
    "Scoring.openFinalSet": ("arena task final", "open_final_set"),
    "Scoring.rankRound": ("arena score settle", "settle_round"),
    "Scoring.payTrainers": ("arena score settle", "settle_round"),
    "Scoring.weighValidators": ("arena score settle", "settle_round"),
    "Scoring.payValidators": ("arena score settle", "settle_round"),
    "Scoring.requestOpeningBeacon": ("challenge claim", "request_opening_beacon"),
    "Scoring.latchOpeningBeacon": ("challenge claim", "latch_opening_beacon"),
    "ChallengeManager.sealCase": ("challenge open", "seal_case"),
    "ChallengeManager.showCase": ("challenge open", "show_case"),
    "ChallengeManager.latchSeed": ("challenge open", "latch_seed"),
    "ChallengeManager.openLeaves": ("challenge open", "open_leaves"),
    "ChallengeManager.respond": ("challenge respond", "respond"),
    "ChallengeManager.serveAgain": ("challenge respond", "serve_again"),
    "ChallengeManager.proveDiscontinuity": ("challenge settle", "prove_discontinuity"),
    "ChallengeManager.proveBadBounds": ("challenge settle", "prove_bad_bounds"),
    "ChallengeManager.proveWrongStart": ("challenge settle", "prove_wrong_start"),
    "ChallengeManager.proveStep": ("challenge settle", "prove_step"),
    "ChallengeManager.latchJury": ("challenge vote", "latch_jury"),
    "ChallengeManager.commitVote": ("challenge vote", "commit_vote"),
    "ChallengeManager.revealVote": ("challenge vote", "reveal_vote"),
    "ChallengeManager.voteUnavailable": ("challenge vote", "vote_unavailable"),
    "ChallengeManager.appeal": ("challenge appeal", "appeal"),
    "ChallengeManager.settle": ("challenge settle", "settle"),
    "ChallengeManager.award": ("arena claim", "award"),
    "ChallengeManager.withdrawCredit": ("arena claim", "withdraw_credit"),
    "Emission.enlist": ("arena emission enlist", "enlist"),
    "Emission.poke": ("arena emission pay", "poke"),
    "Emission.pay": ("arena emission pay", "pay"),
}

UNREACHED = {
    "ArenaToken.transferFrom": WALLET,
    "ArenaToken.burn": WALLET,
    "ArenaToken.burnFrom": WALLET,
    "StakeVault.slash": RESERVED,
    "RewardEscrow.fund": RESERVED,
    "RewardEscrow.allocate": RESERVED,
    "RewardEscrow.redirect": RESERVED,
}

SOURCES = [
    path for path in Path(challenge.__file__).parent.rglob("*.py") if "demo" not in path.parts
]  # the demo acts as everybody, through no command


def changing() -> set[str]:
    """Every function of the contracts that is no view."""
    return {
        f"{name}.{item['name']}"
        for name in ALL_CONTRACTS
        for item in artifact(name).abi
        if item["type"] == "function" and item["stateMutability"] not in ("view", "pure")
    }


def command_named(words: str) -> object:
    """The command that is typed so; ``None`` if there is none."""
    first, *rest = words.split()
    found = typer.main.get_command({"arena": arena_app, "challenge": challenge_app}[first])
    for word in rest:
        found = found.get_command(None, word)
        if found is None:
            return None
    return found


def test_every_function_is_in_one_of_the_tables() -> None:
    assert REACHED.keys() | UNREACHED.keys() == changing()
    assert not REACHED.keys() & UNREACHED.keys()


@pytest.mark.parametrize("function", REACHED)
def test_the_command_exists_and_the_commands_call_the_client(function: str) -> None:
    words, method = REACHED[function]
    assert command_named(words) is not None
    assert command_named(f"{words.split()[0]} nothing") is None, "a wrong name would be noticed"
    called = re.compile(rf"{'' if method == 'RunAnchorer' else '[.]'}{method}\b")
    assert any(called.search(path.read_text()) for path in SOURCES)
