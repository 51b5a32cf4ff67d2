"""Plants one bug after the other in a copy of the contracts, and insists that the named test notices each.

    python tests/contract_bugs.py          all of them (half an hour); with words, those whose name has each

The invariants are numbered as in chain/contracts/test/invariants. A bug that does not compile is not noticed: a test
has to fail.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CONTRACTS = Path(__file__).resolve().parents[1] / "chain" / "contracts"
COPIED = ("src", "test", "tools", "foundry.toml")
QUICKLY = {
    "FOUNDRY_INVARIANT_SHRINK_RUN_LIMIT": "0",  # the first sequence that fails will do
    "FOUNDRY_OPTIMIZER": "false",  # compiles faster; no test named here measures gas or size
}


@dataclass(frozen=True)
class Bug:
    """Each ``before`` stands exactly once in ``file`` and becomes its ``after``; the test (``path::name`` below test/,
    a pattern) fails then, with a message that has ``law`` in it."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    test: str
    law: str = ""


LAWS = "invariants/Invariants.t.sol::invariant_everyLawHolds"
COMMITMENTS, BENCH = "libraries/Commitments.sol", "court/Bench.sol"
RUNS, SUBMISSIONS = "arena/Runs.sol", "arena/Submissions.sol"
VAULT, ESCROW, SCORING, JURY = "StakeVault.sol", "RewardEscrow.sol", "Scoring.sol", "court/Jury.sol"

BUGS = [
    # what is opened is what was drawn, and in the key
    Bug(
        "leaves beside a drawn one are opened in place of the next", "CaseRules.sol",
        (("if (drawn[k] != drawn[k - 1] + 1) return false;", ""),),
        "challenge/Leaves.t.sol::test_whatLiesBesideADrawnLeafIsNotOpened",
    ),
    Bug(
        "a range's path may be longer than its tree", "libraries/MerkleProof.sol",
        (("return (used == siblings.length, record(count, nodes[0]));", "return (true, record(count, nodes[0]));"),),
        "libraries/MerkleProof.t.sol::testFuzz_noOtherSiblingsLeadARange",
    ),
    Bug(
        "a seed without a salt is left out", "libraries/MarkKey.sol",
        (("if (secrets.length % 2 == 1) return false;", ""),),
        "libraries/MarkKey.t.sol::test_drawsAndLeavesAgreeWithPython",
    ),
    # I15: whose promise it is, and for what
    Bug(
        "a submission's promise does not say whose it is", COMMITMENTS,
        (("address(this), taskId, trainer, runId, round)", "address(this), taskId, runId, round)"),),
        "libraries/Commitments.t.sol::test_submission",
    ),
    Bug(
        "a promise of scores holds for any round", "scoring/Scores.sol",
        (("Commitments.scores(taskId, round, msg", "Commitments.scores(taskId, 1, msg"),),
        "Scoring.t.sol::test_aPromiseForOneRoundIsNoneForAnother",
    ),
    Bug(
        "a promise of scores is anybody's", "libraries/Commitments.sol",
        (("taskId, round, validator, sha256(row), salt", "taskId, round, address(0), sha256(row), salt"),),
        "Scoring.t.sol::test_copiedScoresCannotBeRevealedByTheCopier",
    ),
    Bug(
        "a sealed case is shown by another", "court/Docket.sol",
        (
            ("        if (msg.sender != case_.challenger) revert NotAllowed(msg.sender);\n", ""),
            ("Commitments.charge(taskId, msg.sender, charge", "Commitments.charge(taskId, case_.challenger, charge"),
        ),
        LAWS, "I15",
    ),
    # I14: windows are half open
    Bug(
        "a window takes its last moment twice", "libraries/Schedule.sol",
        (("if (block.timestamp >= to)", "if (block.timestamp > to)"),),
        "invariants/Laws.t.sol::testFuzz_I14_aRevealSucceedsExactlyInItsWindow",
    ),
    Bug(
        "a window opens a second late", "libraries/Schedule.sol",
        (("if (block.timestamp < from)", "if (block.timestamp <= from)"),),
        "invariants/Laws.t.sol::testFuzz_I14_aRevealSucceedsExactlyInItsWindow",
    ),
    # runs and submissions
    Bug(
        "anybody grows anybody's run", RUNS,
        (("if (run_.trainer != msg.sender) revert NotAllowed(msg.sender);", ""),),
        LAWS, "I13",
    ),
    Bug(
        "a run from which nothing came keeps its bond", RUNS,
        (("return block.timestamp >= clock_.roundTimes(clock_.rounds).scoresFrom;", "return false;"),),
        LAWS, "a bond left that should burn",
    ),
    Bug(
        "equal specs of one block share a seed", COMMITMENTS,
        (("abi.encode(domain, blockDigest, runId)", "abi.encode(domain, blockDigest)"),),
        "attacks/SeedGrinding.t.sol::test_twoPromisesOfOneBlockAreTwoSeedsAndTwoBonds",
    ),
    Bug(
        "free data is chosen after models are shown", RUNS,
        (("if (freeData) Schedule", "if (false) Schedule"),),
        "arena/Runs.t.sol::test_freeDataIsPromisedBeforeTheFirstModelIsShown",
    ),
    Bug(
        "a struck model goes on standing", SUBMISSIONS,
        (("        trace.push(round, trace.upperLookupRecent(round - 1));", "        trace;"),),
        "arena/Submissions.t.sol::test_theSameModelCommittedLaterIsStruckIfShownFirst",
    ),
    Bug(
        "a truncated run stands in the final round", SUBMISSIONS,
        (("if (run_.anchored != _segments(run_)) return 0;", ""),),
        "attacks/TruncatedLog.t.sol::test_aTruncatedLogDoesNotStandInTheFinalRound",
    ),
    # I5, I6, I16 to I18, I24: rewards
    Bug(
        "both sides of the split are rounded down", "libraries/ArenaMath.sol",
        (
            (
                "toValidators = reward - toTrainers;",
                "toValidators = FixedPointMathLib.fullMulDiv(reward, BPS * total - share, BPS * total);",
            ),
        ),
        "libraries/ArenaMath.t.sol::testFuzz_bothSidesAddUpToTheReward",
    ),
    Bug(
        "the delegators' pool is rounded up", "libraries/ArenaMath.sol",
        (
            (
                "return portion(reward, (BPS - commissionBps) * delegated, BPS * (own + delegated));",
                "return FixedPointMathLib.fullMulDivUp(reward, (BPS - commissionBps) * delegated,"
                " BPS * (own + delegated));",
            ),
        ),
        "RewardEscrow.t.sol::test_claimsAreTheModelsToTheWei",
    ),
    Bug(
        "a delegation counts in the round it comes in", VAULT,
        (("arena.currentRound(taskId) + 1;", "arena.currentRound(taskId);"),),
        "StakeVault.t.sol::test_delegationsCountFromTheNextRound",
    ),
    Bug(
        "the index is by own and delegated stake", ESCROW,
        (("perUnit(pool, stake.delegated)", "perUnit(pool, uint256(stake.own) + stake.delegated)"),),
        LAWS, "I24",
    ),
    Bug(
        "a newcomer earns for the past", ESCROW,
        (("uint256 first = index.upperLookup(stretch.from - 1);", "uint256 first = 0;"),),
        "RewardEscrow.t.sol::test_aNewcomerTakesNothingOfWhatWasEarnedBefore",
    ),
    Bug(
        "a chunk skips the last validator", SCORING,
        (
            (
                "state.validatorsPaid = uint16(from + count);",
                "state.validatorsPaid = uint16(from + count + 1 == all ? all : from + count);",
            ),
        ),
        "Chunks.t.sol::testFuzz_anyChunkingPaysTheSame",
    ),
    Bug(
        "of equal scores the later commitment ranks first", "libraries/Ranking.sol",
        (("uint256(orders[i]) << 64", "uint256(type(uint64).max - orders[i]) << 64"),),
        "libraries/Ranking.t.sol::test",
    ),
    # I1 to I4, I7 to I13, I20: what is held, and who gets it when
    Bug(
        "a case does not hold the reward", ESCROW,
        ((" && manager.pendingCases(taskId, operator) == 0", ""),),
        LAWS, "I7|I23",
    ),
    Bug(
        "rewards leave before the end", ESCROW,
        (
            ("if (have != Phase.Closed) revert", "if (have < Phase.Challenging) revert"),
            ("arena.phase(taskId) == Phase.Closed", "arena.phase(taskId) >= Phase.Challenging"),
        ),
        LAWS, "I7|I13",
    ),
    Bug(
        "a reward is redirected twice", ESCROW,
        (("if (account.forfeited) revert AlreadyForfeited(trainer);", ""),),
        "RewardEscrow.t.sol::test_redirectingTakesTheWholeRewardForGood",
    ),
    Bug(
        "a burned share is paid as well", ESCROW,
        (("redirected = amount - burned;", "redirected = amount;"),),
        LAWS, "I2|I3|I8",
    ),
    Bug(
        "a sponsor's gift goes to the creator", ESCROW,
        (
            (
                "refund = FixedPointMathLib.zeroFloorSub(books.budget, books.allocated);",
                "refund = FixedPointMathLib.min(books.budget, _given(books) - books.allocated);",
            ),
        ),
        "RewardEscrow.t.sol::test_noSponsorAddsToWhatTheCreatorGetsBack",
    ),
    Bug(
        "a stake is slashed twice", VAULT,
        (("if (staked.burned != 0 || staked.withdrawn) return 0;", "if (staked.withdrawn) return 0;"),),
        "StakeVault.t.sol::test_slashingBurnsOnceAndSparesDelegators",
    ),
    Bug(
        "a stake leaves while a case is open", VAULT,
        (("if (manager.pendingCases(taskId, msg.sender) != 0) revert CasePending(msg.sender);", ""),),
        LAWS, "I12",
    ),
    Bug(
        "the cap forgets earlier rounds", SCORING,
        (("uint256 room = cap > allocated ? cap - allocated : 0;", "allocated; uint256 room = cap;"),),
        LAWS, "I20",
    ),
    Bug(
        "half of a slash is paid to the challenger", BENCH,
        (
            (
                "        vault.slash(taskId, trainer);\n        conviction.pot = escrow",
                "        conviction.pot = vault.slash(taskId, trainer) / 2;\n        conviction.pot += escrow",
            ),
        ),
        "SelfChallenge.t.sol::testFuzz_selfChallengeIsNotProfitable",
    ),
    # I8, I9, I19, I21: cases
    Bug(
        "a lapsed case returns its bond", BENCH,
        (("undecided || verdict == Verdict.Upheld ?", "verdict != Verdict.Rejected ?"),),
        LAWS, "I9|I4",
    ),
    Bug(
        "an inconclusive case costs its challenger nothing", BENCH,
        (("uint256 toTrainer = undecided || verdict", "uint256 toTrainer = verdict"),),
        LAWS, "I9|I4",
    ),
    Bug(
        "a second conviction cannot be settled", BENCH,
        (("        if (first != 0) return;\n", ""),),
        LAWS, "I19",
    ),
    Bug(
        "a conviction is awarded for ever", BENCH,
        (("        conviction.pot = 0;\n", ""),),
        LAWS, "I3|I9",
    ),
    Bug(
        "the last sealed case takes the reward", BENCH,
        (("CaseId.unwrap(caseId) < first", "CaseId.unwrap(caseId) > first"),),
        "challenge/Cases.t.sol::test_theFirstSealedCaseTakesTheReward",
    ),
    Bug(
        "segments are drawn twice", COMMITMENTS,
        (("if (!_contains(drawn, found, index)) drawn", "drawn"),),
        "libraries/Commitments.t.sol::testFuzz_drawsAreDistinctAndInRange",
    ),
    Bug(
        "a beacon in reach is promised anew", "libraries/Beacons.sol",
        (("beacon.blockNumber != 0 && !expired(beacon)", "beacon.value != 0"),),
        LAWS, "I21",
    ),
    # the jury
    Bug(
        "votes are counted by heads", JURY,
        (("uint256 weight = jurorWeight(caseId, msg.sender);", "uint256 weight = 1;"),),
        LAWS, "jury",
    ),
    Bug(
        "the challenger votes on its own case", JURY,
        (("return account == case_.challenger ? 0 : _weightOf", "return _weightOf"),),
        "challenge/Votes.t.sol::test_validatorsButTheChallengerAreJurors",
    ),
    Bug(
        "a verdict needs no quorum", JURY,
        (("if (2 * revealed < whole) return Verdict.Inconclusive;", ""),),
        "challenge/Votes.t.sol::test_withoutAQuorumItIsInconclusive",
    ),
    Bug(
        "a conviction needs no equal reproductions", JURY,
        (("tally.reproduced && 3 *", "3 *"),),
        "challenge/Votes.t.sol::test_upholdingNeedsTwoEqualReproductions",
    ),
]  # fmt: skip


def survives(bug: Bug, copy: Path) -> str | None:
    """Why the bug counts as surviving, or None if its test noticed it."""
    path = copy / "src" / bug.file
    source = planted = path.read_text()
    for before, after in bug.edits:
        if source.count(before) != 1:
            return f"{before!r} was not found once in {bug.file}: bring this list up to date"
        planted = planted.replace(before, after)
    file, _, name = bug.test.partition("::")
    command = ["node_modules/.bin/forge", "test", "--match-path", f"test/{file}", "--match-test", name]
    path.write_text(planted)
    for kind in ("fuzz", "invariant"):  # forge would only replay what showed the bug before
        shutil.rmtree(copy / "cache" / kind, ignore_errors=True)
    try:
        done = subprocess.run(
            [*command, "--dynamic-test-linking", "--fail-fast"],
            check=False, cwd=copy, env=os.environ | QUICKLY, capture_output=True, text=True,
        )  # fmt: skip
    finally:
        path.write_text(source)
    reasons = re.findall(r"\[FAIL:? ?([^\n\]]*)", done.stdout)
    noticed = [reason for reason in reasons if re.search(bug.law, reason)]
    if done.returncode != 1 or not noticed:
        return f"{bug.test} did not fail so (forge's exit code {done.returncode})\n{(done.stdout + done.stderr)[-800:]}"
    print(f"killed    {bug.name}: {name} ({noticed[0][:80]})", flush=True)
    return None


def main() -> int:
    """Plant them all; the exit code says whether any survived."""
    chosen = [bug for bug in BUGS if all(word in bug.name for word in sys.argv[1:])]
    survivors = 0
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "chain" / "contracts"
        copy.mkdir(parents=True)
        for part in COPIED:
            source = CONTRACTS / part
            shutil.copytree(source, copy / part) if source.is_dir() else shutil.copy(source, copy / part)
        (copy / "node_modules").symlink_to(CONTRACTS / "node_modules")
        golden = Path(name) / "tests" / "golden"
        shutil.copytree(CONTRACTS.parents[1] / "tests" / "golden", golden)
        for bug in chosen:
            reason = survives(bug, copy)
            if reason:
                survivors += 1
                print(f"SURVIVED  {bug.name}: {reason}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} bugs killed")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
