// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IScoring} from "../src/interfaces/IScoring.sol";
import {
    BeaconAlreadyRequested,
    BeaconNotReady,
    NotAllowed,
    NotValidator,
    TooEarly,
    TooLate
} from "../src/types/Errors.sol";
import {Phase} from "../src/types/Types.sol";
import {StoryTest} from "./StoryTest.sol";

/// @dev Alice and Bob stand in round 1; Mallory does not.
contract ScoringTest is StoryTest {
    uint16[] private scores;

    function setUp() public override {
        super.setUp();
        scores = _row(9_000, 8_000, 0);
        _warpTo(Phase.Submission);
        _train(alice);
        _train(bob);
        _commitNewModel(alice);
        _commitNewModel(bob);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        _revealModel(bob, _model(bob));
    }

    /* COMMITTING */

    function test_theCommitWindowIsHalfOpen() public {
        vm.startPrank(vera);
        vm.warp(_times(1).scoresFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(1).scoresFrom));
        scoring.commitScores(taskId, 1, SALT);
        vm.warp(_times(1).revealFrom);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(1).revealFrom));
        scoring.commitScores(taskId, 1, SALT);
        vm.warp(_times(1).revealFrom - 1);
        scoring.commitScores(taskId, 1, SALT);
        assertEq(scoring.scoresCommitment(taskId, 1, vera), SALT);
    }

    function test_onlyValidatorsScoreAndOnlyOnce() public {
        vm.warp(_times(1).scoresFrom);
        vm.prank(alice);
        vm.expectRevert(abi.encodeWithSelector(NotValidator.selector, alice));
        scoring.commitScores(taskId, 1, SALT);
        _commitScores(vera, 1, scores);
        vm.prank(vera);
        vm.expectRevert(IScoring.ScoresAlreadyCommitted.selector);
        scoring.commitScores(taskId, 1, SALT);
    }

    /* REVEALING */

    function test_theRevealWindowIsHalfOpen() public {
        vm.warp(_times(1).scoresFrom);
        _commitScores(vera, 1, scores);
        vm.startPrank(vera);
        vm.warp(_times(1).revealFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(1).revealFrom));
        scoring.revealScores(taskId, 1, _packed(scores), SALT);
        vm.warp(_times(1).settleFrom);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(1).settleFrom));
        scoring.revealScores(taskId, 1, _packed(scores), SALT);
        vm.warp(_times(1).settleFrom - 1);
        scoring.revealScores(taskId, 1, _packed(scores), SALT);
        assertEq(scoring.scoresOf(taskId, 1, vera), _packed(scores));
        vm.expectRevert(IScoring.ScoresAlreadyRevealed.selector);
        scoring.revealScores(taskId, 1, _packed(scores), SALT);
    }

    function test_onlyWhatWasPromisedIsRevealed() public {
        vm.warp(_times(1).scoresFrom);
        _commitScores(vera, 1, scores);
        vm.warp(_times(1).revealFrom);
        vm.startPrank(vera);
        vm.expectRevert(IScoring.BadScoresReveal.selector);
        scoring.revealScores(taskId, 1, _packed(_row(9_001, 8_000, 0)), SALT);
        vm.expectRevert(IScoring.BadScoresReveal.selector);
        scoring.revealScores(taskId, 1, _packed(scores), keccak256("another salt"));
        vm.stopPrank();
        vm.prank(victor);
        vm.expectRevert(IScoring.ScoresNotCommitted.selector);
        scoring.revealScores(taskId, 1, _packed(scores), SALT);
    }

    /// @dev The attack: copy Vera's commitment, then her reveal. Its honest twin is hers.
    function test_copiedScoresCannotBeRevealedByTheCopier() public {
        vm.warp(_times(1).scoresFrom);
        bytes32 copied = _scoresCommitment(vera, 1, scores);
        vm.prank(victor);
        scoring.commitScores(taskId, 1, copied);
        _commitScores(vera, 1, scores);
        vm.warp(_times(1).revealFrom);
        vm.prank(victor);
        vm.expectRevert(IScoring.BadScoresReveal.selector);
        scoring.revealScores(taskId, 1, _packed(scores), SALT);
        _revealScores(vera, 1, scores);
    }

    function test_malformedScoresAreRefused() public {
        _malformed(vera, _packed(new uint16[](2)), abi.encodeWithSelector(IScoring.BadScoresLength.selector, 4, 6));
        _malformed(victor, hex"00000000000000", abi.encodeWithSelector(IScoring.BadScoresLength.selector, 7, 6));
        bytes memory tooHigh = _packed(_row(9_000, 10_001, 0));
        _malformed(viola, tooHigh, abi.encodeWithSelector(IScoring.BadScores.selector, 1));
        _commitAndReveal(vance, _packed(_row(10_000, 0, 10_000)));
    }

    function _malformed(address validator, bytes memory row, bytes memory expected) private {
        _commitRow(validator, row);
        vm.prank(validator);
        vm.expectRevert(expected);
        scoring.revealScores(taskId, 1, row, SALT);
    }

    function _commitAndReveal(address validator, bytes memory row) private {
        _commitRow(validator, row);
        vm.prank(validator);
        scoring.revealScores(taskId, 1, row, SALT);
    }

    function _commitRow(address validator, bytes memory row) private {
        bytes32 digest = sha256(row);
        bytes32 domain = "aiarena/scores/v1";
        uint16 round = 1;
        bytes memory promised =
            abi.encode(domain, block.chainid, address(scoring), taskId, round, validator, digest, SALT);
        bytes32 commitment = sha256(promised);
        vm.warp(_times(1).scoresFrom);
        vm.prank(validator);
        scoring.commitScores(taskId, 1, commitment);
        vm.warp(_times(1).revealFrom);
    }

    function test_aPromiseForOneRoundIsNoneForAnother() public {
        vm.warp(_times(2).scoresFrom);
        bytes32 forRoundOne = _scoresCommitment(vera, 1, scores);
        vm.prank(vera);
        scoring.commitScores(taskId, 2, forRoundOne);
        vm.warp(_times(2).revealFrom);
        vm.prank(vera);
        vm.expectRevert(IScoring.BadScoresReveal.selector);
        scoring.revealScores(taskId, 2, _packed(scores), SALT);
    }

    /* FINAL SET */

    function test_theFinalSetIsOpenedInItsWindow() public {
        vm.startPrank(creator);
        vm.warp(_times(3).opensAt - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(3).opensAt));
        scoring.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "");
        vm.warp(_times(3).scoresFrom);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _times(3).scoresFrom));
        scoring.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "");
        vm.warp(_times(3).scoresFrom - 1);
        scoring.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "");
        assertEq(scoring.finalSetRoot(taskId), FINAL_ROOT);
        vm.expectRevert(IScoring.FinalSetAlreadyOpened.selector);
        scoring.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "");
    }

    function test_theFinalSetIsTheOnePromisedByTheCreator() public {
        vm.warp(_times(3).opensAt);
        vm.expectRevert(abi.encodeWithSelector(NotAllowed.selector, stranger));
        vm.prank(stranger);
        scoring.openFinalSet(taskId, FINAL_ROOT, FINAL_SALT, "");
        vm.startPrank(creator);
        vm.expectRevert(IScoring.BadFinalSet.selector);
        scoring.openFinalSet(taskId, keccak256("easier data"), FINAL_SALT, "");
        vm.expectRevert(IScoring.BadFinalSet.selector);
        scoring.openFinalSet(taskId, FINAL_ROOT, SALT, "");
    }

    function test_theFinalRoundIsScoredOnTheOpenedSetOnly() public {
        vm.warp(_times(3).scoresFrom);
        vm.prank(vera);
        vm.expectRevert(IScoring.FinalSetNotOpened.selector);
        scoring.commitScores(taskId, 3, SALT);
        _openFinalSet();
        vm.warp(_times(3).scoresFrom);
        _commitScores(vera, 3, scores);
    }

    /* OPENING BEACON */

    function test_theOpeningBeaconIsDrawnWhenAllModelsAreShown() public {
        vm.warp(_times(2).scoresFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(2).scoresFrom));
        scoring.requestOpeningBeacon(taskId);
        vm.warp(_times(2).scoresFrom);
        vm.prank(stranger);
        scoring.requestOpeningBeacon(taskId);
        uint256 promised = block.number + 2;
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, promised));
        scoring.requestOpeningBeacon(taskId);
        vm.expectRevert(abi.encodeWithSelector(BeaconNotReady.selector, promised));
        scoring.latchOpeningBeacon(taskId);
        _mine(3);
        vm.expectEmit(address(scoring));
        emit IScoring.OpeningBeaconLatched(taskId, blockhash(promised));
        scoring.latchOpeningBeacon(taskId);
        assertEq(scoring.openingBeacon(taskId).value, blockhash(promised));
    }

    function test_theOpeningBeaconIsDrawnAgainOnlyIfNobodyLatchedIt() public {
        vm.warp(_times(2).scoresFrom);
        scoring.requestOpeningBeacon(taskId);
        uint256 promised = block.number + 2;
        vm.roll(promised + 256);
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, promised));
        scoring.requestOpeningBeacon(taskId);
        vm.roll(promised + 257);
        scoring.requestOpeningBeacon(taskId);
        _mine(3);
        scoring.latchOpeningBeacon(taskId);
        _mine(300);
        vm.expectRevert(abi.encodeWithSelector(BeaconAlreadyRequested.selector, promised + 259));
        scoring.requestOpeningBeacon(taskId);
    }
}
