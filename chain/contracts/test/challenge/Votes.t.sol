// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IChallengeManager} from "../../src/interfaces/IChallengeManager.sol";
import {NotAllowed, NotValidator, TooEarly, TooLate} from "../../src/types/Errors.sol";
import {CaseId, Verdict} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev Vera challenges Alice, who answers; Victor, Viola and Vance (500 each) are the jurors.
contract VotesTest is StoryTest {
    bytes32 private constant SAME = keccak256("what both replays gave");
    bytes32 private constant OTHER = keccak256("what another replay gave");

    CaseId private caseId;
    uint256 private commitBy;
    uint256 private revealBy;

    function setUp() public override {
        super.setUp();
        _playToChallenging();
        caseId = _openAndLatch(vera, alice);
        _respond(caseId, alice);
        commitBy = block.timestamp + 6 hours;
        revealBy = block.timestamp + 12 hours;
    }

    struct Ballot {
        address juror;
        bool uphold;
        bytes32 reproduction;
    }

    Ballot[] private ballots;

    function _ballot(address juror, bool uphold, bytes32 reproduction) private {
        ballots.push(Ballot(juror, uphold, reproduction));
    }

    function _tally() private returns (Verdict) {
        for (uint256 k; k < ballots.length; ++k) {
            _commitVote(caseId, ballots[k].juror, ballots[k].uphold, ballots[k].reproduction);
        }
        vm.warp(commitBy);
        for (uint256 k; k < ballots.length; ++k) {
            _revealVote(caseId, ballots[k].juror, ballots[k].uphold, ballots[k].reproduction);
        }
        vm.warp(revealBy);
        manager.settle(caseId);
        return manager.caseOf(caseId).verdict;
    }

    function _expect(Verdict verdict) private {
        assertEq(uint256(_tally()), uint256(verdict));
    }

    /* VERDICTS */

    function test_twoThirdsWithEqualReproductionsUphold() public {
        _ballot(victor, true, SAME);
        _ballot(viola, true, SAME);
        _ballot(vance, false, 0);
        uint256 reward = escrow.allocated(taskId, alice);
        _expect(Verdict.Upheld);
        assertEq(manager.credit(vera), 20e18 + reward - reward / 10);
        assertEq(vault.slashed(taskId, alice), 1_000e18);
    }

    function test_upholdingNeedsTwoEqualReproductions() public {
        _ballot(victor, true, SAME);
        _ballot(viola, true, OTHER);
        _ballot(vance, true, 0);
        _expect(Verdict.Inconclusive);
        assertFalse(escrow.forfeited(taskId, alice));
        assertEq(manager.credit(vera), 20e18);
    }

    function test_namingNoReproductionIsNotAgreeing() public {
        _ballot(victor, true, 0);
        _ballot(viola, true, 0);
        _ballot(vance, true, 0);
        _expect(Verdict.Inconclusive);
    }

    function test_aReproductionInARejectingVoteDoesNotCount() public {
        _ballot(victor, true, SAME);
        _ballot(viola, true, OTHER);
        _ballot(vance, false, SAME);
        _expect(Verdict.Inconclusive);
    }

    function test_lessThanTwoThirdsDoNotUphold() public {
        _ballot(victor, true, SAME);
        _ballot(vance, false, 0);
        _expect(Verdict.Inconclusive);
    }

    function test_rejectingPaysTheTrainerAndBurnsTheRest() public {
        _ballot(victor, false, 0);
        _ballot(viola, false, 0);
        _ballot(vance, true, SAME);
        uint256 supply = token.totalSupply();
        _expect(Verdict.Rejected);
        assertEq(manager.credit(alice), 3 * 2e18);
        assertEq(manager.credit(vera), 0);
        assertEq(token.totalSupply(), supply - 14e18);
        assertFalse(escrow.forfeited(taskId, alice));
        assertEq(manager.pendingCases(taskId, alice), 0);
    }

    function test_aTieIsInconclusive() public {
        _ballot(victor, false, 0);
        _ballot(viola, true, SAME);
        _expect(Verdict.Inconclusive);
    }

    function test_withoutAQuorumItIsInconclusive() public {
        _ballot(victor, false, 0); // 500 of 1,500
        _expect(Verdict.Inconclusive);
        assertEq(manager.credit(vera), 20e18);
    }

    function test_withoutVotesItIsInconclusive() public {
        _expect(Verdict.Inconclusive);
    }

    function test_anUnrevealedVoteDoesNotCount() public {
        _commitVote(caseId, victor, true, SAME);
        _ballot(viola, true, SAME);
        _expect(Verdict.Inconclusive);
    }

    /* WHO AND WHEN */

    function test_theChallengerIsNoJuror() public {
        vm.prank(vera);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, vera));
        manager.commitVote(caseId, SALT);
    }

    function test_onlyValidatorsAreJurors() public {
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(NotValidator.selector, bob));
        manager.commitVote(caseId, SALT);
    }

    function test_votesAreTakenAfterTheAnswer() public {
        CaseId other = _openAndLatch(vera, bob);
        vm.prank(victor);
        vm.expectRevert(IChallengeManager.NotAnswered.selector);
        manager.commitVote(other, SALT);
    }

    function test_theWindowsAreHalfOpen() public {
        vm.warp(commitBy - 1);
        _commitVote(caseId, victor, true, SAME);
        vm.prank(victor);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, commitBy));
        manager.revealVote(caseId, true, SAME, SALT);
        vm.warp(commitBy);
        vm.prank(viola);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, commitBy));
        manager.commitVote(caseId, SALT);
        vm.warp(revealBy);
        vm.prank(victor);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, revealBy));
        manager.revealVote(caseId, true, SAME, SALT);
        vm.warp(revealBy - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, revealBy));
        manager.settle(caseId);
        _revealVote(caseId, victor, true, SAME);
        vm.warp(revealBy);
        manager.settle(caseId);
    }

    function test_aVoteIsCommittedAndRevealedOnce() public {
        _commitVote(caseId, victor, true, SAME);
        vm.prank(victor);
        vm.expectRevert(IChallengeManager.VoteAlreadyCommitted.selector);
        manager.commitVote(caseId, SALT);
        vm.warp(commitBy);
        _revealVote(caseId, victor, true, SAME);
        vm.prank(victor);
        vm.expectRevert(IChallengeManager.VoteAlreadyRevealed.selector);
        manager.revealVote(caseId, true, SAME, SALT);
        vm.prank(viola);
        vm.expectRevert(IChallengeManager.VoteNotCommitted.selector);
        manager.revealVote(caseId, true, SAME, SALT);
    }

    function test_onlyWhatWasPromisedIsRevealed() public {
        _commitVote(caseId, victor, true, SAME);
        vm.warp(commitBy);
        vm.startPrank(victor);
        vm.expectRevert(IChallengeManager.BadVoteReveal.selector);
        manager.revealVote(caseId, false, SAME, SALT);
        vm.expectRevert(IChallengeManager.BadVoteReveal.selector);
        manager.revealVote(caseId, true, OTHER, SALT);
        vm.expectRevert(IChallengeManager.BadVoteReveal.selector);
        manager.revealVote(caseId, true, SAME, keccak256("another salt"));
    }

    /// @dev The attack: copy Victor's commitment without replaying anything. Its honest twin is Victor's vote.
    function test_aCopiedVoteCannotBeRevealedByTheCopier() public {
        bytes32 copied = _voteCommitment(caseId, victor, true, SAME);
        _commitVote(caseId, victor, true, SAME);
        vm.prank(viola);
        manager.commitVote(caseId, copied);
        vm.warp(commitBy);
        _revealVote(caseId, victor, true, SAME);
        vm.prank(viola);
        vm.expectRevert(IChallengeManager.BadVoteReveal.selector);
        manager.revealVote(caseId, true, SAME, SALT);
    }

    function test_aVoteForOneCaseIsNoneForAnother() public {
        CaseId other = _openAndLatch(vera, bob);
        _respond(other, bob);
        bytes32 forTheFirst = _voteCommitment(caseId, victor, true, SAME);
        vm.prank(victor);
        manager.commitVote(other, forTheFirst);
        vm.warp(commitBy);
        vm.prank(victor);
        vm.expectRevert(IChallengeManager.BadVoteReveal.selector);
        manager.revealVote(other, true, SAME, SALT);
    }
}
