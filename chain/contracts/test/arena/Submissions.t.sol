// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns, Submission} from "../../src/interfaces/IRuns.sol";
import {ITasks} from "../../src/interfaces/ITasks.sol";
import {TooEarly, TooLate, WrongPhase} from "../../src/types/Errors.sol";
import {Phase, Role, RunId} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

contract SubmissionsTest is StoryTest {
    bytes32 private model; // of Alice in round 1, and in some tests of others

    function setUp() public override {
        super.setUp();
        _warpTo(Phase.Submission);
        _train(alice);
        model = _newModel(alice);
    }

    function _revealRefused(address trainer, bytes32 digest, string memory cid, bytes32 salt) private {
        (uint16 round, uint64 branch) = (submittedIn[trainer], _branch(trainer));
        vm.prank(trainer);
        vm.expectRevert(IRuns.BadReveal.selector);
        arena.revealSubmission(taskId, round, branch, digest, cid, salt);
    }

    function _duplicateRefused(address trainer, address earlier) private {
        (string memory cid, uint64 branch) = (_cid(trainer), _branch(trainer));
        vm.prank(trainer);
        vm.expectRevert(abi.encodeWithSelector(IRuns.DuplicateModel.selector, model, earlier));
        arena.revealSubmission(taskId, submittedIn[trainer], branch, model, cid, SALT);
    }

    function _stands(address trainer, uint16 round) private view returns (bool) {
        return arena.standingOrder(taskId, trainer, round) != 0;
    }

    /* COMMITTING */

    function test_aSubmissionNeedsASeedAndAMark() public {
        _register(bob);
        RunId runId = runOf[bob];
        vm.prank(bob);
        vm.expectRevert(IRuns.MarkNotLatched.selector);
        arena.commitSubmission(runId, SALT);
        _anchorSome(bob);
        _commitNewModel(bob);
    }

    function test_aPromiseRecordsWhatItIsOf() public {
        bytes32 commitment = _commitmentTo(alice, model);
        vm.expectEmit(address(arena));
        emit IRuns.SubmissionCommitted(taskId, alice, 1, runOf[alice], 1, commitment);
        _commitModel(alice, model);
        Submission memory submission = arena.submission(taskId, alice, 1);
        assertEq(RunId.unwrap(submission.runId), RunId.unwrap(runOf[alice]));
        assertEq(submission.order, 1);
        assertEq(submission.anchored, SEGMENTS);
        assertEq(submission.commitment, commitment);
        assertEq(submission.transcriptDigest, _run(alice).transcriptDigest);
        assertEq(submission.modelDigest, 0);
        assertFalse(submission.revealed);
        assertEq(arena.submission(taskId, alice, 2).order, 0);
    }

    function test_oneSubmissionARound() public {
        _commitModel(alice, model);
        RunId runId = runOf[alice];
        vm.prank(alice);
        vm.expectRevert(IRuns.AlreadyCommitted.selector);
        arena.commitSubmission(runId, SALT);
        _train(alice); // another run is of no help
        runId = runOf[alice];
        vm.prank(alice);
        vm.expectRevert(IRuns.AlreadyCommitted.selector);
        arena.commitSubmission(runId, SALT);
        vm.warp(_times(1).opensAt);
        _commitNewModel(alice);
        assertEq(arena.submission(taskId, alice, 2).order, 2);
    }

    function test_theRoundIsTheOneItIsCommittedIn() public {
        _train(bob);
        vm.warp(_times(1).opensAt - 1);
        _commitNewModel(alice);
        vm.warp(_times(1).opensAt);
        _commitNewModel(bob);
        assertEq(arena.submission(taskId, alice, 1).order, 1);
        assertEq(arena.submission(taskId, bob, 1).order, 0);
        assertEq(arena.submission(taskId, bob, 2).order, 2);
    }

    function test_submissionsEndWithTheirPhase() public {
        _train(bob);
        vm.warp(_phases().finalFrom - 1);
        _commitNewModel(alice);
        vm.warp(_phases().finalFrom);
        RunId runId = runOf[bob];
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.FinalValidation, Phase.Submission));
        arena.commitSubmission(runId, SALT);
    }

    /* REVEALING */

    function test_theRevealWindowIsHalfOpen() public {
        _commitModel(alice, model);
        string memory cid = _cid(alice);
        vm.startPrank(alice);
        vm.warp(_times(1).opensAt - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(1).opensAt));
        arena.revealSubmission(taskId, 1, REFERENCE, model, cid, SALT);
        vm.warp(_times(1).scoresFrom);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(1).scoresFrom));
        arena.revealSubmission(taskId, 1, REFERENCE, model, cid, SALT);
        vm.warp(_times(1).scoresFrom - 1);
        arena.revealSubmission(taskId, 1, REFERENCE, model, cid, SALT);
    }

    function test_theRevealWindowOpensOnTime() public {
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        vm.expectEmit(address(arena));
        emit IRuns.SubmissionRevealed(taskId, alice, 1, REFERENCE, model, _cid(alice));
        _revealModel(alice, model);
        Submission memory submission = arena.submission(taskId, alice, 1);
        assertTrue(submission.revealed);
        assertEq(submission.branch, REFERENCE);
        assertEq(submission.modelDigest, model);
        assertEq(_run(alice).firstOrder, 1);
        vm.prank(alice);
        vm.expectRevert(IRuns.AlreadyRevealed.selector);
        arena.revealSubmission(taskId, 1, REFERENCE, model, "", SALT);
    }

    function test_aMissedRevealIsNotMadeUpInTheNextRound() public {
        _commitModel(alice, model);
        vm.warp(_times(2).opensAt);
        vm.startPrank(alice);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(1).scoresFrom));
        arena.revealSubmission(taskId, 1, REFERENCE, model, "", SALT);
        vm.expectRevert(IRuns.NothingCommitted.selector);
        arena.revealSubmission(taskId, 2, REFERENCE, model, "", SALT);
        assertEq(_run(alice).firstOrder, 0);
    }

    function test_onlyWhatWasPromisedIsRevealed() public {
        vm.startPrank(alice);
        vm.expectRevert(IRuns.NothingCommitted.selector);
        arena.revealSubmission(taskId, 1, REFERENCE, model, "", SALT);
        for (uint16 round; round < 5; round += 4) {
            vm.expectRevert(abi.encodeWithSelector(ITasks.UnknownRound.selector, round));
            arena.revealSubmission(taskId, round, REFERENCE, model, "", SALT);
        }
        vm.stopPrank();

        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        string memory cid = _cid(alice);
        _revealRefused(alice, keccak256("another model"), cid, SALT);
        _revealRefused(alice, model, "bafy-another", SALT);
        _revealRefused(alice, model, cid, keccak256("another salt"));
    }

    function test_aPromiseHoldsOnItsOwnChainOnly() public {
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        vm.chainId(99);
        _revealRefused(alice, model, _cid(alice), SALT);
    }

    /* BRANCHES */

    /// @dev From the reference to what was anchored at the commitment; and only the branch that was promised.
    function test_aBranchLeavesTheMarkedTrunkThatWasAnchored() public {
        _register(bob);
        _anchorSome(bob);
        _commitNewModel(bob);
        bytes32 bobs = _model(bob);
        _anchorRest(bob);
        vm.warp(_times(1).opensAt);
        string memory cid = _cid(bob);
        vm.startPrank(bob);
        uint64[4] memory wrong = [REFERENCE - 1, FIRST_ANCHOR, SEGMENTS, type(uint64).max];
        for (uint256 k; k < wrong.length; ++k) {
            vm.expectRevert(abi.encodeWithSelector(IRuns.BadBranch.selector, REFERENCE, FIRST_ANCHOR));
            arena.revealSubmission(taskId, 1, wrong[k], bobs, cid, SALT);
        }
        vm.expectRevert(IRuns.BadReveal.selector);
        arena.revealSubmission(taskId, 1, FIRST_ANCHOR - 1, bobs, cid, SALT);
        arena.revealSubmission(taskId, 1, REFERENCE, bobs, cid, SALT);
    }

    /* OVER ROUNDS */

    function test_aSubmissionStandsFromItsRoundOn() public {
        vm.warp(_times(1).opensAt);
        _commitNewModel(alice);
        vm.warp(_times(2).opensAt);
        _revealModel(alice, _model(alice));
        assertFalse(_stands(alice, 1));
        assertTrue(_stands(alice, 2));
        assertTrue(_stands(alice, FINAL));
        assertFalse(_stands(bob, FINAL));
        uint64[] memory orders = arena.standingOrders(taskId, 2);
        assertEq(orders.length, 3);
        assertEq(orders[0], 1);
        assertEq(orders[1] + orders[2], 0);
    }

    function test_roundsAreThoseOfTheTask() public {
        for (uint16 round; round < 5; round += 4) {
            vm.expectRevert(abi.encodeWithSelector(ITasks.UnknownRound.selector, round));
            arena.standingOrder(taskId, alice, round);
            vm.expectRevert(abi.encodeWithSelector(ITasks.UnknownRound.selector, round));
            arena.standingOrders(taskId, round);
        }
    }

    /// @dev Training goes on: the second submission is of a longer trunk, and the bond's question is about the first.
    function test_theLastRevealedSubmissionStands() public {
        _register(bob);
        _anchorSome(bob);
        _commitNewModel(bob);
        bytes32 early = _run(bob).transcriptDigest;
        _anchorRest(bob);
        vm.warp(_times(1).opensAt);
        _revealModel(bob, _model(bob));
        _commitNewModel(bob);
        assertEq(arena.standingOrder(taskId, bob, 2), 1, "promised is not shown");
        vm.warp(_times(2).opensAt);
        _revealModel(bob, _model(bob));
        assertEq(arena.standingOrder(taskId, bob, 1), 1, "the past stays");
        assertEq(arena.standingOrder(taskId, bob, 2), 2);
        assertEq(arena.standingOrder(taskId, bob, FINAL), 2);
        assertEq(_run(bob).firstOrder, 1);
        assertEq(arena.submission(taskId, bob, 1).transcriptDigest, early);
        assertEq(arena.submission(taskId, bob, 2).transcriptDigest, _run(bob).transcriptDigest);
    }

    /// @dev The last of several runs: the final round asks whether that one is whole.
    function test_theFinalRoundAsksForTheRunOfTheLastSubmission() public {
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, model);
        RunId whole = runOf[alice];
        _register(alice);
        _anchorSome(alice);
        _commitNewModel(alice);
        assertEq(arena.standingOrder(taskId, alice, FINAL), 1);
        vm.warp(_times(2).opensAt);
        _revealModel(alice, _model(alice));
        assertEq(arena.standingOrder(taskId, alice, 2), 2);
        assertEq(arena.standingOrder(taskId, alice, FINAL), 0, "not whole, though the first run was");
        assertEq(arena.run(whole).firstOrder, 1);
        assertEq(_run(alice).firstOrder, 2);
    }

    /* DUPLICATES */

    function test_theSameModelCommittedLaterIsRejected() public {
        _train(bob);
        _commitModel(alice, model);
        _commitModel(bob, model);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, model);
        _duplicateRefused(bob, alice);
        assertTrue(_stands(alice, 1));
        assertFalse(_stands(bob, 1));
        assertEq(_run(bob).firstOrder, 0);
    }

    function test_theSameModelCommittedLaterIsStruckIfShownFirst() public {
        _train(bob);
        _commitModel(alice, model);
        _commitModel(bob, model);
        vm.warp(_times(1).opensAt);
        _revealModel(bob, model);
        assertTrue(_stands(bob, 1));
        assertEq(_run(bob).firstOrder, 2);
        vm.expectEmit(address(arena));
        emit IRuns.SubmissionStruck(taskId, bob, 1, alice, model);
        _revealModel(alice, model);
        assertTrue(_stands(alice, 1));
        for (uint16 round = 1; round <= FINAL; ++round) {
            assertFalse(_stands(bob, round));
        }
        assertTrue(arena.submission(taskId, bob, 1).struck);
        assertEq(_run(bob).firstOrder, 0, "nothing came of it");
    }

    /// @dev Only what is equal is struck: Bob's model of the round before stands again, and keeps its run's bond.
    function test_whatStoodBeforeAStruckSubmissionStandsAgain() public {
        _train(bob);
        _commitNewModel(bob);
        vm.warp(_times(1).opensAt);
        _revealModel(bob, _model(bob));
        _commitModel(alice, model);
        _commitModel(bob, model);
        vm.warp(_times(2).opensAt);
        _revealModel(bob, model);
        assertEq(arena.standingOrder(taskId, bob, 2), 3);
        _revealModel(alice, model);
        assertEq(arena.standingOrder(taskId, alice, 2), 2);
        for (uint16 round = 1; round <= FINAL; ++round) {
            assertEq(arena.standingOrder(taskId, bob, round), 1);
        }
        assertEq(_run(bob).firstOrder, 1);
    }

    function test_ofThreeEqualModelsTheFirstStands() public {
        _train(bob);
        _train(mallory);
        _commitModel(alice, model);
        _commitModel(bob, model);
        _commitModel(mallory, model);
        vm.warp(_times(1).opensAt);
        _revealModel(mallory, model);
        _revealModel(bob, model);
        _revealModel(alice, model);
        assertTrue(_stands(alice, 1));
        assertFalse(_stands(bob, 1));
        assertFalse(_stands(mallory, 1));
    }

    function test_aPublishedModelCannotBeResubmittedNextRound() public {
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, model);
        _train(mallory);
        _commitModel(mallory, model);
        _commitModel(alice, model); // nor by its own trainer
        vm.warp(_times(2).opensAt);
        _duplicateRefused(mallory, alice);
        _duplicateRefused(alice, alice);
        assertEq(arena.standingOrder(taskId, alice, 2), 1);
    }

    function test_theSameModelStandsOnceInEachTask() public {
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, model);
        taskId = _createTask(_config());
        vm.prank(bob);
        vault.stake(taskId, Role.Trainer, 1_000e18, 0);
        _warpTo(Phase.Submission);
        _train(bob);
        _commitModel(bob, model);
        vm.warp(_times(1).opensAt);
        _revealModel(bob, model);
        assertTrue(_stands(bob, 1));
    }
}
