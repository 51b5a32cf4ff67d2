// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Case, IChallengeManager} from "../../src/interfaces/IChallengeManager.sol";
import {Opening} from "../../src/libraries/Transcript.sol";
import {
    BeaconAlreadyRequested,
    BeaconNotReady,
    NotTrainer,
    NotValidator,
    NothingToPay,
    TooEarly,
    TooLate,
    WrongPhase
} from "../../src/types/Errors.sol";
import {CaseId, Phase, Verdict} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev From opening a case to the trainer's answer, and every way it ends before a vote.
contract CasesTest is StoryTest {
    function setUp() public override {
        super.setUp();
        segmentsOf[mallory][6].startDigest = keccak256("not where segment 5 ends");
        _playToChallenging();
    }

    function _verdictIs(CaseId caseId, Verdict verdict) private view {
        assertEq(uint256(manager.caseOf(caseId).verdict), uint256(verdict));
    }

    /* OPENING */

    function test_openingTakesTheBondAndPromisesABlock() public {
        uint256 before = token.balanceOf(vera);
        vm.expectEmit(address(manager));
        emit IChallengeManager.CaseOpened(
            CaseId.wrap(1), taskId, alice, vera, keccak256("evidence"), uint64(block.number + 2)
        );
        CaseId caseId = _openCase(vera, alice);
        assertEq(token.balanceOf(vera), before - 20e18);
        assertEq(token.balanceOf(address(manager)), 20e18);
        assertEq(manager.pendingCases(taskId, alice), 1);
        Case memory opened = manager.caseOf(caseId);
        assertEq(opened.challenger, vera);
        assertEq(opened.latchBy, block.timestamp + 4 hours);
        _verdictIs(caseId, Verdict.Pending);
    }

    function test_casesBelongToTheChallengingPhase() public {
        vm.warp(_phases().challengeFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.FinalValidation, Phase.Challenging));
        _openCase(vera, alice);
    }

    /// @dev The longest case takes 20 hours; opened a second later it would outlive the phase.
    function test_aCaseIsOpenedWhileAllItsWindowsFit() public {
        uint256 last = _phases().closedFrom - 20 hours;
        vm.warp(last + 1);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, last + 1));
        _openCase(vera, alice);
        vm.warp(last);
        CaseId caseId = _openCase(vera, alice);
        vm.warp(last + 4 hours - 1);
        _mine(3);
        manager.latchSeed(caseId);
        vm.warp(last + 8 hours - 2);
        _respond(caseId, alice);
        assertLe(manager.caseOf(caseId).revealBy, _phases().closedFrom);
    }

    function test_onlyValidatorsOfTheTaskChallenge() public {
        vm.expectRevert(abi.encodeWithSelector(NotValidator.selector, bob));
        _openCase(bob, alice);
        vm.expectRevert(abi.encodeWithSelector(NotValidator.selector, stranger));
        _openCase(stranger, alice);
    }

    function test_onlyStandingSubmissionsAreChallenged() public {
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.NotStanding.selector, stranger));
        _openCase(vera, stranger);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.NotStanding.selector, victor));
        _openCase(vera, victor);
    }

    function test_unknownCasesAreRefused() public {
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.UnknownCase.selector, 1));
        manager.settle(CaseId.wrap(1));
    }

    /* SEED */

    function test_theSeedIsTheHashOfThePromisedBlock() public {
        CaseId caseId = _openCase(vera, alice);
        uint256 promised = block.number + 2;
        vm.expectRevert(IChallengeManager.SeedNotLatched.selector);
        manager.sampledSegments(caseId);
        vm.roll(promised);
        vm.expectRevert(abi.encodeWithSelector(BeaconNotReady.selector, promised));
        manager.latchSeed(caseId);
        vm.roll(promised + 1);
        vm.prank(stranger);
        manager.latchSeed(caseId);
        assertEq(manager.caseOf(caseId).seed.value, blockhash(promised));
        assertEq(manager.caseOf(caseId).answerBy, block.timestamp + 4 hours);
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, promised));
        manager.latchSeed(caseId);
    }

    function test_anExpiredSeedIsPromisedAnewAndNobodyDefaults() public {
        CaseId caseId = _openCase(vera, alice);
        uint256 promised = block.number + 2;
        vm.roll(promised + 257);
        vm.expectEmit(address(manager));
        emit IChallengeManager.SeedRequested(caseId, uint64(promised + 259));
        manager.latchSeed(caseId);
        assertEq(manager.caseOf(caseId).answerBy, 0);
        _mine(3);
        manager.latchSeed(caseId);
        assertEq(manager.caseOf(caseId).seed.value, blockhash(promised + 259));
    }

    function test_anUnlatchedCaseLapsesAndBurnsTheBond() public {
        CaseId caseId = _openCase(vera, alice);
        uint256 supply = token.totalSupply();
        uint256 latchBy = block.timestamp + 4 hours;
        vm.warp(latchBy - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, latchBy));
        manager.settle(caseId);
        vm.warp(latchBy);
        _mine(3);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, latchBy));
        manager.latchSeed(caseId);
        manager.settle(caseId);
        _verdictIs(caseId, Verdict.Lapsed);
        assertEq(token.totalSupply(), supply - 20e18);
        assertEq(manager.credit(vera), 0);
        assertEq(manager.pendingCases(taskId, alice), 0);
    }

    function test_drawnSegmentsAreDistinctAndInRange() public {
        for (uint256 n; n < 20; ++n) {
            CaseId caseId = _openAndLatch(validators[n % 4], trainers[n % 2]);
            uint64[] memory drawn = manager.sampledSegments(caseId);
            assertEq(drawn.length, 3);
            assertTrue(drawn[0] != drawn[1] && drawn[1] != drawn[2] && drawn[0] != drawn[2]);
            assertTrue(drawn[0] < SEGMENTS && drawn[1] < SEGMENTS && drawn[2] < SEGMENTS);
        }
    }

    /* ANSWER */

    function test_theTrainerOpensExactlyWhatWasDrawn() public {
        CaseId caseId = _openCase(vera, alice);
        vm.prank(alice);
        vm.expectRevert(IChallengeManager.SeedNotLatched.selector);
        manager.respond(caseId, new Opening[](0), "");
        _mine(3);
        manager.latchSeed(caseId);
        Opening[] memory openings = _drawnOpenings(caseId, alice);
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(NotTrainer.selector, bob));
        manager.respond(caseId, openings, "");

        vm.startPrank(alice);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.WrongOpeningCount.selector, 0, 3));
        manager.respond(caseId, new Opening[](0), "");
        (openings[0], openings[1]) = (openings[1], openings[0]);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.BadOpening.selector, 0));
        manager.respond(caseId, openings, "");
        (openings[0], openings[1]) = (openings[1], openings[0]);
        openings[2].segment.endDigest = keccak256("better");
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.BadOpening.selector, 2));
        manager.respond(caseId, openings, "");
    }

    function test_answeringStartsTheVote() public {
        CaseId caseId = _openAndLatch(vera, alice);
        uint256 answerBy = block.timestamp + 4 hours;
        vm.warp(answerBy - 1);
        Opening[] memory openings = _drawnOpenings(caseId, alice);
        vm.expectEmit(address(manager));
        emit IChallengeManager.CaseAnswered(
            caseId, "bafy-bundle", uint64(block.timestamp + 6 hours), uint64(block.timestamp + 12 hours)
        );
        vm.startPrank(alice);
        manager.respond(caseId, openings, "bafy-bundle");
        vm.expectRevert(IChallengeManager.AlreadyAnswered.selector);
        manager.respond(caseId, openings, "");
    }

    function test_silenceIsADefaultJudgement() public {
        CaseId caseId = _openAndLatch(vera, alice);
        uint256 reward = escrow.allocated(taskId, alice);
        uint256 answerBy = block.timestamp + 4 hours;
        Opening[] memory openings = _drawnOpenings(caseId, alice);
        vm.warp(answerBy - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, answerBy));
        manager.settle(caseId);
        vm.warp(answerBy);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, answerBy));
        manager.respond(caseId, openings, "");
        vm.prank(stranger);
        manager.settle(caseId);
        _verdictIs(caseId, Verdict.Upheld);
        assertEq(manager.credit(vera), 20e18 + reward - reward / 10);
        assertTrue(escrow.forfeited(taskId, alice));
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.CaseSettledAlready.selector, Verdict.Upheld));
        manager.settle(caseId);
    }

    /* DISCONTINUITY */

    function test_aBrokenJoinConvictsAtOnce() public {
        CaseId caseId = _openCase(vera, mallory);
        Opening memory a = _opening(mallory, 5);
        Opening memory b = _opening(mallory, 6);
        vm.expectEmit(address(manager));
        emit IChallengeManager.DiscontinuityProven(caseId, 6);
        vm.prank(stranger);
        manager.proveDiscontinuity(caseId, a, b);
        _verdictIs(caseId, Verdict.Upheld);
        assertEq(vault.slashed(taskId, mallory), 1_000e18);
        assertGt(manager.credit(vera), 20e18);
        assertEq(manager.credit(stranger), 0);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.CaseSettledAlready.selector, Verdict.Upheld));
        manager.proveDiscontinuity(caseId, a, b);
    }

    function test_aBrokenJoinConvictsEvenAfterAnAnswer() public {
        CaseId caseId = _openAndLatch(vera, mallory);
        _respond(caseId, mallory);
        manager.proveDiscontinuity(caseId, _opening(mallory, 5), _opening(mallory, 6));
        _verdictIs(caseId, Verdict.Upheld);
    }

    function test_anUnbrokenJoinDoesNotConvict() public {
        CaseId caseId = _openCase(vera, mallory);
        CaseId honest = _openCase(vera, alice);
        Opening memory a = _opening(mallory, 4); // across the two anchors
        Opening memory b = _opening(mallory, 5);
        Opening memory c = _opening(mallory, 6);
        Opening memory forged = _opening(mallory, 5);
        forged.segment.startDigest = keccak256("planted");
        vm.expectRevert(IChallengeManager.NoDiscontinuity.selector);
        manager.proveDiscontinuity(caseId, a, b);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.BadOpening.selector, 1));
        manager.proveDiscontinuity(caseId, a, c); // not neighbours
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.BadOpening.selector, 1));
        manager.proveDiscontinuity(caseId, a, forged);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.BadOpening.selector, 0));
        manager.proveDiscontinuity(caseId, forged, c);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.BadOpening.selector, 0));
        manager.proveDiscontinuity(honest, b, c); // another trainer's segments
    }

    /* PARALLEL CASES */

    /// @dev The attack: Mallory's friend opens a weak case first. It neither blocks nor delays Vera's.
    function test_aWeakPendingCaseDoesNotShield() public {
        uint256 stolen = escrow.allocated(taskId, mallory);
        CaseId weak = _openAndLatch(vance, mallory);
        CaseId strong = _openAndLatch(vera, mallory);
        _respond(weak, mallory);
        assertEq(manager.pendingCases(taskId, mallory), 2);
        manager.proveDiscontinuity(strong, _opening(mallory, 5), _opening(mallory, 6));
        assertEq(manager.credit(vera), 20e18 + stolen - stolen / 10);
        assertEq(manager.pendingCases(taskId, mallory), 1);

        vm.warp(block.timestamp + 12 hours);
        manager.settle(weak);
        _verdictIs(weak, Verdict.Inconclusive);
        assertEq(manager.credit(vance), 20e18);
    }

    function test_theSecondConvictionReturnsTheBondOnly() public {
        CaseId first = _openCase(vera, mallory);
        CaseId second = _openCase(victor, mallory);
        manager.proveDiscontinuity(first, _opening(mallory, 5), _opening(mallory, 6));
        uint256 supply = token.totalSupply();
        manager.proveDiscontinuity(second, _opening(mallory, 5), _opening(mallory, 6));
        assertEq(manager.credit(victor), 20e18);
        assertEq(token.totalSupply(), supply);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.NothingAtStake.selector, mallory));
        _openCase(viola, mallory);
    }

    function test_forgottenCasesAreSettledByAnyoneAfterTheEnd() public {
        CaseId lapsed = _openCase(vera, alice);
        CaseId defaulted = _openAndLatch(victor, bob);
        vm.warp(_phases().closedFrom + 365 days);
        vm.startPrank(stranger);
        manager.settle(lapsed);
        manager.settle(defaulted);
        _verdictIs(lapsed, Verdict.Lapsed);
        _verdictIs(defaulted, Verdict.Upheld);
    }

    /* CREDIT */

    function test_creditIsWithdrawnOnceByItsOwner() public {
        CaseId caseId = _openCase(vera, mallory);
        manager.proveDiscontinuity(caseId, _opening(mallory, 5), _opening(mallory, 6));
        uint256 due = manager.credit(vera);
        uint256 before = token.balanceOf(vera);
        vm.startPrank(vera);
        manager.withdrawCredit();
        assertEq(token.balanceOf(vera), before + due);
        vm.expectRevert(abi.encodeWithSelector(NothingToPay.selector, vera));
        manager.withdrawCredit();
        assertEq(token.balanceOf(address(manager)), 0);
    }
}
