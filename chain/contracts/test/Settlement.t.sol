// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IScoring, Result} from "../src/interfaces/IScoring.sol";
import {TaskConfig} from "../src/interfaces/ITasks.sol";
import {TooEarly, TooLate} from "../src/types/Errors.sol";
import {Aggregator, CaseId, Phase, Role, TaskId} from "../src/types/Types.sol";
import {StoryTest} from "./StoryTest.sol";

contract SettlementTest is StoryTest {
    /// @dev Alice and Bob submit in round 1 and reveal.
    function _twoSubmit() internal {
        _warpTo(Phase.Submission);
        _train(alice);
        _train(bob);
        _commitNewModel(alice);
        _commitNewModel(bob);
        vm.warp(_times(1).opensAt);
        _revealModel(alice, _model(alice));
        _revealModel(bob, _model(bob));
    }

    function _commitAndReveal(uint16 round, address[] memory who, uint16[][] memory rows) internal {
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
        _settleRound(1);

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

    function _result(uint16 round, address trainer) private view returns (Result memory) {
        return scoring.results(taskId, round)[trainer == alice ? 0 : trainer == bob ? 1 : 2];
    }

    function _resultIs(address trainer, uint256 aggregate, uint256 rank) private view {
        Result memory result = _result(1, trainer);
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

    /* STAGES */

    function test_roundsSettleOnceInOrderInTheirWindow() public {
        _twoSubmit();
        _scoreAll(1, _row(9_000, 8_000, 0));
        vm.warp(_times(1).settleFrom - 1);
        _eachReverts(1, abi.encodeWithSelector(TooEarly.selector, _times(1).settleFrom));
        vm.warp(_phases().closedFrom - 1);
        vm.expectRevert(abi.encodeWithSelector(IScoring.WrongRound.selector, 1));
        scoring.rankRound(taskId, 2, 3);
        vm.prank(stranger);
        scoring.rankRound(taskId, 1, 3);
        vm.expectRevert(abi.encodeWithSelector(IScoring.Done.selector, 1));
        scoring.rankRound(taskId, 1, 3);
        vm.expectRevert(abi.encodeWithSelector(IScoring.WrongRound.selector, 1));
        scoring.rankRound(taskId, 2, 3);
        _payAll(1);
        vm.expectRevert(abi.encodeWithSelector(IScoring.WrongRound.selector, 2));
        scoring.rankRound(taskId, 1, 3);
        vm.warp(_phases().closedFrom);
        _eachReverts(1, abi.encodeWithSelector(TooLate.selector, _phases().closedFrom));
        assertEq(scoring.settledRounds(taskId), 1);
    }

    function _eachReverts(uint16 round, bytes memory expected) private {
        vm.expectRevert(expected);
        scoring.rankRound(taskId, round, 1);
        vm.expectRevert(expected);
        scoring.payTrainers(taskId, round, 1);
        vm.expectRevert(expected);
        scoring.weighValidators(taskId, round, 1);
        vm.expectRevert(expected);
        scoring.payValidators(taskId, round, 1);
    }

    function _payAll(uint16 round) private {
        scoring.payTrainers(taskId, round, 3);
        scoring.weighValidators(taskId, round, 4);
        scoring.payValidators(taskId, round, 4);
    }

    function test_theFirstSecondOfTheWindowRanks() public {
        _twoSubmit();
        vm.warp(_times(1).settleFrom);
        scoring.rankRound(taskId, 1, 0);
        assertEq(scoring.settledRounds(taskId), 1, "nobody revealed: settled as soon as ranked");
    }

    function test_noStageBeforeTheOneItNeeds() public {
        _twoSubmit();
        _scoreAll(1, _row(9_000, 8_000, 0));
        vm.warp(_times(1).settleFrom);
        bytes memory notRanked = abi.encodeWithSelector(IScoring.NotRanked.selector, 1);
        scoring.rankRound(taskId, 1, 2);
        vm.expectRevert(notRanked);
        scoring.payTrainers(taskId, 1, 1);
        vm.expectRevert(notRanked);
        scoring.weighValidators(taskId, 1, 1);
        assertEq(scoring.results(taskId, 1).length, 0);
        scoring.rankRound(taskId, 1, 1);
        scoring.weighValidators(taskId, 1, 3);
        vm.expectRevert(abi.encodeWithSelector(IScoring.NotWeighed.selector, 1));
        scoring.payValidators(taskId, 1, 1);
        scoring.weighValidators(taskId, 1, 3);
        vm.expectRevert(abi.encodeWithSelector(IScoring.Done.selector, 1));
        scoring.weighValidators(taskId, 1, 1);
    }

    function test_nothingIsPaidTwice() public {
        _twoSubmit();
        _scoreAll(1, _row(9_000, 8_000, 0));
        vm.warp(_times(1).settleFrom);
        scoring.rankRound(taskId, 1, 100);
        scoring.payTrainers(taskId, 1, 100);
        bytes memory done = abi.encodeWithSelector(IScoring.Done.selector, 1);
        vm.expectRevert(done);
        scoring.payTrainers(taskId, 1, 1);
        scoring.weighValidators(taskId, 1, 100);
        scoring.payValidators(taskId, 1, 3);
        assertFalse(scoring.progress(taskId, 1).settled);
        vm.expectEmit(address(scoring));
        emit IScoring.RoundSettled(taskId, 1);
        scoring.payValidators(taskId, 1, 1);
        vm.expectRevert(done);
        scoring.payValidators(taskId, 1, 1);
        vm.expectRevert(done);
        scoring.payTrainers(taskId, 1, 1);
    }

    /* WHO EARNS */

    function test_withoutRevealedScoresNothingIsAllocated() public {
        _twoSubmit();
        _settleRound(1);
        assertEq(escrow.budgetOf(taskId).allocated, 0);
        assertEq(_result(1, alice).rank, 0);
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
        assertEq(_result(2, alice).rank, 1);
        assertEq(_result(3, alice).rank, 2);
        assertEq(_result(3, alice).aggregate, 0.1e18);
    }

    function test_anAbsentCreatorStallsNobodyAndSavesNothing() public {
        _playTwoRounds();
        uint256 before = escrow.budgetOf(taskId).allocated;
        vm.warp(_times(3).settleFrom);
        vm.expectEmit(true, true, false, false, address(scoring));
        emit IScoring.RoundRanked(taskId, 3, 2, 2, 0, 0);
        _settleRound(3);
        assertEq(scoring.progress(taskId, 3).scoredRound, 2);
        assertEq(_result(3, alice).aggregate, 0.9e18);
        assertEq(_result(3, alice).rank, 1);
        assertApproxEqAbs(escrow.budgetOf(taskId).allocated - before, 200e18, 10);
    }

    /// @dev Vera (700 with delegations) and Victor (500) carry 1,200 of 2,200: half is reached. Without Vera it is not.
    function test_halfOfTheStakeAttestsTheFinalSet() public {
        _playTwoRounds();
        uint256 snapshot = vm.snapshotState();
        _finalScores(2);
        assertEq(_result(3, alice).rank, 2);
        vm.revertToState(snapshot);
        _finalScores(1);
        assertEq(_result(3, alice).rank, 1, "700 of 2,200: round 2 ranks");
    }

    /* CAP AND FORFEIT */

    function test_rewardsStayWithinTheSlashableStake() public {
        TaskConfig memory config = _config();
        config.court.slashBps = 200; // of 1,000: 20
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
        scoring.rankRound(taskId, 3, 3);
        _payAll(3);
        assertEq(escrow.allocated(taskId, alice), before);
        assertEq(_result(3, alice).rank, 1, "nobody is ranked again");
        assertGt(escrow.allocated(taskId, bob), 0);
    }

    /* THE DEPOSIT */

    function test_theCreatorAttestsByOpeningAndBeingScored() public {
        _playTwoRounds();
        uint256 snapshot = vm.snapshotState();
        _finalScores(2);
        assertTrue(scoring.attested(taskId));
        vm.revertToState(snapshot);
        _finalScores(1);
        assertFalse(scoring.attested(taskId), "scored by less than half: nobody could have the set");
        vm.revertToState(snapshot);
        _settleRound(3);
        assertFalse(scoring.attested(taskId), "never opened");
    }

    function test_nothingToScoreIsNoFaultOfTheCreator() public {
        _settleRound(1);
        _settleRound(2);
        _openFinalSet();
        assertFalse(scoring.attested(taskId), "not before it is ranked");
        _settleRound(3);
        assertTrue(scoring.attested(taskId));
    }

    function test_sponsorsAddToTheRoundTheyName() public {
        _twoSubmit();
        vm.startPrank(stranger);
        token.approve(address(escrow), 60e18);
        escrow.sponsor(taskId, 1, 60e18);
        vm.stopPrank();
        _scoreAll(1, _row(9_000, 8_000, 0));
        _settleRound(1);
        assertEq(_pools(1), 150e18);
        _scoreAll(2, _row(9_000, 8_000, 0));
        _settleRound(2);
        assertEq(_pools(2), 90e18);
    }

    function _pools(uint16 round) private view returns (uint256) {
        return scoring.progress(taskId, round).trainersPool + scoring.progress(taskId, round).validatorsPool;
    }

    /// @dev Of four equal stakes one lies, and cannot move the median out of the range of the others' scores.
    function test_aMinorityCannotMoveTheMedian() public {
        TaskConfig memory config = _config();
        config.pay.aggregator = Aggregator.Median;
        taskId = _createTask(config);
        _restake();
        _twoSubmit();
        uint16[][] memory rows = new uint16[][](4);
        (rows[0], rows[1]) = (_row(9_000, 8_000, 0), _row(9_100, 8_100, 0));
        (rows[2], rows[3]) = (_row(8_900, 8_000, 0), _row(0, 10_000, 0));
        _commitAndReveal(1, validators, rows);
        _settleRound(1);
        _resultIs(alice, 0.89e18, 1);
        _resultIs(bob, 0.8e18, 2);
    }

    function test_tasksDoNotShareAnything() public {
        TaskId other = _createTask(_config());
        _playTwoRounds();
        assertEq(escrow.budgetOf(other).allocated, 0);
        assertEq(escrow.allocated(other, alice), 0);
        assertEq(arena.standingOrder(other, alice, 3), 0);
    }
}
