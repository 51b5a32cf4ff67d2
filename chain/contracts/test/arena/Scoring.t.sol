// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IScoring} from "../../src/interfaces/IScoring.sol";
import {
    BeaconAlreadyRequested,
    BeaconNotReady,
    NotAllowed,
    NotValidator,
    TooEarly,
    TooLate
} from "../../src/types/Errors.sol";
import {Phase} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

/// @dev Alice and Bob stand in round 1; Mallory does not.
contract ScoringTest is StoryTest {
    uint16[] private scores;

    function setUp() public override {
        super.setUp();
        scores = _row(9_000, 8_000, 0);
        _warpTo(Phase.Submission);
        _train(alice);
        _train(bob);
        _commitModel(alice, _model(alice));
        _commitModel(bob, _model(bob));
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        _revealModel(bob, _model(bob));
    }

    /* COMMITTING */

    function test_theCommitWindowIsHalfOpen() public {
        vm.startPrank(vera);
        vm.warp(_times(1).scoresFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(1).scoresFrom));
        arena.commitScores(taskId, 1, SALT);
        vm.warp(_times(1).revealFrom);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(1).revealFrom));
        arena.commitScores(taskId, 1, SALT);
        vm.warp(_times(1).revealFrom - 1);
        arena.commitScores(taskId, 1, SALT);
        assertEq(arena.scoresCommitment(taskId, 1, vera), SALT);
    }

    function test_onlyValidatorsScoreAndOnlyOnce() public {
        vm.warp(_times(1).scoresFrom);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(NotValidator.selector, alice));
        arena.commitScores(taskId, 1, SALT);
        _commitScores(vera, 1, scores);
        vm.prank(vera);
        vm.expectRevert(IScoring.ScoresAlreadyCommitted.selector);
        arena.commitScores(taskId, 1, SALT);
    }

    /* REVEALING */

    function test_theRevealWindowIsHalfOpen() public {
        vm.warp(_times(1).scoresFrom);
        _commitScores(vera, 1, scores);
        vm.startPrank(vera);
        vm.warp(_times(1).revealFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(1).revealFrom));
        arena.revealScores(taskId, 1, scores, SALT);
        vm.warp(_times(1).settleFrom);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(1).settleFrom));
        arena.revealScores(taskId, 1, scores, SALT);
        vm.warp(_times(1).settleFrom - 1);
        arena.revealScores(taskId, 1, scores, SALT);
        assertEq(abi.encode(arena.scoresOf(taskId, 1, vera)), abi.encode(scores));
        vm.expectRevert(IScoring.ScoresAlreadyRevealed.selector);
        arena.revealScores(taskId, 1, scores, SALT);
    }

    function test_onlyWhatWasPromisedIsRevealed() public {
        vm.warp(_times(1).scoresFrom);
        _commitScores(vera, 1, scores);
        vm.warp(_times(1).revealFrom);
        vm.startPrank(vera);
        vm.expectRevert(IScoring.BadScoresReveal.selector);
        arena.revealScores(taskId, 1, _row(9_001, 8_000, 0), SALT);
        vm.expectRevert(IScoring.BadScoresReveal.selector);
        arena.revealScores(taskId, 1, scores, keccak256("another salt"));
        vm.stopPrank();
        vm.prank(victor);
        vm.expectRevert(IScoring.ScoresNotCommitted.selector);
        arena.revealScores(taskId, 1, scores, SALT);
    }

    /// @dev The attack: copy Vera's commitment, then her reveal. Its honest twin is hers.
    function test_copiedScoresCannotBeRevealedByTheCopier() public {
        vm.warp(_times(1).scoresFrom);
        bytes32 copied = _scoresCommitment(vera, 1, scores);
        vm.prank(victor);
        arena.commitScores(taskId, 1, copied);
        _commitScores(vera, 1, scores);
        vm.warp(_times(1).revealFrom);
        vm.prank(victor);
        vm.expectRevert(IScoring.BadScoresReveal.selector);
        arena.revealScores(taskId, 1, scores, SALT);
        _revealScores(vera, 1, scores);
    }

    function test_malformedScoresAreRefused() public {
        _malformed(vera, new uint16[](2), abi.encodeWithSelector(IScoring.BadScoresLength.selector, 2, 3));
        _malformed(victor, new uint16[](4), abi.encodeWithSelector(IScoring.BadScoresLength.selector, 4, 3));
        _malformed(viola, _row(9_000, 10_001, 0), abi.encodeWithSelector(IScoring.BadScores.selector, 1));
        bytes memory notStanding = abi.encodeWithSelector(IScoring.BadScores.selector, 2);
        _malformed(vance, _row(9_000, 10_000, 1), notStanding);
    }

    function _malformed(address validator, uint16[] memory values, bytes memory expected) private {
        vm.warp(_times(1).scoresFrom);
        _commitScores(validator, 1, values);
        vm.warp(_times(1).revealFrom);
        vm.prank(validator);
        vm.expectRevert(expected);
        arena.revealScores(taskId, 1, values, SALT);
    }

    function test_aPromiseForOneRoundIsNoneForAnother() public {
        vm.warp(_times(2).scoresFrom);
        bytes32 forRoundOne = _scoresCommitment(vera, 1, scores);
        vm.prank(vera);
        arena.commitScores(taskId, 2, forRoundOne);
        vm.warp(_times(2).revealFrom);
        vm.prank(vera);
        vm.expectRevert(IScoring.BadScoresReveal.selector);
        arena.revealScores(taskId, 2, scores, SALT);
    }

    /* FINAL SET */

    function test_theFinalSetIsOpenedInItsWindow() public {
        vm.startPrank(creator);
        vm.warp(_times(3).opensAt - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(3).opensAt));
        arena.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "");
        vm.warp(_times(3).scoresFrom);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(3).scoresFrom));
        arena.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "");
        vm.warp(_times(3).scoresFrom - 1);
        arena.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "");
        assertEq(arena.finalSetRoot(taskId), FINAL_ROOT);
        vm.expectRevert(IScoring.FinalSetAlreadyOpened.selector);
        arena.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "");
    }

    function test_theFinalSetIsTheOnePromisedByTheCreator() public {
        vm.warp(_times(3).opensAt);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, stranger));
        vm.prank(stranger);
        arena.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "");
        vm.startPrank(creator);
        vm.expectRevert(IScoring.BadFinalSet.selector);
        arena.openFinalSet(taskId, keccak256("easier data"), FINAL_SALT, "");
        vm.expectRevert(IScoring.BadFinalSet.selector);
        arena.openFinalSet(taskId, FINAL_ROOT, SALT, "");
    }

    function test_theFinalRoundIsScoredOnTheOpenedSetOnly() public {
        vm.warp(_times(3).scoresFrom);
        vm.prank(vera);
        vm.expectRevert(IScoring.FinalSetNotOpened.selector);
        arena.commitScores(taskId, 3, SALT);
        _openFinalSet();
        vm.warp(_times(3).scoresFrom);
        _commitScores(vera, 3, scores);
    }

    /* OPENING BEACON */

    function test_theOpeningBeaconIsDrawnWhenAllModelsAreShown() public {
        vm.warp(_times(2).scoresFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(2).scoresFrom));
        arena.requestOpeningBeacon(taskId);
        vm.warp(_times(2).scoresFrom);
        vm.prank(stranger);
        arena.requestOpeningBeacon(taskId);
        uint256 promised = block.number + 2;
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, promised));
        arena.requestOpeningBeacon(taskId);
        vm.expectRevert(abi.encodeWithSelector(BeaconNotReady.selector, promised));
        arena.latchOpeningBeacon(taskId);
        _mine(3);
        vm.expectEmit(address(arena));
        emit IScoring.OpeningBeaconLatched(taskId, blockhash(promised));
        arena.latchOpeningBeacon(taskId);
        assertEq(arena.openingBeacon(taskId).value, blockhash(promised));
    }

    function test_theOpeningBeaconIsDrawnAgainOnlyIfNobodyLatchedIt() public {
        vm.warp(_times(2).scoresFrom);
        arena.requestOpeningBeacon(taskId);
        uint256 promised = block.number + 2;
        vm.roll(promised + 256);
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, promised));
        arena.requestOpeningBeacon(taskId);
        vm.roll(promised + 257);
        arena.requestOpeningBeacon(taskId);
        _mine(3);
        arena.latchOpeningBeacon(taskId);
        _mine(300);
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, promised + 259));
        arena.requestOpeningBeacon(taskId);
    }
}
