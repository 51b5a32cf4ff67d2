// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRuns} from "../../src/interfaces/IRuns.sol";
import {TooEarly, TooLate, WrongPhase} from "../../src/types/Errors.sol";
import {Phase, Role} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

contract SubmissionsTest is StoryTest {
    bytes32 private model;

    function setUp() public override {
        super.setUp();
        model = _model(alice);
        _warpTo(Phase.Submission);
        _train(alice);
    }

    function _revealRefused(address trainer, bytes32 digest, string memory cid, bytes32 salt) private {
        vm.prank(trainer);
        vm.expectRevert(IRuns.BadReveal.selector);
        arena.revealSubmission(taskId, digest, cid, salt);
    }

    /* COMMITTING */

    function test_onlyACompleteTranscriptIsSubmitted() public {
        _register(bob);
        _anchor(bob, 0, FIRST_ANCHOR);
        vm.startPrank(bob);
        vm.expectRevert(abi.encodeWithSelector(IRuns.TranscriptIncomplete.selector, 5, 8));
        arena.commitSubmission(taskId, SALT);
        vm.stopPrank();
        _anchor(bob, FIRST_ANCHOR, SEGMENTS - FIRST_ANCHOR);
        vm.prank(bob);
        vm.expectRevert(IRuns.MarkNotLatched.selector);
        arena.commitSubmission(taskId, SALT);
    }

    function test_oneSubmissionARun() public {
        _commitModel(alice, model);
        vm.prank(alice);
        vm.expectRevert(IRuns.AlreadyCommitted.selector);
        arena.commitSubmission(taskId, SALT);
    }

    function test_theRoundIsTheOneItIsCommittedIn() public {
        _train(bob);
        vm.warp(_times(1).opensAt - 1);
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        _commitModel(bob, _model(bob));
        assertEq(arena.run(taskId, alice).round, 1);
        assertEq(arena.run(taskId, bob).round, 2);
        assertEq(arena.run(taskId, alice).commitOrder, 1);
        assertEq(arena.run(taskId, bob).commitOrder, 2);
    }

    function test_submissionsEndWithTheirPhase() public {
        _train(bob);
        vm.warp(_phases().finalFrom - 1);
        _commitModel(alice, model);
        vm.warp(_phases().finalFrom);
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(WrongPhase.selector, Phase.FinalValidation, Phase.Submission));
        arena.commitSubmission(taskId, SALT);
    }

    /* REVEALING */

    function test_theRevealWindowIsHalfOpen() public {
        _commitModel(alice, model);
        string memory cid = _cid(alice);
        vm.startPrank(alice);
        vm.warp(_times(1).opensAt - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(1).opensAt));
        arena.revealSubmission(taskId, model, cid, SALT);
        vm.warp(_times(1).scoresFrom);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(1).scoresFrom));
        arena.revealSubmission(taskId, model, cid, SALT);
        vm.warp(_times(1).scoresFrom - 1);
        arena.revealSubmission(taskId, model, cid, SALT);
    }

    function test_theRevealWindowOpensOnTime() public {
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        vm.expectEmit(address(arena));
        emit IRuns.SubmissionRevealed(taskId, alice, 1, model, _cid(alice));
        _revealModel(alice, model);
        assertTrue(arena.standing(taskId, alice, 1));
        assertTrue(arena.standing(taskId, alice, 3));
        vm.prank(alice);
        vm.expectRevert(IRuns.AlreadyRevealed.selector);
        arena.revealSubmission(taskId, model, "", SALT);
    }

    function test_aSubmissionStandsFromItsRoundOn() public {
        vm.warp(_times(1).opensAt);
        _commitModel(alice, model);
        vm.warp(_times(2).opensAt);
        _revealModel(alice, model);
        assertFalse(arena.standing(taskId, alice, 1));
        assertTrue(arena.standing(taskId, alice, 2));
        assertTrue(arena.standing(taskId, alice, 3));
        assertFalse(arena.standing(taskId, bob, 3));
    }

    function test_aMissedRevealIsNotMadeUpInTheNextRound() public {
        _commitModel(alice, model);
        vm.warp(_times(2).opensAt);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(1).scoresFrom));
        vm.prank(alice);
        arena.revealSubmission(taskId, model, "", SALT);
        assertTrue(arena.abandoned(taskId, alice));
    }

    function test_onlyWhatWasPromisedIsRevealed() public {
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(IRuns.UnknownRun.selector, bob));
        arena.revealSubmission(taskId, model, "", SALT);
        vm.prank(alice);
        vm.expectRevert(IRuns.NothingCommitted.selector);
        arena.revealSubmission(taskId, model, "", SALT);

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

    /// @dev The attack: take Alice's commitment out of the mempool, then her reveal. Its honest twin is hers.
    function test_aCopiedCommitmentCannotBeRevealedByTheCopier() public {
        _train(bob);
        bytes32 commitment = _commitmentTo(alice, model);
        vm.prank(bob);
        arena.commitSubmission(taskId, commitment); // first in line
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        _revealRefused(bob, model, _cid(alice), SALT);
        _revealModel(alice, model);
        assertTrue(arena.standing(taskId, alice, 1));
        assertFalse(arena.standing(taskId, bob, 1));
    }

    /* DUPLICATES */

    function test_theSameModelCommittedLaterIsRejected() public {
        _train(bob);
        _commitModel(alice, model);
        _commitModel(bob, model);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, model);
        string memory cid = _cid(bob);
        vm.prank(bob);
        vm.expectRevert(abi.encodeWithSelector(IRuns.DuplicateModel.selector, model, alice));
        arena.revealSubmission(taskId, model, cid, SALT);
        assertTrue(arena.standing(taskId, alice, 1));
        assertFalse(arena.standing(taskId, bob, 1));
    }

    function test_theSameModelCommittedLaterIsStruckIfShownFirst() public {
        _train(bob);
        _commitModel(alice, model);
        _commitModel(bob, model);
        vm.warp(_times(1).opensAt);
        _revealModel(bob, model);
        assertTrue(arena.standing(taskId, bob, 1));
        vm.expectEmit(address(arena));
        emit IRuns.SubmissionStruck(taskId, bob, alice, model);
        _revealModel(alice, model);
        assertTrue(arena.standing(taskId, alice, 1));
        assertFalse(arena.standing(taskId, bob, 1));
        assertFalse(arena.standing(taskId, bob, 3));
        assertFalse(arena.abandoned(taskId, bob), "rejected, never convicted");
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
        assertTrue(arena.standing(taskId, alice, 1));
        assertFalse(arena.standing(taskId, bob, 1));
        assertFalse(arena.standing(taskId, mallory, 1));
    }

    function test_aPublishedModelCannotBeResubmittedNextRound() public {
        _commitModel(alice, model);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, model);
        _train(mallory);
        _commitModel(mallory, model);
        vm.warp(_times(2).opensAt);
        string memory cid = _cid(mallory);
        vm.prank(mallory);
        vm.expectRevert(abi.encodeWithSelector(IRuns.DuplicateModel.selector, model, alice));
        arena.revealSubmission(taskId, model, cid, SALT);
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
        assertTrue(arena.standing(taskId, bob, 1));
    }
}
