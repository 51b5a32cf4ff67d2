// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ICaseRules} from "../../src/interfaces/ICaseRules.sol";
import {Case, Charge, IChallengeManager, Stage} from "../../src/interfaces/IChallengeManager.sol";
import {Submission} from "../../src/interfaces/IRuns.sol";
import {Opening} from "../../src/libraries/Transcript.sol";
import {
    BeaconAlreadyRequested,
    BeaconNotReady,
    CasePending,
    NotAllowed,
    NotTrainer,
    NothingToPay,
    TooEarly,
    TooLate,
    WrongPhase
} from "../../src/types/Errors.sol";
import {CaseId, Ground, Phase, RunId, Verdict} from "../../src/types/Types.sol";
import {CourtTest} from "./CourtTest.sol";

/// @dev From sealing a case to the trainer's answer, every way it ends before a vote, and who is awarded what.
contract CasesTest is CourtTest {
    function setUp() public override {
        super.setUp();
        segmentsOf[mallory][6].startDigest = keccak256("not where segment 5 ends");
        _submit(alice, 1);
        _submit(bob, 2);
        _submit(mallory, 3);
    }

    function _wrong(Stage have) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IChallengeManager.WrongStage.selector, have);
    }

    /* SEALED */

    function test_sealingTakesTheBondAndSaysNothing() public {
        bytes32 commitment = _sealed(vera, _charge(alice));
        uint64 showBy = uint64(block.timestamp + 2 hours);
        vm.expectEmit(address(manager));
        emit IChallengeManager.CaseSealed(CaseId.wrap(1), taskId, vera, commitment, showBy);
        CaseId caseId = _seal(vera, _charge(alice));
        assertEq(token.balanceOf(vera), 10_000e18 - BOND);
        assertEq(token.balanceOf(address(manager)), BOND);
        assertEq(manager.caseCount(), 1);
        assertEq(manager.pendingCases(taskId, alice), 0);
        _stageIs(caseId, Stage.Sealed);
        _verdictIs(caseId, Verdict.Pending);
    }

    function test_casesBelongToTheChallengingPhase() public {
        vm.warp(arena.closedFrom());
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.Closed, Phase.Challenging));
        vm.prank(vera);
        manager.sealCase(taskId, SALT);
    }

    /// @dev The longest case takes 32 hours; sealed a second later it would outlive the phase.
    function test_aCaseIsSealedWhileAllItsWindowsFit() public {
        uint256 last = arena.closedFrom() - 32 hours;
        vm.warp(last + 1);
        vm.prank(vera);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, last + 1));
        manager.sealCase(taskId, SALT);
        vm.warp(last);
        vm.prank(vera);
        manager.sealCase(taskId, SALT);
    }

    /// @dev Everybody uses every window to its last second, and the trainer serves twice.
    function test_theLongestCaseEndsWithThePhase() public {
        vm.warp(arena.closedFrom() - 32 hours);
        CaseId caseId = _seal(vera, _charge(alice));
        vm.warp(_deadline(caseId) - 1);
        vm.prank(vera);
        manager.showCase(caseId, _charge(alice), SALT);
        vm.warp(_deadline(caseId) - 1);
        _mine(3);
        manager.latchSeed(caseId);
        vm.warp(_deadline(caseId) - 1);
        _respond(caseId, alice);
        vm.warp(_deadline(caseId) - 1);
        _voteUnavailable(caseId, victor);
        _voteUnavailable(caseId, viola);
        vm.warp(_deadline(caseId) - 1);
        vm.prank(alice);
        manager.serveAgain(caseId, "bafy-again");
        assertLe(manager.caseOf(caseId).revealBy, arena.closedFrom());
        assertEq(manager.caseOf(caseId).revealBy, arena.closedFrom() - 5);
    }

    function test_onlyOperatorsOfTheTaskChallenge() public {
        vm.prank(stranger);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, stranger));
        manager.sealCase(taskId, SALT);
        _show(bob, _charge(alice)); // a trainer may
    }

    function test_anUnshownCaseLapsesAndBurnsTheBond() public {
        CaseId caseId = _seal(vera, _charge(alice));
        uint256 supply = token.totalSupply();
        uint256 showBy = _deadline(caseId);
        vm.warp(showBy - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, showBy));
        manager.settle(caseId);
        vm.warp(showBy);
        vm.prank(vera);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, showBy));
        manager.showCase(caseId, _charge(alice), SALT);
        _settleAt(caseId, showBy, Verdict.Lapsed);
        assertEq(token.totalSupply(), supply - BOND);
        _holdsCreditsOnly();
    }

    /* SHOWN */

    function test_showingBindsTheRunAndPromisesABlock() public {
        CaseId caseId = _seal(vera, _charge(alice));
        vm.expectEmit(address(manager));
        emit IChallengeManager.CaseShown(caseId, alice, _runOf(alice), _charge(alice), uint64(block.number + 2));
        vm.prank(vera);
        manager.showCase(caseId, _charge(alice), SALT);
        Case memory case_ = manager.caseOf(caseId);
        assertEq(RunId.unwrap(case_.runId), RunId.unwrap(_runOf(alice)));
        assertEq(case_.charge.trainer, alice);
        assertEq(case_.deadline, block.timestamp + 4 hours);
        assertEq(manager.pendingCases(taskId, alice), 1);
        vm.prank(vera);
        vm.expectRevert(_wrong(Stage.Shown));
        manager.showCase(caseId, _charge(alice), SALT);
    }

    function test_onlyWhatWasSealedIsShown() public {
        CaseId caseId = _seal(vera, _charge(alice));
        vm.startPrank(vera);
        vm.expectRevert(IChallengeManager.BadCharge.selector);
        manager.showCase(caseId, _charge(bob), SALT);
        vm.expectRevert(IChallengeManager.BadCharge.selector);
        manager.showCase(caseId, _charge(alice), keccak256("another salt"));
        Charge memory more = _charge(alice);
        more.named = new uint64[](1);
        vm.expectRevert(IChallengeManager.BadCharge.selector);
        manager.showCase(caseId, more, SALT);
    }

    /// @dev The attack: seal a copy of what Vera sealed, and show it when she does.
    function test_aCopiedSealCannotBeShownByTheCopier() public {
        CaseId hers = _seal(vera, _charge(alice));
        bytes32 copied = _sealed(vera, _charge(alice));
        vm.prank(vance);
        CaseId his = manager.sealCase(taskId, copied);
        vm.prank(vance);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, vance));
        manager.showCase(hers, _charge(alice), SALT);
        vm.prank(vance);
        vm.expectRevert(IChallengeManager.BadCharge.selector);
        manager.showCase(his, _charge(alice), SALT);
        vm.prank(vera);
        manager.showCase(hers, _charge(alice), SALT);
    }

    function _refusesToShow(Charge memory charge, bytes memory refusal) private {
        CaseId caseId = _seal(vera, charge);
        vm.prank(vera);
        vm.expectRevert(refusal);
        manager.showCase(caseId, charge, SALT);
    }

    function test_onlyStandingSubmissionsAreChallenged() public {
        Charge memory charge = _charge(alice);
        charge.round = 2;
        _refusesToShow(charge, abi.encodeWithSelector(IChallengeManager.NotStanding.selector, alice, 2));
        charge = _charge(stranger);
        _refusesToShow(charge, abi.encodeWithSelector(IChallengeManager.NotStanding.selector, stranger, 1));
        Submission memory struck;
        (struck.runId, struck.order, struck.revealed, struck.struck) = (_runOf(alice), 4, true, true);
        arena.setSubmission(alice, 1, struck);
        charge = _charge(alice);
        _refusesToShow(charge, abi.encodeWithSelector(IChallengeManager.NotStanding.selector, alice, 1));
    }

    function _named(uint64[] memory named) private view returns (Charge memory charge) {
        charge = _charge(alice);
        charge.named = named;
    }

    function test_namedSegmentsAreFewDistinctAndAnchored() public {
        bytes memory bad = abi.encodeWithSelector(IChallengeManager.BadNames.selector, 2);
        uint64[] memory named = new uint64[](3);
        (named[0], named[1], named[2]) = (0, 1, 2);
        _refusesToShow(_named(named), bad);
        named = new uint64[](2);
        _refusesToShow(_named(named), bad); // 0 twice
        named[0] = SEGMENTS;
        _refusesToShow(_named(named), bad);
        named[0] = SEGMENTS - 1;
        _show(vera, _named(named));
    }

    function test_aReplayCaseClaimsNoKey() public {
        Charge memory charge = _charge(alice);
        charge.claim = _runOf(bob);
        _refusesToShow(charge, abi.encodeWithSelector(IChallengeManager.BadClaim.selector, _runOf(bob)));
    }

    function test_unknownCasesAreRefused() public {
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.UnknownCase.selector, 1));
        manager.settle(CaseId.wrap(1));
    }

    /* SEED */

    function test_theSeedIsTheHashOfThePromisedBlock() public {
        CaseId caseId = _show(vera, _charge(alice));
        uint256 promised = block.number + 2;
        vm.expectRevert(_wrong(Stage.Shown));
        manager.segmentsToOpen(caseId);
        vm.roll(promised);
        vm.expectRevert(abi.encodeWithSelector(BeaconNotReady.selector, promised));
        manager.latchSeed(caseId);
        vm.roll(promised + 1);
        vm.prank(stranger);
        manager.latchSeed(caseId);
        assertEq(manager.caseOf(caseId).seed.value, blockhash(promised));
        assertEq(_deadline(caseId), block.timestamp + 4 hours);
        vm.expectRevert(_wrong(Stage.Drawn));
        manager.latchSeed(caseId);
    }

    function test_anExpiredSeedIsPromisedAnewAndNobodyDefaults() public {
        CaseId caseId = _show(vera, _charge(alice));
        uint256 promised = block.number + 2;
        vm.roll(promised + 257);
        vm.expectEmit(address(manager));
        emit IChallengeManager.SeedRequested(caseId, uint64(promised + 259));
        manager.latchSeed(caseId);
        _stageIs(caseId, Stage.Shown);
        _mine(3);
        manager.latchSeed(caseId);
        assertEq(manager.caseOf(caseId).seed.value, blockhash(promised + 259));
    }

    function test_anUnlatchedCaseLapsesAndBurnsTheBond() public {
        CaseId caseId = _show(vera, _charge(alice));
        uint256 supply = token.totalSupply();
        uint256 latchBy = _deadline(caseId);
        _mine(3);
        vm.warp(latchBy);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, latchBy));
        manager.latchSeed(caseId);
        _settleAt(caseId, latchBy, Verdict.Lapsed);
        assertEq(token.totalSupply(), supply - BOND);
        assertEq(manager.pendingCases(taskId, alice), 0);
    }

    function test_namedSegmentsAreOpenedBesidesThoseDrawn() public {
        uint64[] memory named = new uint64[](2);
        (named[0], named[1]) = (7, 2);
        for (uint256 n; n < 10; ++n) {
            CaseId caseId = _draw(vera, _named(named));
            uint64[] memory segments = manager.segmentsToOpen(caseId);
            assertEq(segments.length, 5);
            assertEq(segments[0], 7);
            assertEq(segments[1], 2);
            assertTrue(segments[2] != segments[3] && segments[3] != segments[4] && segments[2] != segments[4]);
            assertTrue(segments[2] < SEGMENTS && segments[3] < SEGMENTS && segments[4] < SEGMENTS);
            _respond(caseId, alice);
        }
    }

    /* ANSWER */

    function _badOpening(uint256 k) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ICaseRules.BadOpening.selector, k);
    }

    function test_theTrainerOpensExactlyWhatWasDrawn() public {
        CaseId caseId = _show(vera, _charge(alice));
        vm.prank(alice);
        vm.expectRevert(_wrong(Stage.Shown));
        manager.respond(caseId, new Opening[](0), "");
        _mine(3);
        manager.latchSeed(caseId);
        Opening[] memory openings = _answers(caseId, alice);
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(NotTrainer.selector, bob));
        manager.respond(caseId, openings, "");

        vm.startPrank(alice);
        vm.expectRevert(abi.encodeWithSelector(ICaseRules.WrongOpeningCount.selector, 0, 3));
        manager.respond(caseId, new Opening[](0), "");
        (openings[0], openings[1]) = (openings[1], openings[0]);
        vm.expectRevert(_badOpening(0));
        manager.respond(caseId, openings, "");
        (openings[0], openings[1]) = (openings[1], openings[0]);
        openings[2].segment.endDigest = keccak256("better");
        vm.expectRevert(_badOpening(2));
        manager.respond(caseId, openings, "");
    }

    function test_answeringStartsTheVote() public {
        CaseId caseId = _draw(vera, alice);
        vm.warp(_deadline(caseId) - 1);
        Opening[] memory openings = _answers(caseId, alice);
        vm.expectEmit(address(manager));
        emit IChallengeManager.CaseAnswered(caseId, "bafy-bundle");
        vm.expectEmit(address(manager));
        (uint256 commitBy, uint256 revealBy) = (block.timestamp + 6 hours, block.timestamp + 12 hours);
        emit IChallengeManager.VotingOpened(caseId, 0, uint64(commitBy), uint64(revealBy), 0);
        vm.startPrank(alice);
        manager.respond(caseId, openings, "bafy-bundle");
        vm.expectRevert(_wrong(Stage.Voting));
        manager.respond(caseId, openings, "");
    }

    function test_silenceIsADefaultJudgement() public {
        CaseId caseId = _draw(vera, alice);
        uint256 answerBy = _deadline(caseId);
        Opening[] memory openings = _answers(caseId, alice);
        vm.warp(answerBy - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, answerBy));
        manager.settle(caseId);
        vm.warp(answerBy);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, answerBy));
        manager.respond(caseId, openings, "");
        _settleAt(caseId, answerBy, Verdict.Upheld);
        assertEq(manager.credit(vera), BOND);
        assertEq(vault.burnedOf(alice), 1_000e18);
        vm.expectRevert(_wrong(Stage.Settled));
        manager.settle(caseId);
    }

    /* DISCONTINUITY */

    function test_aBrokenJoinConvictsAtOnce() public {
        CaseId caseId = _draw(vera, mallory);
        (Opening memory a, Opening memory b) = (_opening(mallory, 5), _opening(mallory, 6));
        vm.expectEmit(address(manager));
        emit IChallengeManager.WrongProven(caseId, "proveDiscontinuity");
        vm.prank(stranger);
        manager.proveDiscontinuity(caseId, a, b);
        _verdictIs(caseId, Verdict.Upheld);
        assertEq(vault.burnedOf(mallory), 1_000e18);
        assertEq(manager.credit(vera), BOND);
        vm.expectRevert(_wrong(Stage.Settled));
        manager.proveDiscontinuity(caseId, a, b);
    }

    function test_aBrokenJoinConvictsEvenAfterAnAnswerAndVotes() public {
        CaseId caseId = _drawAndRespond(vera, mallory);
        vm.warp(manager.caseOf(caseId).revealBy + 1 days);
        manager.proveDiscontinuity(caseId, _opening(mallory, 5), _opening(mallory, 6));
        _verdictIs(caseId, Verdict.Upheld);
    }

    function test_codeDecidesOnceTheSeedIsDrawn() public {
        CaseId caseId = _show(vera, _charge(mallory));
        (Opening memory a, Opening memory b) = (_opening(mallory, 5), _opening(mallory, 6));
        vm.expectRevert(_wrong(Stage.Shown));
        manager.proveDiscontinuity(caseId, a, b);
    }

    function test_anUnbrokenJoinDoesNotConvict() public {
        CaseId caseId = _draw(vera, mallory);
        CaseId honest = _draw(vera, alice);
        Opening memory a = _opening(mallory, 4); // across the two anchors
        Opening memory b = _opening(mallory, 5);
        Opening memory c = _opening(mallory, 6);
        Opening memory forged = _opening(mallory, 5);
        forged.segment.startDigest = keccak256("planted");
        vm.expectRevert(ICaseRules.NoDiscontinuity.selector);
        manager.proveDiscontinuity(caseId, a, b);
        vm.expectRevert(_badOpening(1));
        manager.proveDiscontinuity(caseId, a, c); // not neighbours
        vm.expectRevert(_badOpening(1));
        manager.proveDiscontinuity(caseId, a, forged);
        vm.expectRevert(_badOpening(0));
        manager.proveDiscontinuity(caseId, forged, c);
        vm.expectRevert(_badOpening(0));
        manager.proveDiscontinuity(honest, b, c); // another trainer's segments
    }

    /* PARALLEL CASES AND THE AWARD */

    function _convict(CaseId caseId) private {
        manager.proveDiscontinuity(caseId, _opening(mallory, 5), _opening(mallory, 6));
    }

    /// @dev The attack: Mallory's friend seals a weak case first. It neither blocks Vera's, nor takes its award.
    function test_aWeakCaseDoesNotShield() public {
        CaseId weak = _drawAndRespond(vance, mallory);
        CaseId strong = _draw(vera, mallory);
        assertEq(manager.pendingCases(taskId, mallory), 2);
        _convict(strong);
        assertEq(manager.pendingCases(taskId, mallory), 1);
        _settleAt(weak, manager.caseOf(weak).revealBy, Verdict.Inconclusive);
        assertEq(manager.credit(vance), BOND - 3 * COST, "what the answer cost, to Mallory");
        vm.warp(arena.closedFrom());
        manager.award(taskId, mallory);
        assertEq(manager.credit(vera), BOND + REWARD * 9 / 10);
        _holdsCreditsOnly();
    }

    /// @dev The attack: settle a copy of an earlier case before it. The first sealed is awarded, whoever settles first.
    function test_theFirstSealedCaseTakesTheReward() public {
        CaseId first = _draw(vera, mallory);
        CaseId second = _draw(victor, mallory);
        _convict(second);
        _convict(first);
        assertEq(vault.burnedOf(mallory), 1_000e18, "slashed once");
        vm.warp(arena.closedFrom());
        vm.expectEmit(address(manager));
        emit IChallengeManager.Awarded(taskId, mallory, first, REWARD * 9 / 10);
        vm.prank(stranger);
        manager.award(taskId, mallory);
        assertEq(manager.credit(vera), BOND + REWARD * 9 / 10);
        assertEq(manager.credit(victor), BOND);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, mallory));
        manager.award(taskId, mallory);
        _holdsCreditsOnly();
    }

    function test_theAwardWaitsForTheEndAndForEveryCase() public {
        CaseId first = _draw(vera, mallory);
        _convict(_draw(victor, mallory));
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.Challenging, Phase.Closed));
        manager.award(taskId, mallory);
        vm.warp(arena.closedFrom());
        vm.expectRevert(abi.encodeWithSelector(CasePending.selector, mallory));
        manager.award(taskId, mallory);
        manager.settle(first); // Mallory did not answer
        manager.award(taskId, mallory);
        assertEq(manager.credit(vera), BOND + REWARD * 9 / 10);
    }

    function test_whoIsNotConvictedIsNotAwardedAway() public {
        vm.warp(arena.closedFrom());
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, alice));
        manager.award(taskId, alice);
    }

    function test_forgottenCasesAreSettledByAnyoneAfterTheEnd() public {
        CaseId unshown = _seal(vera, _charge(alice));
        CaseId undrawn = _show(vera, _charge(alice));
        CaseId silent = _draw(victor, bob);
        CaseId unvoted = _drawAndRespond(victor, alice);
        vm.warp(arena.closedFrom() + 365 days);
        _settleAt(unshown, block.timestamp, Verdict.Lapsed);
        _settleAt(undrawn, block.timestamp, Verdict.Lapsed);
        _settleAt(silent, block.timestamp, Verdict.Upheld);
        _settleAt(unvoted, block.timestamp, Verdict.Inconclusive);
        manager.award(taskId, bob);
        _holdsCreditsOnly();
    }

    /* CREDIT */

    function test_creditIsWithdrawnOnceByItsOwner() public {
        _convict(_draw(vera, mallory));
        vm.startPrank(vera);
        manager.withdrawCredit();
        assertEq(token.balanceOf(vera), 10_000e18);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, vera));
        manager.withdrawCredit();
    }
}
