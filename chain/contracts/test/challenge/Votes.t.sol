// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IChallengeManager, Stage} from "../../src/interfaces/IChallengeManager.sol";
import {Court} from "../../src/interfaces/ITasks.sol";
import {NotTrainer, TooEarly, TooLate} from "../../src/types/Errors.sol";
import {CaseId, Role, Verdict} from "../../src/types/Types.sol";
import {CourtTest} from "./CourtTest.sol";

/// @dev A jury of everybody: Vera challenges Alice, who answers; Victor, Viola and Vance (500 each) vote.
contract VotesTest is CourtTest {
    bytes32 private constant SAME = keccak256("what both replays gave");
    bytes32 private constant OTHER = keccak256("what another replay gave");

    CaseId private caseId;
    uint256 private commitBy;
    uint256 private revealBy;

    function setUp() public override {
        super.setUp();
        _submit(alice, 1);
        _submit(bob, 2);
        caseId = _drawAndRespond(vera, alice);
        commitBy = block.timestamp + 6 hours;
        revealBy = block.timestamp + 12 hours;
    }

    struct Vote {
        address juror;
        bool uphold;
        bytes32 reproduction;
    }

    Vote[] private votes;

    function _vote(address juror, bool uphold, bytes32 reproduction) private {
        votes.push(Vote(juror, uphold, reproduction));
    }

    function _expect(Verdict verdict) private {
        for (uint256 k; k < votes.length; ++k) {
            _commitVote(caseId, votes[k].juror, votes[k].uphold, votes[k].reproduction);
        }
        vm.warp(commitBy);
        for (uint256 k; k < votes.length; ++k) {
            _revealVote(caseId, votes[k].juror, votes[k].uphold, votes[k].reproduction);
        }
        _settleAt(caseId, revealBy, verdict);
        assertEq(manager.pendingCases(taskId, alice), 0);
        _pot(verdict == Verdict.Upheld);
    }

    /// @dev What the manager holds besides credits is the reward of whom it convicted.
    function _pot(bool upheld) private {
        assertEq(vault.burnedOf(alice), upheld ? 1_000e18 : 0);
        vm.warp(arena.closedFrom());
        if (upheld) manager.award(taskId, alice);
        _holdsCreditsOnly();
    }

    /* VERDICTS */

    function test_twoThirdsWithEqualReproductionsUphold() public {
        _vote(victor, true, SAME);
        _vote(viola, true, SAME);
        _vote(vance, false, 0);
        _expect(Verdict.Upheld);
        assertEq(manager.credit(vera), BOND + REWARD * 9 / 10);
    }

    function test_upholdingNeedsTwoEqualReproductions() public {
        _vote(victor, true, SAME);
        _vote(viola, true, OTHER);
        _vote(vance, true, 0);
        _expect(Verdict.Inconclusive);
        assertEq(manager.credit(vera), BOND - 3 * COST);
        assertEq(manager.credit(alice), 3 * COST, "it answered");
    }

    function test_namingNoReproductionIsNotAgreeing() public {
        _vote(victor, true, 0);
        _vote(viola, true, 0);
        _vote(vance, true, 0);
        _expect(Verdict.Inconclusive);
    }

    function test_aReproductionInARejectingVoteDoesNotCount() public {
        _vote(victor, true, SAME);
        _vote(viola, true, OTHER);
        _vote(vance, false, SAME);
        _expect(Verdict.Inconclusive);
    }

    function test_lessThanTwoThirdsDoNotUphold() public {
        vault.stake(stranger, Role.Validator, 501e18); // two others with less than two thirds
        _vote(victor, true, SAME);
        _vote(viola, true, SAME);
        _vote(stranger, false, 0);
        _expect(Verdict.Inconclusive);
    }

    function test_rejectingPaysTheTrainerAndBurnsTheRest() public {
        _vote(victor, false, 0);
        _vote(viola, false, 0);
        _vote(vance, true, SAME);
        uint256 supply = token.totalSupply();
        _expect(Verdict.Rejected);
        assertEq(manager.credit(alice), 3 * COST);
        assertEq(manager.credit(vera), 0);
        assertEq(token.totalSupply(), supply - BOND + 3 * COST);
    }

    function test_aTieIsInconclusive() public {
        _vote(victor, false, 0);
        _vote(viola, true, SAME);
        _expect(Verdict.Inconclusive);
    }

    function test_withoutAQuorumItIsInconclusive() public {
        _vote(victor, false, 0); // 500 of 1,500
        uint256 supply = token.totalSupply();
        _expect(Verdict.Inconclusive);
        assertEq(manager.credit(vera), BOND - 3 * COST);
        assertEq(token.totalSupply(), supply, "nothing burns");
    }

    /// @dev Victor and the stranger have 1,100 of the 2,100 that may vote, but not half of 2,600, Vera's 500 included.
    function _twoReject() private {
        vault.stake(stranger, Role.Validator, 600e18);
        _commitVote(caseId, victor, false, 0);
        _commitVote(caseId, stranger, false, 0);
        vm.warp(commitBy);
        _revealVote(caseId, victor, false, 0);
        _revealVote(caseId, stranger, false, 0);
    }

    /// @dev A case nobody settled before the task closed ends as it would have: the challenger's stake, withdrawn then,
    /// does not come back as weight that did not vote, which would save its bond.
    function test_aChallengersWithdrawalChangesNoVerdict() public {
        _twoReject();
        vault.withdraw(vera);
        _settleAt(caseId, arena.closedFrom(), Verdict.Rejected);
        assertEq(manager.credit(vera), 0);
    }

    function test_norDoesItsStaying() public {
        _twoReject();
        _settleAt(caseId, revealBy, Verdict.Rejected);
    }

    function test_withoutVotesItIsInconclusive() public {
        _expect(Verdict.Inconclusive);
    }

    function test_anUnrevealedVoteDoesNotCount() public {
        _commitVote(caseId, victor, true, SAME);
        _vote(viola, true, SAME);
        _expect(Verdict.Inconclusive);
    }

    function test_aJurorWeighsItsOwnSlashableStake() public {
        Court memory court = _courtTerms();
        court.slashBps = 4_000;
        arena.setTerms(court, _workTerms(), arena.closedFrom());
        assertEq(manager.jurorWeight(caseId, victor), 200e18);
        assertEq(manager.jurorWeight(caseId, vera), 0, "the challenger");
        assertEq(manager.jurorWeight(caseId, bob), 0, "a trainer");
    }

    /* WHO AND WHEN */

    function _isNoJuror(CaseId which, address account) private {
        vm.prank(account);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.NotJuror.selector, account));
        manager.commitVote(which, SALT);
        vm.prank(account);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.NotJuror.selector, account));
        manager.voteUnavailable(which);
    }

    function test_validatorsButTheChallengerAreJurors() public {
        _isNoJuror(caseId, vera);
        _isNoJuror(caseId, bob);
        _isNoJuror(caseId, alice);
        _isNoJuror(caseId, stranger);
        _commitVote(caseId, victor, true, SAME);
    }

    function test_votesAreTakenAfterTheAnswer() public {
        CaseId other = _draw(vera, bob);
        vm.prank(victor);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.WrongStage.selector, Stage.Drawn));
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
        _settleAt(caseId, revealBy, Verdict.Inconclusive);
    }

    function test_aVoteIsCommittedAndRevealedOnce() public {
        _commitVote(caseId, victor, true, SAME);
        vm.prank(victor);
        vm.expectRevert(IChallengeManager.AlreadyDone.selector);
        manager.commitVote(caseId, SALT);
        vm.warp(commitBy);
        _revealVote(caseId, victor, true, SAME);
        vm.prank(victor);
        vm.expectRevert(IChallengeManager.AlreadyDone.selector);
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
        bytes32 copied = _voteOf(caseId, victor, true, SAME);
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
        CaseId other = _drawAndRespond(vera, bob);
        bytes32 forTheFirst = _voteOf(caseId, victor, true, SAME);
        vm.prank(victor);
        manager.commitVote(other, forTheFirst);
        vm.warp(commitBy);
        vm.prank(victor);
        vm.expectRevert(IChallengeManager.BadVoteReveal.selector);
        manager.revealVote(other, true, SAME, SALT);
    }

    /* WHAT WAS SERVED COULD NOT BE HAD */

    function test_twoThirdsUnavailableAskForItOnceMore() public {
        _voteUnavailable(caseId, victor);
        _stageIs(caseId, Stage.Voting); // 500 of 1,500
        vm.expectEmit(address(manager));
        emit IChallengeManager.ServingAsked(caseId, uint64(block.timestamp + 4 hours));
        _voteUnavailable(caseId, viola);
        _stageIs(caseId, Stage.Serving);
        vm.prank(vance);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.WrongStage.selector, Stage.Serving));
        manager.commitVote(caseId, SALT);
    }

    function test_notServingAgainIsADefault() public {
        _voteUnavailable(caseId, victor);
        _voteUnavailable(caseId, viola);
        uint256 serveBy = _deadline(caseId);
        vm.warp(serveBy - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, serveBy));
        manager.settle(caseId);
        vm.warp(serveBy);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, serveBy));
        manager.serveAgain(caseId, "bafy-again");
        _settleAt(caseId, serveBy, Verdict.Upheld);
        assertEq(vault.burnedOf(alice), 1_000e18);
    }

    function _serveAgain() private {
        _voteUnavailable(caseId, victor);
        _voteUnavailable(caseId, viola);
        vm.warp(_deadline(caseId) - 1);
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(NotTrainer.selector, bob));
        manager.serveAgain(caseId, "bafy-again");
        vm.expectEmit(address(manager));
        emit IChallengeManager.ServedAgain(caseId, "bafy-again");
        vm.prank(alice);
        manager.serveAgain(caseId, "bafy-again");
        (commitBy, revealBy) = (_deadline(caseId), manager.caseOf(caseId).revealBy);
    }

    /// @dev The honest twin of the default: what is served at last is voted on from nothing, by the same jurors.
    function test_servedAgainTheVoteBeginsFromNothing() public {
        _commitVote(caseId, vance, true, SAME);
        _serveAgain();
        assertEq(manager.caseOf(caseId).tally.unavailable, 0);
        assertEq(manager.voteCommitment(caseId, vance), 0);
        _vote(victor, false, 0);
        _vote(viola, false, 0);
        _vote(vance, false, 0);
        _expect(Verdict.Rejected);
    }

    function test_reproductionsOfAnEarlierSittingDoNotCount() public {
        _serveAgain();
        _vote(victor, true, SAME);
        _vote(viola, true, OTHER);
        _expect(Verdict.Inconclusive);
    }

    function test_unavailableASecondTimeIsADefault() public {
        _serveAgain();
        _voteUnavailable(caseId, victor);
        _voteUnavailable(caseId, viola);
        _stageIs(caseId, Stage.Voting);
        _settleAt(caseId, revealBy, Verdict.Upheld);
        assertEq(vault.burnedOf(alice), 1_000e18);
    }

    function test_lessThanTwoThirdsUnavailableIsNoDefault() public {
        _serveAgain();
        _voteUnavailable(caseId, victor);
        _vote(viola, false, 0);
        _vote(vance, false, 0);
        _expect(Verdict.Rejected);
    }

    /// @dev An "unavailable" is instead of a vote, once.
    function test_aJurorSpeaksOnce() public {
        _voteUnavailable(caseId, victor);
        vm.startPrank(victor);
        vm.expectRevert(IChallengeManager.AlreadyDone.selector);
        manager.voteUnavailable(caseId);
        vm.expectRevert(IChallengeManager.AlreadyDone.selector);
        manager.commitVote(caseId, SALT);
        vm.stopPrank();
        _commitVote(caseId, viola, true, SAME);
        vm.prank(viola);
        vm.expectRevert(IChallengeManager.AlreadyDone.selector);
        manager.voteUnavailable(caseId);
    }

    function test_unavailableIsSaidWhileVotesAreCommitted() public {
        vm.warp(commitBy);
        vm.prank(victor);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, commitBy));
        manager.voteUnavailable(caseId);
    }

    function test_whatWasNotAskedForIsNotServed() public {
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(IChallengeManager.WrongStage.selector, Stage.Voting));
        manager.serveAgain(caseId, "bafy-again");
    }

    function test_theLastLevelHasNoAppeal() public {
        vm.warp(revealBy);
        vm.prank(vera);
        vm.expectRevert(IChallengeManager.NoAppeal.selector);
        manager.appeal(caseId);
    }
}
