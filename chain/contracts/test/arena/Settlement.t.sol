// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IScoring, Result} from "../../src/interfaces/IScoring.sol";
import {TaskConfig} from "../../src/interfaces/ITasks.sol";
import {TooEarly, TooLate} from "../../src/types/Errors.sol";
import {CaseId, Phase, Role, TaskId} from "../../src/types/Types.sol";
import {StoryTest} from "../StoryTest.sol";

contract SettlementTest is StoryTest {
    /// @dev Alice and Bob submit in round 1 and reveal.
    function _twoSubmit() internal {
        _warpTo(Phase.Submission);
        _train(alice);
        _train(bob);
        _commitModel(alice, _model(alice));
        _commitModel(bob, _model(bob));
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        _revealModel(bob, _model(bob));
    }

    function _commitAndReveal(uint256 round, address[] memory who, uint16[][] memory rows) internal {
        vm.warp(_times(round).scoresFrom);
        for (uint256 j; j < who.length; ++j) {
            _commitScores(who[j], round, rows[j]);
        }
        vm.warp(_times(round).revealFrom);
        for (uint256 j; j < who.length; ++j) {
            _revealScores(who[j], round, rows[j]);
        }
    }

    /// @dev Numbers computed with 60 digits outside the EVM: own stakes 3,000 and 2,000, gamma 10 %, q 0.8, lambda 5.
    function test_sharesFollowTheEquations() public {
        _twoSubmit();
        uint16[][] memory rows = new uint16[][](4);
        (rows[0], rows[1]) = (_row(9_000, 8_000, 0), _row(8_800, 8_100, 0));
        (rows[2], rows[3]) = (_row(9_000, 8_000, 0), _row(2_000, 9_000, 0));
        _commitAndReveal(1, validators, rows);
        vm.warp(_times(1).settleFrom);
        arena.settleRound(taskId, 1);

        _resultIs(alice, 0.736363636363636363e18, 2);
        _resultIs(bob, 0.825e18, 1);
        _resultIs(mallory, 0, 0);
        assertEq(escrow.allocated(taskId, alice), 27_577358490566037735);
        assertEq(escrow.allocated(taskId, bob), 24_622641509433962264);
        assertEq(escrow.allocated(taskId, mallory), 0);
        assertApproxEqRel(escrow.allocated(taskId, vera), 13_833688049154327522, 1e6);
        assertApproxEqRel(escrow.allocated(taskId, victor), 10_650795068903990888, 1e6);
        assertApproxEqRel(escrow.allocated(taskId, viola), 9_881205749395948230, 1e6);
        assertApproxEqRel(escrow.allocated(taskId, vance), 3_434311132545733359, 1e6);
        uint256 allocated = escrow.budgetOf(taskId).allocated;
        assertLe(allocated, 90e18);
        assertGt(allocated, 90e18 - 6, "less than a wei of dust a payee");
    }

    function _resultIs(address trainer, uint256 aggregate, uint256 rank) private view {
        Result memory result = arena.result(taskId, 1, trainer);
        assertEq(result.aggregate, aggregate);
        assertEq(result.rank, rank);
    }

    function test_equalScoresRankByCommitOrder() public {
        _twoSubmit();
        _scoreAll(1, _row(7_000, 7_000, 0));
        _settleRound(1);
        _resultIs(alice, 0.7e18, 1);
        _resultIs(bob, 0.7e18, 2);
    }

    function test_roundsSettleOnceInOrderInTheirWindow() public {
        _twoSubmit();
        _scoreAll(1, _row(9_000, 8_000, 0));
        vm.warp(_times(1).settleFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(TooEarly.selector, _times(1).settleFrom));
        arena.settleRound(taskId, 1);
        vm.warp(_phases().closedFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(IScoring.WrongRound.selector, 1));
        arena.settleRound(taskId, 2);
        vm.prank(stranger);
        arena.settleRound(taskId, 1);
        vm.expectRevert(abi.encodeWithSelector(IScoring.WrongRound.selector, 2));
        arena.settleRound(taskId, 1);
        vm.warp(_phases().closedFrom);
        vm.expectRevert(abi.encodeWithSelector(TooLate.selector, _phases().closedFrom));
        arena.settleRound(taskId, 2);
        assertEq(arena.settledRounds(taskId), 1);
    }

    function test_theFirstSecondOfTheWindowSettles() public {
        _twoSubmit();
        vm.warp(_times(1).settleFrom);
        arena.settleRound(taskId, 1);
        assertEq(arena.settledRounds(taskId), 1);
    }

    function test_withoutRevealedScoresNothingIsAllocated() public {
        _twoSubmit();
        _settleRound(1);
        assertEq(escrow.budgetOf(taskId).allocated, 0);
        assertEq(arena.result(taskId, 1, alice).rank, 0);
    }

    function test_withoutAStandingModelNothingIsAllocated() public {
        _scoreAll(1, _row(0, 0, 0));
        _settleRound(1);
        assertEq(escrow.budgetOf(taskId).allocated, 0);
        _warpTo(Phase.Closed);
        uint256 before = token.balanceOf(creator);
        vm.prank(creator);
        escrow.reclaim(taskId);
        assertEq(token.balanceOf(creator), before + 380e18);
    }

    function test_aValidatorThatDoesNotRevealEarnsNothing() public {
        _twoSubmit();
        address[] memory three = new address[](3);
        uint16[][] memory rows = new uint16[][](3);
        for (uint256 j; j < 3; ++j) {
            (three[j], rows[j]) = (validators[j], _row(9_000, 8_000, 0));
        }
        _commitAndReveal(1, three, rows);
        _settleRound(1);
        assertGt(escrow.allocated(taskId, viola), 0);
        assertEq(escrow.allocated(taskId, vance), 0);
    }

    function test_theOrderOfRevealsDoesNotMatter() public {
        _twoSubmit();
        uint256 snapshot = vm.snapshotState();
        uint16[][] memory rows = new uint16[][](4);
        (rows[0], rows[1]) = (_row(9_100, 8_000, 0), _row(8_800, 8_100, 0));
        (rows[2], rows[3]) = (_row(5_000, 8_300, 0), _row(2_000, 9_000, 0));
        _commitAndReveal(1, validators, rows);
        _settleRound(1);
        bytes memory forward = _allocations();
        vm.revertToState(snapshot);
        address[] memory backwards = new address[](4);
        uint16[][] memory reversed = new uint16[][](4);
        for (uint256 j; j < 4; ++j) {
            (backwards[j], reversed[j]) = (validators[3 - j], rows[3 - j]);
        }
        _commitAndReveal(1, backwards, reversed);
        _settleRound(1);
        assertEq(_allocations(), forward);
    }

    function _allocations() private view returns (bytes memory all) {
        for (uint256 i; i < trainers.length; ++i) {
            all = abi.encode(all, escrow.allocated(taskId, trainers[i]));
        }
        for (uint256 j; j < validators.length; ++j) {
            all = abi.encode(all, escrow.allocated(taskId, validators[j]));
        }
    }

    /* FINAL ROUND */

    function _playTwoRounds() private {
        _twoSubmit();
        _scoreAll(1, _row(9_000, 8_000, 0));
        _settleRound(1);
        _scoreAll(2, _row(9_000, 8_000, 0));
        _settleRound(2);
    }

    function _finalScores(uint256 revealing) private {
        _openFinalSet();
        vm.warp(_times(3).scoresFrom);
        for (uint256 j; j < validators.length; ++j) {
            _commitScores(validators[j], 3, _row(1_000, 8_000, 0));
        }
        vm.warp(_times(3).revealFrom);
        for (uint256 j; j < revealing; ++j) {
            _revealScores(validators[j], 3, _row(1_000, 8_000, 0));
        }
        _settleRound(3);
    }

    function test_theFinalSetDecidesTheFinalRound() public {
        _playTwoRounds();
        _finalScores(4);
        assertEq(arena.result(taskId, 2, alice).rank, 1);
        assertEq(arena.result(taskId, 3, alice).rank, 2);
        assertEq(arena.result(taskId, 3, alice).aggregate, 0.1e18);
    }

    function test_anAbsentCreatorStallsNobodyAndSavesNothing() public {
        _playTwoRounds();
        uint256 before = escrow.budgetOf(taskId).allocated;
        vm.warp(_times(3).settleFrom);
        vm.expectEmit(true, true, false, false, address(arena));
        emit IScoring.RoundSettled(taskId, 3, 2, 0, 0, 0);
        arena.settleRound(taskId, 3);
        assertEq(arena.result(taskId, 3, alice).aggregate, 0.9e18);
        assertEq(arena.result(taskId, 3, alice).rank, 1);
        assertApproxEqAbs(escrow.budgetOf(taskId).allocated - before, 200e18, 10);
    }

    /// @dev Vera (700 with delegations) and Victor (500) carry 1,200 of 2,200: half is reached. Without Vera it is not.
    function test_halfOfTheStakeAttestsTheFinalSet() public {
        _playTwoRounds();
        uint256 snapshot = vm.snapshotState();
        _finalScores(2);
        assertEq(arena.result(taskId, 3, alice).rank, 2);
        vm.revertToState(snapshot);
        _finalScores(1);
        assertEq(arena.result(taskId, 3, alice).rank, 1, "700 of 2,200: round 2 ranks");
    }

    /* CAP AND FORFEIT */

    function test_rewardsStayWithinTheSlashableStake() public {
        TaskConfig memory config = _config();
        config.slashBps = 200; // of 1,000: 20
        taskId = _createTask(config);
        _restake();
        _playTwoRounds();
        assertEq(vault.slashable(taskId, alice), 20e18);
        assertEq(escrow.allocated(taskId, alice), 20e18);
        assertEq(escrow.allocated(taskId, bob), 20e18);
        _finalScores(4);
        assertEq(escrow.allocated(taskId, alice), 20e18, "over all rounds together");
    }

    function _restake() private {
        for (uint256 i; i < trainers.length; ++i) {
            vm.prank(trainers[i]);
            vault.stake(taskId, Role.Trainer, 1_000e18, 0);
        }
        for (uint256 j; j < validators.length; ++j) {
            vm.prank(validators[j]);
            vault.stake(taskId, Role.Validator, 500e18, 0);
        }
    }

    function test_aForfeitedTrainerIsAllocatedNothingMore() public {
        _playTwoRounds();
        uint256 before = escrow.allocated(taskId, alice);
        _warpTo(Phase.Challenging);
        CaseId caseId = _openAndLatch(vera, alice);
        vm.warp(block.timestamp + 4 hours);
        manager.settle(caseId);
        arena.settleRound(taskId, 3);
        assertEq(escrow.allocated(taskId, alice), before);
        assertEq(arena.result(taskId, 3, alice).rank, 1, "nobody is ranked again");
        assertGt(escrow.allocated(taskId, bob), 0);
    }

    function test_tasksDoNotShareAnything() public {
        TaskId other = _createTask(_config());
        _playTwoRounds();
        assertEq(escrow.budgetOf(other).allocated, 0);
        assertEq(escrow.allocated(other, alice), 0);
        assertFalse(arena.standing(other, alice, 3));
    }
}
